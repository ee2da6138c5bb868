"""One real PACS for all tests of a process, and results with DICOM objects to send there."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch import layout
from tests.batch.dicom import pacs
from tests.batch.dicom.pacs import Orthanc

PARTITION = "date=2026-11-27/model=net-1.0"
NAMES = ("examples_rgb_color.dcm", "examples_jpeg2k.dcm")  # the images that were scored
Objects = dict[str, bytes]


@pytest.fixture
def sockets_of_pynetdicom() -> Iterator[None]:
    """What pynetdicom 3.0.4 leaves to the garbage collector where the other end is gone."""
    gc.freeze()  # to look through all that was there before takes a second
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.unfreeze()


BY_DIMSE = [
    pytest.mark.usefixtures("sockets_of_pynetdicom"),
    pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"),
]


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc."""
    with pacs.started(tmp_path_factory.mktemp("orthanc")) as it:
        yield it


@pytest.fixture
def orthanc(running: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Orthanc:
    """That Orthanc, empty, and sonode's credentials for it."""
    running.empty()
    monkeypatch.setenv("SONODE_DICOM_USER", pacs.USER)
    monkeypatch.setenv("SONODE_DICOM_PASSWORD", pacs.PASSWORD)
    return running


@pytest.fixture(scope="session")
def made() -> list[Objects]:
    """The objects of two images."""
    return [objects_of(name, (10, 20, 50, 45)) for name in NAMES]


@pytest.fixture
def out(made: list[Objects], tmp_path: Path) -> Path:
    """Results with these objects, and a row without any."""
    folder = tmp_path / "out"
    put_record(folder, 0, [{}, *made])
    return folder


def objects_of(name: str, roi: tuple[int, int, int, int]) -> Objects:
    """The objects of an image with a box; another box makes others."""
    pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
    from batch.dicom.making import objects, source
    from model_def.images.decode import decode
    from tests.batch.dicom import ultrasound

    data = ultrasound.data_of(name)
    grey = decode(data, None).grey_HW
    return objects.make(source.read(data), grey, ultrasound.result(roi=roi))


def put_record(out: Path, index: int, made: list[Objects]) -> None:
    """Put objects and the record that names them; a row without objects is not of DICOM."""
    part, rows = f"part-{index:05d}-ab", []
    for number, files in enumerate(made):
        row = {"status": "written"} if files else {"status": "none", "code": "not_dicom"}
        for kind, data in files.items():
            row[kind] = layout.dicom_object(PARTITION, f"{part}-{number:05d}", kind)
            (out / row[kind]).parent.mkdir(parents=True, exist_ok=True)
            (out / row[kind]).write_bytes(data)
        rows.append(row)
    columns = ["status", "code", "message", "sr", "sc", "pr"]
    table = pa.Table.from_pylist(rows, schema=pa.schema([(it, pa.string()) for it in columns]))
    pq.write_table(table, out / layout.dicom_record(PARTITION, part))
