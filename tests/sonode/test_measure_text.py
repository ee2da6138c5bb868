"""How measures are written, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from sonode.measure_text import number, p_value, with_interval


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "undefined"),
        (0.0, "<0.001"),
        (0.00099, "<0.001"),
        (0.001, "0.001"),
        (0.0016, "0.002"),
        (0.0494, "0.049"),
        (0.0496, "<0.050"),  # significant, which 0.050 would hide
        (0.05, "0.050"),
        (0.0502, "0.050"),
        (1.0, "1.000"),
    ],
)
def test_a_p_value_keeps_its_side_of_the_limits(p: float | None, text: str) -> None:
    assert p_value(p) == text


def test_a_number_has_a_sign_where_it_is_a_difference() -> None:
    assert [number(None, sign=True), number(0.8126)] == ["undefined", "0.813"]
    assert [number(it, sign=True) for it in (0.0004, -0.0001, -0.25)] == [
        "+0.000",
        "+0.000",
        "-0.250",
    ]


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        ({"value": 0.812, "low": 0.7443, "high": 0.88}, "0.812 (0.744 to 0.880)"),
        (
            {"value": 0.812, "low": 0.7443, "high": 0.88, "interval": "Wilson"},
            "0.812 (0.744 to 0.880; Wilson)",
        ),
        (
            {"value": 1.0, "low": None, "high": None, "no_interval": "one class"},
            "1.000 (no interval: one class)",
        ),
        ({"value": 1.0, "low": None, "high": None}, "1.000"),
        ({"value": None, "low": None, "high": None, "reason": "no cases"}, "undefined: no cases"),
        ({"value": None, "low": None, "high": None}, "undefined"),
    ],
)
def test_a_measure_says_why_a_part_is_absent(measure: dict[str, Any], text: str) -> None:
    assert with_interval(measure) == text


def test_a_difference_has_signs_in_its_interval() -> None:
    measure = {"value": 0.01, "low": -0.02, "high": 0.04}
    assert with_interval(measure, sign=True) == "+0.010 (-0.020 to +0.040)"
