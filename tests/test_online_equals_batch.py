"""One archive, one set of images, every way: each server, the batch job and the reader's page give
equal numbers."""

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from archives.packing.loader import load_archive
from archives.packing.members import file_sha256
from archives.packing.pack import pack
from archives.serving import predict
from archives.torchserve.node import TorchServeNode
from archives.torchserve.server_node import ServerNode
from batch.results import schema
from batch.storage import objects
from model_def import checkpoint
from model_def.network import cpu_has_bf16
from sonode.demo.local_s3 import LocalS3
from sonode.files.parquet import ROI_COLUMNS
from sonode.reader.results import Results
from sonode.reader.sources import ArchiveSource, ServerSource
from tests.command_line import sonode
from tests.conftest import encode, untrained
from tests.loopback import LOOPBACK
from tests.servers import ONE_WORKER, SERVERS
from tests.sonode.reader.browsing import looking
from tests.sonode.reader.conftest import serving

pytestmark = pytest.mark.live
N = 18


@pytest.fixture(scope="module")
def studies() -> list[tuple[bytes, tuple[int, int, int, int]]]:
    """Frames of several sizes, formats and modes, each with its own RoI."""
    chance = np.random.default_rng(5)
    made = []
    for number in range(N):
        height, width = chance.integers(60, 200, 2)
        grey = chance.integers(0, 256, (height, width), dtype=np.uint8)
        pixels = np.stack([grey] * 3, axis=-1) if number % 2 else grey
        x, y = int(width) // 5, int(height) // 6
        roi = (x, y, int(width) - x - number, int(height) - y)
        made.append((encode(pixels, ("PNG", "JPEG", "BMP")[number % 3]), roi))
    return made


@pytest.fixture(scope="module", params=SERVERS)
def node(
    request: pytest.FixtureRequest, archive_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerNode]:
    run_dir = tmp_path_factory.mktemp("node")
    models = {"tiny": archive_path.name}
    with request.param(archive_path.parent, models, run_dir, settings=ONE_WORKER) as started:
        yield started


