"""Where the reader's answers come from: a server, or an archive in a process of its own.

`frame_of` runs where the scoring code is, so that the page shows the pixels that are scored.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from archives.comparing.process import Side, opened, process_of
from archives.packing import evidence, model_card
from archives.packing.members import file_sha256, read_member, read_members
from archives.serving.predict import Answer, Fields, Score
from sonode.console import UserError
from sonode.pixel_digest import pixels_sha256

_opening = threading.Lock()  # one process at a time: `process_of` tells a new one by that
GONE = 502  # no answer from the server, or the archive's process has ended


class Source(Protocol):
    """One model, or one server that chooses between its versions."""

    facts: dict[str, Any]
    """What the page says of it; see `archive_facts`."""

    def score(self, image: bytes, fields: Fields) -> Answer:
        """HTTP status and body of an image's score."""

    def frame(self, image: bytes, number: int) -> Answer:
        """A stored frame of an image; see `frame_of`."""


class ServerSource:
    """A gateway, or a node."""

    def __init__(self, address: str, score: Score) -> None:
        self._score = score
        self.facts = {"title": address, "model": None}

    def score(self, image: bytes, fields: Fields) -> Answer:
        """As `Source`."""
        return _answered(lambda: self._score(image, fields))

    def frame(self, image: bytes, number: int) -> Answer:
        """As `Source`."""
        return frame_of(image, number)


class ArchiveSource:
    """An archive; its process starts with the first question, and again after it has ended."""

    def __init__(self, path: Path, engine: str | None, temp: Path, held: ExitStack) -> None:
        """`held` ends the process, `temp` is where it unpacks. Raises ArchiveError."""
        self._path, self._temp, self._held = path, temp, held
        self._settings: dict[str, object] = {"engine": engine} if engine else {}
        self._side: Side | None = None
        self.facts = archive_facts(path)

    def open(self) -> Side:
        """The running process. Raises UserError where the archive must not serve."""
        with _opening:
            if self._side is None:
                with ExitStack() as opening:  # which ends the process where it does not start
                    process = process_of(self.facts["title"], str(self._path))
                    side = opening.enter_context(process)
                    side.open(self._settings, self._temp)
                    self._held.push(opening.pop_all())
                self._side = side
            return self._side

    def score(self, image: bytes, fields: Fields) -> Answer:
        """As `Source`."""
        return self._ask(_in_score, image, dict(fields))

    def frame(self, image: bytes, number: int) -> Answer:
        """As `Source`."""
        return self._ask(frame_of, image, number)

    def _ask(self, work: Callable[..., Answer], *arguments: object) -> Answer:
        def ask() -> Answer:
            try:
                return self.open().ask(work, *arguments)
            except UserError:
                self._side = None
                raise

        return _answered(ask)


def _answered(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except UserError as error:
        return GONE, {"code": "no_answer", "message": str(error), "field": None}


def _in_score(image: bytes, fields: dict[str, str]) -> Answer:
    (outcome,) = opened().score([{"image": image, **fields}])
    for heat_map in outcome.body.get("heatmaps", {}).values():
        heat_map.pop("png", None)  # the page draws the grid
    return outcome.status, outcome.body


def frame_of(image: bytes, number: int) -> Answer:
    """A stored frame as the scoring code reads it: `png`, its size, what the file says of it.

    The code is that of the archive which is open in this process, else the installed one.
    `pixels_sha256` is that of `Cohort.table`.
    """
    from PIL import Image

    from model_def.images.decode import decode
    from model_def.images.errors import RowError

    try:
        found = decode(image, number)
        frames = frames_in(image)
    except RowError as error:
        return error.status, {"code": error.code, "message": str(error), "field": error.field}
    height, width = found.grey_HW.shape
    encoded = io.BytesIO()
    Image.fromarray(found.grey_HW).save(encoded, "PNG", compress_level=1)
    return 200, {
        "frames": frames,
        "width": width,
        "height": height,
        "warnings": list(found.warnings),
        "pixels_sha256": pixels_sha256(found.grey_HW),
        "png": encoded.getvalue(),
    }


def frames_in(image: bytes) -> int:
    """How many frames an image has. Raises RowError for a DICOM file that is not taken."""
    from model_def.images.dicom.file import is_dicom, read
    from model_def.images.dicom.header import read_header

    return read_header(read(image, []).dataset, []).frames if is_dicom(image) else 1


def archive_facts(path: Path) -> dict[str, Any]:
    """What the page says of an archive: name, version, digest, model card. Raises ArchiveError."""
    manifest, card = read_members(path)
    model, cohort = manifest["model"], card["training"].get("cohort", {})
    kind = " (synthetic, not for patients)" if cohort.get("synthetic") else ""
    return {
        "title": f"{model['modelName']} {model['modelVersion']}",
        "model": {
            "name": model["modelName"],
            "version": model["modelVersion"],
            "sha256": file_sha256(path),
        },
        "labels": {head["name"]: head["labels"] for head in card["heads"]},
        "given": {head["name"]: head.get("given") for head in card["heads"]},
        "trained_on": f"{cohort.get('name', 'not stated')}{kind}",
        "tested_on": evidence.as_text(json.loads(read_member(path, evidence.FILE))),
        "card": read_member(path, model_card.FILE).decode(),
    }
