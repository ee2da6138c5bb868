"""A reader on loopback whose scores are made up, so that a test knows what to expect."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from archives.serving.predict import Answer, Fields
from sonode.reader.app import Reader
from sonode.reader.http_server import ReaderServer
from sonode.reader.judgements.judging import Judging
from sonode.reader.judgements.record import Record
from sonode.reader.results import Results
from sonode.reader.sources import Source, frame_of
from tests.conftest import encode

DIGEST = "ab" * 32


def body(roi: list[int], probability: float = 0.75, **changed: object) -> dict[str, Any]:
    """An answer as docs/integrate.md has it."""
    heads = {
        "malignancy": {
            "probability": probability,
            "spread": None,
            "label": "malignant" if probability > 0.5 else "benign",
            "given": None,
            "uncertain": True,
            "label_set": {
                "labels": ["benign", "malignant"],
                "level": 0.9,
                "given": None,
                "patients": {"benign": 40, "malignant": 30},
            },
            "threshold": 0.5,
        }
    }
    return {
        "model": {"name": "tiny", "version": "1.0", "sha256": DIGEST, "engine": "eager"},
        "roi": roi,
        "heads": heads,
        "consistent": True,
        "warnings": ["small_roi"],
        "out_of_distribution": None,
        "heatmaps": {
            "malignancy": {
                "method": "gradcam",
                "target": "logit of malignancy",
                "box": roi,
                "max": 2.0,
                "grid": [[0.0, 1.0], [2.0, 0.5]],
            }
        },
        **changed,
    }


class MadeUp:
    """A source that remembers what it was asked; `answer` makes its answers."""

    def __init__(
        self, answer: Callable[[list[int]], Answer] = lambda roi: (200, body(roi))
    ) -> None:
        self.asked: list[Fields] = []
        self.answer = answer
        self.facts: dict[str, Any] = {
            "title": "tiny 1.0",
            "model": {"name": "tiny", "version": "1.0", "sha256": DIGEST},
            "labels": {"malignancy": ["benign", "malignant"]},
            "given": {"malignancy": None},
            "trained_on": "phantom (synthetic, not for patients)",
            "tested_on": "phantom (test part, synthetic)",
            "card": "# Model card: tiny 1.0",
        }

    def score(self, image: bytes, fields: Fields) -> Answer:
        self.asked.append(dict(fields))
        return self.answer([int(corner) for corner in fields["roi"].split(",")])

    def frame(self, image: bytes, number: int) -> Answer:
        return frame_of(image, number)


class Page:
    """Asks as the page does."""

    def __init__(self, server: ReaderServer, client: httpx.Client) -> None:
        self.server, self.client = server, client
        client.headers["Origin"] = server.url.removesuffix(f"/{server.key}/")

    def open(self, image: bytes) -> dict[str, Any]:
        answer = self.client.post("images", content=image)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def score(self, image: str, roi: Sequence[int], **more: int) -> httpx.Response:
        asked = {"source": 0, "image": image, "frame": 0, "roi": [*roi], **more}
        return self.client.post("score", json=asked)


@contextmanager
def serving(
    *sources: Source,
    results: Results | None = None,
    record: Record | None = None,
    study: bool = False,
    gateway: Callable[[], str | None] = lambda: None,
    reader: str = "R1",
) -> Iterator[Page]:
    """A reader that answers until the block ends, and its page."""
    questions = [{"head": "malignancy", "labels": ["benign", "malignant"], "given": None}]
    judging = Judging(record, reader, gateway, questions if study else ()) if record else None
    with ReaderServer(Reader(sources, results, judging), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                yield Page(server, client)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def png(frame: np.ndarray) -> bytes:
    """That frame of 120 x 80 pixels as a file."""
    return encode(frame)
