"""The laws of the lower floors, as properties."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.breaks import World
from tests.protocol.says import OURS, heard, reply, started, status, stdout

from cellrun.errors import ProtocolError
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
    KernelRestarted,
    OutputDropped,
    Payload,
    Queued,
    Started,
    Status,
    Stderr,
    Stdout,
)
from cellrun.folding import Folder, fold
from cellrun.limits import Limits
from cellrun.mime import image_of, image_url, readable, size_of
from cellrun.protocol import ws_json, ws_v1
from cellrun.protocol.execution import Execution
from cellrun.protocol.kernel import Emit, KernelConnection, Late
from cellrun.protocol.message import CHANNELS, Message
from cellrun.protocol.resume import LOG
from cellrun.result import DisplayOutput, Result, StreamOutput
from cellrun.terminal import render, strip_ansi
from cellrun.wire import event_from_dict, event_from_json, event_to_dict, event_to_json

# -- what there is -----------------------------------------------------------------------------------


def _paired(text: str) -> str:
    """Two surrogates that make a character, made one: JSON's escapes cannot tell the two spellings apart."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


anything = st.characters(exclude_categories=())  # lone surrogates too
chars = st.one_of(st.sampled_from("ab\n\r\x1b[2KA\b\t€😀é\ud800\udfff"), anything)
texts = st.text(chars, max_size=8).map(_paired)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=4
)
mimes = st.sampled_from(["text/plain", "text/html", "image/png", "image/svg+xml", "application/json", "text/latex"])
bundles = st.dictionaries(mimes, values, max_size=3)
objects = st.dictionaries(texts, values, max_size=3)
display_ids = st.one_of(st.none(), st.sampled_from(["a", "b"]))
counts = st.one_of(st.none(), st.integers(0, 99))
statuses: st.SearchStrategy[Status] = st.sampled_from(["ok", "error", "timeout", "interrupted", "kernel_died"])
numbered = {"seq": st.integers(0, 9), "execution_id": texts}

output_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Stdout, **numbered, text=texts),
    st.builds(Stderr, **numbered, text=texts),
    st.builds(Display, **numbered, data=bundles, metadata=objects, display_id=display_ids),
    st.builds(DisplayUpdate, **numbered, data=bundles, metadata=objects, display_id=display_ids),
    st.builds(
        ExecuteResult, **numbered, data=bundles, metadata=objects, execution_count=counts, display_id=display_ids
    ),
    st.builds(ClearOutput, **numbered, wait=st.booleans()),
    st.builds(ErrorOutput, **numbered, name=texts, value=texts, traceback=texts),
    st.builds(
        Payload, **numbered, source=st.sampled_from(["page", "x"]), content=st.fixed_dictionaries({"data": bundles})
    ),
    st.builds(
        OutputDropped, **numbered, reason=st.sampled_from(["data_rate", "message_rate", "connection"]), detail=texts
    ),
    st.builds(KernelRestarted, **numbered, reason=texts),
)
other_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Queued, **numbered, position=st.integers(1, 9)),
    st.builds(Started, **numbered, execution_count=counts),
    st.builds(InputRequest, **numbered, prompt=texts, password=st.booleans()),
    st.builds(
        Comm,
        **numbered,
        kind=st.sampled_from(["open", "message", "close"]),
        comm_id=texts,
        target_name=st.none() | texts,
        data=objects,
        metadata=objects,
        buffers=st.lists(st.binary(max_size=5), max_size=3).map(tuple),
    ),
)
finished = st.builds(
    Finished,
    **numbered,
    status=statuses,
    execution_count=counts,
    duration=st.floats(0, 1e6),
    reason=st.none() | texts,
    files=st.none() | st.lists(texts, max_size=3).map(tuple),
)
streams = st.lists(st.one_of(output_events, other_events), max_size=12)
tiny = st.builds(Limits, text=st.integers(1, 24), displays=st.integers(1, 60), outputs=st.integers(1, 6))
END = Finished(seq=0, execution_id="e", status="ok", execution_count=None, duration=0)


