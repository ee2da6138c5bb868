"""The result of a row: one shape online and in Parquet."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from handlers.errors import RowError
from model_def.heads import HeadSpec, Score, is_consistent
from model_def.outliers import OutlierLimit
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


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """One head's map of one method."""

    method: str
    target: str
    """The logit that is explained, in words."""
    box: RoI
    """What of the stored frame the map covers: the RoI, widened by the card's context."""
    max: float
    """The map's largest absolute value, in units of the logit: the end of the picture's scale."""
    png: bytes = field(repr=False)
    """The map over the crop, with its scale."""
    full_frame_png: bytes | None = field(default=None, repr=False)
    """The same in the whole frame with the RoI's outline; only where asked for."""
    grid: list[list[float]] | None = field(default=None, repr=False)
    """The map's values (h, w), to six digits of the largest; only where asked for."""

    def body(self) -> dict[str, Any]:
        """As it stands in a result; what was not asked for is left out."""
        everything = {**vars(self), "box": list(self.box)}
        return {key: value for key, value in everything.items() if value is not None}


def scored(
    model: ModelIdentity,
    roi: RoI,
    heads: tuple[HeadSpec, ...],
    scores: Mapping[str, Score],
    warnings: list[str],
    heatmaps: Mapping[str, Heatmap],
) -> Outcome:
    """The outcome of a row with its scores by head name; a categorical head has no threshold.

    `given` says what must be positive for a head's probability to mean anything, null for nothing.
    `uncertain` and `label_set` are null where the card has no bounds for the head, `spread` where
    there is one network alone.
    """
    return Outcome(
        200,
        {
            "model": vars(model).copy(),
            "roi": list(roi),
            "heads": {
                head.name: {
                    "probability": scores[head.name].probability,
                    "spread": scores[head.name].spread,
                    "label": scores[head.name].label,
                    "given": head.given,
                    "uncertain": scores[head.name].uncertain,
                    "label_set": _label_set(head, scores[head.name]),
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
            "heatmaps": {name: heatmap.body() for name, heatmap in heatmaps.items()},
        },
    )


def _label_set(head: HeadSpec, score: Score) -> dict[str, Any] | None:
    """The labels that the image may have, and what that promises (see `LabelSets`)."""
    if head.label_sets is None or score.label_set is None:
        return None
    promise = head.label_sets.model_dump(include={"level", "given", "patients"})
    return {"labels": list(score.label_set), **promise}


def with_distance(outcome: Outcome, distance: float | None, limit: OutlierLimit | None) -> Outcome:
    """A score with whether its image is unlike the training's; null where the card has no limit."""
    found: dict[str, Any] | None = None
    warnings = outcome.body["warnings"]
    if distance is not None and limit is not None and limit.limit is not None:
        flagged = limit.exceeded_by(distance)
        promise = limit.model_dump(include={"limit", "false_alarms", "patients"})
        found = {"flagged": flagged, "distance": distance, **promise}
        warnings = [*warnings, *(["out_of_distribution"] if flagged else [])]
    body = {**outcome.body, "warnings": warnings, "out_of_distribution": found}
    return Outcome(outcome.status, body)


def failed(error: RowError) -> Outcome:
    """The outcome of a row without a score."""
    return Outcome(
        error.status,
        {"code": error.code, "message": str(error), "field": error.field, "stage": error.stage},
    )


def code_of(outcome: Outcome) -> str:
    """The stable code of a failure, `ok` of a score."""
    return "ok" if outcome.status == 200 else str(outcome.body["code"])


def headers(outcome: Outcome) -> dict[str, str]:
    """What a gateway logs of a row without reading its body; none of it can break a header's line.

    `X-Sonode-Scores: malignancy=0.831200;alnm=0.210000`, six digits in fixed point, and
    `X-Sonode-Labels: malignancy=malignant;alnm=no%20ALNM`, percent-encoded: labels are free text.
    A 400 or 500 has its body as `X-Sonode-Error`, percent-encoded: TorchServe uses these for faults
    of its own, so a gateway has to inspect them, and loses the body by it.
    """
    fields = {"X-Sonode-Code": code_of(outcome)}
    if outcome.status == 200:
        heads = outcome.body["heads"]
        fields["X-Sonode-Scores"] = ";".join(f"{it}={heads[it]['probability']:.6f}" for it in heads)
        fields["X-Sonode-Labels"] = ";".join(f"{it}={quote(heads[it]['label'])}" for it in heads)
    elif outcome.status in (400, 500):
        fields["X-Sonode-Error"] = quote(to_json(outcome.body))
    return fields


def to_json(body: Mapping[str, Any]) -> bytes:
    """UTF-8 JSON, PNG bytes as base64. NaN raises ValueError: it has no JSON."""

    def encode(value: object) -> str:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        raise TypeError(f"{type(value).__name__} has no JSON")

    return json.dumps(body, default=encode, allow_nan=False).encode()
