"""The stages of a row around the forward pass: preprocess, explain, postprocess.

They say what a row's answer is. Threads, batches and failures of a whole batch are the service's.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from handlers import requests, responses
from handlers.engines.base import Forward
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
Explained = dict[str, Heatmap] | RowError
"""The heat maps that a row asks for, by head, or why it has none."""


def preprocess(row: RequestRow, headers: Mapping[str, str], card: ModelCard) -> Prepared | RowError:
    """Parse, decode, crop and resize one row; thread-safe, CPU only."""
    try:
        request = requests.parse(row, headers, [head.name for head in card.heads])
        return prepare(request, card.preprocessing)
    except RowError as error:
        return error
    except Exception as error:
        # Nothing that a row holds may fail its neighbours. Its text could be the row's own.
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        logger.error("preprocess failed: %s in %s, line %s", kind, where.name, where.lineno)
        return PreprocessFailed("internal error in preprocessing; see the worker's log")


def explain(
    prepared: Sequence[Prepared],
    forward: Forward,
    attributor: Attributor,
    deadline: float = math.inf,
) -> list[Explained]:
    """The heat maps of each row, decided row by row.

    After `deadline`, of `time.monotonic()`, only Grad-CAM maps are made.
    """
    explained: list[Explained] = []
    for item, logits_L, features_Chw in zip(
        prepared, forward.logits_BL, forward.features_BChw, strict=True
    ):
        try:
            maps = heatmaps.of_row(item, attributor, logits_L, features_Chw, deadline)
            explained.append(maps)
        except RowError as error:
            explained.append(error)
        except Exception:  # of any kind: the other rows keep their scores
            logger.exception("explanation failed")
            failure = (
                "explain: the heat map failed; see the worker's log, or send it without explain"
            )
            explained.append(ExplanationFailed(failure))
    return explained


def postprocess(
    prepared: Sequence[Prepared],
    forward: Forward,
    explained: Sequence[Explained],
    model: ModelIdentity,
    attributor: Attributor,
    distance: Distance | None,
) -> list[Outcome]:
    """Calibrated probabilities, labels, coherence, spread and distance of each row.

    `distance` says how unlike the training's an image is; None where the card has no limit for it.
    """
    card = attributor.card
    probability_BL = heads.probabilities(forward.logits_BL, card.heads, card.hierarchy)
    spreads: list[list[float] | None] = [None] * len(prepared)
    if card.members > 1:
        logits_MBL = attributor.network.member_logits(forward.features_BChw).cpu()
        spreads = heads.spread(logits_MBL, card.heads, card.hierarchy).tolist()
    unlike: list[float | None] = [None] * len(prepared)
    if distance is not None:
        unlike = distance.scores(average(forward.features_BChw)).tolist()
    # Of the logits: an infinite one would be a probability of 0 or 1.
    finite = torch.isfinite(forward.logits_BL).all(dim=1).tolist()
    outcomes = []
    rows = zip(prepared, finite, probability_BL.tolist(), spreads, explained, unlike, strict=True)
    for item, is_finite, probability_L, spread_L, maps, its_distance in rows:
        if not is_finite:
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
        found = responses.scored(model, item.roi, card.heads, scores, item.warnings, maps)
        outcomes.append(responses.with_distance(found, its_distance, card.out_of_distribution))
    return outcomes
