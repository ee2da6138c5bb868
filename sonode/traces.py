"""Traces for a collector of OpenTelemetry (extra `tracing`): on where its standard variable is set.

A span says what was done, when, and by which version. Of what a client sent only the hexadecimal
ids of its header `traceparent` are in it (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from threading import Thread
from typing import Any

from sonode.console import UserError

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
CLOSE_S = 5.0  # how long the end of a process waits for a collector


def asked() -> bool:
    """Whether a collector is named, and traces are not switched off.

    Raises UserError where the extra is then missing, another protocol than HTTP is asked for, or
    what should be a number of its batches is none: OpenTelemetry would take its own.
    """
    said = os.environ.get
    named = [it for it in VARIABLES if said(it)]
    disabled = said("OTEL_SDK_DISABLED", "").lower() == "true"
    if not named or disabled or said("OTEL_TRACES_EXPORTER") == "none":
        return False
    for it in PROTOCOLS:
        if said(it):
            if said(it) != "http/protobuf":
                raise UserError(f"{it}: {said(it)}: traces are sent by http/protobuf alone")
            break
    for name, it in os.environ.items():
        if name.startswith("OTEL_BSP_") and not re.fullmatch(r"[1-9]\d*", it):
            raise UserError(f"{name}: {it}: give an integer of 1 or more")
    if not find_spec("opentelemetry") or not find_spec("opentelemetry.exporter"):
        raise UserError(
            f"{named[0]}: traces need OpenTelemetry; run `pip install -e '.[tracing]'`, or unset it"
        )
    return True


def place_of(traceparent: str) -> Any:
    """The context that the header names; an empty one where it says nothing, or nonsense."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


class Traces:
    """Sends spans in batches, behind the requests' back; what a collector does not take is lost.

    `service` is called so where OpenTelemetry's variables name it not otherwise. `ids` makes the
    ids of spans and traces; by default they are random. Raises UserError where those variables do
    not fit.
    """

    def __init__(self, service: str, ids: Any = None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import DEFAULT_ON

        try:
            self._provider = TracerProvider(
                DEFAULT_ON,  # gateway and server keep the same traces
                Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect()),
                shutdown_on_exit=False,
                id_generator=ids,
            )
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise UserError(f"variables OTEL_...: {error}") from None
        self._tracer = self._provider.get_tracer("sonode")

    def add(
        self,
        name: str,
        parent: Any,
        seconds: tuple[float, float],
        facts: Mapping[str, str | int],
        *,
        failed: bool = False,
    ) -> Any:
        """A span that has ended; `seconds`: its begin and end, of `time.time`.

        Returns its context, for spans in it.
        """
        from opentelemetry.trace import StatusCode, set_span_in_context

        began, ended = (int(1e9 * it) for it in seconds)
        span = self._tracer.start_span(name, parent, attributes=facts, start_time=began)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(ended)
        return set_span_in_context(span)

    def close(self) -> None:
        """Send what is left, for `CLOSE_S` at most."""
        ending = Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
