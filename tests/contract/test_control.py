"""Time, interruption, input, the line of runs, death and files, over every provider."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Final

import pytest

from cellrun import (
    AsyncSession,
    CellrunService,
    Event,
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
from tests.support.waiting import HANG, PROCESS, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Longer ones for a machine that has stood still for as long as the first, so that the cell had not come to what is looked at.
TIME_LIMITS: Final = (2, 8, 30)
# After a limit: the grace of sessions here, and what a busy machine may add.
LATE: Final = 2 + HANG
# Both far longer than any of these.
SLEEP = "import time\nfor _ in range(3000): time.sleep(0.1)"
SWALLOW = "import time\nwhile True:\n    try:\n        time.sleep(300)\n    except KeyboardInterrupt:\n        print('no', flush=True)"


class Seen:
    """What has come of a run so far, for those that must not go on before it has."""

    def __init__(self, kind: type[Event], text: str = "") -> None:
        self._kind = kind
        self._text = text
        self._told = ""
        self._there = asyncio.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, self._kind):
            self._told += event.text if isinstance(event, Stdout) else ""
            if self._text in self._told:
                self._there.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self._there.wait(), HANG)


async def test_a_sleeping_cell_ends_at_its_time_limit_and_the_variables_stay(shared: AsyncSession) -> None:
    for limit in TIME_LIMITS:
        await shared.run("kept = 'kept'")
        started = time.monotonic()
        result = await shared.run("print('partial', flush=True)\nimport time; time.sleep(300)", timeout=limit)
        assert time.monotonic() - started < limit + LATE
        assert result.status == "timeout"
        assert (result.reason or "").startswith(f"the time limit of {limit} s was reached")
        after = await shared.run("kept")
        if result.stdout and after.restarted is None:
            break
    assert (result.stdout, result.reason) == ("partial\n", f"the time limit of {limit} s was reached")
    assert (after.text, after.restarted) == ("'kept'", None)


async def test_a_chatty_cell_ends_at_its_time_limit(shared: AsyncSession) -> None:
    for limit in TIME_LIMITS:
        started = time.monotonic()
        code = "import time\nwhile True:\n    print('.', flush=True); time.sleep(0.01)"
        result = await shared.run(code, timeout=limit)
        assert time.monotonic() - started < limit + LATE
        assert result.status == "timeout"
        if len(result.stdout) > 4:
            break
    assert result.stdout.startswith(".\n.\n")


async def test_an_awaiting_cell_ends_at_its_time_limit(shared: AsyncSession) -> None:
    for limit in TIME_LIMITS:
        started = time.monotonic()
        result = await shared.run("import asyncio\nawait asyncio.sleep(300)", timeout=limit)
        assert time.monotonic() - started < limit + LATE
        assert result.status == "timeout"
        after = await shared.run("'fine'")
        if after.restarted is None:
            break
    assert (after.text, after.restarted) == ("'fine'", None)


async def test_a_cell_that_swallows_interrupts_is_killed_and_the_next_run_is_told(session: AsyncSession) -> None:
    for limit in TIME_LIMITS:
        await session.run("lost = 1")
        started = time.monotonic()
        result = await session.run(SWALLOW, timeout=limit)
        assert time.monotonic() - started < limit + LATE
        assert result.status == "timeout"
        if result.stdout:
            break
    assert result.stdout[:3] == "no\n"
    async with session.stream("'lost' in globals()") as stream:
        events = [event async for event in stream]
    assert isinstance(events[0], KernelRestarted)
    assert "did not stop" in events[0].reason
    assert (stream.result.text, stream.result.restarted) == ("False", events[0].reason)


async def test_interrupt_ends_the_cell_as_interrupted(shared: AsyncSession) -> None:
    async with shared.stream("print('in', flush=True)\n" + SLEEP) as stream:
        async for event in stream:
            # Not at Started: stock ipykernel that is struck between announcing a cell and running it ends it without an error. And once:
            # the text and its newline may come apart.
            if isinstance(event, Stdout) and "\n" in event.text:
                await shared.interrupt()
    assert stream.result.status == "interrupted"
    assert stream.result.error is not None
    assert stream.result.error.name == "KeyboardInterrupt"
    await shared.interrupt()  # nothing runs: nothing happens
    assert (await shared.run("1")).ok


async def test_an_interrupt_that_the_cell_handles_is_no_failure(shared: AsyncSession) -> None:
    # In one piece: print writes the newline by itself, and the two may come apart.
    code = "import time\ntry:\n    print('in\\n', end='', flush=True)\n    for _ in range(3000): time.sleep(0.1)\n"
    async with shared.stream(code + "except KeyboardInterrupt:\n    print('tidied')") as stream:
        async for event in stream:
            if isinstance(event, Stdout) and event.text == "in\n":
                await stream.interrupt()
    assert (stream.result.status, stream.result.stdout) == ("ok", "in\ntidied\n")


async def test_cancelling_the_task_interrupts_the_cell(shared: AsyncSession) -> None:
    begun = Seen(Started)
    task = asyncio.create_task(shared.run("print('on')\n" + SLEEP, on_event=begun))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(HANG):
        assert (await shared.run("'mine alone'")).text == "'mine alone'"


async def test_leaving_a_stream_early_interrupts_the_cell(shared: AsyncSession) -> None:
    async with shared.stream(SLEEP) as stream:
        async for event in stream:
            if isinstance(event, Started):
                break
    async with asyncio.timeout(HANG):
        assert (await shared.run("'next'")).text == "'next'"


async def test_runs_wait_in_order_and_know_their_place(shared: AsyncSession) -> None:
    positions: dict[int, list[int]] = {}

    def note(number: int, event: object) -> None:
        if isinstance(event, Queued):
            positions.setdefault(number, []).append(event.position)

    async def when_all_wait(request: InputRequest) -> str:
        await eventually(lambda: len(positions) == 3)
        return ""

    async def one(number: int) -> Result:
        first = "" if number else "input(); "  # the others come to the line one after the other
        code = f"{first}order = globals().get('order', []) + [{number}]; order[-4:]"
        return await shared.run(code, on_event=lambda event: note(number, event), on_input=when_all_wait)

    results = await asyncio.gather(*map(one, range(4)))
    assert results[-1].text == "[0, 1, 2, 3]"
    assert positions == {1: [1], 2: [2, 1], 3: [3, 2, 1]}


async def test_a_queued_run_can_be_cancelled_and_leaves_the_line(shared: AsyncSession) -> None:
    go, in_line = asyncio.Event(), [Seen(Queued), Seen(Queued)]

    async def on_input(request: InputRequest) -> str:
        await go.wait()
        return ""

    first = asyncio.create_task(shared.run("input(); a = 'a'; a", on_input=on_input))
    second = asyncio.create_task(shared.run("a = 'never'", on_event=in_line[0]))
    third = asyncio.create_task(shared.run("a", on_event=in_line[1]))
    for seen in in_line:
        await seen.wait()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
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
    begun = Seen(Started)
    first = asyncio.create_task(session.run(SLEEP, on_event=begun))
    await begun.wait()
    second = asyncio.create_task(session.run("'second'"))
    await asyncio.sleep(0)
    await session.restart()
    assert (await first).status == "interrupted"
    assert (await second).text == "'second'"


async def test_a_death_is_named_and_waiting_runs_fail_at_once(session: AsyncSession, way: Way) -> None:
    said, in_line = Seen(Stdout, "last words\n"), Seen(Queued)

    async def on_input(request: InputRequest) -> str:
        await said.wait()
        await in_line.wait()
        return ""

    code = "print('last words', flush=True)\ninput()\nimport os; os._exit(3)"
    async with asyncio.timeout(3 * HANG):
        first, second = await asyncio.gather(
            session.run(code, on_event=said, on_input=on_input), session.run("1", on_event=in_line)
        )
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
    begun = Seen(Started)
    running = asyncio.create_task(session.run(SLEEP, on_event=begun))
    await begun.wait()
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
        async with session.stream("for i in range(300_000): print(i)", timeout=PROCESS) as stream:
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
