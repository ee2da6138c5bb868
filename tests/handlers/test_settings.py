import builtins
import io
import os
from typing import Any

import joblib
import pytest

from handlers.settings import SettingsError, read


def test_nothing_given_is_auto_without_fallback_on_every_core() -> None:
    settings = read(None, environ={})
    assert (settings.engine, settings.fallback) == ("auto", ())
    assert settings.threads == joblib.cpu_count() >= 1


def test_threads_keep_to_the_quota_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    real_open, real_exists = builtins.open, os.path.exists

    def opened(path: Any, *more: Any, **named: Any) -> Any:
        if path == "/sys/fs/cgroup/cpu.max":
            return io.StringIO("350000 100000\n")  # 3.5 cores, of 64
        return real_open(path, *more, **named)

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os.path, "exists", lambda it: "cpu.max" in str(it) or real_exists(it))
    monkeypatch.setattr(builtins, "open", opened)
    assert read(None, environ={}).threads == 4


def test_the_caller_overrules_the_node_and_the_node_the_archive() -> None:
    archive = {"engine": "compile", "threads": 7, "fallback": ["eager"]}
    node = {"SONODE_HANDLER_ENGINE": "openvino", "SONODE_HANDLER_THREADS": "3", "SONODE_X": "1"}
    settings = read(archive, {"engine": "eager"}, environ=node)
    assert (settings.engine, settings.threads, settings.fallback) == ("eager", 3, ("eager",))


def test_the_environment_lists_with_commas() -> None:
    node = {"SONODE_HANDLER_FALLBACK": "openvino-fp32,eager"}
    assert read(None, environ=node).fallback == ("openvino-fp32", "eager")
    assert read({"fallback": ["eager"]}, environ={"SONODE_HANDLER_FALLBACK": ""}).fallback == ()


@pytest.mark.parametrize(
    ("archive", "node", "named"),
    [
        ({"engin": "eager"}, {}, "setting engin: "),
        ({}, {"SONODE_HANDLER_ENGIN": "eager"}, "setting engin: "),
        ({"engine": "fast"}, {}, "setting engine: "),
        ({}, {"SONODE_HANDLER_THREADS": "0"}, "setting threads: "),
        ({}, {"SONODE_HANDLER_FALLBACK": "eager,fast"}, r"setting fallback\.1: "),
    ],
)
def test_what_is_unknown_is_refused(
    archive: dict[str, str], node: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{named}.*engine, fallback, threads$"):
        read(archive, environ=node)
