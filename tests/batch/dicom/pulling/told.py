"""A PACS that names small images and does as it is told, and one that ends its process."""

from __future__ import annotations

import io
import itertools
import os
import signal
from collections.abc import Callable, Collection
from datetime import date
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, UltrasoundImageStorage

from batch.dicom.origins.origin import Named, Objects
from batch.dicom.origins.spans import Found, Span
from batch.dicom.peers.answers import Instance
from batch.dicom.pulling.pull import Pulled, Settings, pull_from
from batch.storage import objects
from sonode.console import progress

WIDTH, HEIGHT = 8, 6
BOX = (1, 2, 5, 6)
STUDIES = ("1.2.1", "1.2.2")
NAME, PATIENT = "Nobody^Known", "id-of-nobody"


def uid(study: str, number: int) -> str:
    return f"{study}.7.{number}"


def image(it: str, *, frames: int = 1, **changed: object) -> bytes:
    """A grey image of 8 x 6 pixels."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = UltrasoundImageStorage, it
    made.PatientName, made.PatientID = NAME, PATIENT
    made.Modality, made.Manufacturer, made.ManufacturerModelName = "US", "Maker", "Model 7"
    made.Columns, made.Rows = WIDTH, HEIGHT
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 7, 0, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    if frames > 1:
        made.NumberOfFrames = frames
    made.PixelData = bytes(WIDTH * HEIGHT * frames)
    for keyword, value in changed.items():
        setattr(made, keyword, value)
    return encoded(made)


def report(it: str, *drawn: tuple[str, tuple[int, int, int, int]]) -> bytes:
    """An SR with boxes on images."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = ComprehensiveSRStorage, it
    made.PatientName, made.Modality, made.ValueType = NAME, "SR", "CONTAINER"
    made.ContentSequence = [_region(of, box) for of, box in drawn]
    return encoded(made)


def _region(of: str, box: tuple[int, int, int, int]) -> Dataset:
    x0, y0, x1, y1 = box
    reference, below, region = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = UltrasoundImageStorage, of
    below.RelationshipType, below.ValueType = "SELECTED FROM", "IMAGE"
    below.ReferencedSOPSequence = [reference]
    region.RelationshipType, region.ValueType, region.GraphicType = "CONTAINS", "SCOORD", "POLYLINE"
    region.GraphicData = [x0, y0, x1, y0, x1, y1, x0, y1, x0, y0]
    region.ContentSequence = [below]
    return region


def encoded(made: Dataset) -> bytes:
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


class Told:
    """Two studies of three images and an SR, which draws a box on the first two.

    `answer` is called before each answer with what is asked for: a UID, a study, or "".
    """

    def __init__(self, answer: Callable[[str], None] = lambda asked: None) -> None:
        self.files: dict[Instance, tuple[str, bytes]] = {}
        self.answer = answer
        self.fetched: list[str] = []
        self.closed = 0
        for study in STUDIES:
            for number in (1, 2, 3):
                self.add(study, number, image(uid(study, number)))
            drawn = [(uid(study, number), BOX) for number in (1, 2)]
            self.add(study, 9, report(uid(study, 9), *drawn), "SR")

    def add(self, study: str, number: int, data: bytes, modality: str = "US") -> None:
        self.files[Instance(study, f"{study}.5", uid(study, number))] = modality, data

    def studies(self, span: Span, modality: str) -> Found:
        self.answer("")
        return {it.study: None for it in self.files}

    def objects(self, study: str, modalities: Collection[str], told: int | None) -> Objects:
        self.answer(study)
        named = [
            Named(it, modality, None)
            for it, (modality, _) in self.files.items()
            if it.study == study and modality in modalities
        ]
        return Objects(named, 0)

    def fetch(self, named: Named) -> bytes:
        self.answer(named.it.instance)
        self.fetched.append(named.it.instance)
        return self.files[named.it][1]

    def close(self) -> None:
        self.closed += 1


def pulled(out: str | Path, origin: Told, **changed: object) -> Pulled:
    """A pull by one connection that waits for nothing."""
    facts = {"connections": 1, "waits_s": (), **changed}
    settings = Settings(source="", out=str(out), since=date(2026, 1, 1), **facts)  # type: ignore[arg-type]
    return pull_from(lambda: origin, settings, progress)


class Killed(BaseException):
    """What ends a pull where nothing of it goes on."""


def until(
    boundary: int, out: str, log: Path, set_to: Callable[[object, str, object], None], *, real: bool
) -> None:
    """A pull that ends before or after the boundary-th fetch or write, each fetch logged.

    It is killed where `real`, else all that it does from there on raises. `set_to` as setattr.
    """
    crossed = itertools.count()

    def cross() -> None:
        if next(crossed) >= boundary:
            if real:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed

    def dying(work: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*given: object, **named: object) -> object:
            cross()
            found = work(*given, **named)
            cross()
            return found

        return wrapped

    def note(asked: str) -> None:
        if ".7." in asked:
            with log.open("a") as file:
                file.write(f"{asked}\n")

    for name in ("write", "create", "replace"):
        set_to(objects, name, dying(getattr(objects, name)))
    origin = Told(note)
    set_to(origin, "fetch", dying(origin.fetch))
    pulled(out, origin)


def really(boundary: int, out: str, log: Path) -> None:
    """As `until`, in a process of its own that is killed."""
    until(boundary, out, log, setattr, real=True)
