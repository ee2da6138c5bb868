"""What counts as reproducing golden examples, with results by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handlers import golden
from handlers.golden import GoldenMismatch
from handlers.responses import Outcome

BINARY = {"probability": 0.3, "label": "no", "threshold": 0.5}


def categorical(**distribution: float) -> dict[str, Any]:
    label = max(distribution, key=lambda name: distribution[name])
    score = {"probability": distribution[label], "label": label, "threshold": None}
    return score | {"distribution": distribution}


def difference(folder: Path, probabilities: object, heads: dict[str, Any]) -> float:
    """Of two images, of which the second gives what is expected: that of the first."""
    good = {"alnm": 0.3, "subtype": {"A": 0.7, "B": 0.2, "C": 0.1}}
    examples = [
        {"image": f"{number}.png", "roi": [0, 0, 9, 9], "probabilities": expected}
        for number, expected in enumerate((probabilities, good))
    ]
    for example in examples:
        (folder / str(example["image"])).write_bytes(b"")
    (folder / "golden.json").write_text(json.dumps(examples))
    second = {"alnm": BINARY, "subtype": categorical(A=0.7, B=0.2, C=0.1)}
    outcomes = [Outcome(200, {"heads": heads}), Outcome(200, {"heads": second})]
    engine: Any = SimpleNamespace(name="abacus", tolerance=0.01)
    return golden.verify(folder, lambda rows: outcomes[: len(rows)], engine)


def test_the_largest_difference_is_that_of_any_label(tmp_path: Path) -> None:
    heads = {"alnm": BINARY, "subtype": categorical(A=0.7, B=0.2, C=0.1)}
    expected = {"alnm": 0.301, "subtype": {"A": 0.702, "B": 0.204, "C": 0.094}}
    assert difference(tmp_path, expected, heads) == pytest.approx(0.006)


def test_labels_that_have_changed_places_are_seen(tmp_path: Path) -> None:
    expected = {"alnm": 0.3, "subtype": {"A": 0.7, "B": 0.2, "C": 0.1}}
    heads = {"alnm": BINARY, "subtype": categorical(A=0.1, B=0.2, C=0.7)}
    with pytest.raises(
        GoldenMismatch,
        match=r"golden 0\.png, head subtype = [AC]: .*0\.6 under abacus",
    ):
        difference(tmp_path, expected, heads)


@pytest.mark.parametrize(
    ("expected", "has"),
    [
        ({"alnm": 0.3, "subtype": 0.7}, "alnm, subtype"),
        ({"alnm": 0.3}, "alnm"),
        ({}, "nothing"),
        ({"alnm": 0.3, "subtype": {"A": 0.7, "B": 0.3}}, "alnm, subtype = A, subtype = B"),
        ({"alnm": 0.3, "other": 0.7}, "alnm, other"),
    ],
)
def test_other_heads_or_labels_are_refused_by_name(
    tmp_path: Path, expected: object, has: str
) -> None:
    heads = {"alnm": BINARY, "subtype": categorical(A=0.7, B=0.2, C=0.1)}
    found = "alnm, subtype = A, subtype = B, subtype = C"
    with pytest.raises(GoldenMismatch, match=f"of {has}, got {found};"):
        difference(tmp_path, expected, heads)


def test_an_archive_without_examples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_text("[]")
    engine: Any = SimpleNamespace(name="abacus", tolerance=0.01)
    with pytest.raises(GoldenMismatch):
        golden.verify(tmp_path, lambda rows: [], engine)
