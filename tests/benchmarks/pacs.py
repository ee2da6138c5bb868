"""A night from a real PACS and back: what each stage costs, and how much of it is not the network.

python -m tests.benchmarks.pacs [--images 100] [--networks resnet18@256 ...]

Orthanc (Debian's orthanc and orthanc-dicomweb) on the same cores has one day's stills, RGB as a
scanner stores them, with a table of their boxes. `sonode dicom night` brings them, scores them and
sends a report, a picture and a presentation state of each back: in a process of its own, by
DICOMweb, without and with Grad-CAM of both heads. *Load* is the archive's start, *process* what is
in no stage: interpreter and imports. *Network* and *decode* are measured alone, on the same files,
on all cores: forward passes, with drawn Grad-CAM maps where the night has them. CPU seconds are
those of sonode alone, not Orthanc's; seconds of the clock tell on an idle machine only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import pydicom
import pytest
import yaml
from pydicom.uid import UID, UltrasoundImageStorage

from archives.packing.loader import load_archive
from sonode.console import run_sonode, say
from tests.batch.dicom import pacs
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.machine import Compared, table
from tests.benchmarks.throughput import Cost, Meter, make_archive, middle

DAY = "2026-11-27"
NETWORKS = ("resnet18@256", "tf_efficientnet_lite0@256")
STAGES = ("pull", "score", "objects", "push")
START = ("load", "process")  # once a night, however many images it has
OBJECTS = 3  # of an image: a report, a picture and a presentation state
VIEWS = 4  # images of a study


def stills(images: list[bytes], count: int) -> list[tuple[str, bytes]]:
    """Instance UID and file of each: an image may come more than once, each time as another's."""
    made = []
    for number in range(count):
        it = pydicom.dcmread(io.BytesIO(images[number % len(images)]))
        study = number // VIEWS
        it.SOPClassUID = it.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
        it.StudyInstanceUID, it.SeriesInstanceUID = f"2.25.1{study}", f"2.25.2{study}"
        it.SOPInstanceUID = it.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.3{number}")
        it.PatientID, it.StudyDate = f"P{study}", DAY.replace("-", "")
        file = io.BytesIO()
        it.save_as(file)
        made.append((it.SOPInstanceUID, file.getvalue()))
    return made


def alone(
    archive: Path, files: list[bytes], roi: str, explain: str | None, meter: Meter, name: str
) -> None:
    """Decode, and the network with its maps, each alone on all cores; the night's own functions."""
    with load_archive(archive) as loaded:
        size, network = loaded.micro_batch, loaded.score_prepared
        asked = {} if explain is None else {"explain": explain}
        prepared = [loaded.preprocess({"image": it, "roi": roi, **asked}) for it in files[:size]]
        network(prepared)  # warm
        rows = [{"image": it, "roi": roi, **asked} for it in files]
        prepared = []
        meter.measure(
            f"{name}, decode", len(files), lambda: prepared.extend(map(loaded.preprocess, rows))
        )
        batches = [prepared[start : start + size] for start in range(0, len(files), size)]
        meter.measure(f"{name}, network", len(files), lambda: [network(it) for it in batches])


def night(
    folder: Path, orthanc: pacs.Orthanc, archive: Path, explain: str | None, count: int
) -> dict[str, Cost]:
    """One night in a process of its own; what an image costs by stage, and in all."""
    folder.mkdir()
    keys = {
        "pacs": orthanc.dicomweb,
        "archive": str(archive),
        "folder": str(folder / "night"),
        "boxes": str(folder.parent / "boxes.csv"),
        **({"explain": explain} if explain else {}),
    }
    (folder / "night.yaml").write_text(yaml.safe_dump(keys))
    before, begin = _children(), time.perf_counter()
    with (folder / "log").open("w") as log:
        code = run_sonode(["dicom", "night", str(folder / "night.yaml"), "--date", DAY], log)
    wall, cpu = time.perf_counter() - begin, _children() - before
    assert code == 0, (folder / "log").read_text()
    report = json.loads((folder / f"night/nights/{DAY}.json").read_text())
    assert report["push"]["by_status"]["accepted"] == OBJECTS * count
    took = {it: (at["seconds"], at["cpu_seconds"]) for it, at in report["stages"].items()}
    rest = (wall - sum(a for a, _ in took.values()), cpu - sum(b for _, b in took.values()))
    took |= {"process": rest, "night": (wall, cpu)}
    return {it: Cost(1000 * a / count, 1000 * b / count) for it, (a, b) in took.items()}


