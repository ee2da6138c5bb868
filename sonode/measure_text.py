"""How a measure is written in text: number, 95 % interval, p-value, or that it is undefined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: float | None, *, sign: bool = False) -> str:
    """The number with three digits, or `undefined`; what rounds to zero has no minus."""
    if value is None:
        return "undefined"
    rounded = round(value, 3) + 0  # -0.0 + 0 is 0.0
    return f"{rounded:+.3f}" if sign else f"{rounded:.3f}"


def p_value(p: float | None) -> str:
    """The p-value with three digits, or `undefined`; 0.0499 is not rounded to 0.050."""
    if p is not None and p < 0.001:
        return "<0.001"
    text = number(p)
    return f"<{text}" if p is not None and p < 0.05 and text == "0.050" else text


def with_interval(measure: Mapping[str, Any], *, sign: bool = False) -> str:
    """A measure of metrics.json, as `0.812 (0.744 to 0.880)`, with the reason for what is absent.

    `sign`: it is a difference.
    """
    text = number(measure["value"], sign=sign)
    if measure["value"] is None:
        return f"{text}: {measure['reason']}" if measure.get("reason") else text
    if measure["low"] is None:
        why = measure.get("no_interval")
        return f"{text} (no interval: {why})" if why else text
    low, high = (number(measure[side], sign=sign) for side in ("low", "high"))
    how = f"; {measure['interval']}" if measure.get("interval") else ""
    return f"{text} ({low} to {high}{how})"
