"""What is told of a batch: the line per request, the metrics, and what it costs."""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from handlers import responses
from handlers.errors import ImageTooLarge
from handlers.responses import ModelIdentity, Outcome
from handlers.telemetry import StageTimes, Telemetry, bin_of, quieten_warnings

METRICS = Path(__file__).resolve().parents[2] / "archives" / "torchserve" / "metrics.yaml"
MODEL = ModelIdentity(name="m", version="2.1", sha256="ab" * 32, engine="eager-cpu-fp32")
UUID = "94f9da08-2d15-4a59-bd4a-418422cf6961"


class FakeMetric:
    """A metric of TorchServe's cache: keeps what it is given, and checks it as TorchServe does."""

    def __init__(self, dimensions: list[str]) -> None:
        self.dimensions = dimensions
        self.updates: list[tuple[Any, list[str]]] = []

    def add_or_update(self, value: object, labels: list[str]) -> None:
        assert len(labels) == len(self.dimensions)
        # The line that TorchServe parses splits at these; a value in exponent form it refuses.
        assert not re.search(r"[,:|\s]", "".join(labels))
        assert re.fullmatch(r"[0-9.]+", str(value))
        self.updates.append((float(str(value)), labels[2:]))


def fake_metrics() -> dict[str, FakeMetric]:
    """Those of the node's own configuration."""
    listed = yaml.safe_load(METRICS.read_text())["model_metrics"]
    return {m["name"]: FakeMetric(m["dimensions"]) for kind in listed.values() for m in kind}


def scored(probability: float, warning: str | None = None, consistent: bool = True) -> Outcome:
    heads = {"malignancy": {"probability": probability}, "alnm": {"probability": 0.31}}
    found = [warning] if warning else []
    return Outcome(200, {"heads": heads, "warnings": found, "consistent": consistent})


@pytest.fixture
def metrics() -> Iterator[dict[str, FakeMetric]]:
    kept = warnings.showwarning
    yield fake_metrics()
    warnings.showwarning = kept


def telemetry(metrics: dict[str, FakeMetric]) -> Telemetry:
    # By kind, under keys that are an enum in TorchServe.
    return Telemetry(MODEL, SimpleNamespace(metrics=SimpleNamespace(cache={object(): metrics})))


def test_a_line_and_the_metrics_of_a_mixed_batch(
    metrics: dict[str, FakeMetric], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outcomes = [
        scored(0.999, "whole_frame"),
        responses.failed(ImageTooLarge("image: 33 bytes")),
        scored(0.95, consistent=False),
        scored(1.0, "whole_frame"),
    ]
    times = StageTimes()
    times._spans = {"preprocess": (1.0, 1.0123456), "handle": (2.0, 2.000001)}
    telemetry(metrics).record([f"DOE^JANE:{UUID}", UUID, UUID, None], outcomes, times)
    lines = [json.loads(text) for text in caplog.messages]
    assert [line["request_id"] for line in lines] == [UUID, UUID, UUID, None]
    assert [line["status"] for line in lines] == [200, 413, 200, 200]
    assert [line["code"] for line in lines] == ["ok", "image_too_large", "ok", "ok"]
    assert [line["warnings"] for line in lines] == [["whole_frame"], [], [], ["whole_frame"]]
    first = lines[0]
    assert (first["event"], first["batch"]) == ("request", 4)
    assert (first["model"], first["version"], first["sha256"]) == ("m", "2.1", "ab" * 32)
    assert first["ms"] == {"preprocess": 12.35, "handle": 0.0}
    assert "33 bytes" not in caplog.text  # a message may be about what was sent
    told = {name: sorted(metric.updates) for name, metric in metrics.items()}
    assert told == {
        "sonode_model_info": [(1, ["ab" * 32, "eager-cpu-fp32"])],
        "sonode_worker_starts_total": [(1, [])],
        "sonode_batches_total": [(1, ["4"])],
        "sonode_stage_seconds": [(0.000001, ["handle"]), (0.012346, ["preprocess"])],
        "sonode_requests_total": [(1, ["413", "image_too_large"]), (3, ["200", "ok"])],
        "sonode_scores_total": [(3, ["alnm", "0.3-0.4"]), (3, ["malignancy", "0.9-1.0"])],
        "sonode_inconsistent_total": [(1, [])],
        "sonode_warned_total": [(2, [])],
        "sonode_warnings_total": [(2, ["whole_frame"])],
    }


@pytest.mark.parametrize("context", [SimpleNamespace(), SimpleNamespace(metrics=None)])
def test_without_torchserve_lines_alone(
    context: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Telemetry(MODEL, context).record([None], [scored(0.2)], StageTimes())
    assert [json.loads(text)["code"] for text in caplog.messages] == ["ok"]


def test_a_metric_that_is_not_configured_is_left_out(metrics: dict[str, FakeMetric]) -> None:
    del metrics["sonode_scores_total"]
    telemetry(metrics).record([UUID], [scored(0.2)], StageTimes())
    assert metrics["sonode_requests_total"].updates == [(1, ["200", "ok"])]


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "0.0-0.1"), (0.0999, "0.0-0.1"), (0.1, "0.1-0.2"), (0.5, "0.5-0.6"), (1.0, "0.9-1.0")],
)
def test_tenths_of_the_probability(probability: float, expected: str) -> None:
    assert bin_of(probability) == expected


def test_a_stage_lasts_from_its_first_row_to_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 1.5, 2.0, 4.0, 2.5, 3.0])
    monkeypatch.setattr("handlers.telemetry.time.perf_counter", lambda: next(clock))
    times = StageTimes()
    with times.measure("handle"), times.measure("preprocess"):
        pass
    with pytest.raises(ValueError, match="x"), times.measure("preprocess"):
        raise ValueError("x")
    assert times.seconds() == {"preprocess": 3.0 - 1.5, "handle": 4.0 - 1.0}


def test_a_warning_is_reported_without_its_text(
    metrics: dict[str, FakeMetric], caplog: pytest.LogCaptureFixture
) -> None:
    quieten_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("Invalid value for VR PN: 'DOE^JANE'", UserWarning, "decoder.py", 7)
    assert caplog.messages == ["UserWarning at decoder.py:7"]
