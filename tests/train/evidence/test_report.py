import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sonode import command_line
from sonode.console import UserError
from tests.train.synthetic_predictions import HEADS, SECRET, synthetic
from train.evidence import report
from train.evidence.plots import Profile
from train.evidence.report import FILES, GalleryItem, render, write_evaluation
from train.measures.evaluate import evaluate

ONE = HEADS[:1]  # whose few plots take a tenth of the time of those of all heads
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Tags, attributes and text; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def metrics() -> dict:
    return evaluate(synthetic(), resamples=50)


@pytest.fixture(scope="module")
def page(metrics: dict) -> Page:
    radius = np.linspace(0, 1, 5)
    return Page(
        render(
            metrics,
            [GalleryItem("Wrong <script>", png(), "alnm 0.3 & rising")],
            {"malignancy": Profile(radius, 1 - radius, sd=radius / 9, images=3, cells=(4, 4))},
        )
    )


def test_the_page_asks_for_nothing_and_runs_nothing(page: Page) -> None:
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for tag, attributes in page.tags:
        for name, content in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name == "src":
                assert str(content).startswith("data:image/")
    places = {f"#{attributes['id']}" for attributes in page.all("h2")}
    assert {attributes["href"] for attributes in page.all("a")} == places  # the contents alone
    styles = page.text
    assert "url(" not in styles and "@import" not in styles


def test_text_is_escaped(page: Page) -> None:
    assert "synthetic <b>numbers</b>" in page.text
    assert "Wrong <script>" in page.text
    assert not page.all("b")


def test_every_picture_says_what_it_shows_and_every_table_has_headers(page: Page) -> None:
    pictures = page.all("img")
    assert all(picture["alt"] for picture in pictures)
    assert len(pictures) == 3 * 4 + 1 + 1  # three binary heads, the gallery, the profile
    assert len(page.all("thead")) == len(page.all("table"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))


def test_plots_are_svg_without_outside_references(page: Page) -> None:
    for picture in page.all("img"):
        kind, _, content = str(picture["src"]).partition(";base64,")
        if kind != "data:image/svg+xml":
            continue
        svg = base64.b64decode(content).decode()
        assert svg.rstrip().endswith("</svg>")
        references = re.findall(r'(?:xlink:)?href="([^"]*)"|url\(([^)]*)\)', svg)
        assert all((one or other).startswith("#") for one, other in references)


def test_numbers_beside_the_papers(page: Page, metrics: dict) -> None:
    assert "as reference only; another cohort" in re.sub(r"\s+", " ", page.text)
    assert "0.878 / 0.835 / 0.716" in page.text
    assert "0.836 / 0.769 / 0.783" in page.text
    assert "0.715 / 0.672 / 0.630" in page.text
    auc = metrics["heads"]["alnm"]["sets"]["malignancy positive"]["image"]["roc_auc"]
    assert f"({auc['low']:.3f} to {auc['high']:.3f})" in page.text
    for error in ("type_1", "type_2"):
        found = metrics["inconsistency"][0][error]
        assert f"{found['count']} of {found['rows']}" in page.text
        assert f"{found['count']} of {found['class_rows']}" in page.text


def test_table_one_is_in_the_page(page: Page) -> None:
    characteristics = pd.DataFrame(
        [["age", "mean ± SD", "50.4 ± 15.3", "0.031"]],
        columns=["characteristic", "value", "all", "p malignancy"],
    )
    metrics = evaluate(synthetic(30, heads=ONE), resamples=0)
    text = " ".join(Page(render(metrics, characteristics=characteristics)).text.split())
    assert "Table 1: the whole cohort" in text
    assert "age mean ± SD 50.4 ± 15.3 0.031" in text
    assert "Table 1" not in page.text


