"""Open an archive and drive its own service, the same object that TorchServe drives."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import yaml

from archives.packing.members import MANIFEST, ArchiveError, check, file_sha256
from sonode.files.atomic import scratch

CODE = ("service", "handlers", "model_def")  # top-level modules inside an archive


class Outcome(NamedTuple):
    """A row's HTTP-like status (200 is success) and body; see `handlers.responses`."""

    status: int
    body: dict[str, Any]


@dataclass(kw_only=True)
class Description:
    """The facts of a loaded archive; those of each head by its name."""

    name: str
    version: str
    sha256: str
    engine: str
    heads: Mapping[str, tuple[str, ...]]
    """The labels."""
    targets: Mapping[str, str]
    """The column that the labels came from, or a count with a bound."""
    parents: Mapping[str, str | None]
    """The head that must be positive where it is."""
    given: Mapping[str, str | None]
    """What must be positive for the probability to mean anything, as a label column."""
    promises: Mapping[str, Any]
    """What its label sets and its flag promise, by key of a part's metadata."""
    methods: Sequence[str]
    score_reference: Mapping[str, Sequence[int]]

    def described(self) -> Description:
        """Give the facts alone, which may leave this process."""
        return Description(**{it.name: getattr(self, it.name) for it in fields(Description)})


class LoadedArchive(Description):
    """A verified archive whose service is ready in this process."""

    def __init__(self, service: Any) -> None:
        model, card = service.model, service.card
        super().__init__(
            name=model.name,
            version=model.version,
            sha256=model.sha256,
            engine=model.engine,
            heads=dict(service.head_labels),
            targets={head.name: head.target for head in card.heads},
            parents={head.name: head.parent for head in card.heads},
            given={head.name: head.given for head in card.heads},
            promises=_promises(card),
            methods=list(service.methods),
            score_reference=dict(card.training.get("score_reference", {})),
        )
        self.service = service

    def score(self, rows: Sequence[dict[str, Any]]) -> list[Outcome]:
        """Score request rows as TorchServe would hand them over; same length, same order."""
        return [Outcome(*outcome) for outcome in self.service.score(rows)]

    @property
    def threads(self) -> int:
        """Cores that its settings give it, for decoding and, on the CPU, for the network."""
        import torch

        return torch.get_num_threads()

    @property
    def max_concurrency(self) -> int:
        """Threads that may usefully call `score_prepared` at once."""
        return int(self.service.engine.max_concurrency)

    @property
    def micro_batch(self) -> int:
        """Rows that its engine takes together."""
        return int(self.service.engine.micro_batch)

    def preprocess(self, row: Mapping[str, object]) -> Any:
        """Decode, check and crop one row, on any thread; an Outcome is the row's failure."""
        found = self.service.preprocess(row, {})
        if isinstance(found, Exception):
            error: Any = found
            body = {"code": error.code, "message": str(error)}
            return Outcome(error.status, {**body, "field": error.field, "stage": error.stage})
        return found

    def score_prepared(self, prepared: Sequence[Any]) -> list[Outcome]:
        """Score what `preprocess` gave; same length, same order. A row that fails has its error."""
        return [Outcome(*outcome) for outcome in self.service.score_prepared(prepared)]

    def nbytes(self, prepared: Any) -> int:
        """The bytes of pixels that a decoded row holds."""
        return sum(getattr(value, "nbytes", 0) for value in vars(prepared).values())

    def device_is_lost(self) -> bool:
        """Whether the service's device fails every call from now on, as a lost CUDA context does.

        Online the service ends its process; here the caller has to.
        """
        return bool(self.service.device_is_lost())


def _promises(card: Any) -> dict[str, Any]:
    """What label sets and the flag promise; null where the card has none."""
    sets = {head.name: head.label_sets for head in card.heads}
    limit = card.out_of_distribution
    return {
        "label_sets": {
            name: None
            if its is None or its.least is None
            else its.model_dump(include={"level", "given", "patients"})
            for name, its in sets.items()
        },
        "out_of_distribution": None
        if limit is None or limit.limit is None
        else limit.model_dump(include={"limit", "false_alarms", "patients"}),
    }


@contextmanager
def load_archive(
    path: Path, settings: Mapping[str, object] | None = None
) -> Iterator[LoadedArchive]:
    """Verify the archive, unpack it, and start its own service until the block ends.

    `settings` override those of the archive and of the environment, for example
    `{"engine": "eager"}` (see `handlers.settings`).

    Every byte is checked, and the golden examples must reproduce. One archive at a time per
    process: its code takes the names `handlers` and `model_def`, and gives them back at the end.

    Raises ArchiveError: absent, damaged, altered, or unable to reproduce its golden examples.
    """
    check(path)
    with scratch("sonode-archive-") as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        with load_folder(folder, settings) as loaded:
            assert loaded.sha256 == file_sha256(path)  # it is in every result
            yield loaded


@contextmanager
def load_folder(
    folder: Path, settings: Mapping[str, object] | None = None, *, being_packed: bool = False
) -> Iterator[LoadedArchive]:
    """Start the service of an unpacked archive; `settings` as in `load_archive`.

    Where it is `being_packed`, its golden examples are not asked for: they are yet to be recorded.

    Raises ArchiveError: its code cannot be imported, or its service refuses to start.
    """
    outside = _take_modules()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        try:
            service = importlib.import_module("service").ScoringService()
            manifest = json.loads((folder / MANIFEST).read_text())
            service.initialize(
                SimpleNamespace(
                    manifest=manifest,
                    model_yaml_config=yaml.safe_load((folder / "model-config.yaml").read_text()),
                    system_properties={
                        "model_dir": str(folder),
                        "gpu_id": 0,
                        "handler": dict(settings or {}),
                        "being_packed": being_packed,
                    },
                )
            )
        except Exception as error:  # whatever an archive's own code may raise
            raise ArchiveError(f"ARCHIVE: its service does not start: {error}") from error
        yield LoadedArchive(service)
    finally:
        sys.path.remove(str(folder))
        _take_modules()
        sys.modules.update(outside)


def _take_modules() -> dict[str, ModuleType]:
    """Remove the archive's module names from `sys.modules` and return what stood there."""
    names = [name for name in sys.modules if name.split(".")[0] in CODE]
    return {name: sys.modules.pop(name) for name in names}
