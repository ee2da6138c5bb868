"""What a worker reports: a JSON log line per request, and metrics by model version.

It reports no text that a client sent: no header, field, file name or path, and of a request id only
the part that TorchServe made. docs/operate.md explains each field and metric.

TorchServe reads both from the worker's standard output. Its metrics are those of the file that
`metrics_config` names (`archives/torchserve/metrics.yaml`); where one is not in there, or where no
TorchServe runs at all, it is left out.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from handlers.responses import ModelIdentity, Outcome, code_of

logger = logging.getLogger(__name__)

Stage = Literal["preprocess", "inference", "explain", "postprocess", "handle"]

UUID_LENGTH = 36
BINS = 10  # of the probabilities' distribution


class StageTimes:
    """When one batch was in each stage; stages may overlap; thread-safe."""

    def __init__(self) -> None:
        self._spans: dict[Stage, tuple[float, float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Note the time that the block takes, also where it raises."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            with self._lock:
                first, last = self._spans.get(stage, (started, ended))
                self._spans[stage] = min(first, started), max(last, ended)

    def spans(self) -> dict[Stage, tuple[float, float]]:
        """By stage: when the first row entered it and the last left it, of `time.perf_counter`."""
        return dict(self._spans)

    def seconds(self) -> dict[Stage, float]:
        """By stage: how long that is."""
        return {stage: ended - started for stage, (started, ended) in self._spans.items()}


class Telemetry:
    """Reports each batch; `context` is TorchServe's."""

    def __init__(self, model: ModelIdentity, context: Any) -> None:
        self._model = model
        # The cache's keys are an enum of TorchServe's, which an archive does not import.
        cache = getattr(getattr(context, "metrics", None), "cache", {})
        self._metrics = {
            name: metric for by_name in cache.values() for name, metric in by_name.items()
        }
        if cache:
            quieten_warnings()
        self._add("sonode_model_info", 1, model.sha256, model.engine)
        self._add("sonode_worker_starts_total", 1)

    def record(
        self,
        request_ids: Sequence[str | None],
        outcomes: Sequence[Outcome],
        times: StageTimes,
    ) -> None:
        """Log a line for each row of a batch and update the metrics."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        milliseconds = {stage: round(1000 * spent, 2) for stage, spent in times.seconds().items()}
        for request_id, outcome in zip(request_ids, outcomes, strict=True):
            line = {
                "event": "request",
                "time": now,
                # TorchServe puts the client's header `x-request-id-prefix` before its own part.
                "request_id": request_id and request_id[-UUID_LENGTH:],
                "model": self._model.name,
                "version": self._model.version,
                "sha256": self._model.sha256,
                "engine": self._model.engine,
                "status": outcome.status,
                "code": code_of(outcome),
                "warnings": outcome.body.get("warnings", []),
                "batch": len(outcomes),
                "ms": milliseconds,
            }
            logger.info("%s", json.dumps(line))
        self._count(outcomes, times)

    def _count(self, outcomes: Sequence[Outcome], times: StageTimes) -> None:
        """Counters first summed over the batch: each update is a line that TorchServe parses."""
        self._add("sonode_batches_total", 1, str(len(outcomes)))
        for stage, spent in times.seconds().items():
            self._add("sonode_stage_seconds", spent, stage)
        answers = Counter((str(outcome.status), code_of(outcome)) for outcome in outcomes)
        for labels, count in answers.items():
            self._add("sonode_requests_total", count, *labels)
        scored = [outcome.body for outcome in outcomes if outcome.status == 200]
        if not scored:
            return
        scores = Counter(
            (head, bin_of(score["probability"]))
            for body in scored
            for head, score in body["heads"].items()
        )
        for labels, count in scores.items():
            self._add("sonode_scores_total", count, *labels)
        # Also where it is none: a series that is not there reads as "no data", not as 0.
        self._add("sonode_inconsistent_total", sum(not body["consistent"] for body in scored))
        self._add("sonode_warned_total", sum(bool(body["warnings"]) for body in scored))
        for warning, count in Counter(w for body in scored for w in body["warnings"]).items():
            self._add("sonode_warnings_total", count, warning)

    def _add(self, name: str, value: float, *labels: str) -> None:
        if name in self._metrics:
            self._metrics[name].add_or_update(
                # Fixed point: TorchServe does not read 1e+02.
                f"{value:.6f}" if isinstance(value, float) else value,
                [self._model.name, self._model.version, *labels],
            )


def bin_of(probability: float) -> str:
    """The tenth that a probability lies in, for example `0.3-0.4`; 1 lies in the last.

    TorchServe's histograms have the buckets of seconds (0.005 to 10) and take no others.
    """
    lower = min(int(probability * BINS), BINS - 1)
    return f"{lower / BINS:.1f}-{(lower + 1) / BINS:.1f}"


def quieten_warnings() -> None:
    """Log Python's warnings by kind and place only: a decoder's text may quote the file."""

    def log_place(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        logger.warning("%s at %s:%d", category.__name__, filename, lineno)

    warnings.showwarning = log_place
