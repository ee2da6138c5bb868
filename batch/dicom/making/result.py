"""What an archive said of one image, as the objects tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Model:
    """The archive that scored."""

    name: str
    version: str
    sha256: str
    """Of the archive: 64 hex digits."""
    engine: str


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """What one head says; the fields are those of an answer (docs/integrate.md)."""

    probabilities: Mapping[str, float]
    """By label: of a binary head the positive one alone, of others all."""
    label: str
    threshold: float | None
    """None for a head with more than two labels."""
    given: str | None
    """What must be positive for the probability to have a meaning; None: nothing."""
    uncertain: bool | None
    """None where the archive has no label sets."""
    label_set: Sequence[str] | None
    level: float | None
    """The share of lesions whose label is in the set."""
    set_given: str | None
    """What must be positive for that promise."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one image."""

    roi: tuple[int, int, int, int]
    """x_min, y_min, x_max, y_max in pixels of the stored frame, half-open."""
    roi_confidence: float | None = None
    """Of a RoI that `sonode locate` proposed; None for one that was drawn, and the whole frame."""
    frame: int | None
    """Of a file with several frames, from 0."""
    heads: Mapping[str, HeadResult]
    consistent: bool
    warnings: Sequence[str]
    out_of_distribution: bool | None = None
    """Whether the image is unlike those of the training; None where the archive cannot say."""
    distance: float | None = None
    """To the training's images."""
    scored_at: datetime
    """With a time zone."""
    model: Model
    heat_maps: Mapping[str, bytes] = field(default_factory=dict)
    """By head: the PNG file of the crop under the map."""
    explain: str | None = None
    """The method of the heat maps."""
