"""Where a trunk's weights come from before training: nowhere, ImageNet, or a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file

from model_def.network import TRUNK, Architecture, Network
from sonode_console import UserError


def load_trunk(network: Network, architecture: Architecture, source: str) -> None:
    """Fill the trunk (in place) from `none`, `imagenet`, or the path of a file.

    A file is a checkpoint's `weights.safetensors`, or a torchvision ResNet's state dict
    (.safetensors, or .pth read without running code); its classifier is not used. `imagenet` is
    torchvision's IMAGENET1K_V1, fetched once into torch's cache.

    Raises:
        UserError: the weights cannot be had, or belong to another architecture.
    """
    if source == "none":
        return
    state = _imagenet(architecture) if source == "imagenet" else _from_file(Path(source))
    trunk = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        if first in TRUNK:
            trunk[f"trunk.{TRUNK.index(first)}.{rest}"] = value
        elif first == "trunk":
            trunk[key] = value
    expected = {key for key in network.state_dict() if key.startswith("trunk.")}
    try:
        missing = expected - set(trunk)
        if missing:
            raise RuntimeError(f"{len(missing)} of {len(expected)} tensors are absent")
        network.load_state_dict(trunk, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"model.weights {source}: not the weights of a {architecture} "
            f"({str(error).splitlines()[-1].strip()}); give those of that architecture"
        ) from error


def provenance(source: str) -> str:
    """What the card says of a source: a file by its SHA-256, for its path is nobody's business."""
    if source in ("none", "imagenet"):
        return source
    with Path(source).open("rb") as file:
        return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _imagenet(architecture: Architecture) -> dict[str, torch.Tensor]:
    weights = torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"]
    try:
        state: dict[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError is one
        raise UserError(
            f"model.weights imagenet: cannot fetch {weights.url} ({error}); give the file's path, "
            "or `none`"
        ) from error
    return state


def _from_file(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"model.weights {path}: no such file; give none, imagenet or a file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an unpickler meets in a file that is something else
        raise UserError(
            f"model.weights {path}: not a weights file; give a .safetensors or a .pth state dict"
        ) from error
    return state
