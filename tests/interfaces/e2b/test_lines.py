"""Events as lines, read by the SDK's own parser."""

from __future__ import annotations

from collections.abc import AsyncIterator

from e2b_code_interpreter.models import Execution, parse_output

from cellrun.event_log import Entry, entry_of
from cellrun.events import (
    ErrorOutput,
    Event,
    ExecuteResult,
    Finished,
    KernelRestarted,
    OutputDropped,
    Started,
    Status,
    Stdout,
)
from cellrun.service.e2b.lines import Lines, as_bytes
from cellrun.service.e2b.routes import spelled


def finished(status: Status, reason: str | None = None) -> Finished:
    return Finished(seq=9, execution_id="e", status=status, execution_count=None, duration=1.0, reason=reason)


def parsed(*events: Event) -> Execution:
    execution, lines = Execution(), Lines()
    for event in events:
        for line in lines.of(event, 1):
            parse_output(execution, as_bytes(line).decode())
    return execution


ERROR = ErrorOutput(seq=2, execution_id="e", name="KeyboardInterrupt", value="", traceback="where")


def test_how_a_run_ended_is_told_as_one_error() -> None:
    cases: list[tuple[list[Event], tuple[str, str, str] | None]] = [
        ([finished("ok")], None),
        ([ERROR, finished("error")], ("KeyboardInterrupt", "", "where")),
        ([ERROR, finished("timeout", "the time limit of 5 s was reached")], ("TimeoutError", "the time limit of 5 s was reached", "where")),
        ([ERROR, finished("interrupted", "the kernel was restarted")], ("KeyboardInterrupt", "the kernel was restarted", "where")),
        ([finished("interrupted", "the kernel was restarted")], ("KeyboardInterrupt", "the kernel was restarted", "")),
        ([finished("kernel_died", "out of memory")], ("KernelDied", "out of memory", "")),
    ]  # fmt: skip
    for events, told in cases:
        error = parsed(*events).error
        assert (None if error is None else (error.name, error.value, error.traceback)) == told


def test_the_count_is_told_once_also_where_the_kernel_says_it_last() -> None:
    assert parsed(Started(seq=1, execution_id="e", execution_count=3), finished("ok")).execution_count == 3
    late = Finished(seq=2, execution_id="e", status="ok", execution_count=4, duration=1.0)
    assert parsed(Started(seq=1, execution_id="e", execution_count=None), late).execution_count == 4


def test_what_was_lost_is_said_on_standard_error() -> None:
    dropped = OutputDropped(seq=1, execution_id="e", reason="log", detail="the events 1 to 3 are no longer kept")
    restarted = KernelRestarted(seq=2, execution_id="e", reason="out of memory")
    assert parsed(dropped, restarted).logs.stderr == [
        "[output was lost: the events 1 to 3 are no longer kept]\n",
        "[a new kernel was started, and earlier variables are gone: out of memory]\n",
    ]


def test_no_text_breaks_a_line() -> None:
    text = "a\u2028b\u0085c\x0bd\x1ce\r\nf \udc80"
    result = ExecuteResult(seq=1, execution_id="e", data={"text/plain": text}, metadata={}, execution_count=1)
    (line,) = Lines().of(result, 1)
    assert len(as_bytes(line).decode().splitlines()) == 1
    assert parsed(result).text == text


async def test_a_silent_run_is_kept_alive_by_what_the_sdk_passes_over() -> None:
    async def pieces() -> AsyncIterator[list[Entry]]:
        yield [entry_of(Stdout(seq=1, execution_id="e", text="a"))]
        yield []
        yield [entry_of(finished("ok"))]

    execution = Execution()
    lines = [line async for line in spelled(pieces())]
    assert len(lines) == 3
    for line in lines:
        parse_output(execution, line.decode())
    assert execution.logs.stdout == ["a"]
    assert execution.error is None
