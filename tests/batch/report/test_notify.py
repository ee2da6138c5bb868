from __future__ import annotations

import pytest

from batch.report import notify
from batch.storage.s3_client import is_loopback
from tests.batch.stub_store import StubStore


def without_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_webhook_on_this_machine_is_told_past_the_proxy(
    stub: StubStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_exceptions(monkeypatch)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    stub.fault = lambda *_: (200, {}, b"")
    notify.report_end(f"{stub.address}/hook", "done", {})
    assert stub.requests == ["POST /hook"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("proxy", ["ftp://user:hunter2@proxy", "socks5://127.0.0.1:9"])
def test_a_proxy_that_httpx_cannot_take_is_a_warning(
    proxy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_exceptions(monkeypatch)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    notify.report_end("http://store.invalid/secret", "done", {})
    errors = capsys.readouterr().err
    assert (
        "was not notified: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not an http:// address" in errors
    )
    assert not {"secret", "hunter2"} & set(errors.replace("/", " ").replace(":", " ").split())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/x", True),
        ("https://user@localhost", True),
        ("http://[::1]:80", True),
        ("http://store.localhost", True),
        ("http://127.0.0.1.example", False),
        ("http://10.0.0.1", False),
        ("https://store.example/127.0.0.1", False),
        ("http://[::", False),
    ],
)
def test_what_leads_to_this_machine(url: str, expected: bool) -> None:
    assert is_loopback(url) == expected
