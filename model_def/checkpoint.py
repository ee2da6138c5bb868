"""The checkpoint: a folder with `weights.safetensors` and `model.json`; no pickle anywhere."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model_def.heads import HeadSpec, Hierarchy, check_heads
from model_def.network import ArchitectureError, Network
from model_def.outliers import OutlierLimit
from model_def.preprocessing import Preprocessing

WEIGHTS = "weights.safetensors"
CARD = "model.json"


class CheckpointError(ValueError):
    """A checkpoint that is absent, incomplete or contradicts itself."""


class ModelCard(BaseModel):
    """Everything about a model that is not a weight; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    """Version of this layout."""
    architecture: str
    """Trunk of the network, see `model_def.network`."""
    members: Annotated[int, Field(ge=1)] = 1
    """Networks of that trunk whose logits are averaged."""
    heads: tuple[HeadSpec, ...]
    """Heads in the order of the network's logits."""
    hierarchy: Hierarchy = "independent"
    """How heads depend on their parents."""
    preprocessing: Preprocessing
    """How a RoI becomes the network's input."""
    out_of_distribution: OutlierLimit | None = None
    """When an image is unlike the training's; None where the training set no limit."""
    training: dict[str, Any]
    """Provenance: seed, cohort, labels per head, configuration, library versions."""

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelCard:
        check_heads(self.heads)
        return self


def save(
    folder: Path, network: Network, card: ModelCard, beside: Mapping[str, bytes] | None = None
) -> None:
    """Write the checkpoint to `folder`, complete or not at all; an older one is replaced.

    `beside`: further files by name, for the training's own use or for `model_def.outliers`.
    """
    with whole_folder(folder) as staged:
        tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, staged / WEIGHTS)
        text = json.dumps(card.model_dump(mode="json"), indent=2, allow_nan=False)
        (staged / CARD).write_text(text + "\n")
        for name, content in (beside or {}).items():
            (staged / name).write_bytes(content)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which replaces `folder` at the end, or is removed on an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield staged
        staged.chmod(0o755)
        _replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _replace(staged: Path, folder: Path) -> None:
    """Put the complete folder `staged` where `folder` is, or may be; both have the same parent.

    Whatever interrupts it, one of the two stands at `folder`. Only a kill between two renames can
    leave none there; both are then whole beside it, the previous one as `.NAME-previous`.
    """
    previous = folder.with_name(f".{folder.name}-previous")
    if previous.exists() and folder.exists():
        shutil.rmtree(previous)  # left by a kill later on
    try:
        if folder.exists():
            folder.rename(previous)
        staged.rename(folder)
    except BaseException:  # Ctrl-C, too
        if previous.exists() and not folder.exists():
            previous.rename(folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def read_card(folder: Path) -> ModelCard:
    """The validated card of the checkpoint in `folder`.

    Raises CheckpointError: there is no card, or it does not follow the schema.
    """
    path = folder / CARD
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: has no {CARD}; give the folder that `sonode train fit` wrote"
        )
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or CARD
        raise CheckpointError(
            f"{folder.name}/{CARD}: field `{field}`: {first['msg']}; train or copy it again"
        ) from error


def load(folder: Path) -> tuple[Network, ModelCard]:
    """The network in evaluation mode, on the CPU, and its card.

    Raises CheckpointError: a file is absent or damaged, weights and card do not fit, or what the
    trunk needs is not installed.
    """
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        n_logits = sum(head.n_logits for head in card.heads)
        network = Network(card.architecture, n_logits, card.members)
    except ArchitectureError as error:
        raise CheckpointError(f"{folder.name}/{CARD}: {error}") from error
    try:
        network.load_state_dict(load_file(path), strict=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: has no {WEIGHTS}; train or copy it again") from error
    except SafetensorError as error:
        raise CheckpointError(f"{folder.name}/{WEIGHTS}: damaged ({error})") from error
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder.name}/{WEIGHTS}: does not fit a {card.architecture} with "
            f"the {len(card.heads)} heads as {CARD} says; the two files are not of one checkpoint"
        ) from error
    return network.eval(), card
