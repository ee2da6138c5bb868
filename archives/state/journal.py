"""The journal of a rollout: what the gateway and every node should do, and why, line by line.

One JSON object per line, on the disk before the act that it announces, so that a killed command can
resume from it. Facts named like a field of `Desired` change it; all others are for the reader.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

from archives.state import clock
from archives.state.files import open_own, write_private
from sonode.console import UserError
from sonode.files.atomic import sync

LOOK_S = 1.0  # for so long somebody may be looking whether it is locked
HEAD = ("seq", "time", "rollout", "event")


@dataclass(frozen=True)
class Release:
    """One archive that nodes serve."""

    version: str
    file: str
    """Name of the .mar in each node's store."""
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    seq: int
    """1, 2, 3, ..."""
    time: float
    """Unix time in seconds."""
    rollout: str | None
    """The rollout that it belongs to."""
    event: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Desired:
    """What should be so after an entry."""

    seq: int = 0
    """Of the last entry; 0: the journal is empty."""
    model: str | None = None
    stable: Release | None = None
    """Answers every request that is not the candidate's."""
    candidate: Release | None = None
    percent: float = 0.0
    """0 to 100: of the studies, answered by the candidate."""
    shadow_percent: float = 0.0
    """0 to 100: of the requests, mirrored to the candidate, whose answer is dropped."""
    salt: str = ""
    """Enters the split's hash: other studies go first in the next rollout."""
    serves: tuple[Release, ...] = ()
    """What every node has to have registered; the gateway keeps them so."""
    rollout: str | None = None
    """The rollout under way; None: there is none."""
    step: str = "idle"
    paused: bool = False
    split: int = 0
    """Of the entry since which the same versions answer the same requests in the same rollout, or
    in none: rows of the gateway's logs name it (`seq`), so that what belongs to a step, or a
    rollout, does not hang on a clock."""


def fold(entries: Iterable[Entry]) -> Desired:
    """Return what should be so after these entries, in order."""
    desired = Desired()
    for entry in entries:
        changes = {name: _value(name, entry.facts[name]) for name in CHANGED & set(entry.facts)}
        ended = desired.rollout and entry.rollout is None
        if SPLIT & changes.keys() or ended:
            changes["split"] = entry.seq
        desired = replace(desired, seq=entry.seq, rollout=entry.rollout, **changes)
    return desired


CHANGED = {item.name for item in fields(Desired)} - set(HEAD)
RELEASES = {"stable", "candidate"}
SPLIT = {*RELEASES, "serves", "percent", "shadow_percent"}


def _value(name: str, value: Any) -> Any:
    try:
        if name == "serves":
            return tuple(Release(**release) for release in value)
        if name in RELEASES and value is not None:
            return Release(**value)
    except TypeError:
        raise UserError(
            f"journal: unknown content of field {name}, written by a newer sonode; use that version"
        ) from None
    return value


class Journal:
    """`journal.jsonl` in the folder `state`, which is made where there is none."""

    def __init__(self, state: Path) -> None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state = state
        self.path = state / "journal.jsonl"
        self._locked = False
        self._last: tuple[tuple[int, int, int], tuple[int, list[Entry]]] | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who writes, until the block ends or the process does.

        Raises UserError where another process is it.
        """
        with open_own(self.state, self.state / "lock") as file:
            until = time.monotonic() + LOOK_S
            while not (mine := _try(file, fcntl.LOCK_EX)) and time.monotonic() < until:
                time.sleep(0.02)
            if not mine:
                file.seek(0)
                raise UserError(
                    f"--state {self.state}: a rollout is running (process "
                    f"{file.read().decode() or '?'}): "
                    "wait for its end, or see `sonode rollout status`"
                )
            file.truncate(0)
            with suppress(OSError):  # a full disk: it is locked all the same
                os.write(file.fileno(), str(os.getpid()).encode())
            self._locked = True
            try:
                yield
            finally:
                self._locked = False
                file.truncate(0)

    def is_locked(self) -> bool:
        """Whether a process holds the lock now."""
        with open_own(self.state, self.state / "lock") as file:
            return not _try(file, fcntl.LOCK_SH)

    def append(self, event: str, *, rollout: str | None, **facts: Any) -> Entry:
        """Write one entry to the disk and return it; only inside `lock()`.

        `rollout` is the rollout under way from here on. A line that a kill had torn is cut off.
        """
        assert self._locked, "only the holder of the lock writes"
        assert not facts.keys() & set(HEAD), "these names are the journal's own"
        whole, entries = self._read()
        seq = entries[-1].seq + 1 if entries else 1
        facts[clock.CLOCK] = clock.stamp()
        entry = Entry(seq, round(time.time(), 3), rollout, event, facts)
        head = {name: getattr(entry, name) for name in HEAD}
        line = json.dumps(head | facts, default=vars) + "\n"
        with open_own(self.state, self.path) as file:
            file.truncate(whole)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if seq == 1:
            sync(self.state)
        return _entry(json.loads(line))  # as whoever reads it later gets it

    def entries(self) -> list[Entry]:
        """Return all entries; a last line that a kill had torn was never announced.

        Raises UserError for a line that is no entry.
        """
        return self._read()[1]

    def repair(self) -> tuple[int, Path | None]:
        """Cut off the first line that cannot follow those before it, and all after; in `lock()`.

        Returns how many entries are kept, and the copy of the damaged journal; None: it was intact.
        """
        assert self._locked, "only the holder of the lock writes"
        data = self.path.read_bytes()
        lines = data.splitlines(keepends=True)
        entries: list[Entry] = []
        for line in lines:
            try:
                _, (entry,) = _parse(self.path, line, len(entries) + 1)
                fold([entry])
            except (UserError, ValueError):
                break
            # An entry of a rollout follows another one of it: an ended one has none.
            if entry.rollout and entry.event != "start" and (
                not entries or entries[-1].rollout != entry.rollout
            ):  # fmt: skip
                break
            entries.append(entry)
        if len(entries) == len(lines):
            return len(entries), None
        copy = self.path.with_name(f"journal-{time.strftime('%Y%m%dT%H%M%S')}.jsonl")
        write_private(self.state, copy, data)
        write_private(self.state, self.path, b"".join(lines[: len(entries)]))
        return len(entries), copy

    def _read(self) -> tuple[int, list[Entry]]:
        """Return the bytes of whole lines, and their entries.

        A rollout asks several times a second, for days: what has not changed is not read again.
        """
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return 0, []
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._last is None or self._last[0] != state:
            found = _parse(self.path, self.path.read_bytes())
            if found[0] != stat.st_size:  # a torn end: what takes its place may be as long
                return found
            self._last = state, found
        return self._last[1]


def _parse(path: Path, data: bytes, first: int = 1) -> tuple[int, list[Entry]]:
    whole = data.rfind(b"\n") + 1
    entries = []
    for number, line in enumerate(data[:whole].splitlines(), first):
        try:
            entry = _entry(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            entry = None
        if entry is None or entry.seq != number:
            raise UserError(
                f"{path}, line {number}: not a journal entry: `sonode rollout repair --state "
                f"{path.parent}` keeps what comes before it, or put a copy back"
            )
        entries.append(entry)
    return whole, entries


def _try(file: IO[bytes], kind: int) -> bool:
    """Lock the file, if it can be had; its closing gives it back."""
    with suppress(BlockingIOError):
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    return False


def _entry(line: dict[str, Any]) -> Entry:
    seq, when, rollout, event = (line.pop(name) for name in HEAD)
    return Entry(seq, when, rollout, event, line)