def joined(outputs: Sequence[object]) -> list[object]:
    """Outputs with neighbouring texts of one stream made one."""
    made: list[object] = []
    for output in outputs:
        if isinstance(output, StreamOutput) and made and isinstance(made[-1], StreamOutput):
            last = made[-1]
            if last.name == output.name:
                made[-1] = StreamOutput(last.name, last.text + output.text)
                continue
        made.append(output)
    return made


# -- fold --------------------------------------------------------------------------------------------


@given(streams, finished, tiny)
def test_fold_is_the_result_built_one_event_at_a_time(events: list[Event], end: Finished, limits: Limits) -> None:
    folder = Folder(limits)
    for event in [*events, end]:
        folder.add(event)
    assert folder.result() == fold(iter([*events, end]), limits)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """A stream of events, and the same with its texts cut into other pieces."""
    whole: list[Event] = []
    pieces: list[Event] = []
    for event in draw(streams):
        whole.append(event)
        if not isinstance(event, (Stdout, Stderr)):
            pieces.append(event)
            continue
        cuts = sorted(draw(st.lists(st.integers(0, len(event.text)), max_size=4)))
        pieces += [
            replace(event, text=event.text[start:end]) for start, end in itertools.pairwise([0, *cuts, len(event.text)])
        ]
    return [*whole, END], [*pieces, END]


@given(cut_streams(), tiny)
def test_cutting_stream_text_changes_nothing(cut: tuple[list[Event], list[Event]], limits: Limits) -> None:
    whole, pieces = cut
    assert fold(pieces, limits) == fold(whole, limits)
    assert fold(pieces) == fold(whole)


@given(
    st.lists(st.tuples(st.sampled_from([Stdout, Stderr]), st.text(chars, min_size=1, max_size=8)), max_size=12), tiny
)
def test_the_kept_text_is_within_its_limit_and_the_rest_is_counted(
    written: list[tuple[type[Stdout | Stderr], str]], limits: Limits
) -> None:
    events: list[Event] = [kind(seq=0, execution_id="e", text=text) for kind, text in written]
    result = fold([*events, END], limits)
    kept = {"stdout": 0, "stderr": 0}
    for output in result.outputs:
        if isinstance(output, StreamOutput):
            kept[output.name] += len(output.text.encode("utf-8", "surrogatepass"))
    assert sum(kept.values()) <= limits.text
    for name, kind in (("stdout", Stdout), ("stderr", Stderr)):
        size = sum(len(text.encode("utf-8", "surrogatepass")) for which, text in written if which is kind)
        omitted = sum(getattr(output, name, 0) for output in result.outputs)
        assert kept[name] + omitted == size == getattr(result, f"{name}_size")
        everything = "".join(text for which, text in written if which is kind)
        if not omitted:
            assert getattr(result, name) == everything


@given(st.lists(st.tuples(st.sampled_from([Stdout, Stderr]), st.text("ab", min_size=1, max_size=8)), max_size=12))
def test_within_the_limits_neighbouring_texts_are_one_output(
    written: list[tuple[type[Stdout | Stderr], str]],
) -> None:
    events: list[Event] = [kind(seq=0, execution_id="e", text=text) for kind, text in written]
    size = sum(len(text) for _, text in written)
    result = fold([*events, END], Limits(text=size + 2))
    assert not result.truncated
    assert list(result.outputs) == joined(result.outputs)


@given(st.lists(st.builds(Display, **numbered, data=bundles, metadata=objects), max_size=12), tiny)
def test_the_kept_displays_are_within_their_limits_but_for_the_newest(events: list[Event], limits: Limits) -> None:
    result = fold([*events, END], limits)
    kept = [output for output in result.outputs if isinstance(output, DisplayOutput)]
    assert sum(size_of(output.data) for output in kept[:-1]) <= limits.displays
    assert len(kept) <= max(2, limits.outputs)
    omitted = sum(getattr(output, "displays", 0) for output in result.outputs)
    assert len(kept) + omitted == len(events)
    assert result.truncated is bool(omitted)


@given(streams, tiny)
def test_every_result_can_be_read_and_spelled(events: list[Event], limits: Limits) -> None:
    result = fold([*events, END], limits)
    json.dumps(result.to_dict())
    assert isinstance(result.text, str)
    assert result.images is not None


