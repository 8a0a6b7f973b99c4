"""Traces: what a collector of OpenTelemetry gets of requests and runs, what it never gets, and what costs nothing."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Message, Receive, Scope, Send

from cellrun.service.tracing import Tracing, tracing, wanted
from cellrun.settings import SettingsError
from tests.service.running import Service, answer, begin, client, problem, run, until
from tests.support.waiting import HANG, PROCESS, eventually

ADDRESS = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@dataclass
class Collector:
    """What takes traces by OTLP over HTTP, as a collector of OpenTelemetry does. In a thread, so that it outlives a test's event loop."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resources: list[Mapping[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def take(self, body: bytes, headers: Mapping[str, str]) -> None:
        self.bodies.append(body)
        self.headers.append(headers)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(values(of_resource.resource))
            for of_scope in of_resource.scope_spans:
                self.spans += of_scope.spans

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    async def of_run(self, id: str) -> Span:
        """The run's span, as soon as it has come."""
        await eventually(lambda: any(values(span).get("cellrun.run.id") == id for span in self.named("run")))
        return next(span for span in self.named("run") if values(span)["cellrun.run.id"] == id)

    async def request(self, name: str, run: str) -> Span:
        """The span of a request for this run, as soon as it has come."""

        def found() -> list[Span]:
            return [span for span in self.named(name) if values(span).get("cellrun.run.id") == run]

        await eventually(found)
        return found()[0]

    def children(self, parent: Span) -> dict[str, Span]:
        return {span.name: span for span in self.spans if span.parent_span_id == parent.span_id}


