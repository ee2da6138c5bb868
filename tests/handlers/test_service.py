import base64
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from handlers.engines import Forward
from handlers.golden import GoldenMismatch
from handlers.service import ScoringService
from tests.conftest import encode


def context_of(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(
        manifest=json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text()),
        system_properties={"model_dir": str(folder), "gpu_id": None},
    )


@pytest.fixture(scope="module")
def unpacked(archive_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive_path) as archive:
        archive.extractall(folder)
    yield folder


@pytest.fixture(scope="module")
def service(unpacked: Path) -> ScoringService:
    made = ScoringService()
    made.initialize(context_of(unpacked))
    return made


class FakeContext:
    """TorchServe's context as far as `handle` uses it."""

    def __init__(self, headers: list[dict[str, str]]) -> None:
        self.headers = headers
        self.status: dict[int, int] = {}
        self.content_type: dict[int, str] = {}

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self.headers[index]

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        assert isinstance(phrase, str)
        self.status[index] = code

    def set_response_content_type(self, index: int, value: str) -> None:
        self.content_type[index] = value


def test_a_mixed_batch_is_decided_row_by_row(service: ScoringService, frame: np.ndarray) -> None:
    png = encode(frame)
    rows = [
        {"body": png},
        {"body": png[:200]},
        {"image": png, "roi": b"5,5,60,60", "explain": b"gradcam:alnm"},
        {"image": png, "roi": b"5,5,600,60"},
        {"body": {"image": base64.b64encode(png).decode(), "roi": [5, 5, 60, 60]}},
    ]
    context = FakeContext([{"explain": "True", "describe": "True"}, {}, {}, {}, {}])
    bodies = [json.loads(body) for body in service.handle(rows, context)]
    assert [context.status[index] for index in range(5)] == [200, 422, 200, 422, 200]
    assert set(context.content_type.values()) == {"application/json"}
    assert set(bodies[0]["heatmaps"]) == {"malignancy", "alnm"}
    assert bodies[0]["warnings"] == ["whole_frame"]
    assert bodies[1]["code"] == "unreadable_image"
    assert set(bodies[2]["heatmaps"]) == {"alnm"}
    assert base64.b64decode(bodies[2]["heatmaps"]["alnm"]["png"]).startswith(b"\x89PNG")
    assert bodies[3] == {
        "code": "invalid_roi",
        "message": "roi: [5, 5, 600, 60] is empty or outside the 120 x 80 frame; give "
        "x_min < x_max and y_min < y_max inside it",
        "field": "roi",
        "stage": "preprocess",
    }
    assert bodies[4]["heatmaps"] == {}
    assert bodies[4]["heads"] == bodies[2]["heads"] != bodies[0]["heads"]
    assert bodies[4]["model"]["version"] == "1.0"


def test_scores_do_not_depend_on_the_neighbours(service: ScoringService) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 70, 90), dtype=np.uint8)
    rows = [{"image": encode(frame), "roi": "3,3,80,60"} for frame in frames]
    together = service.score(rows)
    for row, outcome in zip(rows, together, strict=True):
        alone = service.score([row])[0]
        for head, score in outcome.body["heads"].items():
            assert score["probability"] == pytest.approx(
                alone.body["heads"][head]["probability"], abs=1e-6
            )
    assert len({outcome.body["heads"]["alnm"]["probability"] for outcome in together}) == 9


def test_probability_label_and_coherence_follow_from_the_logits(
    service: ScoringService, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.tensor([[-1.0, 1.0], [2.0, torch.nan]])
    monkeypatch.setattr(service, "inference", lambda rows: Forward(logits, torch.zeros(2, 1, 1, 1)))
    scored, undefined = service.score([{"image": encode(frame)}] * 2)
    assert scored.body["heads"]["malignancy"] == {
        "probability": pytest.approx(0.2689414213699951),
        "label": "benign",
        "threshold": 0.5,
    }
    assert scored.body["heads"]["alnm"]["label"] == "ALNM"
    assert scored.body["consistent"] is False
    assert (undefined.status, undefined.body["code"]) == (500, "inference_failed")


def test_a_failing_forward_pass_gives_coded_answers(
    service: ScoringService, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: object) -> Forward:
        raise RuntimeError("out of something")

    monkeypatch.setattr(service, "inference", fail)
    good, bad = service.score([{"image": encode(frame)}, {"image": b""}])
    assert (good.status, good.body["stage"]) == (500, "inference")
    assert bad.body["code"] == "missing_image"


def test_an_empty_batch_has_no_answers(service: ScoringService) -> None:
    assert service.score([]) == []


def test_start_up_refuses_what_does_not_reproduce_its_goldens(
    unpacked: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unpacked, tmp_path / "archive"))
    path = folder / "golden" / "golden.json"
    examples = json.loads(path.read_text())
    examples[2]["probabilities"]["alnm"] += 0.01
    path.write_text(json.dumps(examples))
    with pytest.raises(GoldenMismatch, match=r"golden_2\.png, head alnm: .* differs by 0\.01"):
        ScoringService().initialize(context_of(folder))
    examples[2]["roi"] = [0, 0, 9999, 9]
    path.write_text(json.dumps(examples))
    with pytest.raises(GoldenMismatch, match=r"golden_2\.png: roi"):
        ScoringService().initialize(context_of(folder))
