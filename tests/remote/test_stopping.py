"""Whoever goes away leaves nothing: not on the service, not here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import Any

import pytest
from aiohttp import web

from cellrun import (
    AsyncSession,
    CellrunService,
    Event,
    InputRequest,
    LimitExceeded,
    Limits,
    Queued,
    SessionLost,
    Started,
    Stdout,
)
from tests.live.test_leaks import CancelledAt, descriptors
from tests.remote.test_refusals import serving
from tests.service.running import JSON, Service, answer, client
from tests.support.waiting import HANG, PROCESS, eventually

pytestmark = pytest.mark.wide  # the contract suite, too, has a service among its kinds

SLEEP = "print('on', flush=True)\nimport time\nfor _ in range(600): time.sleep(0.1)"
STUBBORN = (
    "import time\nwhile True:\n    try: print('on', flush=True); time.sleep(60)\n    except KeyboardInterrupt: pass"
)


async def runs_of(service: Service, session: str) -> list[JSON]:
    """Newest first."""
    async with client(service) as http:
        found: list[JSON] = (await answer(http, "GET", f"/v1/sessions/{session}"))["runs"]
        return found


async def test_cancelling_a_run_interrupts_it_there(address: str, service: Service) -> None:
    async with AsyncSession(address, session_id="cancelled", limits=Limits(grace=HANG)) as session:
        await session.run("kept = 1")
        on = asyncio.Event()
        running = asyncio.create_task(
            session.run(SLEEP, on_event=lambda event: on.set() if isinstance(event, Stdout) else None)
        )
        await asyncio.wait_for(on.wait(), HANG)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        began = time.monotonic()
        result = await session.run("kept")
        assert (result.text, result.restarted) == ("1", None)
        assert time.monotonic() - began < HANG
        assert [run["status"] for run in await runs_of(service, "cancelled")] == ["ok", "interrupted", "ok"]


async def test_a_cell_that_swallows_the_interrupt_loses_its_kernel(address: str) -> None:
    async with AsyncSession(address, limits=Limits(grace=0.5)) as session:
        async with session.stream(STUBBORN) as stream:
            async for event in stream:
                if isinstance(event, Stdout):
                    break
        result = await asyncio.wait_for(session.run("'free'"), PROCESS)
        assert result.text == "'free'"
        assert result.restarted == "restart() was called"


async def test_leaving_a_stream_early_interrupts_the_cell(address: str, service: Service) -> None:
    async with AsyncSession(address, session_id="left") as session:
        async with session.stream(SLEEP) as stream:
            async for event in stream:
                if isinstance(event, Started):
                    break
        assert (await stream.finish()).status == "interrupted"
        async with session.stream("'never'"):
            pass
        assert (await session.run("'next'")).text == "'next'"
        assert (await runs_of(service, "left"))[2]["status"] == "interrupted"


async def test_a_run_that_waits_leaves_the_line(address: str, service: Service) -> None:
    async with AsyncSession(address, session_id="line") as session:
        queued, go = asyncio.Event(), asyncio.Event()

        async def on_input(request: InputRequest) -> str:
            await go.wait()
            return ""

        first = asyncio.create_task(session.run("input(); a = 'a'; a", on_input=on_input))
        second = asyncio.create_task(
            session.run("a = 'never'", on_event=lambda event: queued.set() if isinstance(event, Queued) else None)
        )
        third = asyncio.create_task(session.run("a"))
        await asyncio.wait_for(queued.wait(), HANG)
        second.cancel()
        async with asyncio.timeout(HANG):
            while "interrupted" not in [run["status"] for run in await runs_of(service, "line")]:
                await asyncio.sleep(0.02)
        go.set()
        assert [result.text for result in (await first, await third)] == ["'a'", "'a'"]


async def test_a_cancel_at_any_await_leaves_a_session_that_works_and_nothing_else(
    address: str, service: Service
) -> None:
    async with CellrunService(address) as shared:
        async with AsyncSession(shared, session_id="at-any-await") as session:
            await session.run("count = 0")
            awaits = 1
            at = 0
            while at < awaits:
                call = CancelledAt(session.run("count += 1"), at)
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.ensure_future(_awaiting(call))
                awaits = max(awaits, min(call.awaits, 30))
                at += 1
            for delay in (0.0, 0.001, 0.004, 0.01, 0.02):
                running = asyncio.create_task(session.run(SLEEP))
                await asyncio.sleep(delay)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                entering = asyncio.create_task(session.stream(SLEEP).__aenter__())
                await asyncio.sleep(delay)
                entering.cancel()
                for entered in await asyncio.gather(entering, return_exceptions=True):
                    if not isinstance(entered, BaseException):
                        entered.cancel()
            assert (await asyncio.wait_for(session.run("'works'"), PROCESS)).text == "'works'"
            backend = session._backend
            await eventually(lambda: not backend._tasks)
        states = {run["status"] for run in await runs_of(service, "at-any-await")}
        assert states <= {"ok", "interrupted"}


async def _awaiting(call: CancelledAt) -> object:
    return await asyncio.ensure_future(call)


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.05, 0.5])
async def test_closing_while_it_starts_leaves_no_session(address: str, service: Service, delay: float) -> None:
    session = AsyncSession(address)
    starting = asyncio.create_task(session.run(SLEEP))
    await asyncio.sleep(delay)
    await asyncio.wait_for(session.aclose(), HANG)
    ended = await asyncio.gather(starting, return_exceptions=True)
    assert getattr(ended[0], "status", "interrupted") == "interrupted"
    name = repr(session._backend.state).split("'")[1]
    async with client(service) as http:
        there = await answer(http, "GET", "/v1/sessions")
        assert name not in [found["id"] for found in there["sessions"]]


async def test_closing_ends_what_runs_and_gives_its_result(address: str, service: Service) -> None:
    session = await AsyncSession(address, session_id="closed", limits=Limits(grace=0.5)).start()
    seen: list[Event] = []
    running = asyncio.create_task(session.run(SLEEP, on_event=seen.append))
    waiting = asyncio.create_task(session.run("'never'"))
    await eventually(lambda: any(isinstance(event, Stdout) for event in seen))
    await asyncio.wait_for(asyncio.gather(session.aclose(), session.aclose()), HANG)
    result = await running
    assert (result.status, result.reason, result.stdout) == ("interrupted", "the session was closed", "on\n")
    assert (await waiting).status == "interrupted"
    assert {run["status"] for run in await runs_of(service, "closed")} == {"interrupted"}


async def test_closing_a_named_session_ends_a_stubborn_cell_too(address: str, service: Service) -> None:
    session = await AsyncSession(address, session_id="stubborn", limits=Limits(grace=0.3)).start()
    on = asyncio.Event()
    running = asyncio.create_task(
        session.run(STUBBORN, on_event=lambda event: on.set() if isinstance(event, Stdout) else None)
    )
    await asyncio.wait_for(on.wait(), HANG)
    await asyncio.wait_for(session.aclose(), HANG)
    assert (await running).status == "interrupted"
    assert [run["status"] for run in await runs_of(service, "stubborn")] == ["interrupted"]


@pytest.mark.wide
async def test_closing_never_raises_and_is_bounded_when_the_service_is_gone(own_service: Service) -> None:
    service = own_service.start()
    session = await AsyncSession(service.url.replace("http", "cellrun"), limits=Limits(grace=0.5)).start()
    running = asyncio.create_task(session.run(SLEEP))
    await asyncio.sleep(0.3)
    service.kill()
    began = time.monotonic()
    await session.aclose()
    assert time.monotonic() - began < HANG
    assert (await running).status == "interrupted"


async def test_a_callback_that_fails_fails_for_its_caller_and_stops_the_cell(address: str) -> None:
    async with AsyncSession(address) as session:

        def failing(event: Event) -> None:
            if event.seq > 1:
                raise LookupError("of on_event")

        with pytest.raises(LookupError, match="of on_event"):
            await session.run(SLEEP, on_event=failing)

        async def no_answer(request: InputRequest) -> str:
            raise LookupError("of on_input")

        with pytest.raises(LookupError, match="of on_input"):
            await session.run("while True:\n    try: input()\n    except EOFError: pass", on_input=no_answer)
        with pytest.raises(ValueError, match="does not take this"):
            await session.run("input()", on_input=lambda request: "x" * 1_000_001)
        assert (await asyncio.wait_for(session.run("1"), PROCESS)).text == "1"


async def test_too_long_a_line_is_refused_here(address: str) -> None:
    async with AsyncSession(address, limits=Limits(queue_length=1)) as session:
        running = [asyncio.create_task(session.run("import time; time.sleep(0.3)")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="1 runs wait"):
            await session.run("1")
        assert [result.status for result in await asyncio.gather(*running)] == ["ok", "ok"]


@pytest.mark.wide
async def test_sessions_leave_no_descriptor_and_no_task(address: str) -> None:
    async def once() -> None:
        async with AsyncSession(address) as session:
            await session.run("1")
            async with session.stream(SLEEP) as stream:
                async for event in stream:
                    if isinstance(event, Started):
                        break

    await once()
    gc.collect()
    before, tasks = descriptors(), len(asyncio.all_tasks())
    for _ in range(3):
        await once()
    gc.collect()
    await eventually(lambda: descriptors() <= before and len(asyncio.all_tasks()) <= tasks)


@pytest.mark.wide
@pytest.mark.parametrize("how", ["start", "start, cancelled", "run"])
async def test_a_session_is_not_left_over_by_a_start_that_its_end_could_overtake(service: Service, how: str) -> None:
    """What makes it is held up on its way, until what deletes it has passed: if that does not wait."""
    held, passed = asyncio.Event(), asyncio.Event()
    made: list[str] = []

    async def relay(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            made.append(request.path.rpartition("/")[2])
            held.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(passed.wait(), 1.0)
        async with client(service) as http, http.request(request.method, request.path_qs) as got:
            body = await got.read()
            if request.method == "DELETE":
                passed.set()
            return web.Response(body=body, status=got.status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    async with serving(app) as address, CellrunService(address) as shared:
        session = AsyncSession(shared)
        starting: asyncio.Task[Any] = asyncio.create_task(session.run("1") if how == "run" else session.start())
        await asyncio.wait_for(held.wait(), HANG)
        if how == "start, cancelled":
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
        await asyncio.wait_for(session.aclose(), HANG)
        if how == "start":
            with pytest.raises(SessionLost, match="the session is closed"):
                await starting
        elif how == "run":
            assert (await starting).status == "interrupted"
    async with client(service) as http:
        there = await answer(http, "GET", "/v1/sessions")
    assert len(made) == 1
    assert made[0] not in [found["id"] for found in there["sessions"]]
