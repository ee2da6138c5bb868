"""What a gateway reads of an answer without its body."""

from handlers import responses
from handlers.errors import InvalidRoI
from handlers.responses import ModelIdentity, Outcome
from model_def.heads import HeadSpec, Score, read
from model_def.label_sets import LabelSets
from model_def.preprocessing import RoI


def test_the_headers_of_a_score() -> None:
    heads = {
        "malignancy": {"probability": 1e-7, "label": "benign"},
        "subtype": {"probability": 0.8312, "label": "B; HER2=3+\r\nX: \u00fc"},
    }
    assert responses.headers(Outcome(200, {"heads": heads})) == {
        "X-Sonode-Code": "ok",
        "X-Sonode-Scores": "malignancy=0.000000;subtype=0.831200",
        # Nothing in a label ends the header, the pair or the list.
        "X-Sonode-Labels": "malignancy=benign;subtype=B%3B%20HER2%3D3%2B%0D%0AX%3A%20%C3%BC",
    }


def test_a_conditional_probability_says_what_it_is_given(heads: tuple[HeadSpec, ...]) -> None:
    conditional = (heads[0], heads[1].model_copy(update={"given": "malignant"}))
    scores = {"malignancy": Score(0.2, "benign", None), "alnm": Score(0.3, "no ALNM", None)}
    model = ModelIdentity(name="m", version="1", sha256="0", engine="eager")
    body = responses.scored(model, RoI(0, 0, 9, 9), conditional, scores, [], {}).body
    assert {name: head["given"] for name, head in body["heads"].items()} == {
        "malignancy": None,
        "alnm": "malignant",
    }


def test_a_label_set_comes_with_what_it_promises(heads: tuple[HeadSpec, ...]) -> None:
    patients = {"no ALNM": 12, "ALNM": 9}
    sets = LabelSets(
        level=0.9, given="malignant", patients=patients, least={"no ALNM": 0.1, "ALNM": 0.2}
    )
    sure = (heads[0], heads[1].model_copy(update={"label_sets": sets}))
    scores = read([0.2, 0.3], sure)
    model = ModelIdentity(name="m", version="1", sha256="0", engine="eager")
    body = responses.scored(model, RoI(0, 0, 9, 9), sure, scores, [], {}).body["heads"]
    assert (body["malignancy"]["uncertain"], body["malignancy"]["label_set"]) == (None, None)
    assert body["alnm"]["uncertain"] is True
    assert body["alnm"]["label_set"] == {
        "labels": ["no ALNM", "ALNM"],
        "level": 0.9,
        "given": "malignant",
        "patients": patients,
    }


def test_the_headers_of_a_failure() -> None:
    outcome = responses.failed(InvalidRoI("roi: outside"))
    assert responses.headers(outcome) == {"X-Sonode-Code": "invalid_roi"}
