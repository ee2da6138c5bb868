"""The policy of a comparison: each limit kept, broken, and neither."""

from pathlib import Path
from typing import Any

import pytest

from archives.comparing.compare_policy import Policy, judge, outcome, read
from sonode.console import UserError
from tests.command_line import ROOT


def interval(value: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def comparison(**changes: Any) -> dict[str, Any]:
    auc = {"n_images": 50, "n_positive": 20}
    found: dict[str, Any] = {
        "rows": {"manifest": 100, "failed": {"both": 3, "a_only": [], "b_only": []}},
        "heads": {
            "alnm": {
                "flips": interval(0.01, 0.0, 0.03),
                "auc": [
                    {"score": "alnm", "on": "all", "difference": -0.5, "low": -0.6, "high": -0.4}
                    | auc,
                    {"score": "alnm", "on": "malignant", "difference": 0, "low": -0.01, "high": 0.1}
                    | auc,
                ],
            }
        },
        "left_out": {},
        "inconsistency": {"difference": interval(0.0, -0.01, 0.01)},
        "speed": {
            "p95_ratio": interval(1.1, 1.0, 1.15),
            "throughput_ratio": interval(0.9, 0.85, 0.95),
        },
    }
    return found | changes


def outcomes(policy: Policy, **changes: Any) -> list[str]:
    return [rule.outcome for rule in judge(policy, comparison(**changes))]


def test_the_example_is_a_policy_that_this_comparison_keeps() -> None:
    policy = read(ROOT / "archives" / "comparing" / "compare-policy.yaml")
    rules = judge(policy, comparison())
    assert [(rule.rule, rule.on, rule.outcome) for rule in rules] == [
        ("AUC, B - A", "alnm, malignant images", "pass"),  # the head's primary set
        ("flips", "alnm", "pass"),
        ("inconsistency", "B - A", "pass"),
        ("new failures", "B", "pass"),
        ("latency p95", "B / A", "pass"),
    ]
    assert outcome(rules) == "pass"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.02, 0.1, "pass"),
        (-0.021, 0.1, "undecided"),
        (-0.1, -0.02, "undecided"),
        (-0.1, -0.03, "fail"),
        (None, None, "undecided"),
    ],
)
def test_an_auc_is_judged_by_its_interval(
    low: float | None, high: float | None, expected: str
) -> None:
    facts = {"score": "m", "on": "all", "n_images": 9, "n_positive": 0, "difference": None}
    heads = {"m": {"auc": [{**facts, "low": low, "high": high}]}}
    (rule,) = judge(Policy(auc_margin=0.02), comparison(heads=heads))
    assert (rule.outcome, rule.limit) == (expected, -0.02)
    assert rule.reason == ("0 positive of 9 labelled images" if low is None else None)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"max_p95_ratio": 1.15}, "pass"),
        ({"max_p95_ratio": 1.1}, "undecided"),
        ({"max_p95_ratio": 0.99}, "fail"),
        ({"min_throughput_ratio": 0.85}, "pass"),
        ({"min_throughput_ratio": 0.9}, "undecided"),
        ({"min_throughput_ratio": 1.0}, "fail"),
        ({"max_flip_rate": 0.01}, "pass"),
        ({"max_flip_rate": 0.009}, "fail"),
        ({"max_inconsistency_increase": 0.0}, "pass"),
    ],
)
def test_limits(policy: dict[str, float], expected: str) -> None:
    assert outcomes(Policy(**policy)) == [expected]


def test_rows_that_b_alone_fails() -> None:
    rows = {"manifest": 50, "failed": {"both": 9, "a_only": [1, 2], "b_only": [3]}}
    (rule,) = judge(Policy(max_new_failures=0.0), comparison(rows=rows))
    assert (rule.value, rule.outcome) == (1 / 50, "fail")
    assert outcomes(Policy(max_new_failures=0.02), rows=rows) == ["pass"]


def test_what_was_not_measured_is_undecided() -> None:
    nothing = {"difference": interval(None, None, None)}
    policy = Policy(max_inconsistency_increase=0.1, max_p95_ratio=1.2, auc_margin=0.1)
    changes = {"inconsistency": nothing, "speed": None, "heads": {}}
    assert outcomes(policy, **changes) == ["undecided", "undecided"]
    assert outcome(judge(policy, comparison(**changes))) == "undecided"


@pytest.mark.parametrize("why", ["only in A", "other labels in B"])
def test_a_head_that_b_has_lost_is_undecided(why: str) -> None:
    policy = Policy(auc_margin=0.02, max_flip_rate=0.02)
    rules = judge(policy, comparison(left_out={"malignancy": why, "grade": "only in B"}))
    assert [(rule.rule, rule.on, rule.outcome, rule.reason) for rule in rules] == [
        ("AUC, B - A", "alnm, malignant images", "pass", None),
        ("AUC, B - A", "malignancy", "undecided", why),
        ("flips", "alnm", "pass", None),
        ("flips", "malignancy", "undecided", why),
    ]
    assert outcome(rules) == "undecided"


def test_the_worst_outcome_counts() -> None:
    policy = Policy(max_flip_rate=0.0, max_p95_ratio=1.1, max_inconsistency_increase=0.0)
    assert outcomes(policy) == ["fail", "pass", "undecided"]
    assert outcome(judge(policy, comparison())) == "fail"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_flips: 0.02", "max_flips: Extra inputs are not permitted; it takes auc_margin, "),
        ("max_flip_rate: 2", "max_flip_rate: Input should be less than or equal to 1; it takes"),
        ("max_flip_rate: yes", "max_flip_rate: Input should be a valid number"),
        ("max_p95_ratio: 0", "max_p95_ratio: Input should be greater than 0"),
        ("auc_margin: .nan", "auc_margin: Input should be"),
        ("- 0.02", "the file: Input should be a valid dictionary"),
        ("", "no limit in it; give auc_margin, "),
        ("{}", "no limit in it; give auc_margin, "),
        ("auc_margin: [", "is not valid YAML; it takes"),
        ("\0", "is not valid YAML"),
    ],
)
def test_what_is_no_policy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="--policy ") as caught:
        read(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: No such file or directory"):
        read(tmp_path / "none.yaml")
