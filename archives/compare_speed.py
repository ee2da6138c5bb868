"""How fast two archives are on the same images, neither at work while the other is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from archives.compare_process import Side
from batch.manifest import Request
from sonode_console import progress

Floats = npt.NDArray[np.float64]

BLOCK = 16
"""Images that one archive scores before it is the other's turn."""
RESAMPLES = 2000


def measure(sides: Mapping[str, Side], images: Sequence[Request], seed: int) -> dict[str, Any]:
    """Latency, one image at a time, and throughput, `BLOCK` images at once, of `a` and `b`.

    They take turns, and who begins changes from block to block, so that a machine that becomes
    slower or faster meanwhile does the same to both. Needs an image.
    """
    blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    each: dict[str, list[float]] = {name: [] for name in sides}
    together: dict[str, list[float]] = {name: [] for name in sides}
    for number, block in enumerate(progress(blocks, total=len(blocks), what="timing both")):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            one_by_one, at_once = sides[name].seconds(block)
            each[name] += one_by_one
            together[name].append(at_once)
    return summary(each, together, [len(block) for block in blocks], seed)


def summary(
    each: Mapping[str, Sequence[float]],
    together: Mapping[str, Sequence[float]],
    sizes: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """Percentiles and ratios, b over a, of seconds per image and per block of `sizes` images.

    Intervals of the ratios: 95 % over draws of images, and of blocks, the same for both.
    """
    latency = {name: np.asarray(seconds) for name, seconds in each.items()}
    blocks = {name: np.asarray(seconds) for name, seconds in together.items()}
    size_N = np.asarray(sizes)
    generator = np.random.default_rng(seed)

    def percentile(q: float) -> dict[str, float]:
        def ratio(rows: Any) -> Any:
            slow, fast = (np.quantile(latency[name][rows], q, axis=-1) for name in ("b", "a"))
            return slow / fast

        return _interval(ratio, len(latency["a"]), generator)

    def rate(rows: Any) -> Any:
        return blocks["a"][rows].sum(axis=-1) / blocks["b"][rows].sum(axis=-1)

    return {
        "images": int(size_N.sum()),
        "block": BLOCK,
        **{
            name: {
                "p50_ms": float(1000 * np.quantile(latency[name], 0.5)),
                "p95_ms": float(1000 * np.quantile(latency[name], 0.95)),
                "images_per_second": float(size_N.sum() / blocks[name].sum()),
                "latency_ms": [round(1000 * float(second), 3) for second in latency[name]],
            }
            for name in ("a", "b")
        },
        "p50_ratio": percentile(0.5),
        "p95_ratio": percentile(0.95),
        "throughput_ratio": _interval(rate, len(size_N), generator),
    }


def _interval(ratio: Any, n: int, generator: np.random.Generator) -> dict[str, float]:
    drawn = ratio(generator.integers(0, n, (RESAMPLES, n)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(ratio(np.arange(n))), "low": float(low), "high": float(high)}
