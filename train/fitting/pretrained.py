"""Where a trunk's weights come from before training: nowhere, ImageNet, or a file."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load

from model_def.network import TRUNK, Architecture, Network
from sonode.console import UserError


def load_trunk(network: Network, architecture: Architecture, source: str) -> str:
    """Fill the trunk (in place) from `none`, `imagenet`, or the path of a file.

    A file is a checkpoint's `weights.safetensors`, or a torchvision ResNet's state dict
    (.safetensors, or .pth read without running code); its classifier is not used. `imagenet` is
    torchvision's IMAGENET1K_V1, fetched once into torch's cache.

    Returns:
        What the card says of it: a file by its SHA-256 as it was read, for its path is nobody's
        business.

    Raises:
        UserError: the weights cannot be had, or belong to another architecture.
    """
    if source == "none":
        return source
    if source == "imagenet":
        state, known_as = _imagenet(architecture), source
    else:
        state, known_as = _from_file(Path(source))
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
            raise RuntimeError(f"{len(missing)} of {len(expected)} tensors are missing")
        network.load_state_dict(trunk, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"model.weights {source}: not the weights of a {architecture} "
            f"({str(error).splitlines()[-1].strip()}); give weights of that architecture"
        ) from error
    return known_as


def _imagenet(architecture: Architecture) -> dict[str, torch.Tensor]:
    weights = torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"]
    try:
        state: dict[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # no answer, or whatever a proxy answered in the file's place
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"model.weights imagenet: cannot fetch {weights.url} ({why}); give the file's path, "
            "or `none`"
        ) from error
    return state


def _from_file(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors, and the digest of the bytes that they were read from."""
    if not path.is_file():
        raise UserError(f"model.weights {path}: no such file; give none, imagenet or a file")
    try:
        data = path.read_bytes()
        state: dict[str, torch.Tensor] = (
            load(data)
            if path.suffix == ".safetensors"
            else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        )
    except Exception as error:  # whatever an unpickler meets in a file that is something else
        raise UserError(
            f"model.weights {path}: not a weights file; give a .safetensors or a .pth state dict"
        ) from error
    return state, f"sha256 {hashlib.sha256(data).hexdigest()}"
