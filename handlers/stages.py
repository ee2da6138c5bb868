"""The stages of a row, each callable alone: preprocess, inference, explain, postprocess.

They say what a row's answer is. Threads, batches and failures of a whole batch are the service's.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from handlers import cuda_health, requests, responses
from handlers.engines.base import Engine, Forward
from handlers.errors import ExplanationFailed, InferenceFailed, PreprocessFailed, RowError
from handlers.explain import heatmaps
from handlers.explain.attribution import Attributor
from handlers.images.prepare import Prepared, prepare
from handlers.responses import Heatmap, ModelIdentity, Outcome
from model_def import heads
from model_def.checkpoint import ModelCard
from model_def.network import average
from model_def.outliers import Distance

logger = logging.getLogger(__name__)

RequestRow = Mapping[str, Any]


class Stages:
    """The stages with what an archive holds; the service sets these fields when it loads one."""

    card: ModelCard
    model: ModelIdentity
    head_labels: dict[str, tuple[str, ...]]
    device: torch.device
    engine: Engine
    attributor: Attributor
    distance: Distance | None
    """How unlike the training's an image is; None where the card has no limit for it."""
    _device_lost = False

    def preprocess(self, row: RequestRow, headers: Mapping[str, str]) -> Prepared | RowError:
        """Parse, decode, crop and resize one row; thread-safe, CPU only."""
        try:
            request = requests.parse(row, headers, list(self.head_labels))
            return prepare(request, self.card.preprocessing)
        except RowError as error:
            return error
        except Exception as error:
            # Nothing that a row holds may fail its neighbours. Its text could be the row's own.
            where = traceback.extract_tb(error.__traceback__)[-1]
            logger.error(
                "preprocess failed: %s in %s, line %s",
                type(error).__name__,
                where.name,
                where.lineno,
            )
            return PreprocessFailed("internal error in preprocessing; see the worker's log")

    def inference(self, prepared: Sequence[Prepared]) -> Forward:
        """Logits and features of the stacked rows."""
        return self.engine.forward(torch.from_numpy(np.stack([item.input_SS for item in prepared])))

    def explain(
        self, prepared: Sequence[Prepared], forward: Forward, deadline: float = math.inf
    ) -> list[dict[str, Heatmap] | RowError]:
        """The heat maps that each row asks for, by head, or why it has none; decided row by row.

        After `deadline`, of `time.monotonic()`, only Grad-CAM maps are made.
        """
        return [
            self._explain_row(item, logits_L, features_Chw, deadline)
            for item, logits_L, features_Chw in zip(
                prepared, forward.logits_BL, forward.features_BChw, strict=True
            )
        ]

    def postprocess(
        self,
        prepared: Sequence[Prepared],
        forward: Forward,
        explained: Sequence[Mapping[str, Heatmap] | RowError],
    ) -> list[Outcome]:
        """Calibrated probabilities, labels, coherence, spread and distance of each row."""
        card = self.card
        probability_BL = heads.probabilities(forward.logits_BL, card.heads, card.hierarchy)
        spreads: list[list[float] | None] = [None] * len(prepared)
        if card.members > 1:
            logits_MBL = self.attributor.network.member_logits(forward.features_BChw).cpu()
            spreads = heads.spread(logits_MBL, card.heads, card.hierarchy).tolist()
        unlike: list[float | None] = [None] * len(prepared)
        if self.distance is not None:
            unlike = self.distance.scores(average(forward.features_BChw)).tolist()
        outcomes = []
        rows = zip(prepared, probability_BL.tolist(), spreads, explained, unlike, strict=True)
        for item, probability_L, spread_L, maps, distance in rows:
            if not np.isfinite(probability_L).all():
                failure = InferenceFailed(
                    "model output is NaN or infinite; check the archive with "
                    "`sonode inspect ARCHIVE --verify`"
                )
                outcomes.append(responses.failed(failure))
                continue
            if isinstance(maps, RowError):
                outcomes.append(responses.failed(maps))
                continue
            scores = heads.read(probability_L, card.heads, spread_L)
            found = responses.scored(self.model, item.roi, card.heads, scores, item.warnings, maps)
            outcomes.append(responses.with_distance(found, distance, card.out_of_distribution))
        return outcomes

    def _explain_row(
        self,
        item: Prepared,
        logits_L: torch.Tensor,
        features_Chw: torch.Tensor,
        deadline: float,
    ) -> dict[str, Heatmap] | RowError:
        try:
            return heatmaps.of_row(
                item, self.attributor, self.card.preprocessing, logits_L, features_Chw, deadline
            )
        except RowError as error:
            return error
        except Exception:  # of any kind: the other rows keep their scores
            logger.exception("explanation failed")
            self.device_is_lost()
            return ExplanationFailed(
                "explain: the heat map failed; see the worker's log, or send it without explain",
                field="explain",
            )

    def device_is_lost(self) -> bool:
        """Whether every call on the device fails from now on, as after a CUDA context is lost.

        Called after an error that may have been the device's own. Once lost it stays lost.
        """
        self._device_lost = self._device_lost or cuda_health.context_is_lost(self.device)
        return self._device_lost
