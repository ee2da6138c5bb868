"""model-config.yaml against the TorchServe that reads it."""

import importlib.util
import zipfile
from pathlib import Path

import pytest
import yaml

PATH = Path(__file__).resolve().parents[3] / "archives" / "packing" / "model-config.yaml"


@pytest.fixture(scope="module")
def setters() -> bytes:
    """The class that TorchServe's YAML parser fills: a key without a setter is ignored there."""
    spec = importlib.util.find_spec("ts")
    assert spec is not None and spec.origin is not None
    frontend = Path(spec.origin).parent / "frontend" / "model-server.jar"
    with zipfile.ZipFile(frontend) as jar:
        return jar.read("org/pytorch/serve/archive/model/ModelConfig.class")


def knows(setters: bytes, key: str) -> bool:
    return f"set{key[0].upper()}{key[1:]}".encode() in setters


@pytest.mark.parametrize("key", yaml.safe_load(PATH.read_text()))
def test_torchserve_knows_the_key(setters: bytes, key: str) -> None:
    assert knows(setters, key) and not knows(setters, f"{key}x")