@pytest.fixture(scope="module")
def other_archive(card: checkpoint.ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version, of other weights."""
    folder = tmp_path_factory.mktemp("other")
    untrained(folder / "checkpoint", card, 60, malignancy=2.0, seed=1)
    return pack(folder / "checkpoint", "tiny", "1.1", folder / "store")


@pytest.fixture(scope="module")
def batch_rows(
    archive_path: Path,
    studies: list[tuple[bytes, tuple[int, int, int, int]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[pd.DataFrame]:
    """Results of `sonode score`, s3:// to s3://, with heat maps."""
    folder = tmp_path_factory.mktemp("s3")
    with (
        LocalS3(folder, access_key="k", secret_key="s", bucket="studies") as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        rows = []
        for number, (data, roi) in enumerate(studies):
            objects.write(f"s3://studies/images/{number}", data)
            edges = dict(zip(ROI_COLUMNS, roi, strict=True))
            rows.append({"image_uri": f"s3://studies/images/{number}", **edges})
        buffer = io.BytesIO()
        pd.DataFrame(rows).to_parquet(buffer)
        objects.write("s3://studies/manifests/m.parquet", buffer.getvalue())
        objects.write("s3://studies/models/tiny.mar", archive_path.read_bytes())
        done = sonode(
            *("score", "s3://studies/manifests/m.parquet", "s3://studies/out"),
            *("--archive", "s3://studies/models/tiny.mar", "--explain", "gradcam"),
            *("--batch-size", "5", "--json"),
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"]["sha256"] == file_sha256(archive_path)
        frame = schema.read("s3://studies/out").to_pandas()
        for head in ("malignancy", "alnm"):
            uris = frame[f"{head}_heatmap_uri"]
            frame[f"{head}_png"] = [objects.read(uri).data for uri in uris]
        yield frame


def post(
    node: ServerNode, number: int, data: bytes, roi: tuple[int, int, int, int]
) -> dict[str, Any]:
    """The image as raw bytes, multipart or JSON, in turn; always with an explanation."""
    headers = {"Authorization": f"Bearer {node.token()}"}
    text = ",".join(map(str, roi))
    if number % 3 == 0:
        form: dict[str, Any] = {"content": data}
        headers |= {"X-Roi": text, "X-Explain": "gradcam"}
    elif number % 3 == 1:
        form = {"files": {"image": data}, "data": {"roi": text, "explain": "gradcam"}}
    else:
        form = {
            "json": {"image": base64.b64encode(data).decode(), "roi": roi, "explain": "gradcam"}
        }
    url = f"{node.inference_url}/predictions/tiny"
    answer = LOOPBACK.post(url, headers=headers, timeout=60, **form)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def differing(one: np.ndarray, other: np.ndarray) -> float:
    """Share of values that differ; all do where the pictures are of different sizes."""
    return float((one != other).mean()) if one.shape == other.shape else 1.0


def test_equal_numbers_both_ways(
    node: ServerNode,
    studies: list[tuple[bytes, tuple[int, int, int, int]]],
    batch_rows: pd.DataFrame,
    archive_path: Path,
) -> None:
    with ThreadPoolExecutor(8) as pool:  # at once, so that TorchServe makes batches of its own
        answers = list(pool.map(lambda item: post(node, item[0], *item[1]), enumerate(studies)))
    assert len(batch_rows) == len(answers) == N
    sha256 = file_sha256(archive_path)
    seen = set()
    for (_, row), answer, (_, roi) in zip(batch_rows.iterrows(), answers, studies, strict=True):
        other = batch_rows.iloc[0 if seen else 1]
        assert answer["roi"] == list(row["roi_used"]) == list(roi)
        assert answer["model"]["sha256"] == row["model_sha256"] == sha256
        assert answer["consistent"] == row["consistent"]
        assert answer["warnings"] == list(row["warnings"])
        for head, score in answer["heads"].items():
            # float32 sums differ in order with the size of the batch; nothing else may differ.
            assert score["probability"] == pytest.approx(row[f"{head}_probability"], abs=1e-5)
            assert score["label"] == row[f"{head}_label"]
            assert score["threshold"] == row[f"{head}_threshold"]
            online = pixels(base64.b64decode(answer["heatmaps"][head]["png"]))
            # The edge of a band moves with the last digits, the further the flatter the map is.
            assert differing(online, pixels(row[f"{head}_png"])) < 0.02
            assert differing(online, pixels(other[f"{head}_png"])) > 0.2
            seen.add(round(score["probability"], 3))
    assert len(seen) > N  # the scores tell the images apart: an exchange of rows would show


def percent(probability: float) -> set[str]:
    """What the page may write: float32 sums differ in order with the size of the batch."""
    return {f"{100 * (probability + less):.1f} %" for less in (-1e-5, 0, 1e-5)}


@pytest.mark.slow
def test_the_reader_shows_the_same_digits_and_another_version_beside(
    node: ServerNode,
    batch_rows: pd.DataFrame,
    archive_path: Path,
    other_archive: Path,
    browser: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch in the list, the server in one pane, the same archive, and then another, beside."""
    monkeypatch.setenv("SONODE_TOKEN", node.token())
    with ExitStack() as held:
        score = held.enter_context(predict.server(node.inference_url, "tiny", None))
        archives = [
            ArchiveSource(path, None, tmp_path, held) for path in (archive_path, other_archive)
        ]
        sources = (ServerSource("tiny, served", score), *archives)
        results = Results(["s3://studies/out"], "")
        reading = held.enter_context(serving(*sources, results=results))
        page = held.enter_context(looking(browser, reading, None))
        with load_archive(other_archive) as loaded:
            others = loaded.score(
                [
                    {"image": objects.read(row["image_uri"]).data, "roi": [*row["roi_used"]]}
                    for _, row in batch_rows[:2].iterrows()
                ]
            )
        for number, expected in enumerate(others):
            row = batch_rows.iloc[number]
            page.select_option("#compare", label="tiny 1.0")
            page.click(f"button[aria-label='Open row {number + 1}']")
            page.locator(".result:nth-child(2) .score").nth(1).wait_for()
            page.locator(".result:nth-child(1) .score").nth(1).wait_for()
            listed = page.locator("#table tbody tr").nth(number).inner_text()
            for head in ("malignancy", "alnm"):
                probability = row[f"{head}_probability"]
                same = page.locator(f".score[data-head={head}]").all_inner_texts()
                assert len(same) == 2
                for text in (listed, *same):
                    assert any(it in text for it in percent(probability))
            page.select_option("#compare", label="tiny 1.1")
            page.locator(".result:nth-child(2) h2", has_text="tiny 1.1").wait_for()
            page.locator(".result:nth-child(2) .score").nth(1).wait_for()
            for head, its in expected.body["heads"].items():
                one, other = page.locator(f".score[data-head={head}]").all_inner_texts()
                assert any(it in one for it in percent(row[f"{head}_probability"]))
                assert any(it in other for it in percent(its["probability"]))
                assert abs(its["probability"] - row[f"{head}_probability"]) > 0.01


def test_one_bad_request_leaves_its_neighbours_alone(
    node: ServerNode, studies: list[tuple[bytes, tuple[int, int, int, int]]]
) -> None:
    data, roi = studies[0]
    url = f"{node.inference_url}/predictions/tiny"

    def ask(number: int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {node.token()}"}
        headers["X-Roi"] = ",".join(map(str, roi)) if number % 2 else "0,0,9999,9999"
        return LOOPBACK.post(url, content=data, headers=headers, timeout=60)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert [answer.status_code for answer in answers] == [422, 200] * 4
    assert {answer.json()["code"] for answer in answers[::2]} == {"invalid_roi"}


def test_explanations_asks_for_every_head(
    node: ServerNode, studies: list[tuple[bytes, tuple[int, int, int, int]]]
) -> None:
    answer = LOOPBACK.post(
        f"{node.inference_url}/explanations/tiny",
        content=studies[0][0],
        headers={"Authorization": f"Bearer {node.token()}"},
        timeout=60,
    )
    assert answer.status_code == 200
    assert set(answer.json()["heatmaps"]) == {"malignancy", "alnm"}
    assert answer.json()["warnings"] == ["whole_frame"]


def test_equal_numbers_under_openvino(
    resnet_folder: Path,
    studies: list[tuple[bytes, tuple[int, int, int, int]]],
    tmp_path: Path,
) -> None:
    pytest.importorskip("openvino")
    network, card = checkpoint.load(resnet_folder)
    with torch.no_grad():
        network.heads.weight.div_(8)  # logits as a trained network has them
    checkpoint.save(tmp_path / "checkpoint", network, card)
    path = pack(tmp_path / "checkpoint", "tiny", "2.0", tmp_path / "store")
    handler = {"engine": "openvino" if cpu_has_bf16() else "openvino-fp32"}
    models = {"tiny": path.name}
    with (
        TorchServeNode(
            path.parent, models, tmp_path / "n", handler=handler, settings=ONE_WORKER
        ) as node,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda item: post(node, item[0], *item[1]), enumerate(studies)))
    with load_archive(path, handler) as loaded:
        batch = loaded.score([{"image": data, "roi": list(roi)} for data, roi in studies])
    assert len(batch) == len(answers) == N
    for answer, outcome in zip(answers, batch, strict=True):
        assert answer["model"] == outcome.body["model"]
        assert answer["model"]["engine"].startswith("openvino-cpu-")
        for head, score in answer["heads"].items():
            # Each row runs alone, so not even bfloat16 tells the two ways apart.
            expected = outcome.body["heads"][head]["probability"]
            assert score["probability"] == pytest.approx(expected, abs=1e-6)
    assert len({answer["heads"]["alnm"]["probability"] for answer in answers}) == N
