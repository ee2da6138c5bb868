"""Networks of one recipe and several seeds as one checkpoint, and what they must share for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from model_def import checkpoint, outliers
from model_def.checkpoint import ModelCard
from model_def.network import joined
from sonode.console import UserError
from train.data.leakage import IMAGES
from train.fitting.pooled import Pooled


def check_alike(cards: Mapping[str, ModelCard]) -> None:
    """Refuse networks whose logits cannot be averaged, or that saw other patients; cards by folder.

    Raises UserError: trunk, heads, hierarchy, preprocessing or the training's patients differ.
    """
    first, *others = cards
    expected = _shared(cards[first])
    for name in others:
        for field, its in _shared(cards[name]).items():
            if its != expected[field]:
                raise UserError(
                    f"{name}: differs from {first} in its {field}, so the two cannot be averaged; "
                    "delete the folder that is of another training"
                )


def _shared(card: ModelCard) -> dict[str, object]:
    return {
        "architecture": card.architecture,
        "members": card.members,
        "heads": [(head.name, head.target, head.labels, head.parent) for head in card.heads],
        "hierarchy": card.hierarchy,
        "preprocessing": card.preprocessing,
        "cohort, or split": card.training["cohort"],
    }


def join(folders: Sequence[Path], pooled: Pooled, out: Path) -> None:
    """Write the checkpoint of networks on every patient, complete or not at all.

    Temperatures, thresholds and limits are `pooled`'s, which folds of as many members found. What
    else a checkpoint has is the first one's: the images that all of them saw, and the features that
    the out-of-distribution flag goes by.

    Raises UserError: a checkpoint is damaged, or they are not alike (see `check_alike`).
    """
    try:
        networks, cards = zip(*(checkpoint.load(folder) for folder in folders), strict=True)
    except checkpoint.CheckpointError as error:
        raise UserError(f"members: {error}") from error
    check_alike({folder.parent.name: card for folder, card in zip(folders, cards, strict=True)})
    first: ModelCard = cards[0]
    card = first.model_copy(
        update={
            "members": len(folders),
            "heads": pooled.heads,
            "out_of_distribution": pooled.out_of_distribution,
            "training": {
                **{name: fact for name, fact in first.training.items() if name != "seed"},
                "seeds": [card.training["seed"] for card in cards],
                "temperatures": pooled.temperatures,
                "score_reference": pooled.score_reference,
                "figures": pooled.figures,
            },
        }
    )
    beside = {
        name: path.read_bytes()
        for name in (IMAGES, outliers.FILE)
        if (path := folders[0] / name).is_file()
    }
    checkpoint.save(out, joined(card.architecture, networks), card, beside)
