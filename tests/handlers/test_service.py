import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from handlers import cuda_health, stages
from handlers.engines.base import Forward
from handlers.golden import GoldenMismatch
from handlers.images.prepare import Prepared
from handlers.service import ScoringService
from tests.conftest import encode
from tests.handlers.contexts import FakeContext, context_of

ROOT = Path(__file__).resolve().parents[2]


def test_a_worker_that_cannot_serve_logs_why_before_it_fails(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("handlers.service.REASON_IS_READ_S", 0)
    context = context_of(unpacked, engine="unknown")
    with pytest.raises(ValueError, match="setting engine"):
        ScoringService().initialize(context)
    assert not caplog.records
    context.system_properties["server_name"] = "MMS"
    with pytest.raises(ValueError, match="setting engine") as caught:
        ScoringService().initialize(context)
    assert str(caught.value) in caplog.text


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
        "message": "roi: [5, 5, 600, 60] is empty or outside the 120 x 80 frame; send "
        "x_min < x_max and y_min < y_max inside it",
        "field": "roi",
        "stage": "preprocess",
    }
    assert bodies[4]["heatmaps"] == {}
    assert bodies[4]["heads"] == bodies[2]["heads"] != bodies[0]["heads"]
    assert bodies[4]["model"]["version"] == "1.0"
    codes = [told["X-Sonode-Code"] for told in context.told]
    assert codes == ["ok", "unreadable_image", "ok", "invalid_roi", "ok"]
    malignancy, alnm = (bodies[4]["heads"][head]["probability"] for head in ("malignancy", "alnm"))
    scores = f"malignancy={malignancy:.6f};alnm={alnm:.6f}"
    assert context.told[4]["X-Sonode-Scores"] == scores
    assert "X-Sonode-Scores" not in context.told[3]


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
    logits = torch.tensor([[-1.0, 1.0], [2.0, torch.nan], [torch.inf, 1.0]])
    monkeypatch.setattr(service, "inference", lambda rows: Forward(logits, torch.zeros(3, 1, 1, 1)))
    scored, *undefined = service.score([{"image": encode(frame)}] * 3)
    assert scored.body["heads"]["malignancy"] == {
        "probability": pytest.approx(0.2689414213699951),
        "spread": None,
        "label": "benign",
        "given": None,
        "uncertain": None,
        "label_set": None,
        "threshold": 0.5,
    }
    assert scored.body["heads"]["alnm"]["label"] == "ALNM"
    assert scored.body["consistent"] is False
    assert [(it.status, it.body["code"]) for it in undefined] == [(500, "inference_failed")] * 2


def test_a_failing_forward_pass_gives_coded_answers(
    service: ScoringService, frame: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: object) -> Forward:
        raise RuntimeError("out of something")

    monkeypatch.setattr(service, "inference", fail)
    good, bad = service.score([{"image": encode(frame)}, {"image": b""}])
    assert (good.status, good.body["stage"]) == (500, "inference")
    assert bad.body["code"] == "missing_image"


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, ValueError, KeyError])
@pytest.mark.parametrize("stage", ["inference", "postprocess"])
@pytest.mark.parametrize("engine", ["service", "openvino"])  # rows beside each other, or together
def test_whatever_fails_a_row_leaves_its_neighbours_alone(
    request: pytest.FixtureRequest,
    frame: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    stage: str,
    engine: str,
) -> None:
    service: ScoringService = request.getfixturevalue(engine)
    rows = [{"image": encode(frame), "roi": f"3,3,{80 + number},60"} for number in range(4)]
    expected = service.score(rows)
    owner = service if stage == "inference" else stages
    done = getattr(owner, stage)

    def fail(prepared: Sequence[Prepared], *more: object) -> object:
        if any(item.roi.x_max == 82 for item in prepared):
            raise kind("out of something")
        return done(prepared, *more)

    monkeypatch.setattr(owner, stage, fail)
    found = service.score(rows)
    assert [outcome.status for outcome in found] == [200, 200, 500, 200]
    assert (found[2].body["code"], found[2].body["stage"]) == ("inference_failed", "inference")
    for index in (0, 1, 3):
        for head, score in expected[index].body["heads"].items():
            probability = found[index].body["heads"][head]["probability"]
            assert probability == pytest.approx(score["probability"], abs=1e-5)


def test_an_empty_batch_has_no_answers(service: ScoringService) -> None:
    assert service.score([]) == []