# -- the order of channels ---------------------------------------------------------------------------


def a_stream(text: str, name: str) -> Message:
    return heard("iopub", "stream", name=name, text=text)


outputs_on_iopub: st.SearchStrategy[Message] = st.one_of(
    st.builds(a_stream, texts, st.sampled_from(["stdout", "stderr"])),
    st.builds(
        lambda data, display_id: heard(
            "iopub", "display_data", data=data, metadata={}, transient={"display_id": display_id}
        ),
        bundles,
        display_ids,
    ),
    st.builds(
        lambda data, display_id: heard(
            "iopub", "update_display_data", data=data, metadata={}, transient={"display_id": display_id}
        ),
        bundles,
        display_ids,
    ),
    st.builds(lambda wait: heard("iopub", "clear_output", wait=wait), st.booleans()),
    st.just(heard("iopub", "error", ename="E", evalue="v", traceback=["a"])),
    st.just(heard("iopub", "debug_event")),
)
replies: st.SearchStrategy[Message] = st.one_of(
    st.just(reply("ok", execution_count=1)),
    st.just(reply("error", execution_count=1, ename="E", evalue="v", traceback=["a"])),
    st.just(reply("aborted")),
    st.just(reply("ok", execution_count=1, payload=[{"source": "page", "data": {"text/plain": "help"}}])),
)


@st.composite
def channel_flows(draw: st.DrawFn) -> list[list[Message]]:
    """One execution as its channels carry it: shell, IOPub (with late output), stdin."""
    iopub = [
        status("busy"),
        heard("iopub", "execute_input", code="", execution_count=1),
        *draw(st.lists(outputs_on_iopub, max_size=5)),
        status("idle"),
        *draw(st.lists(outputs_on_iopub, max_size=2)),
    ]
    stdin = [heard("stdin", "input_request", prompt="?", password=False)] * draw(st.integers(0, 2))
    return [[draw(replies)], iopub, stdin]


@st.composite
def interleaved(draw: st.DrawFn, flows: list[list[Message]]) -> list[Message]:
    left = [list(flow) for flow in flows if flow]
    messages: list[Message] = []
    while left:
        flow = draw(st.sampled_from(left))
        messages.append(flow.pop(0))
        if not flow:
            left.remove(flow)
    return messages


def run_through(messages: list[Message]) -> Result:
    connection = KernelConnection()
    connection.register(started())
    events: list[Event] = []
    for message in messages:
        for effect in connection.receive(message, 1):
            if isinstance(effect, Emit):
                events += effect.events
    return fold(events)


@given(st.data())
def test_any_interleaving_that_keeps_each_channels_order_gives_the_same_result(data: st.DataObject) -> None:
    flows = data.draw(channel_flows())
    assert run_through(data.draw(interleaved(flows))) == run_through([*flows[2], *flows[1], *flows[0]])


# -- arbitrary messages ------------------------------------------------------------------------------

KEYS = [
    *("name", "text", "data", "metadata", "transient", "execution_count", "wait", "ename", "evalue", "traceback"),
    *("prompt", "password", "comm_id", "target_name", "status", "payload", "execution_state", "code"),
]
hostile = st.one_of(
    values, st.sampled_from(["ok", "error", "aborted", "idle", "busy", "restarting", "dead", "starting", "stderr"])
)
msg_types = st.sampled_from(
    [
        *("stream", "display_data", "update_display_data", "execute_result", "clear_output", "error"),
        *("input_request", "comm_open", "comm_msg", "comm_close", "status", "execute_input", "execute_reply"),
        *("kernel_info_reply", "iopub_welcome", "nonsense", ""),
    ]
)


