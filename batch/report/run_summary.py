"""What run.json says of a run: one record, of which the report is the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What the results hold, and what the last run did; run.json has the same fields."""

    format: Literal[1] = 1
    """Of this record; a reader that does not know it should stop."""
    rows: int
    by_status: dict[str, int]
    by_code: dict[str, int]
    scored: int
    """Rows that this run scored, or tried to; the others were there before."""
    carried: int
    """Rows that this run took over from the results of `--since`."""
    images_per_second: float
    """Rows that this run scored over the wall-clock time from the first fetch to the last write."""
    seconds: dict[str, float]
    """What each stage took in this run, of all threads together."""
    model: dict[str, str]
    """Its name, version and SHA-256."""
    engine: str
    """The one of this run."""
    versions: dict[str, str]
    """Of the packages that decode, score and write."""
    date: str
    manifest_key: str
    """Names the manifest by its rows and its folder."""
    explain: str | None
    batch_size: int | None
    """Images that went through the network together; None for what the engine takes best."""
    shard_rows: int
    scores: dict[str, list[int]]
    """How many rows have a probability in each of 20 bins from 0 to 1, by head."""
    given: dict[str, str | None]
    """The label column that must be positive for a head's probability to mean anything; null for
    one that speaks of every lesion."""
    drift: dict[str, dict[str, dict[str, float]]]
    """PSI and KS of `scores` to those of the training ("training", from the archive) and of the
    same model's run before ("run of DATE"), by head; see `batch.report.drift`."""
    parts: int
    dataset: str
    """The folder of the parts, below the folder of the results."""
    started: str
    """UTC, ISO 8601; of this run."""
    finished: str
    units: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By column of the manifest, the file with a row for each lesion, study or patient: how many
    there are, how many have failed images, and how many rows have no id; see `units.described`."""