def test_start_up_refuses_what_does_not_reproduce_its_golden_examples(
    unpacked: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unpacked, tmp_path / "archive"))
    path = folder / "golden" / "golden.json"
    examples = json.loads(path.read_text())
    examples[1]["probabilities"]["malignancy"] += 0.005
    examples[2]["probabilities"]["alnm"] += 0.01  # the largest, and not the first, is named
    path.write_text(json.dumps(examples))
    context = context_of(folder, engine="eager")
    with pytest.raises(GoldenMismatch, match=r"golden_2\.png, head alnm: .*0\.01"):
        ScoringService().initialize(context)
    with pytest.raises(GoldenMismatch, match=r"limit is 0\.001"):
        ScoringService().initialize(context)
    examples[2]["roi"] = [0, 0, 9999, 9]
    path.write_text(json.dumps(examples))
    with pytest.raises(GoldenMismatch, match=r"golden_2\.png: roi"):
        ScoringService().initialize(context)


@pytest.fixture(scope="module")
def openvino(unpacked: Path) -> ScoringService:
    """The same archive on two streams of OpenVINO, in float32: its logits are far apart."""
    pytest.importorskip("openvino")
    made = ScoringService()
    made.initialize(context_of(unpacked, engine="openvino-fp32", threads=2))
    return made


def test_results_name_the_engine_that_ran(
    service: ScoringService, openvino: ScoringService, frame: np.ndarray
) -> None:
    row = {"image": encode(frame)}
    assert service.score([row])[0].body["model"]["engine"] == "eager-cpu-fp32"
    assert openvino.score([row])[0].body["model"]["engine"] == "openvino-cpu-fp32"


def test_rows_keep_their_places_when_they_run_beside_each_other(
    service: ScoringService, openvino: ScoringService
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 70, 90), dtype=np.uint8)
    rows = [
        {"image": encode(frame) if number % 4 else b"x", "roi": f"3,3,{60 + number},60"}
        for number, frame in enumerate(frames)
    ]
    for row, found, expected in zip(rows, openvino.score(rows), service.score(rows), strict=True):
        assert found.status == expected.status == (415 if row["image"] == b"x" else 200)
        alone = openvino.score([row])[0]
        for head, score in expected.body.get("heads", {}).items():
            probability = found.body["heads"][head]["probability"]
            assert probability == pytest.approx(score["probability"], abs=1e-3)
            assert probability == pytest.approx(alone.body["heads"][head]["probability"], abs=1e-6)


def test_an_engine_that_fails_the_golden_examples_gives_way_where_a_fallback_is_set(
    unpacked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    folder = Path(shutil.copytree(unpacked, tmp_path / "archive"))
    path = folder / "golden" / "golden.json"
    examples = json.loads(path.read_text())
    made = ScoringService()
    made.initialize(context_of(folder, engine="cuda", fallback=("openvino-fp32", "eager")))
    assert made.model.engine == "openvino-cpu-fp32"
    assert "engine cuda is not used: " in caplog.text
    examples[0]["probabilities"]["alnm"] += 0.01
    path.write_text(json.dumps(examples))
    with pytest.raises(GoldenMismatch, match=r"0\.01 under eager-cpu-fp32"):
        made.initialize(context_of(folder, engine="openvino-fp32", fallback=("eager",)))
    assert "is not used: golden golden_0.png, head alnm: " in caplog.text


def test_a_worker_without_its_device_answers_and_ends_at_the_next_batch(unpacked: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(unpacked)!r})
import torch
from handlers import cuda_health
from tests.conftest import encode
from tests.handlers.contexts import FakeContext, context_of
from handlers.service import ScoringService
from tests.handlers.contexts import FakeContext, context_of
from pathlib import Path
import numpy as np

service = ScoringService()
service.initialize(context_of(Path({str(unpacked)!r})))
rows = [{{"body": encode(np.eye(40, dtype=np.uint8))}}]

def fail(rows):
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")

service.inference = fail
for lost in (False, True):
    cuda_health.context_is_lost = lambda device: lost
    context = FakeContext([{{}}])
    print(service.handle(rows, context), context.status, flush=True)
service.handle(rows, FakeContext([{{}}]))
print("still there")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 70, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2  # an error that leaves the device usable does not end the worker
    assert all('"code": "inference_failed"' in line and "{0: 500}" in line for line in lines)
    assert done.stderr.count("the CUDA context is lost") == 1


def test_a_worker_without_its_device_ends_when_idle() -> None:
    code = (
        "import time; from handlers import cuda_health; cuda_health.IDLE_S = 0.1; "
        "cuda_health.end_process_when_idle(); time.sleep(30)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 70


def test_the_cpu_context_is_never_lost() -> None:
    assert not cuda_health.context_is_lost(torch.device("cpu"))


@pytest.mark.parametrize("fails", [True, False])
def test_a_lost_context_shows_at_the_device(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    def synchronize(device: torch.device) -> None:
        if fails:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch, "ones", lambda n, device: torch.zeros(n))
    assert cuda_health.context_is_lost(torch.device("cuda", 0)) is fails
