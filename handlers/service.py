"""The TorchServe entry: one class that any server, or the batch job, can drive.

It stands alone at the archive's root, where TorchServe puts a handler: absolute imports only, and
no second class in this file. The stages are verbs, each callable alone: `initialize`,
`preprocess`, `inference`, `explain`, `postprocess`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers import attribution, engines, golden, images, integrity, requests, responses
from handlers.engines import Forward
from handlers.errors import InferenceFailed, RequestError
from handlers.images import Prepared
from handlers.responses import Heatmap, ModelIdentity, Outcome
from model_def import checkpoint, gradcam, heads

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class ScoringService:
    """Scores rows of breast-ultrasound images; one instance per worker process."""

    def initialize(self, context: Any) -> None:
        """Load the unpacked archive and prove it on its golden examples, which also warms it up.

        `context` is TorchServe's, or anything with `manifest` and
        `system_properties["model_dir"]`, `["gpu_id"]`.

        Raises:
            CheckpointError, GoldenMismatch: the archive must not serve.
        """
        folder = Path(context.system_properties["model_dir"])
        network, self.card = checkpoint.load(folder)
        device = engines.choose_device(context.system_properties.get("gpu_id"))
        self.engine = engines.EagerEngine(network, self.card.preprocessing, device)
        self.weight_LC = network.heads.weight.detach()
        self.head_labels = {head.name: head.labels for head in self.card.heads}
        self.methods = attribution.METHODS
        model = context.manifest["model"]
        self.model = ModelIdentity(
            name=model["modelName"],
            version=model["modelVersion"],
            sha256=integrity.archive_sha256(folder),
            engine=self.engine.name,
        )
        largest = golden.verify(folder / golden.FOLDER, self.score, self.engine.tolerance)
        logger.info(
            "ready: %s %s sha256 %s engine %s, goldens within %.2g",
            self.model.name,
            self.model.version,
            self.model.sha256,
            self.model.engine,
            largest,
        )

    def handle(self, rows: Sequence[Row], context: Any) -> list[bytes]:
        """Answer TorchServe: one JSON body per row, in order, each with its own status."""
        headers = [context.get_all_request_header(index) for index in range(len(rows))]
        outcomes = self.score(rows, headers)
        for index, outcome in enumerate(outcomes):
            phrase = "OK" if outcome.status == 200 else outcome.body["code"]
            context.set_response_status(outcome.status, phrase, index)
            context.set_response_content_type(index, "application/json")
        return [responses.to_json(outcome.body) for outcome in outcomes]

    def score(
        self, rows: Sequence[Row], headers: Sequence[Mapping[str, str]] | None = None
    ) -> list[Outcome]:
        """All stages for request rows (see `handlers.requests`); one outcome per row, in order.

        A failing row keeps its error at its index; the others go on.
        """
        prepared = [
            self.preprocess(row, headers[index] if headers else {})
            for index, row in enumerate(rows)
        ]
        ready = [item for item in prepared if isinstance(item, Prepared)]
        outcomes = iter(self._score_prepared(ready))
        return [
            next(outcomes) if isinstance(item, Prepared) else responses.failed(item)
            for item in prepared
        ]

    def preprocess(self, row: Row, headers: Mapping[str, str]) -> Prepared | RequestError:
        """Parse, decode, crop and resize one row; thread-safe, CPU only."""
        try:
            request = requests.parse(row, headers, list(self.head_labels))
            return images.prepare(request, self.card.preprocessing)
        except RequestError as error:
            return error

    def inference(self, prepared: Sequence[Prepared]) -> Forward:
        """Logits and features of the stacked rows."""
        return self.engine.forward(torch.from_numpy(np.stack([item.input_SS for item in prepared])))

    def explain(self, prepared: Sequence[Prepared], forward: Forward) -> list[dict[str, Heatmap]]:
        """The heat maps that each row asks for, by head; decided row by row.

        A binary head explains its logit (in a chain, that of the conditional probability), a
        categorical one the logit of its most probable label.
        """
        slices = heads.logit_slices(self.card.heads)

        def weight_of(index: int, name: str) -> torch.Tensor:
            return self.weight_LC[slices[name]][forward.logits_BL[index, slices[name]].argmax()]

        return [
            {
                name: Heatmap(
                    item.explain.method,
                    gradcam.overlay(
                        item.crop_HW,
                        gradcam.grad_cam(forward.features_BChw[index], weight_of(index, name)),
                    ),
                )
                for name in item.explain.heads
            }
            if item.explain
            else {}
            for index, item in enumerate(prepared)
        ]

    def postprocess(
        self,
        prepared: Sequence[Prepared],
        forward: Forward,
        heatmaps: Sequence[Mapping[str, Heatmap]],
    ) -> list[Outcome]:
        """Calibrated probabilities, labels and coherence of each row."""
        card = self.card
        probability_BL = heads.probabilities(forward.logits_BL, card.heads, card.hierarchy)
        outcomes = []
        rows = probability_BL.tolist()
        for item, probability_L, maps in zip(prepared, rows, heatmaps, strict=True):
            if not np.isfinite(probability_L).all():
                outcomes.append(responses.failed(InferenceFailed("the network gave no number")))
                continue
            scores = heads.read(probability_L, card.heads)
            outcomes.append(
                responses.scored(self.model, item.roi, card.heads, scores, item.warnings, maps)
            )
        return outcomes

    def _score_prepared(self, prepared: Sequence[Prepared]) -> list[Outcome]:
        if not prepared:
            return []
        try:
            forward = self.inference(prepared)
            return self.postprocess(prepared, forward, self.explain(prepared, forward))
        except RuntimeError:
            # torch's errors; the rows get a coded answer instead of the 503 of a dead batch.
            logger.exception("inference failed for %d rows", len(prepared))
            failure = InferenceFailed("the forward pass failed; see the worker's log")
            return [responses.failed(failure)] * len(prepared)
