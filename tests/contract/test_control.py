"""Time, interruption, input, the line of runs, death and files, over every provider."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest

from cellrun import (
    AsyncSession,
    CellrunService,
    InputRequest,
    KernelRestarted,
    LimitExceeded,
    Limits,
    Queued,
    Result,
    SessionLost,
    Started,
    Stdout,
    Unsupported,
)
from tests.contract.conftest import Way
from tests.support.waiting import HANG, SLACK, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Of limits of 2 s: the limit, and the grace of 1.5 s of sessions here.
LATE = 2 + 1.5 + SLACK
SLEEP = "import time\nfor _ in range(300): time.sleep(0.1)"
SWALLOW = "import time\nwhile True:\n    try:\n        time.sleep(10)\n    except KeyboardInterrupt:\n        print('no', flush=True)"


async def test_a_sleeping_cell_ends_at_its_time_limit_and_the_variables_stay(shared: AsyncSession) -> None:
    await shared.run("kept = 'kept'")
    started = time.monotonic()
    result = await shared.run("print('partial', flush=True)\nimport time; time.sleep(30)", timeout=2)
    assert time.monotonic() - started < LATE
    assert (result.status, result.stdout) == ("timeout", "partial\n")
    assert result.reason == "the time limit of 2 s was reached"
    after = await shared.run("kept")
    assert (after.text, after.restarted) == ("'kept'", None)


async def test_a_chatty_cell_ends_at_its_time_limit(shared: AsyncSession) -> None:
    started = time.monotonic()
    result = await shared.run("import time\nwhile True:\n    print('.', flush=True); time.sleep(0.01)", timeout=2)
    assert time.monotonic() - started < LATE
    assert result.status == "timeout"
    assert result.stdout.startswith(".\n.\n")


async def test_an_awaiting_cell_ends_at_its_time_limit(shared: AsyncSession) -> None:
    started = time.monotonic()
    result = await shared.run("import asyncio\nawait asyncio.sleep(30)", timeout=2)
    assert time.monotonic() - started < LATE
    assert result.status == "timeout"
    assert (await shared.run("'fine'")).restarted is None


async def test_a_cell_that_swallows_interrupts_is_killed_and_the_next_run_is_told(session: AsyncSession) -> None:
    await session.run("lost = 1")
    started = time.monotonic()
    result = await session.run(SWALLOW, timeout=2)
    assert time.monotonic() - started < LATE
    assert (result.status, result.stdout[:3]) == ("timeout", "no\n")
    async with session.stream("'lost' in globals()") as stream:
        events = [event async for event in stream]
    assert isinstance(events[0], KernelRestarted)
    assert "did not stop" in events[0].reason
    assert (stream.result.text, stream.result.restarted) == ("False", events[0].reason)


async def test_interrupt_ends_the_cell_as_interrupted(shared: AsyncSession) -> None:
    async with shared.stream("print('in', flush=True)\n" + SLEEP) as stream:
        async for event in stream:
            # Not at Started: stock ipykernel that is struck between announcing a cell and running it ends it without an error.
            if isinstance(event, Stdout):
                await shared.interrupt()
    assert stream.result.status == "interrupted"
    assert stream.result.error is not None
    assert stream.result.error.name == "KeyboardInterrupt"
    await shared.interrupt()  # nothing runs: nothing happens
    assert (await shared.run("1")).ok


async def test_an_interrupt_that_the_cell_handles_is_no_failure(shared: AsyncSession) -> None:
    code = "import time\ntry:\n    print('in', flush=True)\n    for _ in range(300): time.sleep(0.1)\n"
    async with shared.stream(code + "except KeyboardInterrupt:\n    print('tidied')") as stream:
        async for event in stream:
            if isinstance(event, Stdout) and event.text == "in\n":
                await stream.interrupt()
    assert (stream.result.status, stream.result.stdout) == ("ok", "in\ntidied\n")


async def test_cancelling_the_task_interrupts_the_cell(shared: AsyncSession) -> None:
    started = asyncio.Event()
    task = asyncio.create_task(
        shared.run("print('on')\n" + SLEEP, on_event=lambda e: started.set() if isinstance(e, Started) else None)
    )
    await asyncio.wait_for(started.wait(), HANG)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    begun = time.monotonic()
    assert (await shared.run("'mine alone'")).text == "'mine alone'"
    assert time.monotonic() - begun < SLACK


async def test_leaving_a_stream_early_interrupts_the_cell(shared: AsyncSession) -> None:
    async with shared.stream(SLEEP) as stream:
        async for event in stream:
            if isinstance(event, Started):
                break
    begun = time.monotonic()
    assert (await shared.run("'next'")).text == "'next'"
    assert time.monotonic() - begun < SLACK


async def test_runs_wait_in_order_and_know_their_place(shared: AsyncSession) -> None:
    positions: dict[int, list[int]] = {}

    def note(number: int, event: object) -> None:
        if isinstance(event, Queued):
            positions.setdefault(number, []).append(event.position)

    async def one(number: int) -> Result:
        code = f"import time; time.sleep(0.2); order = globals().get('order', []) + [{number}]; order[-4:]"
        return await shared.run(code, on_event=lambda event: note(number, event))

    results = await asyncio.gather(*map(one, range(4)))
    assert results[-1].text == "[0, 1, 2, 3]"
    assert positions == {1: [1], 2: [2, 1], 3: [3, 2, 1]}


async def test_a_queued_run_can_be_cancelled_and_leaves_the_line(shared: AsyncSession) -> None:
    first = asyncio.create_task(shared.run("import time; time.sleep(0.5); a = 'a'; a"))
    second = asyncio.create_task(shared.run("a = 'never'"))
    third = asyncio.create_task(shared.run("a"))
    await asyncio.sleep(0.1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (await first).text == "'a'"
    assert (await third).text == "'a'"


async def test_a_run_that_waits_too_long_for_its_turn_does_not_begin(shared: AsyncSession, way: Way) -> None:
    if way.service:
        with pytest.raises(Unsupported, match="does not offer queue_timeout="):
            await shared.run("never = 1", queue_timeout=0.1)
        return
    first = asyncio.create_task(shared.run("import time; time.sleep(1)"))
    await asyncio.sleep(0)
    result = await shared.run("never = 1", queue_timeout=0.1)
    assert (result.status, result.execution_count) == ("timeout", None)
    assert "queue_timeout" in (result.reason or "")
    assert (await first).ok
    assert (await shared.run("'never' in globals()")).text == "False"


async def test_too_long_a_line_is_refused(way: Way) -> None:
    async with AsyncSession(way.provider, limits=Limits(queue_length=1)) as session:
        running = [asyncio.create_task(session.run("import time; time.sleep(0.3)")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="1 runs wait"):
            await session.run("1")
        assert [result.status for result in await asyncio.gather(*running)] == ["ok", "ok"]


async def test_input_is_answered_from_a_list_and_then_ends(shared: AsyncSession) -> None:
    result = await shared.run("a = input('first? '); b = input(); print(a, b)", stdin=["Ada", "Bob"])
    assert result.stdout == "Ada Bob\n"
    result = await shared.run("input(); input()", stdin=["only one"])
    assert result.error is not None
    assert result.error.name == "EOFError"


async def test_input_is_answered_by_a_callback_and_passwords_are_marked(shared: AsyncSession) -> None:
    asked: list[InputRequest] = []

    async def on_input(request: InputRequest) -> str:
        asked.append(request)
        return "secret"

    result = await shared.run("import getpass\nprint(len(getpass.getpass('pw? ')), input('name? '))", on_input=on_input)
    assert result.stdout == "6 secret\n"
    assert [(request.prompt, request.password) for request in asked] == [("pw? ", True), ("name? ", False)]


async def test_a_callback_that_fails_stops_the_cell_and_fails_for_its_caller(shared: AsyncSession) -> None:
    def on_input(request: InputRequest) -> str:
        raise LookupError("no answer")

    with pytest.raises(LookupError, match="no answer"):
        await shared.run("while True:\n    try: input()\n    except EOFError: pass", on_input=on_input)
    assert (await shared.run("1")).text == "1"


async def test_without_an_answer_input_fails_in_the_kernels_own_words(shared: AsyncSession, way: Way) -> None:
    result = await shared.run("input('? ')")
    assert result.error is not None
    if way.service:  # which always offers input: there is none
        assert result.error.name == "EOFError"
        return
    assert result.error.name == "StdinNotImplementedError"
    assert "does not support input requests" in result.error.value


async def test_a_restart_gives_a_fresh_kernel(session: AsyncSession) -> None:
    await session.run("x = 1")
    await session.restart()
    result = await session.run("'x' in globals()")
    assert (result.text, result.restarted) == ("False", "restart() was called")
    assert (await session.run("1")).restarted is None


async def test_a_restart_ends_a_running_cell_and_waiting_runs_go_on(session: AsyncSession) -> None:
    started = asyncio.Event()
    first = asyncio.create_task(
        session.run(SLEEP, on_event=lambda e: started.set() if isinstance(e, Started) else None)
    )
    await asyncio.wait_for(started.wait(), HANG)
    second = asyncio.create_task(session.run("'second'"))
    await asyncio.sleep(0)
    await session.restart()
    assert (await first).status == "interrupted"
    assert (await second).text == "'second'"


async def test_a_death_is_named_and_waiting_runs_fail_at_once(session: AsyncSession, way: Way) -> None:
    started = time.monotonic()
    code = "print('last words', flush=True)\nimport time, os; time.sleep(0.3); os._exit(3)"
    first, second = await asyncio.gather(session.run(code), session.run("1"))
    assert time.monotonic() - started < SLACK
    assert (first.status, second.status) == ("kernel_died", "kernel_died")
    assert first.stdout == "last words\n"
    assert ("exited with code 3" if way.local or way.service else "died") in (first.reason or "")
    assert "had not begun" in (second.reason or "")
    after = await session.run("'alive'")
    assert after.text == "'alive'"
    assert after.restarted is not None


async def test_a_session_that_is_closed_says_so(way: Way) -> None:
    session = AsyncSession(way.provider)
    await session.start()
    running = asyncio.create_task(session.run(SLEEP))
    await asyncio.sleep(0.2)
    await session.aclose()
    await session.aclose()
    result = await asyncio.wait_for(running, HANG)
    assert (result.status, result.reason) == ("interrupted", "the session was closed")
    with pytest.raises(SessionLost, match="closed"):
        await session.run("1")


async def test_files_go_in_and_out(session: AsyncSession, way: Way) -> None:
    if way.kind == "gateway":
        with pytest.raises(Unsupported, match="no files"):
            await session.files.write("a", b"")
        return
    big = bytes(range(256)) * 30_000

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 500_000):
            yield big[start : start + 500_000]

    await session.files.write("in/text.txt", "grüße")
    await session.files.write("in/big.bin", pieces())
    result = await session.run(
        "print(open('in/text.txt', encoding='utf-8').read(), len(open('in/big.bin', 'rb').read()))\n"
        "open('out.bin', 'wb').write(b'made here');"
    )
    assert result.stdout == f"grüße {len(big)}\n"
    assert await session.files.read("out.bin") == b"made here"
    assert await session.files.read("in/big.bin") == big
    assert [(info.path, info.is_dir) for info in await session.files.list("in")] == [
        ("in/big.bin", False),
        ("in/text.txt", False),
    ]
    for name in ("in/text.txt", "in/big.bin", "in", "out.bin"):
        await session.files.delete(name)
    with pytest.raises(FileNotFoundError):
        await session.files.read("out.bin")
    for path in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(ValueError, match="relative"):
            await session.files.read(path)


async def test_a_slow_reader_slows_the_kernel_and_loses_nothing(way: Way) -> None:
    limits = Limits(stream_buffer=200_000)
    async with AsyncSession(way.provider, limits=limits) as session:
        lines = 0
        async with session.stream("for i in range(300_000): print(i)", timeout=50) as stream:
            async for event in stream:
                if isinstance(event, Stdout):
                    lines += event.text.count("\n")
                    if lines < 100_000:
                        await asyncio.sleep(0.02)
        assert stream.result.ok
        assert lines == 300_000


async def test_closing_a_provider_ends_its_kernels(way: Way) -> None:
    session = AsyncSession(way.provider)
    await session.start()
    before = repr(session)
    await session.aclose()
    if isinstance(way.provider, CellrunService):
        name = re.findall(r"session '(\w+)'", before)[0]
        there = await way.provider.http.json("GET", "v1/sessions")
        assert name not in [found["id"] for found in there["sessions"]]
        return
    await eventually(lambda: " 0 kernels" in repr(way.provider) or "1 kernels" in repr(way.provider))
