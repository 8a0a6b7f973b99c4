"""The pure parts: events out of bytes, and what a run takes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cellrun import Event, Finished, Limits, OutputDropped, ProtocolError, Queued, Stdout
from cellrun.remote.events import events_in
from cellrun.remote.run import SILENCE, ServiceRun
from cellrun.running import RunOptions
from cellrun.wire import event_to_json


def told(seq: int) -> Stdout:
    return Stdout(seq=seq, execution_id="r", text=f"line {seq}\n")


def end(seq: int) -> Finished:
    return Finished(seq=seq, execution_id="r", status="ok", execution_count=1, duration=0.1)


async def read(data: bytes, size: int) -> list[Event]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    found: list[Event] = []
    async for events in events_in(pieces()):
        assert events
        found += events
    return found


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_events_come_out_whole_however_they_are_cut(size: int) -> None:
    events: list[Event] = [told(1), told(2), Stdout(seq=3, execution_id="r", text="ü\r\n\u2028"), end(4)]
    data = "\n".join([event_to_json(events[0]), "", "", *map(event_to_json, events[1:])]).encode() + b"\n"
    assert await read(data, size) == events
    assert (
        await read(data + b'{"type": "stdout", "seq"', size) == events
    )  # cut off: the rest comes with the next connection
    with pytest.raises(ProtocolError, match="not a line of JSON"):
        await read(data + b"<html>\n", size)


def run_of(**options: object) -> ServiceRun:
    run = ServiceRun(code="", options=RunOptions(**options), limits=Limits())  # type: ignore[arg-type]
    run.sent = True
    run.accept("r")
    return run


async def test_what_comes_again_is_passed_over_and_what_is_missing_is_an_error() -> None:
    run = run_of()
    run.take([told(1), told(2)])
    run.take([told(1), told(2), told(3)])
    with pytest.raises(ProtocolError, match="after 3 of the run r came 5"):
        run.take([told(5)])
    run.take([told(4), end(5)])
    assert run.over
    assert run.raise_or_result().stdout == "line 1\nline 2\nline 3\nline 4\n"


async def test_what_the_service_has_forgotten_is_told_and_no_error() -> None:
    run = run_of()
    run.take([told(1)])
    run.take([OutputDropped(seq=40, execution_id="r", reason="log", detail="forgotten"), told(41), end(42)])
    result = run.raise_or_result()
    assert result.dropped
    assert result.stdout == "line 1\nline 41\n"


async def test_after_its_deadline_a_run_may_not_be_silent_for_long() -> None:
    assert run_of().silence() == SILENCE
    run = run_of(timeout=5.0)
    run.take([Queued(seq=1, execution_id="r", position=1)])
    assert run.silence() == SILENCE  # it has not begun
    run.take([told(2)])
    assert 5 < run.silence() <= 5 + Limits().grace + 3
    assert run.begun_at is not None
    run.begun_at -= 1000
    assert run.silence() == run.patience() == 3


def test_what_goes_with_the_request() -> None:
    assert run_of().body() == {"code": "", "on_disconnect": "detach", "timeout": None, "stdin": []}
    assert "timeout" not in run_of(timeout_named=False).body()
    assert run_of(stdin=("a", "b")).body()["stdin"] == ["a", "b"]
    assert "stdin" not in run_of(stdin=iter("ab")).body()
    assert "stdin" not in run_of(on_input=lambda request: "").body()
    with pytest.raises(RuntimeError, match="has not told"):
        _ = ServiceRun(code="", options=RunOptions(), limits=Limits()).execution_id
