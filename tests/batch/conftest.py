"""A fake archive with hand-made numbers, and a real S3 server."""

from __future__ import annotations

import itertools
import os
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from archives.packing.loader import Description
from batch.storage import objects, s3_client
from sonode.demo.local_s3 import LocalS3
from tests.batch.stub_store import StubStore, serving

CERTIFICATES = Path(__file__).parents[1] / "archives"


class FakeArchive:
    """Scores the bytes b"p=0.3" as malignancy 0.3 and alnm 0.15; frames are 100 x 100."""

    name = "fake"
    version = "1.0"
    sha256 = "ab" * 32
    engine = "eager"
    heads: ClassVar = {"malignancy": ("benign", "malignant"), "alnm": ("no ALNM", "ALNM")}
    targets: ClassVar = {"malignancy": "malignant", "alnm": "alnm"}
    parents: ClassVar = {"malignancy": None, "alnm": "malignancy"}
    methods = ("gradcam",)
    given: ClassVar = {"malignancy": None, "alnm": "malignant"}
    described = Description.described

    promises: ClassVar[dict[str, Any]] = {"label_sets": {}, "out_of_distribution": None}
    score_reference: ClassVar[dict[str, list[int]]] = {"malignancy": [*[0] * 10, *[500] * 10]}
    threads = 2
    max_concurrency = 1
    micro_batch = 4
    lost = False

    def __init__(self) -> None:
        self.calls: list[list[dict[str, object]]] = []
        self.released = threading.Event()

    def preprocess(self, row: Mapping[str, object]) -> Any:
        if row["image"] == b"hang":
            self.released.wait(30)
        if row["image"] == b"poison to decode":
            raise RuntimeError("of patient 4711")
        if row["image"] == b"no image":
            return 415, _failure("unsupported_image", "image")
        return dict(row)  # the caller may empty its own

    def score_prepared(self, prepared: Sequence[Any]) -> list[tuple[int, dict[str, Any]]]:
        self.calls.append(list(prepared))
        return [self._score(row) for row in prepared]

    def nbytes(self, prepared: Any) -> int:
        return len(prepared["image"])

    def device_is_lost(self) -> bool:
        return self.lost

    def _score(self, row: dict[str, object]) -> tuple[int, dict[str, Any]]:
        image = row["image"]
        assert isinstance(image, bytes)
        if image == b"poison":
            body = {"code": "inference_failed", "field": None, "stage": "inference"}
            return 500, {**body, "message": "scoring failed; see the worker's log"}
        if not image.startswith(b"p="):
            return 422, _failure("image_truncated", None)
        roi = [int(edge) for edge in str(row.get("roi", "0,0,100,100")).split(",")]
        if max(roi) > 100:
            return 422, _failure("roi_outside", "roi")
        p = float(image[2:])
        heads = {"malignancy": p, "alnm": p / 2}
        method = row.get("explain")
        body: dict[str, Any] = {
            "model": {n: getattr(self, n) for n in ("name", "version", "sha256", "engine")},
            "roi": roi,
            "heads": {
                head: {
                    "probability": value,
                    "threshold": 0.5,
                    "label": "positive" if value >= 0.5 else "negative",
                    **dict.fromkeys(("spread", "uncertain", "label_set")),
                }
                for head, value in heads.items()
            },
            "consistent": True,
            "warnings": [] if "roi" in row else ["whole_frame"],
            "heatmaps": {},
            "out_of_distribution": None,
        }
        if method is not None:
            body["heatmaps"] = {
                head: {"method": method, "png": f"{head} {p} {roi}".encode()} for head in heads
            }
        return 200, body


def _failure(code: str, field: str | None) -> dict[str, Any]:
    return {"code": code, "message": f"{code}!", "field": field, "stage": "preprocess"}


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive()


def put_table(uri: str, columns: dict[str, Any] | pa.Table) -> str:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    objects.write(uri, sink.getvalue().to_pybytes())
    return uri


@pytest.fixture(name="put_table")
def _put_table() -> Any:
    """Write columns (or a table) as a Parquet object and give its URI."""
    return put_table


_numbers = itertools.count()


@pytest.fixture
def s3(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the AWS environment at the server and give a fresh s3:// folder."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://studies/test-{next(_numbers)}"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.live)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder in either kind of storage."""
    return str(request.getfixturevalue("s3") if request.param == "s3" else tmp_path)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubStore]:
    """Point the AWS environment at a store that misbehaves as the test asks."""
    with serving(StubStore()) as store:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
        yield store
        s3_client.client().close()


@pytest.fixture
def tls(stub: StubStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubStore]:
    """As `stub`, by https, with a certificate that nobody has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost-key.pem")
    with serving(StubStore(), context) as store:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
        yield store
        s3_client.client().close()
