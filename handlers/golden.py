"""Golden examples: images in the archive with the probabilities that they must give.

The images are synthetic: an archive carries no patient's pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handlers.engines import FP32_TOLERANCE, Engine
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


def verify(folder: Path, score: Score, engine: Engine) -> float:
    """Score the golden examples; the largest difference of a probability to what is expected.

    Raises:
        GoldenMismatch: a row fails, or the largest difference exceeds what the engine allows.
    """
    examples = json.loads((folder / EXPECTED).read_text())
    differences: dict[tuple[str, str], float] = {}
    for example, outcome in zip(examples, score(rows(folder)), strict=True):
        if outcome.status != 200:
            raise GoldenMismatch(f"golden {example['image']}: {outcome.body['message']}")
        for head, expected in example["probabilities"].items():
            found = outcome.body["heads"][head]["probability"]
            differences[example["image"], head] = abs(found - expected)
    if not differences:
        return 0.0
    (image, head), largest = max(differences.items(), key=lambda item: item[1])
    if largest > engine.tolerance:
        remedy = (
            "choose a float32 engine (openvino-fp32, eager) or name a fallback"
            if engine.tolerance > FP32_TOLERANCE
            else "the archive must not serve here: pack it anew"
        )
        raise GoldenMismatch(
            f"golden {image}, head {head}: probability differs by {largest:.2g} under "
            f"{engine.name}, the largest difference of {len(differences)}; allowed is "
            f"{engine.tolerance:g}; {remedy}"
        )
    return largest
