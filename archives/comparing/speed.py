"""How fast two archives are on the same images, neither at work while the other is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from archives.comparing.process import Side
from batch.manifest.read import Request
from sonode.console import progress

Seconds = Sequence[Sequence[float]]
"""Of each turn, what its calls took."""

TURN = 4
"""Images that one archive scores one by one before it is the other's turn."""
BLOCK = 16
"""Images that are scored together."""
RESAMPLES = 2000
LEAST_TURNS = 16
"""Turns from which draws of them give an interval of 95 %; of 8 it covers 92 %, of 2 a half."""


def measure(sides: Mapping[str, Side], images: Sequence[Request], seed: int) -> dict[str, Any]:
    """Latency, one image at a time, and throughput, `BLOCK` images at once, of `a` and `b`.

    They take turns, and who begins changes from turn to turn, so that a machine that becomes
    slower or faster meanwhile does the same to both. Needs an image.
    """
    turns = [(_cut(images, TURN), False), (_cut(images, BLOCK), True)]
    work = [(part, together) for parts, together in turns for part in parts]
    taken: dict[bool, dict[str, list[list[float]]]] = {
        together: {name: [] for name in sides} for together in (False, True)
    }
    for number, (part, together) in enumerate(progress(work, total=len(work), what="timing")):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            taken[together][name].append(sides[name].seconds(part, together=together))
    return summary(taken[False], taken[True], len(images), seed)


def _cut(images: Sequence[Request], size: int) -> list[Sequence[Request]]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def summary(
    each: Mapping[str, Sequence[Sequence[float]]],
    together: Mapping[str, Sequence[Sequence[float]]],
    images: int,
    seed: int,
) -> dict[str, Any]:
    """Percentiles and ratios, b over a, of the seconds of single images and of whole blocks.

    Both by turn and archive. Intervals of the ratios: 95 %. Of the latencies over draws of turns,
    which are drawn whole because what else the machine does lasts longer than an image; None below
    LEAST_TURNS. Blocks are too few to draw from: of the throughput by Student's t, see `_of_sums`.
    """
    generator = np.random.default_rng(seed)
    latency = {name: np.concatenate([*turns]) for name, turns in each.items()}
    rate = {name: images / float(np.sum([*turns])) for name, turns in together.items()}

    def of_latency(q: float) -> Callable[[Seconds], float]:
        return lambda seconds: float(np.quantile(np.concatenate(seconds), q))

    return {
        "images": images,
        "block": BLOCK,
        **{
            name: {
                "p50_ms": float(1000 * np.quantile(latency[name], 0.5)),
                "p95_ms": float(1000 * np.quantile(latency[name], 0.95)),
                "images_per_second": rate[name],
                "latency_ms": [round(1000 * float(second), 3) for second in latency[name]],
            }
            for name in ("a", "b")
        },
        "p50_ratio": _ratio(of_latency(0.5), each, generator),
        "p95_ratio": _ratio(of_latency(0.95), each, generator),
        "throughput_ratio": _of_sums(together),
    }


def _ratio(
    measure: Callable[[Seconds], float],
    turns: Mapping[str, Seconds],
    generator: np.random.Generator,
) -> dict[str, float | None]:
    """The measure of b over that of a; no interval below `LEAST_TURNS`."""
    n = len(turns["a"])

    def ratio(rows: Sequence[int]) -> float:
        b, a = (measure([turns[name][row] for row in rows]) for name in ("b", "a"))
        return b / a

    low = high = None
    if n >= LEAST_TURNS:
        drawn = [ratio(rows) for rows in generator.integers(0, n, (RESAMPLES, n)).tolist()]
        low, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))
    return {"value": ratio(range(n)), "low": low, "high": high}


def _of_sums(turns: Mapping[str, Seconds]) -> dict[str, float | None]:
    """The seconds of a over those of b; no interval where there is one turn only.

    The logarithm of a ratio of sums is near normal, its error that of the turns' x/mean(x) -
    y/mean(y) (Cochran 1977, section 6.3, the linearised ratio).
    """
    from scipy.stats import t

    a, b = (np.array([np.sum(turn) for turn in turns[name]]) for name in ("a", "b"))
    value = float(a.sum() / b.sum())
    n = len(a)
    if n < 2:
        return {"value": value, "low": None, "high": None}
    error = float(np.std(a / a.mean() - b / b.mean(), ddof=1)) / math.sqrt(n)
    factor = math.exp(float(t.ppf(0.975, n - 1)) * error)
    return {"value": value, "low": value / factor, "high": value * factor}
