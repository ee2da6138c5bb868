import pytest

from tests.conftest import encode
from tests.train.comparing.test_agreement import HEADS, HOW, PRIMARY, A, B
from train.comparing import agreement, agreement_report
from train.measures.measure import Json


@pytest.fixture
def found() -> Json:
    model = {"name": "m", "version": "<1>", "sha256": "0", "engine": "eager"}
    sides = {
        "a": {"label": "malignant", "probability": 0.8},
        "b": {"label": "benign", "probability": 0.4},
    }
    flip = {"row": 1, "carried": {"study": "<s>"}, "head": "malignancy", "truth": None, **sides}
    rule = {"rule": "flips", "on": "alnm", "outcome": "fail", "value": 0.5, "low": 0.1, "high": 0.9}
    return {
        **{"a": model, "b": model, "manifest_sha256": "0", "drift": {}, "speed": None},
        "method": {"resamples": 200, "seed": 0, "patients": True},
        "rows": {
            "manifest": 7,
            "compared": 6,
            "failed": {"both": 0, "a_only": [], "b_only": [{"row": 6, "code": "x", "stage": "y"}]},
        },
        "left_out": {"old": "only in A"},
        "heads": agreement.compare(A, B, HEADS, HOW, PRIMARY),
        "inconsistency": agreement.inconsistency(A, B, HOW),
        "flips": [flip],
        "verdict": {"outcome": "fail", "rules": [{**rule, "limit": 0.1, "reason": None}]},
    }


def test_the_page_holds_all_and_escapes_it(found: Json) -> None:
    png = encode(A[["malignancy_probability"]].to_numpy("uint8"))
    pictures = [(found["flips"][0], {"a": png, "b": png})]
    page = agreement_report.page(found, A, B, pictures, "gradcam")
    assert page.count("data:image/png") == 2
    assert page.count("data:image/svg+xml") == 3 + 2  # alnm has no labels, and so no ROC
    assert "No image was timed." in page
    assert "old is not compared: only in A." in page
    assert "&lt;1&gt;" in page and "&lt;s&gt;" in page
    assert "<1>" not in page and "<s>" not in page
    assert "\N{MINUS SIGN}0.083" in page  # the mean shift of malignancy


def test_the_page_without_a_policy_or_a_row(found: Json) -> None:
    empty = found | {
        "verdict": None,
        "flips": [],
        "heads": agreement.compare(A[:0], B[:0], HEADS, HOW, PRIMARY),
    }
    page = agreement_report.page(empty, A[:0], B[:0], [], "gradcam")
    assert "No policy was given" in page
    assert "undefined: no row was scored by both" in page


def test_the_table(found: Json, capsys: pytest.CaptureFixture[str]) -> None:
    agreement_report.show(found)
    said = capsys.readouterr().out
    assert "3 (50.00 %)" in said and "no labels" in said
    assert "Verdict: fail" in said and "0.500 (0.100 to 0.900)" in said
    agreement_report.show(found | {"verdict": None})
    assert "Verdict" not in capsys.readouterr().out
