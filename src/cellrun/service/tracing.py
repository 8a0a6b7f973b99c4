"""What the service tells OpenTelemetry: a span for each request of a caller, one for each run, and in it one for each of its waits.

No code, no output, no reason in words and no header is in them. OpenTelemetry is the extra `cellrun[otel]`, loaded only where the
standard variables of its SDK ask for traces: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellrun.errors import Unsupported
from cellrun.service.metrics import cause_of
from cellrun.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from cellrun.service.runs import LiveRun

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
_LAST_SPANS: Final = 5.0  # seconds that a collector has for what is left at the end
# What a caller invents as a method is not to be the name of a span (RFC 9110 section 9, RFC 5789).
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether these variables ask for traces: by an address of a collector, and nothing that says no. Raises SettingsError for what
    there is none of here.

    >>> wanted({}), wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    (False, True)
    """
    addresses = {name: told for name in _ENDPOINTS if (told := environment.get(name))}
    if not addresses:
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER is {exporter!r}: there are 'otlp' and 'none'")
    protocol = next((told for name in reversed(_PROTOCOLS) if (told := environment.get(name))), "http/protobuf")
    if protocol != "http/protobuf":
        raise SettingsError(
            f"the OTLP protocol {protocol!r} is not spoken: set {_PROTOCOLS[1]}=http/protobuf, and the address of the collector "
            "for that (mostly port 4318)"
        )
    for name, address in addresses.items():
        if not re.fullmatch(r"https?://[^/@?#\s]+(/[^@?#\s]*)?", address):
            raise SettingsError(
                f"{name} must be an http or https address without user, query or fragment, such as http://localhost:4318; "
                "what is secret belongs into OTEL_EXPORTER_OTLP_HEADERS"
            )
    return True


def tracing(environment: Mapping[str, str], *, version: str) -> Tracing | None:
    """Traces as the variables of the environment ask for them; None: they don't. Sampling, headers and names of the service are
    read by OpenTelemetry itself. Raises SettingsError, and Unsupported where the extra is not installed."""
    if not wanted(environment):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise Unsupported(
            f"an OTEL_EXPORTER_OTLP_… variable asks for traces, and {error.name} is not installed: "
            "pip install 'cellrun[otel]', or set OTEL_SDK_DISABLED=true"
        ) from None
    # Of a header that it cannot read OpenTelemetry logs the text, which may be a key.
    logging.getLogger("opentelemetry.util.re").addFilter(_without_text)
    try:
        return Tracing.to(OTLPSpanExporter(), version=version)
    except (ValueError, OSError) as error:
        raise SettingsError(f"the OTEL_… variables cannot be used: {error}") from None


class Tracing:
    """Spans of one service, made by `provider`, which it ends."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("cellrun")
        self._w3c: Final = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, exporter: SpanExporter, *, version: str) -> Tracing:
        """Sent in batches by a thread of its own. Spans that come faster than they are sent are dropped, oldest first."""
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "cellrun", "service.version": version})
        resource = resource.merge(OTELResourceDetector().detect())  # what the operator has said goes first
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def requests(self, app: ASGIApp) -> ASGIApp:
        """The application, with a span around each request below `/v1/`. It goes on with the trace of the caller's `traceparent`."""
        from opentelemetry.trace import SpanKind, StatusCode

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
                await app(scope, receive, send)
                return
            status = 500

            async def answer(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
            told = {name: value.decode("latin-1") for name, value in _w3c_headers(scope)}
            with self._tracer.start_as_current_span(
                "HTTP" if method == "_OTHER" else method,
                self._w3c.extract(told),
                SpanKind.SERVER,
                {"http.request.method": method, "url.scheme": scope["scheme"]},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    await app(scope, receive, answer)
                finally:
                    route = getattr(scope.get("route"), "path", None)
                    state: dict[str, Any] = scope.get("state", {})
                    span.set_attribute("http.response.status_code", status)
                    for name, value in (
                        ("http.route", route),
                        ("cellrun.tenant", state.get("tenant")),
                        ("cellrun.run.id", state.get("run")),
                    ):
                        if value is not None:
                            span.set_attribute(name, value)
                    if route is not None and method != "_OTHER":
                        span.update_name(f"{method} {route}")
                    if status >= 500:
                        span.set_attribute("error.type", str(status))
                        span.set_status(StatusCode.ERROR)

        return traced

    @contextlib.contextmanager
    def run(self, run: LiveRun) -> Iterator[None]:
        """A span around the task that carries the run out: a child of the request that started it, which it may outlive."""
        from opentelemetry.trace import StatusCode

        began = _Clock()
        told = {"cellrun.run.id": run.id, "cellrun.tenant": run.tenant}
        if run.session is not None:
            told["cellrun.session"] = run.session
        with self._tracer.start_as_current_span(
            "run",
            attributes=told,
            start_time=began.wall,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            finally:
                status = run.status or "kernel_died"
                span.set_attribute("cellrun.run.status", status)
                self._waits(run, began)
                if status == "kernel_died":
                    span.set_attribute("error.type", "kernel_died" if run.failure is None else run.failure.code)
                    span.set_attribute("cellrun.death.cause", cause_of(run.reason))
                    span.set_status(StatusCode.ERROR)

    def _waits(self, run: LiveRun, began: _Clock) -> None:
        """Children of the run's span: `queue`, `kernel` and `execute`, as far as it came. Made when all is over, so that none stays open."""
        from opentelemetry.trace import get_current_span

        turn, sent = run.moments
        now = time.monotonic()
        moments = [began.monotonic, turn, sent, now]
        for name, start, end in zip(("queue", "kernel", "execute"), moments, moments[1:], strict=False):
            if start is None:
                return
            end = now if end is None else end
            get_current_span().set_attribute(f"cellrun.run.{name}.duration", round(end - start, 6))
            self._tracer.start_span(name, start_time=began.at(start)).end(began.at(end))

    async def aclose(self) -> None:
        """Sends what is left; a collector that does not take it is waited for 5 seconds. Never raises but for a cancellation."""
        ending = threading.Thread(target=self._provider.shutdown, name="cellrun-traces", daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _LAST_SPANS)


def _without_text(record: logging.LogRecord) -> bool:
    record.msg, record.args = "a part of an OTEL_… variable is not NAME=VALUE and was left out", ()
    return True


class _Clock:
    """Now, on both clocks: durations are of the monotonic one, while a span has nanoseconds of the other."""

    def __init__(self) -> None:
        self.wall = time.time_ns()
        self.monotonic = time.monotonic()

    def at(self, moment: float) -> int:
        """The nanoseconds of a moment of the monotonic clock."""
        return self.wall + round((moment - self.monotonic) * 1e9)


def _w3c_headers(scope: Scope) -> Iterator[tuple[str, bytes]]:
    """https://www.w3.org/TR/trace-context/: more than one `traceparent` is none; `tracestate` may be in parts."""
    parents = [value for name, value in scope["headers"] if name == b"traceparent"]
    states = [value for name, value in scope["headers"] if name == b"tracestate"]
    if len(parents) == 1:
        yield "traceparent", parents[0]
        if states:
            yield "tracestate", b",".join(states)
