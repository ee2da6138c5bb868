"""Golden examples: images in the archive with the probabilities that they must give.

The images are synthetic: an archive carries no patient's pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handlers.responses import Outcome

FOLDER = "golden"
EXPECTED = "golden.json"

Score = Callable[[Sequence[dict[str, Any]]], list[Outcome]]


class GoldenMismatch(RuntimeError):  # noqa: N818
    """The archive does not reproduce its golden examples on this machine."""


def rows(folder: Path) -> list[dict[str, Any]]:
    """The request rows of the golden examples, in the order of the file."""
    examples = json.loads((folder / EXPECTED).read_text())
    return [{"image": (folder / e["image"]).read_bytes(), "roi": e["roi"]} for e in examples]


def verify(folder: Path, score: Score, tolerance: float) -> float:
    """Score the golden examples; the largest difference of a probability to what is expected.

    Raises:
        GoldenMismatch: a row fails, or a difference exceeds `tolerance`; it is named.
    """
    examples = json.loads((folder / EXPECTED).read_text())
    largest = 0.0
    for example, outcome in zip(examples, score(rows(folder)), strict=True):
        if outcome.status != 200:
            raise GoldenMismatch(f"golden {example['image']}: {outcome.body['message']}")
        for head, expected in example["probabilities"].items():
            difference = abs(outcome.body["heads"][head]["probability"] - expected)
            largest = max(largest, difference)
            if difference > tolerance:
                raise GoldenMismatch(
                    f"golden {example['image']}, head {head}: probability differs by "
                    f"{difference:.2g}, allowed is {tolerance:g}; the archive must not serve here"
                )
    return largest
