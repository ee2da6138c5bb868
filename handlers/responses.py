"""The result of a row: one shape online and in Parquet."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from handlers.errors import RequestError
from model_def.heads import HeadSpec, Score, is_consistent
from model_def.preprocessing import RoI


class Outcome(NamedTuple):
    """A row's HTTP status and body; heat maps hold PNG bytes until `to_json`."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which archive gave a score, and how it ran."""

    name: str
    version: str
    sha256: str
    engine: str


@dataclass
class Heatmap:
    """One head's overlay."""

    method: str
    png: bytes = field(repr=False)


def scored(
    model: ModelIdentity,
    roi: RoI,
    heads: tuple[HeadSpec, ...],
    scores: Mapping[str, Score],
    warnings: list[str],
    heatmaps: Mapping[str, Heatmap],
) -> Outcome:
    """The outcome of a row with its scores by head name; a categorical head has no threshold."""
    return Outcome(
        200,
        {
            "model": vars(model).copy(),
            "roi": list(roi),
            "heads": {
                head.name: {
                    "probability": scores[head.name].probability,
                    "label": scores[head.name].label,
                    **(
                        {"threshold": None, "distribution": scores[head.name].distribution}
                        if head.categorical
                        else {"threshold": head.threshold}
                    ),
                }
                for head in heads
            },
            "consistent": is_consistent(heads, scores),
            "warnings": warnings,
            "heatmaps": {
                name: {"method": heatmap.method, "png": heatmap.png}
                for name, heatmap in heatmaps.items()
            },
        },
    )


def failed(error: RequestError) -> Outcome:
    """The outcome of a row without a score."""
    return Outcome(
        error.status,
        {"code": error.code, "message": str(error), "field": error.field, "stage": error.stage},
    )


def to_json(body: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON, PNG bytes as base64. NaN raises ValueError: it has no JSON."""

    def encode(value: object) -> str:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        raise TypeError(f"{type(value).__name__} has no JSON")

    return json.dumps(body, default=encode, allow_nan=False).encode()
