"""archives/judging/rollout_policy.py: what a policy file may say."""

import pytest

from archives.judging.rollout_policy import Policy, read_policy
from sonode.console import UserError


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "policy.yaml").write_text("# all as it is\n")
    assert read_policy(tmp_path / "policy.yaml") == Policy()
    assert Policy().canary == (1, 5, 25, 50, 100)


def test_a_file(tmp_path):
    (tmp_path / "policy.yaml").write_text("canary: [10, 100]\nmin_step_s: 5\nmax_flip_rate: 0.1\n")
    policy = read_policy(tmp_path / "policy.yaml")
    assert (policy.canary, policy.min_step_s, policy.max_flip_rate) == ((10, 100), 5, 0.1)
    assert policy.min_requests == Policy().min_requests


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_fliprate: 0.1", "max_fliprate: Extra inputs are not permitted"),
        ("canary: [5, 1, 100]", "rising percentages, the last one 100"),
        ("canary: [1, 50]", "the last one 100"),
        ("canary: []", "the last one 100"),
        ("canary: [0.001, 100]", r"canary\.0: .*greater than or equal to 0\.01"),
        ("alpha: 1", "alpha: .*less than 1"),
        ("min_requests: 0", "min_requests: .*greater than or equal to 1"),
        ("step_timeout_s: 0\nalpha: 2", r"step_timeout_s: .*\(and 1 more\)"),
        ("- 1", "valid dictionary"),
        ("a: [", "is not valid YAML"),
        (
            "max_flip_rate: 0.01\nalpha: 0.1\nmax_flip_rate: 0.5",
            "line 3: key `max_flip_rate` is already in line 1",
        ),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_policy(tmp_path / "policy.yaml")
    assert "\n" not in str(caught.value)
    assert "see docs/rollout.md" in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_policy(tmp_path / "policy.yaml")