def _children() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> list[Compared]:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="ARCHITECTURE@SIZE")
    parser.add_argument("--frames", type=Path, default=BUSI, help="folder in the layout of BUSI")
    given = parser.parse_args()
    what, images = frames(given.frames)
    roi = middle(images)
    files = stills(encoded(images, "DICOM"), given.images)
    meter = Meter()
    os.environ.update(SONODE_DICOM_USER=pacs.USER, SONODE_DICOM_PASSWORD=pacs.PASSWORD)
    rows: list[tuple[str, dict[str, Cost]]] = []
    with tempfile.TemporaryDirectory(prefix="sonode-bench-") as name:
        folder = Path(name)
        lines = ["instance_uid,roi_x_min,roi_y_min,roi_x_max,roi_y_max"]
        lines += [",".join(map(str, (uid, *roi))) for uid, _ in files]
        (folder / "boxes.csv").write_text("\n".join(lines))
        try:
            for number, network in enumerate(given.networks):
                architecture, _, size = network.partition("@")
                archive = make_archive(folder / str(number), architecture, int(size))
                for explain in (None, "gradcam"):
                    run = f"{network}, {explain or 'no maps'}"
                    box = ",".join(map(str, roi))
                    alone(archive, [data for _, data in files], box, explain, meter, run)
                    with pacs.started(folder / f"orthanc-{len(rows)}") as orthanc:
                        for _, data in files:
                            orthanc.put(data)
                        costs = night(folder / run, orthanc, archive, explain, given.images)
                    rows.append((run, costs))
        except pytest.skip.Exception as missing:
            say(f"not measured: {missing}")
            return [("not measured", str(missing), "")]
    return report(rows, meter, f"{given.images} {what} stills of {len(files[0][1]) / 1e6:.1f} MB")


def report(rows: list[tuple[str, dict[str, Cost]]], meter: Meter, title: str) -> list[Compared]:
    """The tables for people."""
    costs, rates = [], []
    for run, its in rows:
        decode, network = (meter.costs[f"{run}, {it}"][0].cpu for it in ("decode", "network"))
        image = sum(its[it].cpu for it in STAGES)
        shares = (1 - network / its["night"].cpu, 1 - network / image)
        costs.append(
            [f"{network:.1f}", f"{decode:.1f}"]
            + [f"{its[it].cpu:.0f}" for it in (*STAGES, *START, "night")]
            + [f"{it:.0%}" for it in shares]
        )
        done = {"objects": OBJECTS, "push": OBJECTS, "night": 1}
        rates.append([f"{1000 * done.get(it, 1) / its[it].wall:.1f}" for it in (*STAGES, "night")])
    names = ["network alone", "decode alone", *STAGES, *START, "the night"]
    names += ["outside the network", "the same without load and process"]
    runs = [run for run, _ in rows]
    table(
        f"{title}: CPU ms an image",
        ("", *runs),
        [(name, *cells) for name, *cells in zip(names, *costs, strict=True)],
    )
    names = ["images pulled", "images scored", "objects made", "objects pushed"]
    names.append("images of the night")
    table(
        f"The same on the clock, {os.cpu_count()} cores, each second",
        ("", *runs),
        [(name, *cells) for name, *cells in zip(names, *rates, strict=True)],
    )
    return [
        (f"{run}: outside the network", its[-1], "10 %")
        for run, its in zip(runs, costs, strict=True)
    ]


if __name__ == "__main__":
    main()