def test_facts_keep_numbers_apart_from_yes_and_no(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "cohort.synthetic yes" in text
    assert "model.seed 0" in text
    assert "model.device none" in text
    assert "Synthetic cohort." in text


def test_a_real_cohort_is_not_called_synthetic_nor_its_images_patients(page: Page) -> None:
    predictions = synthetic(30, heads=ONE)
    predictions.about["cohort"] |= {"synthetic": False, "patient_ids": False}
    text = render(evaluate(predictions, resamples=0))
    assert "Synthetic cohort." not in text and "Synthetic cohort." in page.text
    assert "The set has no patient ids" in text
    assert "The set has no patient ids" not in page.text


def test_undefined_is_shown_with_its_reason() -> None:
    predictions = synthetic(30, heads=HEADS[:2])
    predictions.frame["alnm_truth"] = pd.array([pd.NA] * len(predictions.frame), "boolean")
    predictions.frame["malignancy_truth"] = True
    text = Page(render(evaluate(predictions, resamples=50))).text
    assert "undefined: no row has a label" in text
    assert "undefined: one class only" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_none_of_few_patients_is_shown_with_what_it_may_be() -> None:
    predictions = synthetic(30, heads=HEADS[:2])
    predictions.frame["alnm_probability"] = 0.01  # no inconsistency
    metrics = evaluate(predictions, resamples=50)
    of = metrics["inconsistency"][0]["type_1"]["of_all"]
    assert (of["value"], of["interval"]) == (0, "Wilson, 30 patients")
    text = " ".join(Page(render(metrics)).text.split())
    assert "0.0 % (0.0 to 11.4; Wilson, 30 patients)" in text  # 1.96^2 / (30 + 1.96^2)


def test_an_empty_part_has_a_page() -> None:
    predictions = synthetic(10)
    empty = dataclasses.replace(predictions, frame=predictions.frame.iloc[:0])
    assert "0 lesion boxes" in Page(render(evaluate(empty, resamples=50))).text


def test_the_three_files_and_only_the_table_names_patients(tmp_path: Path) -> None:
    predictions = synthetic(40, heads=ONE)
    out = tmp_path / "new" / "evaluation"
    metrics = write_evaluation(predictions, out, bootstrap=50)
    assert sorted(entry.name for entry in out.iterdir()) == sorted(FILES)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    for name in ("metrics.json", "report.html"):
        assert SECRET not in (out / name).read_text()
    table = pd.read_parquet(out / "predictions.parquet")
    assert table["patient_id"].tolist() == predictions.frame["patient_id"].tolist()
    assert list(out.parent.iterdir()) == [out]


def test_the_same_seed_gives_the_same_page(tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        predictions = synthetic(40, heads=(HEADS[0], HEADS[3]))  # one of two labels, one of three
        write_evaluation(predictions, tmp_path / name, bootstrap=50, seed=3)
        pages.append((tmp_path / name / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_an_earlier_evaluation_is_replaced_and_other_things_are_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    few, more = (synthetic(patients, heads=ONE) for patients in (20, 21))
    write_evaluation(few, out, bootstrap=0)
    before = (out / "metrics.json").read_text()
    write_evaluation(more, out, bootstrap=0)
    assert (out / "metrics.json").read_text() != before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"OUT .*notes\.txt"):
        write_evaluation(few, out, bootstrap=0)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="OUT "):
        write_evaluation(few, out / "notes.txt", bootstrap=0)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write_evaluation(synthetic(20, heads=ONE), out, bootstrap=0)
    before = (out / "metrics.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space"):
        write_evaluation(synthetic(21, heads=ONE), out, bootstrap=0)
    assert (out / "metrics.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def predict(*arguments: object) -> object:
        asked.append(arguments)
        return synthetic(30, heads=ONE)

    monkeypatch.setattr("train.fitting.predictions.predict", predict)
    arguments = ["evaluate", "model", "cohort", str(tmp_path / "out"), "--part", "val"]
    arguments += ["--aggregate", "max"]
    command_line.app([*arguments, "--bootstrap", "100", "--seed", "4"], standalone_mode=False)
    assert asked == [(Path("model"), Path("cohort"), "val")]
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    asked_for = {"resamples": 100, "seed": 4, "confidence": 0.95, "aggregation": "max"}
    assert written["method"].items() >= asked_for.items()
    said = capsys.readouterr().out
    assert "malignancy" in said
    assert SECRET not in said
    with pytest.raises(UserError, match=r"OUT .*: is not empty; give a new folder"):
        command_line.app(arguments, standalone_mode=False)
    assert len(asked) == 1  # refused before the long work


def test_the_papers_figures_by_label_column_or_name() -> None:
    def found(target: str, name: str = "x") -> object:
        return report.paper_figures(name, {"target": target})

    assert found("alnm") == report.PAPER["alnm"]
    assert found("nodes_ge_3") == report.PAPER["nodes 3"]
    assert found("n_nodes", "nodes_4_or_more") == report.PAPER["nodes 4"]
    assert found("subtype") is None
    assert found("n_nodes") is None
    assert found("n_nodes>=2") == report.PAPER["nodes 2"]
    assert found("n_nodes>=12") is None


def test_the_part_that_chose_thresholds_is_no_evidence(
    metrics: dict, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = synthetic(30, heads=ONE)
    predictions.about.update(part="val", training={}, trained_on={"fold": None})
    chosen = evaluate(predictions, resamples=50)
    words = "Epoch, temperatures and thresholds were chosen on the validation part"
    assert [note.startswith(words) for note in chosen["notes"]] == [True]
    assert chosen["notes"][0].endswith("; the test part is the evidence.")
    assert f"Not evidence. {words}" in Page(render(chosen)).text
    report.show(chosen, "val part")
    assert capsys.readouterr().out.splitlines()[-1] == chosen["notes"][0]
    assert metrics["notes"] == []
    assert words not in page.text


def test_lesions_are_shown_where_they_are_neither_images_nor_patients(page: Page) -> None:
    said = "Lesions are not shown"
    assert said in page.text and "per lesion" not in page.text
    predictions = synthetic(30, heads=ONE)
    one_more = predictions.frame["lesion_id"].where(predictions.frame.index != 0, "another")
    two = dataclasses.replace(predictions, frame=predictions.frame.assign(lesion_id=one_more))
    text = render(evaluate(two, resamples=10))
    assert said not in text and "per lesion" in text
