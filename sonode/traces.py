"""Traces for a collector of OpenTelemetry (extra `tracing`): on where its standard variable is set.

A span says what was done, when, and by which version. Of what a client sent only the hexadecimal
ids of its header `traceparent` are in it (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple, Self

from sonode.console import UserError

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Place(NamedTuple):
    """Where a span stands: the ids of its trace and of itself, and whether it is to be kept."""

    trace: str
    span: str
    sampled: bool = True

    @classmethod
    def of(cls, traceparent: str) -> Self | None:
        """What the header says; None where it says nothing, or nonsense."""
        found = PARENT.fullmatch(traceparent)
        return cls(found[1], found[2], bool(int(found[3], 16) & 1)) if found else None

    @classmethod
    def under(cls, parent: Place | None) -> Self:
        """A new one, in the parent's trace or in one of its own."""
        trace = parent.trace if parent else secrets.token_hex(16)
        return cls(trace, secrets.token_hex(8), parent.sampled if parent else True)


def asked() -> bool:
    """Whether a collector is named. Raises UserError where the extra is then missing."""
    named = [it for it in VARIABLES if os.environ.get(it)]
    if not named or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if not find_spec("opentelemetry") or not find_spec("opentelemetry.exporter"):
        raise UserError(
            f"{named[0]}: traces need OpenTelemetry; run `pip install -e '.[tracing]'`, or unset it"
        )
    return True


class Traces:
    """Sends spans in batches, behind the requests' back; what a collector does not take is lost.

    `service` is called so where OTEL_SERVICE_NAME names it not otherwise.
    """

    def __init__(self, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        os.environ.setdefault("OTEL_SERVICE_NAME", service)
        self._resource = Resource.create()
        self._sender = BatchSpanProcessor(OTLPSpanExporter())

    def add(
        self,
        name: str,
        place: Place,
        parent: Place | None,
        seconds: tuple[float, float],
        facts: Mapping[str, str | int],
        *,
        failed: bool = False,
    ) -> None:
        """A span that has ended; `seconds`: its begin and end, of `time.time`."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Status, StatusCode

        if not place.sampled:
            return
        began, ended = (int(1e9 * it) for it in seconds)
        self._sender.on_end(
            ReadableSpan(
                name,
                context=_context(place),
                parent=_context(parent) if parent else None,
                resource=self._resource,
                attributes=dict(facts),
                status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
                start_time=began,
                end_time=ended,
            )
        )

    def close(self) -> None:
        """Send what is left, for some seconds at most."""
        self._sender.shutdown()


def _context(place: Place) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(
        int(place.trace, 16), int(place.span, 16), is_remote=False, trace_flags=flags
    )
