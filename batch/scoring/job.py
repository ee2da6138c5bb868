"""What all shards of a run share: the archive, what is asked of it, and where results go."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Protocol

import pyarrow as pa

from batch import layout
from batch.results import schema as results
from batch.results.previous_results import PreviousResults
from batch.storage import objects
from batch.storage.errors import StorageError
from sonode.console import UserError

COSTS = ("fetch", "preprocess", "inference", "heatmaps", "write")


Outcome = tuple[int, Mapping[str, Any]]
"""A row's status, 200 for success, and body: the service's own `handlers.responses.Outcome`."""


class Archive(Protocol):
    """What scoring needs of an archive; `archives.packing.loader.LoadedArchive` is one.

    Of one that is loaded elsewhere, only the properties up to `score_reference` are there.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def heads(self) -> Mapping[str, Sequence[str]]: ...  # noqa: D102
    @property
    def methods(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def given(self) -> Mapping[str, str | None]:
        """What must be positive for a head's probability to mean anything, as a label column."""

    @property
    def promises(self) -> Mapping[str, Any]:
        """What its label sets and its flag promise, by key of a part's metadata."""

    @property
    def score_reference(self) -> Mapping[str, Sequence[int]]: ...  # noqa: D102
    @property
    def threads(self) -> int: ...  # noqa: D102
    @property
    def max_concurrency(self) -> int: ...  # noqa: D102
    @property
    def micro_batch(self) -> int: ...  # noqa: D102

    def preprocess(self, row: Mapping[str, object]) -> Any:
        """Decode a row as TorchServe hands it over; a (status, body) is its failure."""

    def score_prepared(self, prepared: Sequence[Any]) -> Sequence[Outcome]:
        """Give (status, body) for each decoded row, in order; status 200 is success.

        A row that cannot be scored fails alone.
        """

    def nbytes(self, prepared: Any) -> int:
        """Give the bytes that a decoded row holds."""

    def device_is_lost(self) -> bool:
        """After a failure, whether none of what follows can succeed."""


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
        try:
            yield
        except StorageError as error:
            raise UserError(f"results cannot be written to {self.out}: {error}") from None
