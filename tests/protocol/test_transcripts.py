"""What real kernels said (recorded by tests/transcripts/record.py), and what is made of it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cellrun.events import (
    ClearOutput,
    Comm,
    Display,
    DisplayUpdate,
    ErrorOutput,
    Event,
    ExecuteResult,
    Finished,
    InputRequest,
    Payload,
    Started,
    Stderr,
    Stdout,
)
from cellrun.folding import fold
from cellrun.protocol import ws_json, ws_v1
from cellrun.protocol.execution import Execution
from cellrun.protocol.kernel import Changed, Emit, KernelConnection, KernelState, Late
from cellrun.protocol.message import Message
from cellrun.result import DisplayOutput, ErrorInfo, PageOutput, Result, StreamOutput

FOLDER = Path(__file__).parent.parent / "transcripts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ndjson"))
CELLS = [name for name in NAMES if not name.endswith("_startup")]


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.ndjson").read_text(encoding="utf-8").splitlines()]


def message_of(line: dict[str, Any]) -> Message:
    buffers = tuple(base64.b64decode(buffer) for buffer in line["buffers"])
    return Message(line["channel"], line["header"], line["parent_header"], line["metadata"], line["content"], buffers)


@dataclass
class Replay:
    """A connection that is told the lines of a transcript; line n at n seconds."""

    connection: KernelConnection = field(default_factory=KernelConnection)
    events: list[Event] = field(default_factory=list)
    late: list[Event] = field(default_factory=list)
    states: list[KernelState] = field(default_factory=list)

    def tell(self, lines: list[dict[str, Any]]) -> Replay:
        for now, line in enumerate(lines):
            if "gone" in line:
                effects = self.connection.died(line["gone"], now)
            elif line["direction"] == "received":
                effects = self.connection.receive(message_of(line), now)
            else:
                effects = []
                self.send(message_of(line), now)
            for effect in effects:
                if isinstance(effect, Emit):
                    self.events += effect.events
                elif isinstance(effect, Late):
                    self.late.append(effect.event)
                elif isinstance(effect, Changed):
                    self.states.append(effect.state)
        return self

    def send(self, message: Message, now: float) -> None:
        if message.msg_type == "execute_request":
            execution = Execution(message.msg_id)
            self.connection.register(execution)
            execution.sent(now)
        elif message.msg_type == "kernel_info_request":
            self.connection.probe(message.msg_id)

    @property
    def result(self) -> Result:
        return fold(self.events)


def replay(name: str) -> Replay:
    return Replay().tell(lines_of(name))


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


# -- all of them -------------------------------------------------------------------------------------


def test_there_are_transcripts_of_two_kernels() -> None:
    assert {name.partition("_")[0] for name in NAMES} == {"python", "bash"}


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_is_numbered_without_holes_and_ends_once(name: str) -> None:
    events = replay(name).events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [type(event) is Finished for event in events] == [False] * (len(events) - 1) + [True]
    assert len({event.execution_id for event in events}) == 1


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("first", ["shell", "iopub"])
def test_neither_channel_need_be_the_first(name: str, first: str) -> None:
    recorded = lines_of(name)
    lines = [line for line in recorded if line.get("direction") == "received"]
    others = [line for line in recorded if line.get("direction") != "received"]
    sent, gone = [line for line in others if "gone" not in line], [line for line in others if "gone" in line]
    lines.sort(key=lambda line: line["channel"] != first)
    shuffled, told = Replay().tell([*sent, *lines, *gone]), Replay().tell(recorded)
    assert shuffled.result.outputs == told.result.outputs
    assert (shuffled.result.status, shuffled.result.error) == (told.result.status, told.result.error)


@pytest.mark.parametrize("name", NAMES)
def test_both_codecs_carry_every_message(name: str) -> None:
    for line in lines_of(name):
        if "gone" in line:
            continue
        message = message_of(line)
        for back in (ws_v1.decode(ws_v1.encode(message)), ws_json.decode(ws_json.encode(message))):
            assert [bytes(buffer) for buffer in back.buffers] == list(message.buffers)
            back.buffers = message.buffers
            assert back == message


def test_a_whole_life_on_one_connection_gives_each_cell_what_it_gets_alone() -> None:
    # File names do not tell the order of the cells, their requests' numbers do.
    names = sorted((name for name in NAMES if name.startswith("python")), key=first_request)
    life = Replay()
    for name in names:
        life.tell(lines_of(name))
    assert life.states == [KernelState.READY, KernelState.DEAD]
    for name in names:
        if name in CELLS:
            alone = replay(name).events
            assert [event for event in life.events if event.execution_id == alone[0].execution_id] == alone


def first_request(name: str) -> int:
    return min(int(line["header"]["msg_id"].partition("-")[2]) for line in lines_of(name)[:1])


# -- one by one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["python_startup", "bash_startup"])
def test_the_start_of_a_kernel_makes_it_ready(name: str) -> None:
    told = replay(name)
    assert told.states == [KernelState.READY]
    assert told.events == told.late == []


def test_print() -> None:
    told = replay("python_print")
    assert kinds(told.events) == [Started, Stdout, Finished]
    assert told.result.stdout == "hello\nworld\n"
    assert (told.result.status, told.result.execution_count) == ("ok", 1)


def test_two_streams_keep_their_order() -> None:
    result = replay("python_interleaved").result
    assert result.outputs == tuple(
        StreamOutput(name, f"{name[3:]} {number}\n") for number in range(3) for name in ("stdout", "stderr")
    )


def test_the_last_expression() -> None:
    told = replay("python_result")
    assert kinds(told.events) == [Started, ExecuteResult, Finished]
    assert told.result.outputs == (DisplayOutput({"text/plain": "{'answer': 42}"}, {}, "execute_result", 3),)
    assert told.result.text == "{'answer': 42}"


def test_a_display_of_several_types() -> None:
    told = replay("python_display")
    assert kinds(told.events) == [Started, Stdout, Display, Stdout, Finished]
    result = told.result
    display = result.outputs[1]
    assert isinstance(display, DisplayOutput)
    assert list(display.data) == ["text/plain", "text/html", "application/json", "image/png"]
    assert display.data["application/json"] == {"a": [1, None]}
    assert display.metadata == {"image/png": {"width": 1}}
    assert result.text == "before\na picture\nafter"
    (image,) = result.images
    assert image.mime == "image/png"
    assert image.data.startswith(b"\x89PNG")


def test_an_update_replaces_its_display_in_place() -> None:
    told = replay("python_display_update")
    assert kinds(told.events) == [Started, Display, Stdout, DisplayUpdate, Finished]
    assert told.result.outputs == (
        DisplayOutput({"text/plain": "'second'"}, {}, display_id="progress"),
        StreamOutput("stdout", "between\n"),
    )


def test_an_update_of_an_earlier_cells_display_is_shown_as_such() -> None:
    assert replay("python_display_update_later").result.outputs == (
        DisplayOutput({"text/plain": "'third'"}, {}, display_id="progress", of_earlier=True),
    )


def test_clear_output_clears_at_once_or_with_the_next_output_or_never() -> None:
    told = replay("python_clear_output")
    assert kinds(told.events) == [Started, Stdout, ClearOutput, Stdout, ClearOutput, Stdout, ClearOutput, Finished]
    assert told.result.outputs == (StreamOutput("stdout", "three\n"),)


def test_an_error() -> None:
    told = replay("python_error")
    assert kinds(told.events) == [Started, Stdout, ErrorOutput, Finished]
    error = told.result.error
    assert error is not None
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert "\x1b[" in error.traceback_ansi
    assert "\x1b" not in error.traceback
    assert error.traceback.endswith("\nZeroDivisionError: division by zero")
    assert told.result.outputs == (StreamOutput("stdout", "before\n"), error)
    assert told.result.status == "error"


def test_a_page() -> None:
    told = replay("python_page")
    assert kinds(told.events) == [Started, Payload, Finished]
    (page,) = told.result.outputs
    assert isinstance(page, PageOutput)
    assert "Return the number of items in a container." in told.result.text
    assert "\x1b" not in told.result.text


def test_input() -> None:
    told = replay("python_input")
    assert kinds(told.events) == [Started, InputRequest, Stdout, Finished]
    request = told.events[1]
    assert isinstance(request, InputRequest)
    assert (request.prompt, request.password) == ("who? ", False)
    assert told.result.text == "hello Ada"


def test_comm_messages_with_buffers() -> None:
    told = replay("python_comm")
    opened, message, closed = (event for event in told.events if isinstance(event, Comm))
    assert (opened.kind, message.kind, closed.kind) == ("open", "message", "close")
    assert opened.comm_id == message.comm_id == closed.comm_id == "one"
    assert (opened.target_name, message.target_name) == ("example", None)
    assert (opened.data, message.data) == ({"state": 1}, {"n": 2})
    assert (opened.buffers, message.buffers) == ((b"\x00\xff",), (b"", bytes(range(256))))
    assert told.result.outputs == ()


def test_what_a_thread_prints_after_the_end_is_late() -> None:
    told = replay("python_thread")
    assert told.result.stdout == "from the cell\n"
    assert [(event.seq, getattr(event, "text", None)) for event in told.late] == [(0, "from the thread\n")]


def test_a_traceback_that_was_shown_and_survived() -> None:
    told = replay("python_shown_traceback")
    assert kinds(told.events) == [Started, ErrorOutput, Stdout, Finished]
    assert told.result.ok
    shown = told.result.outputs[0]
    assert isinstance(shown, ErrorInfo)
    assert shown.name == "ZeroDivisionError"


def test_an_interrupt_that_we_did_not_ask_for_is_an_error() -> None:
    told = replay("python_interrupt")
    assert told.result.status == "error"
    assert told.result.error is not None
    assert told.result.error.name == "KeyboardInterrupt"
    assert told.result.stdout == "working\n"


@pytest.mark.parametrize("why", ["interrupted", "timeout"])
def test_an_interrupt_that_we_asked_for_is_the_status(why: Any) -> None:
    sent, *lines = lines_of("python_interrupt")
    told = Replay().tell([sent])
    told.connection.executions[sent["header"]["msg_id"]].stop(why)
    assert told.tell(lines).result.status == why


def test_death_keeps_what_was_said_and_says_why() -> None:
    told = replay("python_death")
    assert told.states == [KernelState.DEAD]
    assert told.result.stdout == "last words\n"
    assert (told.result.status, told.result.reason) == ("kernel_died", "the kernel process exited with code 3")


def test_bash_echo() -> None:
    told = replay("bash_echo")
    assert told.result.stdout == "hello\nworld\n"
    assert told.result.ok


def test_bash_tells_a_failure_by_its_number() -> None:
    told = replay("bash_failure")
    assert kinds(told.events) == [Started, Stdout, ErrorOutput, Finished]
    assert told.result.error == ErrorInfo("", "1", "")
    assert told.result.status == "error"
    assert told.result.stderr == ""
    assert isinstance(told.events[1], Stdout)
    assert not any(isinstance(event, Stderr) for event in told.events)
