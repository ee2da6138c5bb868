"""config.properties against the TorchServe that reads it; what it does is in test_serve.py."""

import importlib.util
import zipfile
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[3] / "config.properties"


def settings() -> dict[str, str]:
    lines = [line for line in CONFIG.read_text().splitlines() if line and line[0] != "#"]
    pairs = [line.split("=", 1) for line in lines]
    assert len(dict(pairs)) == len(pairs), "a key stands twice"
    return dict(pairs)


@pytest.fixture(scope="module")
def config_manager() -> bytes:
    spec = importlib.util.find_spec("ts")
    assert spec is not None and spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).parent / "frontend" / "model-server.jar") as jar:
        return jar.read("org/pytorch/serve/util/ConfigManager.class")


def knows(class_file: bytes, text: str) -> bool:
    """Whether `text` is a whole string of the class's constant pool (JVM spec 4.4.7)."""
    return b"\x01" + len(text).to_bytes(2, "big") + text.encode() in class_file


@pytest.mark.parametrize("key", settings())
def test_torchserve_knows_the_key(config_manager: bytes, key: str) -> None:
    if key == "vmargs":  # read by its launcher, which starts Java with them
        spec = importlib.util.find_spec("ts")
        assert spec is not None and spec.origin is not None
        launcher = Path(spec.origin).parent / "model_server.py"
        assert 'props.get("vmargs")' in launcher.read_text()
    else:
        assert knows(config_manager, key) and not knows(config_manager, f"{key}x")


@pytest.mark.parametrize("key", ["metrics_config", "vmargs"])
def test_a_file_that_is_named_is_there(key: str) -> None:
    named = settings()[key].rpartition("=")[2]
    assert (CONFIG.parent / named).is_file()
