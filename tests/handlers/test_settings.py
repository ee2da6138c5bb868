import pytest

from handlers.settings import SettingsError, read, usable_cores


def test_nothing_given_is_auto_without_fallback_on_every_core() -> None:
    settings = read(None, environ={})
    assert (settings.engine, settings.fallback) == ("auto", ())
    assert settings.threads == usable_cores() >= 1


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
    with pytest.raises(SettingsError, match=f"^{named}.*known are engine, fallback, threads$"):
        read(archive, environ=node)
