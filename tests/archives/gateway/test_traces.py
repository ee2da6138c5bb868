"""A real collector of traces behind gateway and second server: what it sees of a request."""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from archives.asgi.node import AsgiNode
from archives.packing.members import file_sha256
from archives.serving.serve_with_gateway import settings_of
from archives.state.journal import Release
from sonode import traces
from sonode.console import UserError
from sonode.traces import Traces, place_of
from tests.archives.behind import Behind, behind
from tests.conftest import encode
from tests.servers import ONE_WORKER

pytest.importorskip("opentelemetry.proto", reason="the extra `tracing` is not installed")

PNG = encode(np.random.default_rng(2).integers(0, 256, (80, 120), dtype=np.uint8))
STAGES = {"queue", "decode", "network", "explain", "postprocess"}


class Collector:
    """Takes what is sent by OTLP over HTTP."""

    def __init__(self) -> None:
        received = self.received = list[bytes]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self, trace: str) -> dict[str, list[Any]]:
        """Of a trace, by name; each with its service as an attribute."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        found: dict[str, list[Any]] = {}
        for body in list(self.received):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        if span.trace_id.hex() == trace:
                            found.setdefault(span.name, []).append(span)
        return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    with pytest.MonkeyPatch.context() as patch:
        port = made.server.server_address[1]
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def gateway(
    collector: Collector, archive_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    store, run_dir = archive_path.parent, tmp_path_factory.mktemp("node")
    first = vars(Release("1.0", archive_path.name, file_sha256(archive_path)))
    with AsgiNode(store, {"m": archive_path.name}, run_dir, settings=ONE_WORKER) as node:
        state = tmp_path_factory.mktemp("g")
        with behind([settings_of(node)], state, stable=first, serves=[first]) as running:
            yield running


def ask(gateway: Behind, **headers: str) -> httpx.Response:
    given = {"Content-Type": "image/png", "X-Roi": "5,6,77,68", "X-Explain": "gradcam"} | headers
    return gateway.ask("1.2.840.99.JANE", content=PNG, headers=given)


@pytest.mark.live
def test_a_request_is_one_trace_without_anything_that_the_client_said(
    gateway: Behind, collector: Collector
) -> None:
    answer = ask(gateway)
    assert answer.status_code == 200
    trace = answer.headers["X-Request-Id"]
    gateway.wait(lambda: STAGES | {"gateway", "server"} <= collector.spans(trace).keys())
    found = {name: span for name, (span,) in collector.spans(trace).items()}
    assert found["gateway"].parent_span_id == b""
    assert found["server"].parent_span_id == found["gateway"].span_id
    for name in STAGES:
        span = found[name]
        assert span.parent_span_id == found["server"].span_id
        assert found["server"].start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= found["server"].end_time_unix_nano
    assert found["queue"].end_time_unix_nano <= found["decode"].start_time_unix_nano
    facts = {it.key: it.value for it in found["server"].attributes}
    assert facts["sonode.version"].string_value == "1.0"
    assert facts["http.response.status_code"].int_value == 200
    sent = b"".join(collector.received)
    for secret in ("JANE", gateway.token, "clinic", "5,6,77,68", str(gateway.state), ".mar"):
        assert secret.encode() not in sent


@pytest.mark.live
def test_a_clients_trace_goes_on(gateway: Behind, collector: Collector) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    assert ask(gateway, traceparent=f"00-{trace}-{span}-01").status_code == 200
    gateway.wait(lambda: {"gateway", "server"} <= collector.spans(trace).keys())
    found = collector.spans(trace)
    assert found["gateway"][0].parent_span_id.hex() == span
    assert found["server"][0].parent_span_id == found["gateway"][0].span_id


@pytest.mark.live
def test_a_trace_that_its_client_does_not_keep_is_not_sent(
    gateway: Behind, collector: Collector
) -> None:
    trace = "5bf92f3577b34da6a3ce929d0e0e4736"
    ask(gateway, traceparent=f"00-{trace}-00f067aa0ba902b7-00")
    after = ask(gateway, traceparent="00-Jane^Doe").headers["X-Request-Id"]  # no place in a trace
    gateway.wait(lambda: {"gateway", "server"} <= collector.spans(after).keys())
    assert collector.spans(trace) == {}


@pytest.mark.live
def test_a_request_of_the_open_inference_protocol_is_in_its_trace_too(
    gateway: Behind, collector: Collector
) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
    tensor["data"] = [base64.b64encode(PNG).decode()]
    answer = gateway.ask(path="/v2/models/m/infer", content=json.dumps({"inputs": [tensor]}))
    assert answer.status_code == 200
    trace = answer.headers["X-Request-Id"]
    gateway.wait(lambda: {"gateway", "server", "network"} <= collector.spans(trace).keys())


def test_who_it_is_comes_from_opentelemetrys_variables_first(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, service in (("", "own"), ("service.name=other", "other")):
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", given)
        before = len(collector.received)
        made = Traces("own")
        made.add("span", None, (1.0, 2.0), {})
        made.close()
        sent = b"".join(collector.received[before:])
        assert [it in sent for it in (b"own", b"other")] == [service == "own", service == "other"]
    assert "OTEL_SERVICE_NAME" not in os.environ  # or the server's process would have the gateway's


CLOSING = """
from sonode import traces

traces.CLOSE_S = 0.5
made = traces.Traces("s")
made.add("span", None, (1.0, 2.0), {})
print("closing", flush=True)
made.close()
"""


def test_a_collector_that_hangs_does_not_hold_up_the_end_of_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # takes connections, and never answers
        port = hung.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with subprocess.Popen([sys.executable, "-c", CLOSING], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"closing\n"
            assert process.wait(25) == 0  # OpenTelemetry's own limit is 30 s


@pytest.mark.parametrize("value", ["soon", "-1", "0", "1.5"])
def test_a_variable_that_should_be_a_number_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", value)
    with pytest.raises(UserError, match=f"^OTEL_BSP_SCHEDULE_DELAY: {value}: give an integer"):
        traces.asked()
    monkeypatch.delenv("OTEL_BSP_SCHEDULE_DELAY")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")  # below the size of a batch
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100")
    assert traces.asked()
    with pytest.raises(UserError, match=r"^variables OTEL_\.\.\.: max_export_batch_size must be"):
        Traces("s")


@pytest.mark.parametrize(
    "text", ["", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff-" + "a" * 32 + "-" + "b" * 16, "x"]
)
def test_what_is_no_place_in_a_trace(text: str) -> None:
    assert not place_of(text)


def test_without_a_collector_nothing_is_traced_and_without_the_extra_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert not traces.asked()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert traces.asked()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(UserError, match=r"^OTEL_EXPORTER_OTLP_PROTOCOL: grpc: "):
        traces.asked()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    assert traces.asked()
    monkeypatch.setattr(traces, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT: .*'\.\[tracing\]'`"):
        traces.asked()
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as off:
            off.setenv(name, value)
            assert not traces.asked()