def messages_of(parents: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    headers = st.fixed_dictionaries(
        {"msg_type": msg_types | values},
        optional={"msg_id": st.from_regex(r"k_1_[0-9]{1,3}", fullmatch=True) | values, "session": values},
    )
    parent_headers = st.fixed_dictionaries({}, optional={"msg_id": parents, "session": values})
    content = st.dictionaries(st.sampled_from(KEYS), hostile, max_size=5)
    return st.builds(
        Message,
        st.sampled_from(CHANNELS),
        headers,
        parent_headers,
        objects,
        content,
        st.lists(st.binary(max_size=4), max_size=2),
    )


@given(st.lists(messages_of(st.sampled_from([OURS, "other", "probe", "ask", "resync", ""]) | values), max_size=15))
def test_arbitrary_messages_never_raise_and_the_numbers_have_no_holes(messages: list[Message]) -> None:
    connection = KernelConnection()
    told: dict[str, list[Event]] = {OURS: [], "other": []}
    for execution_id in told:
        connection.register(started(execution_id))
    connection.probe("probe")
    connection.expect("ask")
    connection.reconnected("resync")
    late: list[Event] = []
    effects = [effect for message in messages for effect in connection.receive(message, 1)]
    for effect in [*effects, *connection.died("over", 2)]:
        if isinstance(effect, Emit):
            told[effect.execution_id] += effect.events
        elif isinstance(effect, Late):
            late.append(effect.event)
    for events in told.values():
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [type(event) is Finished for event in events] == [False] * (len(events) - 1) + [True]
        json.dumps(fold(events).to_dict())
    assert {event.seq for event in late} <= {0}


ours = messages_of(st.just(OURS))
strangers = messages_of(st.sampled_from(["other", "OURS", "run2", "probe", 0, None, True]))


def events_of_ours(messages: list[Message]) -> list[Event]:
    connection = KernelConnection()
    connection.register(started())
    events: list[Event] = []
    for message in messages:
        for effect in connection.receive(message, 1):
            assert isinstance(effect, (Emit, Late))
            if isinstance(effect, Emit):
                assert effect.execution_id == OURS
                events += effect.events
    return events


@given(st.lists(st.tuples(st.booleans(), ours, strangers), max_size=10))
def test_messages_of_other_parents_never_alter_an_execution(mixed: list[tuple[bool, Message, Message]]) -> None:
    everything = [own if is_own else other for is_own, own, other in mixed]
    # iopub_welcome and a status without a parent are of the connection, not of a request: they make it ready, or end it.
    everything = [message for message in everything if message.msg_type != "iopub_welcome"]
    everything = [message for message in everything if message.msg_type != "status" or message.parent_id]
    only_ours = [message for message in everything if message.parent_header.get("msg_id") == OURS]
    assert events_of_ours(everything) == events_of_ours(only_ours)


@given(
    st.lists(messages_of(st.just(OURS)), max_size=10), st.integers(0, 10), st.sampled_from(["timeout", "interrupted"])
)
def test_an_execution_ends_exactly_once_whenever_it_is_given_up(messages: list[Message], at: int, why: Any) -> None:
    execution = Execution(OURS)
    execution.sent(0)
    events: list[Event] = []
    for number, message in enumerate(messages):
        if number == at:
            execution.stop(why)
            events += execution.abandon("kernel_died", "gone", 1)
        events += execution.feed(message, 1)
    events += execution.abandon("kernel_died", "gone", 2)
    assert [type(event) is Finished for event in events] == [False] * (len(events) - 1) + [True]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


# -- a connection that breaks ------------------------------------------------------------------------

STEPS = ["speak", "speak", "answer", "answer", "shell", "iopub", "iopub", "again", "break", "lose patience"]
lives = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1023)), max_size=40)
firsts = st.sampled_from(["shell", "iopub"])
outcomes = st.sampled_from(["ok", "error", "aborted"])
TRUE = {"ok": "ok", "error": "error", "aborted": "interrupted"}


def live(world: World, steps: list[tuple[str, int]], first: str) -> list[Event]:
    """What is told of an execution in the course of these steps and of what must follow them."""
    for step, which in steps:
        match step:
            case "answer":
                world.answer()
            case "again":
                world.again(which)
            case "break":
                world.breaks(which)
            case "lose patience":
                world.lose_patience(which)
            case _:
                for _ in range(which % 4 + 1):
                    if step == "speak":
                        world.speak()
                    else:
                        world.carry(step)
    world.end(first)
    return world.events


