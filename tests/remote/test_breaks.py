"""The connection breaks, the service dies: nothing is lost, nothing comes twice, nothing runs twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from cellrun import AsyncSession, CellrunService, ConnectionFailed, Event, SessionLost, Stdout, fold
from cellrun.remote.run import SILENCE
from tests.remote.conftest import address_of
from tests.remote.test_refusals import serving
from tests.service.running import Service, answer, client, none_left
from tests.support.proxy import FaultProxy
from tests.support.waiting import PROCESS, SLACK, eventually

# Until the file `enough` is there: how long a run takes is not for a busy machine to decide.
PRINTING = (
    "import itertools, os, time\nfor i in itertools.count():\n    print(i, flush=True); time.sleep(0.05)\n"
    "    if os.path.exists('enough'): break"
)


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(int(service.url.rpartition(":")[2])) as proxy:
        yield proxy


def through(proxy: FaultProxy) -> str:
    return f"cellrun://127.0.0.1:{proxy.port}"


def assert_whole(events: list[Event]) -> None:
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_a_stream_that_is_cut_again_and_again_goes_on(service: Service, proxy: FaultProxy) -> None:
    async with AsyncSession(through(proxy), session_id="cut") as session, client(service) as http:
        events = []
        enough = False
        async with session.stream(PRINTING) as stream:
            async for event in stream:
                events.append(event)
                if len(events) % 10 == 5:
                    proxy.reset()
                if proxy.connections > 4 and not enough:
                    enough = True
                    await answer(http, "PUT", "/v1/sessions/cut/files/enough", status=204, data=b"")
        await answer(http, "DELETE", "/v1/sessions/cut", status=204)
    assert_whole(events)
    numbers = "".join(event.text for event in events if isinstance(event, Stdout)).splitlines()
    assert numbers == [str(i) for i in range(len(numbers))]
    assert fold(events) == stream.result
    assert enough


async def test_pieces_of_a_line_that_was_cut_are_not_taken_for_it(proxy: FaultProxy) -> None:
    async with AsyncSession(through(proxy)) as session:
        await session.run("1")
        proxy.cut_after = 30_000
        cutting = asyncio.create_task(session.run("for i in range(2_000): print('x' * 100, i)"))
        await eventually(lambda: proxy.connections > 3)
        proxy.cut_after = None
        result = await cutting
    assert result.stdout == "".join(f"{'x' * 100} {i}\n" for i in range(2_000))


async def test_an_answer_that_is_lost_runs_the_code_once(proxy: FaultProxy) -> None:
    async with AsyncSession(through(proxy)) as session:
        await session.run("count = 0")
        proxy.reset()
        before = len(proxy.received)
        proxy.cut_after = 0  # requests pass, answers do not
        counting = asyncio.create_task(session.run("count += 1; count"))
        await eventually(lambda: bytes(proxy.received[before:]).count(b"Idempotency-Key") >= 2)
        proxy.cut_after = None
        assert (await counting).text == "1"
        assert (await session.run("count")).text == "1"


@pytest.mark.wide
async def test_a_connection_that_falls_silent_is_given_up_at_the_deadline(proxy: FaultProxy) -> None:
    service = CellrunService(through(proxy))
    async with service, AsyncSession(service) as session:
        async with session.stream("print('on', flush=True)\nimport time; time.sleep(60)", timeout=SLACK) as stream:
            async for event in stream:
                if isinstance(event, Stdout):
                    break
            proxy.freeze()
            service.http.timeout = service.http._reconnect = 1.0
            began = time.monotonic()
            with pytest.raises(ConnectionFailed, match=f"the run {stream.execution_id} could not be watched"):
                await stream.finish()
            assert time.monotonic() - began < SILENCE
        proxy.thaw()


async def test_a_service_that_stays_away_is_told_with_the_run(proxy: FaultProxy) -> None:
    service = CellrunService(through(proxy), reconnect=0.5)
    async with service, AsyncSession(service) as session:
        async with session.stream(PRINTING) as stream:
            async for event in stream:
                if isinstance(event, Stdout):
                    proxy.refuse()
                    proxy.reset()
                    break
            with pytest.raises(ConnectionFailed, match="may go on") as caught:
                await stream.finish()
        assert caught.value.retryable
        proxy.refuse(False)
        await session.files.write("enough", b"")
        assert (await session.run("'again'")).text == "'again'"


async def test_a_service_that_was_never_there_is_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        async with AsyncSession("cellrun://127.0.0.1:9"):
            pass
    assert time.monotonic() - began < SLACK


async def test_input_that_may_have_arrived_is_not_sent_again(proxy: FaultProxy) -> None:
    code = "a = input('a? '); b = input('b? '); print(a, b)"
    async with AsyncSession(through(proxy)) as session:
        asked: list[str] = []

        async def on_input(request: object) -> str:
            asked.append(str(request))
            if len(asked) == 1:
                proxy.reset()
                proxy.cut_after = 0
                asyncio.get_running_loop().call_later(0.4, setattr, proxy, "cut_after", None)
            return f"line {len(asked)}"

        result = await asyncio.wait_for(session.run(code, on_input=on_input), 30)
    assert (result.stdout, len(asked)) == ("line 1 line 2\n", 2)


@pytest.mark.wide
async def test_after_a_kill_of_the_service_a_run_has_its_typed_end_and_the_session_goes_on(
    own_service: Service,
) -> None:
    service = own_service.start()
    async with FaultProxy(int(service.url.rpartition(":")[2])) as proxy:
        async with AsyncSession(through(proxy), session_id="s") as session:
            await session.run("x = 1")
            events: list[Event] = []
            async with session.stream("import itertools\nfor i in itertools.count(): print(i, flush=True)") as stream:
                async for event in stream:
                    events.append(event)
                    if len(events) == 50:
                        family = service.family()
                        service.kill()
                        await none_left(family)
                        service.start()
                        proxy._port = int(service.url.rpartition(":")[2])
            assert_whole(events)
            assert (stream.result.status, fold(events)) == ("kernel_died", stream.result)
            assert "the service ended while this ran" in (stream.result.reason or "")
            numbers = [int(line) for line in stream.result.stdout.split("\n")[:-1]]
            assert numbers == list(range(len(numbers)))
            after = await session.run("'x' in globals()")
            assert after.text == "False"
            assert "started anew" in (after.restarted or "")
    service.end()


@pytest.mark.wide
async def test_a_service_that_is_told_to_end_lets_the_cell_end_and_the_next_run_waits_for_its_successor(
    own_service: Service,
) -> None:
    service = own_service.start()
    async with FaultProxy(int(service.url.rpartition(":")[2])) as proxy:
        async with AsyncSession(through(proxy), session_id="s") as session:
            wait = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)"
            running = asyncio.create_task(session.run(f"print('on', flush=True)\n{wait}\nprint('done')"))
            async with client(service) as http:
                while "running" not in str(await answer(http, "GET", "/v1/sessions/s")):
                    await asyncio.sleep(0.02)
                service.terminate()
                await eventually(lambda: "takes no new runs" in service.log_text())
                waiting = asyncio.create_task(session.run("'next'"))
                await answer(http, "PUT", "/v1/sessions/s/files/go", status=204, data=b"")
            assert (await running).stdout == "on\ndone\n"
            assert await asyncio.to_thread(service.wait, PROCESS) == 0
            service.start()
            proxy._port = int(service.url.rpartition(":")[2])
            assert (await waiting).text == "'next'"
    service.end()


async def test_a_session_that_was_deleted_there_is_lost_and_nothing_of_it_comes_back_unsaid(service: Service) -> None:
    async with AsyncSession(address_of(service), session_id="deleted") as session, client(service) as http:
        await session.run("x = 1")
        files = session.files
        await files.write("f", b"1")
        await answer(http, "DELETE", "/v1/sessions/deleted", status=204)
        for asked in (
            lambda: session.run("'x' in globals()"),
            lambda: files.write("f", b"2"),
            lambda: files.read("f"),
            files.list,
            lambda: files.delete("f"),
            session.fetch_notebook,
            session.restart,
        ):
            with pytest.raises(SessionLost, match="make a new session"):
                await asked()
        with pytest.raises(SessionLost, match="make a new session"):
            async with session.stream("1"):
                pass
        ids = [found["id"] for found in (await answer(http, "GET", "/v1/sessions"))["sessions"]]
        assert "deleted" not in ids
    async with AsyncSession(address_of(service), session_id="deleted") as session:
        assert (await session.run("'x' in globals()")).text == "False"
        with pytest.raises(FileNotFoundError):
            await session.files.read("f")


@pytest.mark.wide
@pytest.mark.parametrize("whole", [True, False])
async def test_a_silent_cell_is_watched_over_any_number_of_connections_but_not_an_event_that_none_is_long_enough_for(
    service: Service, whole: bool
) -> None:
    """A proxy cuts each connection: after a sign of life of the service, or in the middle of an event."""
    cut = 0
    enough = asyncio.Event()

    async def relay(request: web.Request) -> web.StreamResponse:
        nonlocal cut
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        body = await request.read()
        async with (
            client(service) as http,
            http.request(request.method, request.path_qs, data=body, headers=headers) as got,
        ):
            response = web.StreamResponse(status=got.status)
            response.headers.update({n: got.headers[n] for n in ("Content-Type", "Location") if n in got.headers})
            await response.prepare(request)
            if got.content_type == "application/x-ndjson" and not enough.is_set():
                cut += 1
                if cut > 25:
                    enough.set()
                await response.write(b"\n" if whole else b'{"type": "std')
                assert request.transport is not None
                request.transport.abort()
                return response
            async for piece in got.content.iter_any():
                await response.write(piece)
            return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    async with serving(app) as address, AsyncSession(address) as session:
        if whole:
            assert (await session.run("6 * 7")).text == "42"
            assert cut == 26
        else:
            with pytest.raises(ConnectionFailed, match="could not be watched to its end"):
                await session.run("6 * 7")
            assert cut == 11
            enough.set()
