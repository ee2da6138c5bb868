"""Where each millisecond of one image goes, stage by stage, one core, alone and in batches of 16.

python -m tests.benchmarks.stages [--architecture resnet18] [--engine auto] [--images 96]

A row asks for Grad-CAM of both heads. CPU time tells on a busy machine, too. The transport of a
server comes on top: `python -m tests.benchmarks.serving` has it as *added*. The last column is what
two cores could give if that stage cost nothing.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from archives.packing.loader import load_archive
from handlers import requests, responses
from handlers.explain import heatmaps
from handlers.images.prepare import prepare
from handlers.stages import postprocess
from model_def.images.decode import decode
from tests.benchmarks.images import BUSI, encoded, frames
from tests.benchmarks.machine import table
from tests.benchmarks.throughput import BATCH, make_archive, middle

CORES = 2


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--frames", type=Path, default=BUSI, help="folder in the layout of BUSI")
    arguments = parser.parse_args()
    what, images = frames(arguments.frames)
    roi = ",".join(map(str, middle(images)))
    files = encoded(images, "PNG")
    with (
        tempfile.TemporaryDirectory(prefix="sonode-bench-") as name,
        load_archive(
            make_archive(Path(name), arguments.architecture, arguments.size),
            {"engine": arguments.engine, "threads": 1},
        ) as loaded,
    ):
        service = loaded.service
        for together in (1, BATCH):
            costs: dict[str, list[float]] = {}
            for start in range(0, arguments.images + together, together):
                chosen = [files[index % len(files)] for index in range(start, start + together)]
                rows = [{"image": data, "roi": roi, "explain": "gradcam"} for data in chosen]
                one = _stages(service, rows)
                if start:  # the first warms
                    for stage, seconds in one.items():
                        costs.setdefault(stage, []).append(1000 * seconds / together)
            medians = {stage: statistics.median(values) for stage, values in costs.items()}
            whole = sum(medians.values())
            table(
                f"{arguments.architecture}, {loaded.engine}, {what} PNGs, {together} at once",
                ("stage", "CPU ms an image", "share", f"images/s of {CORES} cores without it"),
                [
                    (stage, f"{cost:.2f}", f"{cost / whole:.0%}", f"{_rate(whole - cost):.1f}")
                    for stage, cost in medians.items()
                ]
                + [("all", f"{whole:.2f}", "", f"{_rate(whole):.1f} with all of them")],
            )


def _rate(milliseconds: float) -> float:
    return 1000 * CORES / milliseconds


def _stages(service: Any, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """CPU seconds of each stage for the rows, which go through them together."""
    seconds: dict[str, float] = {}

    def measure(stage: str, work: Callable[[], Any]) -> Any:
        before = time.process_time()
        result = work()
        seconds[stage] = time.process_time() - before
        return result

    facts = service.card.preprocessing
    asked = measure(
        "parse the request",
        lambda: [requests.parse(row, {}, list(service.head_labels)) for row in rows],
    )
    # `prepare` decodes; what Pillow alone takes and what is ours is told apart.
    pillow = measure(
        "inflate and unfilter (Pillow)",
        lambda: [np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows],
    )
    assert len(pillow) == len(rows)
    measure("decode", lambda: [decode(row["image"]) for row in rows])
    seconds["checks, grey"] = seconds.pop("decode") - seconds["inflate and unfilter (Pillow)"]
    prepared = measure("prepare", lambda: [prepare(request, facts) for request in asked])
    seconds["crop, resize"] = (
        seconds.pop("prepare") - seconds["inflate and unfilter (Pillow)"] - seconds["checks, grey"]
    )
    forward = measure("forward pass", lambda: service.inference(prepared))
    measure(
        "Grad-CAM of both heads",
        lambda: [
            service.attributor.attribute("gradcam", head, item.input_SS, logits_L, features_Chw)
            for item, logits_L, features_Chw in zip(prepared, *_pairs(forward), strict=True)
            for head in service.head_labels
        ],
    )
    explained = measure(
        "draw and encode",
        lambda: [
            heatmaps.of_row(item, service.attributor, logits_L, features_Chw)
            for item, logits_L, features_Chw in zip(prepared, *_pairs(forward), strict=True)
        ],
    )
    seconds["draw and encode"] -= seconds["Grad-CAM of both heads"]
    identity = service.model, service.attributor, service.distance
    outcomes = measure(
        "probabilities, result", lambda: postprocess(prepared, forward, explained, *identity)
    )
    measure("JSON", lambda: [responses.to_json(outcome.body) for outcome in outcomes])
    return seconds


def _pairs(forward: Any) -> tuple[Any, Any]:
    return forward.logits_BL, forward.features_BChw


if __name__ == "__main__":
    main()