@given(lives, st.integers(0, 6), outcomes, firsts)
def test_with_a_complete_log_every_line_comes_once_and_in_order_whatever_breaks(
    steps: list[tuple[str, int]], count: int, outcome: str, first: str
) -> None:
    lines = [f"{number}\n" for number in range(count)]
    world = World(lines, outcome)
    events = live(world, steps, first)
    assert [event.text for event in events if isinstance(event, Stdout)] == lines
    assert [event.status for event in events if isinstance(event, Finished)] == [TRUE[outcome]]
    assert isinstance(events[-1], Finished)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert not any(isinstance(event, OutputDropped) for event in events)
    assert sum(isinstance(event, Payload) for event in events) == 1


@given(lives, st.integers(0, 6), outcomes, firsts, st.integers(0, 5), st.booleans())
def test_with_a_short_log_or_without_an_answer_nothing_hangs_or_comes_twice_and_a_loss_is_told(
    steps: list[tuple[str, int]], count: int, outcome: str, first: str, kept: int, answering: bool
) -> None:
    lines = [f"{number}\n" for number in range(count)]
    world = World(lines, outcome, kept=kept, answering=answering)
    events = live(world, steps, first)
    came = [event.text for event in events if isinstance(event, Stdout)]
    assert came == [line for line in lines if line in came]
    assert [type(event) is Finished for event in events] == [False] * (len(events) - 1) + [True]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    end = events[-1]
    assert isinstance(end, Finished)
    if came != lines or end.status != TRUE[outcome]:
        assert any(isinstance(event, OutputDropped) and event.reason == "connection" for event in events)


msg_ids = st.one_of(
    st.from_regex(r"(k_1|k_2|foreign_1)_[0-9]{1,3}", fullmatch=True),
    st.from_regex(r"k_1_[0-9]{17,400}", fullmatch=True),
    values,
)
huge = st.integers(-(10**400), 10**400)
kept_replies = st.fixed_dictionaries(
    {},
    optional={
        "header": st.fixed_dictionaries({}, optional={"msg_id": msg_ids, "msg_type": msg_types | values}) | values,
        "parent_header": st.fixed_dictionaries({"msg_id": st.sampled_from([OURS, "resync", "probe"])}) | values,
        "metadata": values,
        "content": objects | values,
    },
)
logs = st.builds(
    lambda msg_id, content, channel: Message(channel, {"msg_type": LOG, "msg_id": msg_id}, {}, {}, content),
    msg_ids,
    st.fixed_dictionaries(
        {},
        optional={
            "after": huge | values,
            "token": st.sampled_from(["resync", "resync 2", "another"]) | huge | values,
            "complete": st.booleans() | values,
            "replies": st.lists(kept_replies | values, max_size=3) | values,
        },
    ),
    st.sampled_from(CHANNELS),
)
lines_of_ours = st.builds(lambda msg_id: stdout("x", msg_id=str(msg_id)), msg_ids)
breaks_of_ours = st.sampled_from(["resync", "resync 2"])


@given(st.lists(st.one_of(logs, lines_of_ours, messages_of(st.just(OURS)), breaks_of_ours), max_size=15))
def test_whatever_a_log_says_nothing_raises_and_no_line_is_doubled(said: list[Message | str]) -> None:
    connection = KernelConnection()
    connection.register(started())
    connection.receive(heard("iopub", LOG, parent=""), 1)
    connection.receive(stdout("first", msg_id="k_1_1"), 1)
    effects = []
    for item in said:
        if isinstance(item, Message):
            effects += connection.receive(item, 1)
        else:
            connection.reconnected(item)
    effects += connection.resume_failed("resync", 2)
    effects += connection.died("over", 3)
    events = [event for effect in effects if isinstance(effect, Emit) for event in effect.events]
    told = [event for event in events if isinstance(event, Stdout) and event.text == "x"]
    assert len(told) <= sum(isinstance(item, Message) and item.content.get("text") == "x" for item in said)
    assert [event.seq for event in events] == list(range(3, len(events) + 3))
    assert [type(event) is Finished for event in events] == [False] * (len(events) - 1) + [True]


# -- codecs ------------------------------------------------------------------------------------------

wire_messages = st.builds(
    Message,
    st.sampled_from(CHANNELS),
    objects,
    objects,
    objects,
    objects,
    st.lists(st.binary(max_size=9), max_size=3),
)


