"""Things that happen at the same time: starts, closes, cancels, late answers, callbacks that fail."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from cellrun import AsyncSession, Event, InputRequest, JupyterServer, Limits, LocalKernels, Queued, SessionLost, Stdout
from cellrun.providers.local_lease import LocalLease
from tests.support.servers import Server, jupyter_server
from tests.support.waiting import HANG, PROCESS, SLACK, eventually


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.05, 0.3])
async def test_closing_while_the_kernel_starts_ends_the_start(delay: float) -> None:
    session = AsyncSession()
    starting = asyncio.create_task(session.start())
    await asyncio.sleep(delay)
    await asyncio.wait_for(session.aclose(), HANG)
    with contextlib.suppress(SessionLost):  # unless it was ready before
        await starting
    with pytest.raises(SessionLost):
        await session.run("1")


async def test_closing_a_provider_beside_a_start_leaves_no_kernel(free_server: Server) -> None:
    await eventually(lambda: free_server.kernels() == [])  # what the tests before have let go of
    for delay in (0.0, 0.01, 0.1, 0.4):
        provider = JupyterServer(free_server.url, token=free_server.token, warm=1)
        session = AsyncSession(provider)
        starting = asyncio.create_task(session.start())
        await asyncio.sleep(delay)
        await asyncio.wait_for(provider.aclose(), HANG)
        await asyncio.gather(starting, return_exceptions=True)
        await session.aclose()
    await eventually(lambda: free_server.kernels() == [])


async def test_a_stream_that_is_left_at_once_does_not_block_the_session() -> None:
    async with AsyncSession() as session:
        async with session.stream("1"):
            pass
        assert (await asyncio.wait_for(session.run("2"), HANG)).text == "2"


async def test_an_answer_that_comes_too_late_is_given_to_no_other_cell() -> None:
    late = asyncio.Event()

    async def slow(request: InputRequest) -> str:
        await late.wait()
        return "of the first"

    async def quick(request: InputRequest) -> str:
        late.set()
        await asyncio.sleep(0.2)
        return "of the second"

    async with AsyncSession() as session:
        assert (await session.run("input()", on_input=slow, timeout=0.5)).status == "timeout"
        assert (await session.run("input()", on_input=quick)).text == "'of the second'"
        await eventually(lambda: len(asyncio.all_tasks()) < 8)


async def test_a_cancelled_wait_for_a_kill_leaves_the_session_usable() -> None:
    async with AsyncSession(limits=Limits(grace=0.3)) as session:
        stubborn = "import time\nwhile True:\n    try: time.sleep(10)\n    except KeyboardInterrupt: pass"
        assert (await session.run(stubborn, timeout=0.3)).status == "timeout"
        waiting = asyncio.create_task(session.run("1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (await asyncio.wait_for(session.run("2"), HANG)).text == "2"


async def test_a_callback_that_fails_harms_its_own_run_alone() -> None:
    def failing(event: Event) -> None:
        if isinstance(event, Queued):
            raise LookupError("mine")  # noqa: TRY004

    async with AsyncSession() as session:
        first = asyncio.create_task(session.run("import time; time.sleep(0.3); 1"))
        second = asyncio.create_task(session.run("2"))
        third = asyncio.create_task(session.run("3", on_event=failing))
        fourth = asyncio.create_task(session.run("4"))
        with pytest.raises(LookupError, match="mine"):
            await third
        assert [(await task).text for task in (first, second, fourth)] == ["1", "2", "4"]


async def test_a_closed_session_starts_no_kernel() -> None:
    async with LocalKernels() as provider:
        session = AsyncSession(provider)
        await session.aclose()
        for call in (session.complete("x"), session.is_complete("x"), session.restart(), session.files.list()):
            with pytest.raises(SessionLost):
                await call
        assert " 0 kernels" in repr(provider)


async def test_a_close_that_is_cancelled_goes_on_and_a_second_one_waits_for_it(free_server: Server) -> None:
    await eventually(lambda: free_server.kernels() == [])
    session = AsyncSession(JupyterServer(free_server.url, token=free_server.token))
    await session.start()
    closing = asyncio.create_task(session.aclose())
    await asyncio.sleep(0.005)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await session.aclose()
    assert free_server.kernels() == []


async def test_a_provider_that_nobody_entered_lets_go_with_its_last_session(free_server: Server) -> None:
    provider = JupyterServer(free_server.url, token=free_server.token)
    for number in range(2):
        async with AsyncSession(provider) as session:
            assert (await session.run(f"{number}")).text == str(number)
        assert provider._http_client is None


async def test_listeners_of_late_output_end_with_the_session() -> None:
    session = AsyncSession()
    await session.start()

    async def listen() -> int:
        return len([event async for event in session.late()])

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await session.aclose()
    assert await asyncio.wait_for(listening, HANG) == 0


async def test_a_short_time_limit_is_not_used_up_by_the_kernels_start() -> None:
    limit = SLACK  # which the cell has for itself, however busy the machine is

    class Slow(LocalKernels):
        async def acquire(self, timeout: float) -> LocalLease:
            lease = await super().acquire(timeout)
            await asyncio.sleep(limit)
            return lease

    limits = Limits(grace=PROCESS)  # which the start may take, too
    async with Slow(pool=0, preload=()) as kernels:
        session = AsyncSession(kernels, limits=limits)
        try:
            assert (await session.run("1 + 1", timeout=limit)).text == "2"
        finally:
            await session.aclose()


async def test_an_environment_of_any_characters_arrives(free_server: Server) -> None:
    provider = JupyterServer(free_server.url, token=free_server.token, env={"FACE": "😀 \\ ' \" {x}"})
    async with provider, AsyncSession(provider) as session:
        assert (await session.run("import os; print(os.environ['FACE'])")).stdout == "😀 \\ ' \" {x}\n"


@pytest.mark.parametrize(
    "after", [*(pytest.param(seconds, marks=pytest.mark.wide) for seconds in (0.0, 0.05, 0.3)), 1.8]
)
async def test_a_server_that_stands_still_does_not_hold_the_one_deadline(after: float) -> None:
    """Stopped before the request for a kernel, in the middle of the start, and while the cell runs."""
    import os
    import signal

    from cellrun import execute_code_jupyter

    with jupyter_server() as server:
        assert server.process is not None
        calling = asyncio.create_task(
            execute_code_jupyter(server.url, "import time; time.sleep(300)", server.token, "", 2.5)
        )
        started = time.monotonic()
        await asyncio.sleep(after)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            answer = await asyncio.wait_for(calling, 2 * HANG)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        assert time.monotonic() - started < 2.5 + 2 + HANG
        assert answer["stderr"].endswith("Execution timed out.")
        await asyncio.sleep(0.5)
        await eventually(lambda: server.kernels() == [])
        await eventually(lambda: len(asyncio.all_tasks()) == 1)  # what still closed its connection


@pytest.mark.wide
async def test_a_kernel_that_the_server_is_restarting_is_deleted_all_the_same(free_server: Server) -> None:
    """The server refuses to delete it for as long, which is seconds where a cell holds on."""
    import aiohttp

    others = {kernel["id"] for kernel in free_server.kernels()}
    provider = JupyterServer(free_server.url, token=free_server.token)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on', flush=True)\ntime.sleep(60)"
    async with provider, AsyncSession(provider) as session, session.stream(code) as stream:
        async for event in stream:
            if isinstance(event, Stdout):
                break
        (kernel_id,) = {kernel["id"] for kernel in free_server.kernels()} - others
        url = f"{free_server.url}api/kernels/{kernel_id}"
        sent, trace = asyncio.Event(), aiohttp.TraceConfig()

        async def told(*_: object) -> None:
            sent.set()

        trace.on_request_headers_sent.append(told)
        headers = {"Authorization": f"token {free_server.token}"}
        async with aiohttp.ClientSession(headers=headers, trace_configs=[trace]) as client:
            restarting = asyncio.create_task(client.post(f"{url}/restart"))
            await sent.wait()
            await session.aclose()
            assert kernel_id not in {kernel["id"] for kernel in free_server.kernels()}
            assert (await restarting).status == 200


def test_a_session_on_another_event_loop_says_so() -> None:
    async def first() -> AsyncSession:
        session = AsyncSession()
        await session.start()
        await session.aclose()
        return session

    session = asyncio.run(first())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(session.run("1"))
