"""Golden examples: synthetic images in the archive with the probabilities expected of them.

An archive holds no patient's pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from handlers.engines.base import FP32_TOLERANCE, Engine
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


def recorded(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, float | dict[str, float]]:
    """What an example records of a result's `heads`: the probability, or that of every label.

    The most probable label's alone would not show that labels were swapped.
    """
    return {
        head: score.get("distribution") or score["probability"] for head, score in heads.items()
    }


def verify(folder: Path, score: Score, engine: Engine) -> float:
    """Score the golden examples; return the largest difference from an expected probability.

    Raises GoldenMismatch: there are none; they are of other heads or labels; a row fails; or the
    largest difference exceeds what the engine allows.
    """
    examples = json.loads((folder / EXPECTED).read_text())
    if not examples:
        raise GoldenMismatch("golden: the archive has no golden examples; pack it again")
    differences: dict[tuple[str, str], float] = {}
    for example, outcome in zip(examples, score(rows(folder)), strict=True):
        if outcome.status != 200:
            raise GoldenMismatch(f"golden {example['image']}: {outcome.body['message']}")
        expected = _flat(example["probabilities"])
        found = _flat(recorded(outcome.body["heads"]))
        if expected.keys() != found.keys():
            raise GoldenMismatch(
                f"golden {example['image']}: expected probabilities of "
                f"{', '.join(expected) or 'nothing'}, got {', '.join(found)}; pack it again"
            )
        for head in found:
            differences[example["image"], head] = abs(found[head] - expected[head])
    (image, head), largest = max(differences.items(), key=lambda item: item[1])
    if largest > engine.tolerance:
        remedy = (
            "choose a float32 engine (openvino-fp32, eager) or set a fallback"
            if engine.tolerance > FP32_TOLERANCE
            else "the archive must not serve on this machine; pack it again"
        )
        raise GoldenMismatch(
            f"golden {image}, head {head}: probability differs by {largest:.2g} under "
            f"{engine.name}, the largest of {len(differences)} differences; the limit is "
            f"{engine.tolerance:g}; {remedy}"
        )
    return largest


def _flat(probabilities: Mapping[str, float | Mapping[str, float]]) -> dict[str, float]:
    """By head, and by label (`subtype = A`) where every label has one."""
    flat: dict[str, float] = {}
    for head, value in probabilities.items():
        if isinstance(value, Mapping):
            flat |= {f"{head} = {label}": probability for label, probability in value.items()}
        else:
            flat[head] = value
    return flat