@pytest.mark.parametrize("codec", [ws_v1, ws_json])
@given(message=wire_messages)
def test_every_message_comes_back_from_every_codec(codec: Any, message: Message) -> None:
    back: Message = codec.decode(codec.encode(message))
    back.buffers = [bytes(buffer) for buffer in back.buffers]
    assert back == message


@pytest.mark.parametrize("codec", [ws_v1, ws_json])
@given(message=wire_messages, data=st.data())
def test_a_damaged_frame_is_a_message_or_a_protocol_error(codec: Any, message: Message, data: st.DataObject) -> None:
    encoded: str | bytes = codec.encode(message)
    frame = bytearray(encoded.encode("ascii") if isinstance(encoded, str) else encoded)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(frame)))
        frame[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        back = codec.decode(bytes(frame))
    except ProtocolError:
        return
    assert isinstance(back, Message)


@pytest.mark.parametrize("codec", [ws_v1, ws_json])
@given(frame=st.one_of(st.binary(max_size=200), st.text(max_size=50), values.map(json.dumps)))
def test_garbage_is_a_message_or_a_protocol_error(codec: Any, frame: str | bytes) -> None:
    try:
        back = codec.decode(frame)
    except ProtocolError:
        return
    assert isinstance(back, Message)


# -- the wire ----------------------------------------------------------------------------------------

all_events = st.one_of(output_events, other_events, finished)


@given(all_events)
def test_every_event_comes_back_from_the_wire(event: Event) -> None:
    assert event_from_dict(event_to_dict(event)) == event
    assert event_from_json(event_to_json(event)) == event


@given(all_events)
def test_an_events_line_is_one_line_of_utf8(event: Event) -> None:
    line = event_to_json(event)
    assert "\n" not in line
    assert event_from_json(line.encode("utf-8")) == event


@given(all_events, st.data())
def test_a_damaged_event_is_an_event_or_a_protocol_error(event: Event, data: st.DataObject) -> None:
    spelled = event_to_dict(event)
    for key in data.draw(st.lists(st.sampled_from(sorted(spelled)), max_size=3)):
        spelled[key] = data.draw(values | st.just([{"base64": "AA"}]) | st.just([{"base64": 1}]))
    for key in data.draw(st.lists(st.sampled_from(sorted(spelled)), max_size=2, unique=True)):
        del spelled[key]
    try:
        back = event_from_dict(spelled)
    except ProtocolError:
        return
    assert event_from_dict(event_to_dict(back)) == back


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60), values.map(json.dumps)))
def test_garbage_is_a_protocol_error_on_the_wire(line: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        event_from_json(line)


@given(values)
def test_what_is_no_event_is_a_protocol_error(value: Any) -> None:
    with pytest.raises(ProtocolError):
        event_from_dict(value)


# -- texts -------------------------------------------------------------------------------------------

noise = st.text(st.sampled_from("ab \n\r\b\t\x1b[]0123;?KABEFmPX^_\\\x07\x9b(€"), max_size=40)


@given(noise)
def test_no_escape_survives_rendering(text: str) -> None:
    assert not set(render(text)) & {"\x1b", "\r", "\b", "\x07"}
    assert "\x1b" not in strip_ansi(text)


@given(noise)
def test_rendering_twice_is_rendering_once(text: str) -> None:
    assert render(render(text)) == render(text)
    assert strip_ansi(strip_ansi(text)) == strip_ansi(text)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")) | st.just("\n"), max_size=40))
def test_plain_text_is_rendered_as_it_is(text: str) -> None:
    assert render(text) == text


markup = st.text(st.sampled_from("<>![]/-?abpre=\"'& ;#\n"), max_size=25)


@given(st.dictionaries(mimes | st.sampled_from(["image/x", "image/", "", "x"]), values | markup, max_size=4))
def test_any_bundle_can_be_read(data: dict[str, Any]) -> None:
    assert isinstance(readable(data), str)
    url = image_url(data)
    assert url is None or "\n" not in url
    image = image_of(data)
    assert image is None or isinstance(image.data, bytes)