def values(of: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {told.key: getattr(told.value, told.value.WhichOneof("value")) for told in of.attributes}


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Traced:
    """A service that sends its traces to a collector."""

    service: Service
    collector: Collector
    key: str


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with collecting() as collector:
        service = Service(tmp_path_factory.mktemp("traced"), variables=variables(collector.url))
        service.variables |= {
            "OTEL_SERVICE_NAME": "interpreter",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=trial",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=collectors-key",
        }
        key = service.add_key("ann")
        service.start()
        yield Traced(service, collector, key)
        service.end()


@pytest.fixture
async def http(traced: Traced) -> AsyncIterator[aiohttp.ClientSession]:
    async with client(traced.service, traced.key) as session:
        yield session


def variables(url: str) -> dict[str, str]:
    return {ADDRESS: url, "OTEL_BSP_SCHEDULE_DELAY": "50"}


async def started(service: Service, url: str, **more: str) -> None:
    service.variables = variables(url) | more
    service.folder.mkdir()
    await asyncio.to_thread(service.start)


async def test_a_run_is_a_part_of_its_callers_trace_with_all_its_waits(
    traced: Traced, http: aiohttp.ClientSession
) -> None:
    collector = traced.collector
    async with http.post("/v1/sessions/chat/runs", json={"code": "1"}, headers=TRACEPARENT) as response:
        id = (await response.json())["execution_id"]
    span = await collector.of_run(id)
    request = await collector.request("POST /v1/sessions/{session}/runs", id)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == Span.SPAN_KIND_SERVER
    told = values(request)
    assert (told["http.response.status_code"], told["cellrun.tenant"]) == (200, "ann")
    assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
    told = values(span)
    assert (told["cellrun.session"], told["cellrun.run.status"]) == ("chat", "ok")
    waits = collector.children(span)
    assert list(waits) == ["queue", "kernel", "execute"]
    for name, wait in waits.items():
        assert told[f"cellrun.run.{name}.duration"] == pytest.approx(seconds(wait), abs=1e-5)
        assert wait.start_time_unix_nano >= span.start_time_unix_nano
        assert wait.end_time_unix_nano <= span.end_time_unix_nano + 10_000_000
    # Each begins where the one before it ends.
    for before, after in itertools.pairwise(waits.values()):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert seconds(waits["kernel"]) > 0


async def test_one_that_waits_for_its_turn_has_that_in_its_trace(traced: Traced, http: aiohttp.ClientSession) -> None:
    collector = traced.collector
    holds = await begin(http, "line", "input()")
    await until(http, holds, "waiting_for_input")
    waits, leaves = [await begin(http, "line", "1") for _ in range(2)]
    await answer(http, "POST", f"/v1/runs/{leaves}/interrupt", status=202)
    left = await collector.of_run(leaves)
    assert list(collector.children(left)) == ["queue"]
    assert values(left)["cellrun.run.status"] == "interrupted"
    assert left.status.code == Status.STATUS_CODE_UNSET
    await answer(http, "POST", f"/v1/runs/{holds}/input", status=202, json={"line": ""})
    held, waited = await collector.of_run(holds), await collector.of_run(waits)
    queue = collector.children(waited)["queue"]
    assert queue.end_time_unix_nano >= collector.children(held)["execute"].start_time_unix_nano
    assert seconds(queue) > seconds(collector.children(held)["queue"])


async def test_what_is_wrong_with_the_service_is_an_error_and_what_is_wrong_with_code_is_none(
    traced: Traced, http: aiohttp.ClientSession
) -> None:
    collector = traced.collector
    wrong = await collector.of_run((await run(http, "errors", "1/0"))["execution_id"])
    died = await collector.of_run((await run(http, "errors", "import os; os._exit(3)"))["execution_id"])
    await problem(http, "GET", "/v1/runs/none", "not_found", 404)
    missing = await collector.request("GET /v1/runs/{run}", "none")
    assert (values(wrong)["cellrun.run.status"], wrong.status.code) == ("error", Status.STATUS_CODE_UNSET)
    assert (values(died)["cellrun.run.status"], died.status.code) == ("kernel_died", Status.STATUS_CODE_ERROR)
    # Its connection may be seen to close before its end is.
    assert values(died)["cellrun.death.cause"] in {"exit", "other"}
    assert values(missing)["http.response.status_code"] == 404
    assert missing.status.code == Status.STATUS_CODE_UNSET


async def test_no_code_no_output_and_no_key_reaches_a_collector(traced: Traced, http: aiohttp.ClientSession) -> None:
    collector = traced.collector
    code = "print('said' + 'here'); raise ValueError('told' + 'there')  # what-is-asked"
    id = (await run(http, "quiet", code))["execution_id"]
    async with http.put("/v1/sessions/quiet/files/name-of-a-file", data=b"in-the-file") as response:
        assert response.status < 300
    await answer(http, "GET", "/v1/sessions?question=asked")
    await collector.of_run(id)
    await eventually(lambda: collector.named("GET /v1/sessions"))
    all_of_it = b"".join(collector.bodies)
    assert id.encode() in all_of_it
    inside = ("saidhere", "toldthere", "what-is-asked", "ValueError", "in-the-file", "name-of-a-file", "question")
    for word in (*inside, traced.key):
        assert word.encode() not in all_of_it, word


async def test_the_standard_variables_say_how(traced: Traced, http: aiohttp.ClientSession) -> None:
    collector = traced.collector
    await collector.of_run((await run(http, "named", "1"))["execution_id"])
    assert collector.resources[0]["service.name"] == "interpreter"
    assert collector.resources[0]["deployment.environment"] == "trial"
    assert {name.lower(): value for name, value in collector.headers[0].items()}["x-key"] == "collectors-key"
    assert "collectors-key" not in traced.service.log_text()


@pytest.mark.wide
async def test_what_is_left_is_sent_at_the_end(own_service: Service) -> None:
    with collecting() as collector:
        await started(own_service, collector.url, OTEL_BSP_SCHEDULE_DELAY="600000")
        async with client(own_service) as http:
            id = (await run(http, "last", "1"))["execution_id"]
        assert not collector.spans
        await asyncio.to_thread(own_service.end)
        await collector.of_run(id)


@pytest.mark.wide
async def test_a_collector_that_does_not_answer_holds_up_nobody(own_service: Service) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    try:
        await started(own_service, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with client(own_service) as http:
            await run(http, "alone", "1")
            await eventually(lambda: silent)
            assert (await run(http, "alone", "1+1"))["status"] == "ok"
        own_service.terminate()
        assert await asyncio.to_thread(own_service.wait, HANG) == 0
    finally:
        for writer in silent:
            writer.close()
        server.close()


@pytest.mark.wide
async def test_a_collector_that_is_not_there_is_told_in_the_log_as_all_else(own_service: Service) -> None:
    await started(own_service, "http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    async with client(own_service) as http:
        assert (await run(http, "alone", "1"))["status"] == "ok"
        await eventually(lambda: any(line["logger"].startswith("opentelemetry") for line in own_service.log_lines()))
    assert [line for line in own_service.log_text().splitlines() if not line.startswith(("{", "cellrun: "))] == []


def test_without_a_collectors_address_nothing_of_the_extra_is_loaded() -> None:
    # FastAPI loads opentelemetry-api by itself.
    code = (
        "import sys, cellrun.service.serve, cellrun.service.tracing as t\n"
        "extra = ('opentelemetry.sdk', 'opentelemetry.exporter', 'requests')\n"
        "print(t.tracing({}, version='1'), [name for name in sys.modules if name.startswith(extra)])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROCESS, check=True)
    assert told.stdout == "None []\n"


def test_without_the_package_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from cellrun.errors import Unsupported\n"
        "from cellrun.service.tracing import tracing\n"
        f"try: tracing({{'{ADDRESS}': 'http://localhost:4318'}}, version='1')\n"
        "except Unsupported as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROCESS, check=True)
    assert "pip install 'cellrun[otel]'" in told.stdout
    assert "OTEL_SDK_DISABLED" in told.stdout


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({ADDRESS: ""}, False),
        ({ADDRESS: "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector.example/v1/traces"}, True),
        ({ADDRESS: "http://localhost:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ADDRESS: "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ADDRESS: "http://localhost:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({ADDRESS: "http://localhost:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_an_address_asks_for_traces_and_the_usual_words_forbid_them(variables: dict[str, str], *, asked: bool) -> None:
    assert wanted(variables) is asked


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({ADDRESS: "localhost:4318"}, ADDRESS),
        ({ADDRESS: "http://ann:sesame@collector.example"}, ADDRESS),
        ({ADDRESS: "http://localhost:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'grpc'"),
        ({ADDRESS: "http://localhost:4317", "OTEL_TRACES_EXPORTER": "console"}, "'console'"),
    ],
)
def test_what_cannot_be_is_named_and_no_secret(variables: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        tracing(variables, version="1")
    assert "sesame" not in str(caught.value)


def test_a_header_that_cannot_be_read_does_not_get_into_the_log() -> None:
    code = (
        "import os, asyncio; from cellrun.service.tracing import tracing\n"
        "asyncio.run(tracing(os.environ, version='1').aclose())"
    )
    variables = {ADDRESS: "http://localhost:4318", "OTEL_EXPORTER_OTLP_HEADERS": "sesame"}
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROCESS, check=True, env=variables
    )
    assert "OTEL_" in told.stderr
    assert "sesame" not in told.stderr


@pytest.fixture
def memory() -> tuple[Tracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider), exporter


async def _ask(tracing: Tracing, app: Any, *headers: tuple[bytes, bytes], **scope: Any) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    told = {"type": "http", "method": "GET", "path": "/v1/x", "scheme": "http", "headers": list(headers), **scope}
    await tracing.requests(app)(told, receive, send)


async def _answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    "headers",
    [
        [b"00-00000000000000000000000000000000-b7ad6b7169203331-01"],
        [b"\xff\xfe"],
        [b"00-" + b"0" * 10_000],
        [f"00-{TRACE}-{PARENT}-01".encode(), f"00-{TRACE}-{PARENT}-01".encode()],
    ],
)
async def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(
    memory: tuple[Tracing, InMemorySpanExporter], headers: list[bytes]
) -> None:
    tracing, exporter = memory
    await _ask(tracing, _answers, *((b"traceparent", value) for value in headers))
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


async def test_no_method_and_no_address_that_was_made_up_is_a_name(
    memory: tuple[Tracing, InMemorySpanExporter],
) -> None:
    tracing, exporter = memory
    await _ask(tracing, _answers, method="MADE-UP", path="/v1/made-up")
    (span,) = exporter.get_finished_spans()
    assert span.name == "HTTP"
    assert "made-up" not in span.to_json().lower()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/"])
async def test_probes_and_scrapes_are_no_traces(memory: tuple[Tracing, InMemorySpanExporter], path: str) -> None:
    tracing, exporter = memory
    await _ask(tracing, _answers, path=path)
    assert exporter.get_finished_spans() == ()


async def test_a_request_that_fails_or_is_cancelled_ends_its_span(
    memory: tuple[Tracing, InMemorySpanExporter],
) -> None:
    tracing, exporter = memory
    reached = asyncio.Event()

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("words-of-our-insides")

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        reached.set()
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError):
        await _ask(tracing, fails)
    task = asyncio.create_task(_ask(tracing, hangs))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    spans = exporter.get_finished_spans()
    assert len(spans) == 2
    for span in spans:
        assert not span.status.is_ok
        assert "words-of-our-insides" not in span.to_json()
