"""The TorchServe entry: one class that any server, or the batch job, can drive.

It stands alone at the archive's root, where TorchServe puts a handler: absolute imports only, and
no second class in this file. It loads an archive and drives rows through `handlers.stages` and the
archive's engine.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers import cuda_health, golden, integrity, responses, settings, stages, telemetry
from handlers.engines import choose
from handlers.engines.base import Forward
from handlers.errors import ExplanationFailed, InferenceFailed, RowError
from handlers.explain import attribution
from handlers.images.prepare import Prepared
from handlers.requests import METHODS
from handlers.responses import ModelIdentity, Outcome
from handlers.stages import RequestRow
from handlers.telemetry import StageTimes
from model_def import checkpoint, outliers

logger = logging.getLogger(__name__)

EXPLAIN_WITHIN_S = 20.0
"""What a batch may have taken when the last map of a slow method begins; a map takes seconds, and
TorchServe ends a worker that has not answered within `responseTimeout`."""

REASON_IS_READ_S = 1.0
"""How long a worker that cannot serve waits for TorchServe to read its output."""


class ScoringService:
    """Scores rows of breast-ultrasound images; one instance per worker process."""

    _device_lost = False

    def initialize(self, context: Any) -> None:
        """Load the unpacked archive and check its golden examples, which also warms it up.

        `context` is TorchServe's, or anything with `manifest`, `model_yaml_config` and
        `system_properties["model_dir"]`, `["gpu_id"]`; settings under `["handler"]` there override
        the archive's and the environment's (see `handlers.settings`). With `["being_packed"]`,
        which TorchServe never gives, nothing is checked: there are no golden examples yet.

        Raises:
            CheckpointError, GoldenMismatch, EngineUnavailable: the archive must not serve.
            SettingsError: an unknown setting, or an invalid value.
        """
        try:
            self._load(context)
        except Exception:
            if "server_name" in context.system_properties:  # TorchServe's
                # It drops what a worker has written and it has not yet read, once it sees the
                # worker fail. The reason is in its log before that.
                logger.exception("the archive does not serve")
                time.sleep(REASON_IS_READ_S)
            raise

    def _load(self, context: Any) -> None:
        properties = context.system_properties
        chosen = settings.read(context.model_yaml_config.get("handler"), properties.get("handler"))
        torch.set_num_threads(chosen.threads)
        folder = Path(properties["model_dir"])
        network, self.card = checkpoint.load(folder)
        self.distance = outliers.load(folder, self.card.out_of_distribution)
        self.device = choose.choose_device(properties.get("gpu_id"))
        self.attributor = attribution.Attributor(network, self.card)
        self.head_labels = {head.name: head.labels for head in self.card.heads}
        self.methods = METHODS
        self.last_spans: dict[telemetry.Stage, tuple[float, float]] = {}
        """Of the batch that `handle` answered last, for a server that traces requests."""
        model = context.manifest["model"]
        self.model = ModelIdentity(
            name=model["modelName"],
            version=model["modelVersion"],
            sha256=integrity.archive_sha256(folder),
            engine="none",
        )
        self._decoders = ThreadPoolExecutor(chosen.threads, "decode")

        def use(name: settings.EngineName) -> float:
            self.engine = choose.build(name, network, self.card.preprocessing, self.device, chosen)
            self.model = dataclasses.replace(self.model, engine=self.engine.name)
            self._forward_threads = ThreadPoolExecutor(self.engine.max_concurrency, "forward")
            if properties.get("being_packed"):
                return 0.0
            return golden.verify(folder / golden.FOLDER, self.score, self.engine)

        largest = choose.first_that_holds(
            choose.candidates(chosen, self.device, self.card.architecture), use
        )
        self.telemetry = telemetry.Telemetry(self.model, context)
        logger.info(
            "ready: %s %s sha256 %s engine %s, golden examples within %.2g",
            *dataclasses.astuple(self.model),
            largest,
        )

    def handle(self, rows: Sequence[RequestRow], context: Any) -> list[bytes]:
        """Answer TorchServe: one JSON body per row, in order, each with its own status."""
        if self._device_lost:
            cuda_health.end_process()
        times = StageTimes()
        with times.measure("handle"):
            headers = [context.get_all_request_header(index) for index in range(len(rows))]
            outcomes = self.score(rows, headers, times)
            bodies = [responses.to_json(outcome.body) for outcome in outcomes]
        for index, outcome in enumerate(outcomes):
            phrase = "OK" if outcome.status == 200 else outcome.body["code"]
            context.set_response_status(outcome.status, phrase, index)
            context.set_response_content_type(index, "application/json")
            for name, value in responses.headers(outcome).items():
                context.set_response_header(index, name, value)
        ids = [context.get_request_id(index) for index in range(len(rows))]
        self.telemetry.record(ids, outcomes, times)
        self.last_spans = times.spans()
        if self._device_lost:
            cuda_health.end_process_when_idle()
        return bodies

    def score(
        self,
        rows: Sequence[RequestRow],
        headers: Sequence[Mapping[str, str]] | None = None,
        times: StageTimes | None = None,
    ) -> list[Outcome]:
        """All stages for request rows (see `handlers.requests`); one outcome per row, in order.

        A failing row keeps its error at its index; the others go on. Rows with headers come from a
        server: somebody waits for them, so the time of explanations is limited.
        `times` receives when the rows were in which stage.
        """
        deadline = time.monotonic() + (math.inf if headers is None else EXPLAIN_WITHIN_S)
        times = times or StageTimes()

        def prepare(row: RequestRow, of_row: Mapping[str, str]) -> Prepared | RowError:
            with times.measure("preprocess"):
                return self.preprocess(row, of_row)

        headers = headers or [{}] * len(rows)
        # One row alone is not handed to other threads: that would only cost time.
        decoded = (self._decoders.map if len(rows) > 1 else map)(prepare, rows, headers)
        outcomes: dict[int, Outcome] = {}
        started: list[tuple[list[int], Future[list[Outcome]]]] = []
        waiting: dict[int, Prepared] = {}
        for index, item in enumerate(decoded):
            if isinstance(item, Prepared):
                waiting[index] = item
            else:
                outcomes[index] = responses.failed(item)
            # The first rows go through the network while the next ones are decoded.
            if len(waiting) == self.engine.micro_batch < len(rows):
                together = [*waiting.values()]
                future = self._forward_threads.submit(
                    self.score_prepared, together, deadline, times
                )
                started.append(([*waiting], future))
                waiting = {}
        outcomes |= zip(
            waiting, self.score_prepared([*waiting.values()], deadline, times), strict=True
        )
        for indices, future in started:
            outcomes |= zip(indices, future.result(), strict=True)
        return [outcomes[index] for index in range(len(rows))]

    def preprocess(self, row: RequestRow, headers: Mapping[str, str]) -> Prepared | RowError:
        """Parse, decode, crop and resize one row; thread-safe, CPU only."""
        return stages.preprocess(row, headers, self.card)

    def inference(self, prepared: Sequence[Prepared]) -> Forward:
        """Logits and features of the stacked rows."""
        return self.engine.forward(torch.from_numpy(np.stack([item.input_SS for item in prepared])))

    def score_prepared(
        self,
        prepared: Sequence[Prepared],
        deadline: float = math.inf,
        times: StageTimes | None = None,
    ) -> list[Outcome]:
        """Inference, heat maps and results of decoded rows; one outcome per row, in order.

        If a batch raises, its rows are scored one by one, so that only the faulty one fails.
        `deadline` as of `stages.explain`, `times` as of `score`. Raises nothing; after a failure
        `device_is_lost` says whether the device still works.
        """
        if not prepared:
            return []
        times = times or StageTimes()
        try:
            with times.measure("inference"):
                forward = self.inference(prepared)
            with times.measure("explain"):
                explained = stages.explain(prepared, forward, self.attributor, deadline)
            if any(isinstance(it, ExplanationFailed) for it in explained):
                self.device_is_lost()
            with times.measure("postprocess"):
                return stages.postprocess(
                    prepared, forward, explained, self.model, self.attributor, self.distance
                )
        except Exception:  # of any kind: a coded answer instead of the 503 of a dead batch
            logger.exception("scoring failed for %d rows", len(prepared))
            self.device_is_lost()
            if len(prepared) > 1 and not self._device_lost:  # one by one: only the bad row fails
                return [self.score_prepared([item], deadline, times)[0] for item in prepared]
            failure = InferenceFailed("scoring failed; see the worker's log")
            return [responses.failed(failure)] * len(prepared)

    def device_is_lost(self) -> bool:
        """Whether every call on the device fails from now on, as after a CUDA context is lost.

        Called after an error that may have been the device's own. Once lost it stays lost.
        """
        self._device_lost = self._device_lost or cuda_health.context_is_lost(self.device)
        return self._device_lost
