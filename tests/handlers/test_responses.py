"""What a gateway reads of an answer without its body."""

from handlers import responses
from handlers.errors import InvalidRoI
from handlers.responses import Outcome


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


def test_the_headers_of_a_failure() -> None:
    outcome = responses.failed(InvalidRoI("roi: outside", field="roi"))
    assert responses.headers(outcome) == {"X-Sonode-Code": "invalid_roi"}
