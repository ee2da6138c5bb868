"""What all shards of a run share: the archive, what is asked of it, and where results go."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from batch import layout
from batch.results import schema as results
from batch.results.previous_results import PreviousResults
from batch.storage import objects
from batch.storage.errors import as_user_error

if TYPE_CHECKING:
    from archives.packing.loader import LoadedArchive

COSTS = ("fetch", "preprocess", "inference", "heatmaps", "write")

Archive: TypeAlias = "LoadedArchive"
"""Of one that is loaded elsewhere only the facts are there, its `Description`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One manifest through one archive with one set of parameters."""

    archive: Archive
    out: str
    date: str
    """The partition, YYYY-MM-DD."""
    folder: str
    """Where relative image_uris begin."""
    explain: str | None
    batch_size: int | None
    """Images that go through the network together; None for what the engine takes best."""
    retry_failed: bool = True
    previous: PreviousResults | None = None
    """Results whose rows are reused if nothing has changed."""
    rehearsal: bool = False
    """Nothing is written: a measurement."""
    on_row: Callable[[str | None], None] = lambda code: None
    """Called for each finished row: None, or the code of its failure. From any thread."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COSTS, 0.0))
    """What each stage took, of all threads together."""
    stop: Event = field(default_factory=Event)
    """Set when the run stops early: no further work is begun."""
    _lock: Lock = field(default_factory=Lock)

    @property
    def partition(self) -> str:
        """The folder of this job's parts."""
        return layout.partition(self.date, self.archive.name, self.archive.version)

    @property
    def columns(self) -> list[pa.Field]:
        """The result columns, in the order written."""
        return results.fields(self.archive.heads, with_heatmaps=self.explain is not None)

    def settle(self) -> dict[str, float]:
        """Give the time counted so far, and count from zero again."""
        with self._lock:
            counted = dict(self.seconds)
            self.seconds.update(dict.fromkeys(self.seconds, 0.0))
        return counted

    def spend(self, stage: str, seconds: float) -> None:
        """Count time to a stage; from any thread."""
        with self._lock:
            self.seconds[stage] += seconds

    def spent(self, stage: str, start: float, waited: float = 0.0) -> float:
        """Count what a stage took since `start` of `time.perf_counter()`; in milliseconds."""
        seconds = time.perf_counter() - start - waited
        self.spend(stage, seconds)
        return 1000 * seconds

    def key(self, *inputs: str) -> str:
        """Derive a name from `inputs` and from what this job does to them: 32 hex digits.

        The engine is not in it: a run may resume with another one, and each row names its own.
        """
        parameters = [self.archive.sha256, self.explain or ""]
        return hashlib.sha256("\n".join([*inputs, *parameters]).encode()).hexdigest()[:32]

    def write(self, name: str, data: bytes) -> str:
        """Write an object of the results and give its URI. Raises UserError where that fails."""
        uri = objects.join(self.out, name)
        with self.writing():
            if not self.rehearsal:
                objects.write(uri, data)
        return uri

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise UserError where the block cannot write: no row is at fault, the run is over."""
        with as_user_error(f"results cannot be written to {self.out}"):
            yield
