from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from tests.protocol.says import OURS, feed, heard, reply, started, status, stdout

from cellrun.events import (
    ErrorOutput,
    Event,
    Finished,
    InputRequest,
    KernelRestarted,
    OutputDropped,
    Payload,
    Queued,
    Started,
    Stdout,
)
from cellrun.protocol.execution import TABLE, Execution, State, Trigger
from cellrun.protocol.message import Message


def the_end(events: list[Event]) -> Finished:
    """The last event, the only Finished among them."""
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert events[-1] is finished
    return finished


# -- the table ---------------------------------------------------------------------------------------

# What may be fired is guarded by feed() and the calls; these pairs cannot happen.
IMPOSSIBLE = {(State.PREPARED, Trigger.ACTIVITY), (State.PREPARED, Trigger.REPLY), (State.PREPARED, Trigger.IDLE)} | {
    (state, Trigger.SEND) for state in State if state is not State.PREPARED
}


def test_the_table_says_what_every_trigger_does_in_every_state_but_the_last() -> None:
    pairs = {(state, trigger) for state in State if state is not State.ENDED for trigger in Trigger}
    assert {(state, trigger) for state, row in TABLE.items() for trigger in row} == pairs - IMPOSSIBLE


def test_nothing_leads_out_of_the_end() -> None:
    assert TABLE[State.ENDED] == {}


def test_every_state_is_reached_and_the_end_from_every_one() -> None:
    reached = {State.PREPARED}
    while more := {after for state in reached for after in TABLE[state].values()} - reached:
        reached |= more
    assert reached == set(State)
    assert all(Trigger.ABANDON in TABLE[state] for state in State if state is not State.ENDED)


def prepared() -> Execution:
    return Execution(OURS)


def after(*messages: Message) -> Execution:
    execution = started()
    feed(execution, *messages)
    return execution


IN_STATE: dict[State, Callable[[], Execution]] = {
    State.PREPARED: prepared,
    State.SENT: after,
    State.RUNNING: lambda: after(status("busy")),
    State.REPLIED: lambda: after(reply()),
    State.IDLE: lambda: after(status("idle")),
    State.ENDED: lambda: after(reply(), status("idle")),
}
FIRE: dict[Trigger, Callable[[Execution], object]] = {
    Trigger.SEND: lambda execution: execution.sent(0),
    Trigger.ACTIVITY: lambda execution: execution.feed(stdout("x"), 1),
    Trigger.REPLY: lambda execution: execution.feed(reply(), 1),
    Trigger.IDLE: lambda execution: execution.feed(status("idle"), 1),
    Trigger.ABANDON: lambda execution: execution.abandon("kernel_died", "why", 1),
}


@pytest.mark.parametrize(("state", "trigger"), [(state, trigger) for state, row in TABLE.items() for trigger in row])
def test_messages_move_the_states_as_the_table_says(state: State, trigger: Trigger) -> None:
    execution = IN_STATE[state]()
    assert execution.state is state
    FIRE[trigger](execution)
    assert execution.state is TABLE[state][trigger]


# -- the end -----------------------------------------------------------------------------------------


def test_an_ordinary_execution_is_told_from_start_to_end() -> None:
    execution = started()
    events = feed(
        execution,
        status("busy"),
        heard("iopub", "execute_input", code="1", execution_count=7),
        stdout("hi"),
        reply(execution_count=7),
        status("idle"),
    )
    assert events == [
        Started(seq=1, execution_id=OURS, execution_count=7),
        Stdout(seq=2, execution_id=OURS, text="hi"),
        Finished(seq=3, execution_id=OURS, status="ok", execution_count=7, duration=5),
    ]
    assert execution.ended


def test_the_reply_before_idle_does_not_end_it() -> None:
    execution = started()
    assert feed(execution, reply()) == []
    assert not execution.ended
    assert execution.replied
    assert the_end(feed(execution, stdout("still"), status("idle"))).seq == 3


def test_idle_before_the_reply_does_not_end_it() -> None:
    execution = started()
    assert feed(execution, status("idle")) == []
    assert not execution.ended
    assert not execution.replied
    assert the_end(feed(execution, reply())).status == "ok"


def test_output_after_idle_is_late_whether_or_not_the_reply_came_first() -> None:
    # Only the order of each channel is known: where it ends may not hang on which of the two is read first.
    shell_first = feed(started(), reply(), status("idle"), stdout("late"))
    iopub_first = feed(started(), status("idle"), stdout("late"), reply())
    assert [type(event) for event in iopub_first] == [type(event) for event in shell_first]


def test_nothing_comes_after_the_end() -> None:
    execution = after(reply(), status("idle"))
    assert feed(execution, stdout("late"), reply(), status("idle"), heard("stdin", "input_request")) == []
    assert execution.abandon("kernel_died", "why", 9) == []
    assert execution.outcome_unknown("N", "v", 9) == []


def test_what_comes_before_it_was_sent_is_not_its_own() -> None:
    execution = prepared()
    assert feed(execution, stdout("x"), reply(), status("idle")) == []
    assert execution.state is State.PREPARED


def test_a_second_reply_does_not_change_the_first_ones_word() -> None:
    execution = started()
    assert the_end(feed(execution, reply("ok"), reply("error", ename="E"), status("idle"))).status == "ok"


def test_a_second_idle_changes_nothing() -> None:
    assert the_end(feed(started(), status("idle"), status("idle"), reply())).seq == 1


@pytest.mark.parametrize(
    "message",
    [
        status("starting"),
        status(""),
        heard("iopub", "status"),
        heard("iopub", "debug_event"),
        heard("iopub", "shutdown_reply"),
        heard("shell", "kernel_info_reply", status="ok"),
        heard("shell", "stream", name="stdout", text="x"),
        heard("control", "interrupt_reply", status="ok"),
    ],
)
def test_other_messages_give_no_event_and_move_nothing(message: Message) -> None:
    execution = started()
    assert feed(execution, message) == []
    assert execution.state is State.SENT


# -- what is told on the way -------------------------------------------------------------------------


def test_the_start_is_told_once() -> None:
    message = heard("iopub", "execute_input", execution_count=1)
    assert [type(event) for event in feed(started(), message, message, stdout("x"))] == [Started, Stdout]


def test_busy_alone_is_no_start_since_its_count_is_not_known_yet() -> None:
    assert feed(started(), status("busy")) == []


def test_output_without_an_execute_input_starts_it_too() -> None:
    assert feed(started(), stdout("x"))[0] == Started(seq=1, execution_id=OURS, execution_count=None)


def test_an_input_request_comes_as_an_event() -> None:
    events = feed(started(), heard("stdin", "input_request", prompt="who? ", password=False))
    assert events[1] == InputRequest(seq=2, execution_id=OURS, prompt="who? ", password=False)


def test_the_count_is_the_last_one_said() -> None:
    messages = [heard("iopub", "execute_input", execution_count=3), reply(execution_count=4), status("idle")]
    assert the_end(feed(started(), *messages)).execution_count == 4


@pytest.mark.parametrize("count", [None, "5", True, 5.0, []])
def test_a_count_that_is_none_leaves_the_one_before(count: Any) -> None:
    messages = [heard("iopub", "execute_input", execution_count=3), reply(execution_count=count), status("idle")]
    assert the_end(feed(started(), *messages)).execution_count == 3


def test_payloads_are_told_in_their_order() -> None:
    payload = [
        {"source": "page", "data": {"text/plain": "help"}, "start": 0},
        {"source": "set_next_input", "text": "x"},
    ]
    events = feed(started(), reply(payload=payload), status("idle"))
    assert events[:-1] == [
        Payload(seq=1, execution_id=OURS, source="page", content={"data": {"text/plain": "help"}, "start": 0}),
        Payload(seq=2, execution_id=OURS, source="set_next_input", content={"text": "x"}),
    ]


@pytest.mark.parametrize("payload", [None, {}, "page", 1, [None, "page", 1, []]])
def test_payloads_of_other_kinds_are_passed_over(payload: Any) -> None:
    assert len(feed(started(), reply(payload=payload), status("idle"))) == 1


def test_a_payload_without_a_source_has_an_empty_one() -> None:
    assert feed(started(), reply(payload=[{}]), status("idle"))[0] == Payload(
        seq=1, execution_id=OURS, source="", content={}
    )


def test_a_page_comes_after_the_output_whether_or_not_the_reply_came_first() -> None:
    page = reply(payload=[{"source": "page", "data": {"text/plain": "help"}}])
    shell_first = feed(started(), page, stdout("x"), status("idle"))
    iopub_first = feed(started(), stdout("x"), status("idle"), page)
    order = [Started, Stdout, Payload, Finished]
    assert [type(event) for event in iopub_first] == order
    assert [type(event) for event in shell_first] == order


def test_our_own_words_are_numbered_with_the_kernels() -> None:
    execution = Execution(OURS)
    events = [execution.queued(2), execution.queued(1), execution.restarted("it died")]
    execution.sent(0)
    events += feed(execution, stdout("x"))
    events.append(execution.dropped("connection", "5 messages"))
    events += feed(execution, reply(), status("idle"))
    assert [event.seq for event in events] == list(range(1, 8))
    assert events[:3] == [
        Queued(seq=1, execution_id=OURS, position=2),
        Queued(seq=2, execution_id=OURS, position=1),
        KernelRestarted(seq=3, execution_id=OURS, reason="it died"),
    ]
    assert events[5] == OutputDropped(seq=6, execution_id=OURS, reason="connection", detail="5 messages")


# -- errors ------------------------------------------------------------------------------------------

ERROR: dict[str, Any] = {"ename": "E", "evalue": "v", "traceback": ["a", "b"]}


@pytest.mark.parametrize(
    "messages",
    [
        [heard("iopub", "error", **ERROR), reply("error", **ERROR), status("idle")],
        [reply("error", **ERROR), heard("iopub", "error", **ERROR), status("idle")],
        [heard("iopub", "error", **ERROR), status("idle"), reply("error", **ERROR)],
        [reply("error", **ERROR), status("idle")],
        [status("idle"), reply("error", **ERROR)],
        [heard("iopub", "error", **ERROR), reply("error"), status("idle")],
    ],
)
def test_an_error_is_told_once_whether_iopub_the_reply_or_both_say_it(messages: list[Message]) -> None:
    events = feed(started(), *messages)
    (told,) = [event for event in events if isinstance(event, ErrorOutput)]
    assert (told.name, told.value, told.traceback) == ("E", "v", "a\nb")
    assert the_end(events).status == "error"


def test_an_error_that_only_the_reply_says_comes_after_the_output() -> None:
    events = feed(started(), reply("error", **ERROR), stdout("x"), status("idle"))
    assert [type(event) for event in events] == [Started, Stdout, ErrorOutput, Finished]


def test_an_error_that_was_shown_and_survived_leaves_the_status_ok() -> None:
    assert the_end(feed(started(), heard("iopub", "error", **ERROR), reply("ok"), status("idle"))).status == "ok"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ok", ("ok", None)),
        ("error", ("error", None)),
        ("aborted", ("interrupted", "the kernel aborted the request before running it")),
        ("abort", ("interrupted", "the kernel aborted the request before running it")),
        ("nonsense", ("error", None)),
        (None, ("error", None)),
        ([], ("error", None)),
    ],
)
def test_the_replys_status_is_the_executions(said: Any, told: tuple[str, str | None]) -> None:
    end = the_end(feed(started(), reply(said), status("idle")))
    assert (end.status, end.reason) == told


def test_a_reply_without_a_status_is_an_error() -> None:
    assert the_end(feed(started(), heard("shell", "execute_reply"), status("idle"))).status == "error"


# -- stopped -----------------------------------------------------------------------------------------

Stop = tuple[Literal["timeout", "interrupted"], str | None]


@pytest.mark.parametrize(
    ("stops", "said", "told"),
    [
        ([("interrupted", None)], "error", ("interrupted", None)),
        ([("interrupted", "asked")], "aborted", ("interrupted", "asked")),
        ([("interrupted", "asked")], "ok", ("ok", None)),
        ([("timeout", "2 s")], "error", ("timeout", "2 s")),
        ([("timeout", "2 s")], "ok", ("timeout", "2 s")),
        ([("interrupted", "asked"), ("timeout", "2 s")], "error", ("timeout", "2 s")),
        ([("timeout", "2 s"), ("interrupted", "asked")], "error", ("timeout", "2 s")),
        ([("interrupted", "first"), ("interrupted", "second")], "error", ("interrupted", "first")),
        ([("timeout", "first"), ("timeout", "second")], "error", ("timeout", "first")),
    ],
)
def test_why_it_was_stopped_is_its_status(stops: list[Stop], said: str, told: tuple[str, str | None]) -> None:
    execution = started()
    for why, reason in stops:
        execution.stop(why, reason)
    end = the_end(feed(execution, reply(said, **ERROR), status("idle")))
    assert (end.status, end.reason) == told


@pytest.mark.parametrize("state", [state for state in State if state is not State.ENDED])
def test_a_death_ends_it_in_every_state(state: State) -> None:
    end = the_end(IN_STATE[state]().abandon("kernel_died", "exit code 3", 9))
    assert (end.status, end.reason) == ("kernel_died", "exit code 3")


@pytest.mark.parametrize(
    ("why", "reason", "told"),
    [
        ("2 s", "killed", "2 s; killed"),
        (None, "killed", "killed"),
        ("2 s", "", "2 s"),
        (None, "", None),
    ],
)
def test_a_death_after_a_stop_keeps_the_stops_status(why: str | None, reason: str, told: str | None) -> None:
    execution = started()
    execution.stop("timeout", why)
    end = the_end(execution.abandon("kernel_died", reason, 9))
    assert (end.status, end.reason) == ("timeout", told)


def test_a_death_without_a_reason_has_none() -> None:
    assert the_end(started().abandon("kernel_died", "", 9)).reason is None


def test_a_death_before_it_was_sent_is_no_stop_and_takes_no_time() -> None:
    execution = prepared()
    execution.stop("interrupted", "asked")
    end = the_end(execution.died_waiting("exit code 3", 9))
    assert (end.status, end.reason, end.duration) == ("kernel_died", "exit code 3", 0)


# -- the reply that was lost -------------------------------------------------------------------------


def test_an_unknown_outcome_is_told_as_an_error_of_that_name() -> None:
    execution = started()
    events = execution.outcome_unknown("OutcomeUnknown", "the reply is lost", 9)
    assert events == [
        ErrorOutput(seq=1, execution_id=OURS, name="OutcomeUnknown", value="the reply is lost", traceback=""),
        Finished(
            seq=2, execution_id=OURS, status="error", execution_count=None, duration=9, reason="the reply is lost"
        ),
    ]
    assert execution.ended


def test_an_unknown_outcome_after_a_stop_keeps_the_stops_status() -> None:
    execution = started()
    execution.stop("timeout", "2 s")
    end = the_end(execution.outcome_unknown("OutcomeUnknown", "the reply is lost", 9))
    assert (end.status, end.reason) == ("timeout", "2 s")


def test_an_outcome_that_iopub_has_told_is_not_unknown() -> None:
    execution = started()
    events = feed(execution, heard("iopub", "error", **ERROR))
    events += execution.outcome_unknown("OutcomeUnknown", "the reply is lost", 9)
    assert [event.name for event in events if isinstance(event, ErrorOutput)] == ["E"]
    assert the_end(events).status == "error"


# -- time --------------------------------------------------------------------------------------------


def test_the_duration_counts_from_the_sending() -> None:
    execution = Execution(OURS)
    execution.sent(100)
    execution.feed(reply(), 101)
    assert the_end(execution.feed(status("idle"), 103.5)).duration == 3.5


def test_a_clock_that_goes_back_gives_no_negative_duration() -> None:
    execution = Execution(OURS)
    execution.sent(100)
    assert the_end(execution.abandon("kernel_died", "why", 99)).duration == 0


# -- the last message --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "message", "closes"),
    [
        (State.IDLE, reply(), True),
        (State.IDLE, heard("shell", "kernel_info_reply"), False),
        (State.IDLE, status("idle"), False),
        (State.REPLIED, status("idle"), True),
        (State.REPLIED, status("busy"), False),
        (State.REPLIED, reply(), False),
        (State.REPLIED, stdout("x"), False),
        (State.RUNNING, reply(), False),
        (State.RUNNING, status("idle"), False),
        (State.SENT, reply(), False),
    ],
)
def test_the_message_that_will_end_it_is_known_before_it_is_fed(state: State, message: Message, closes: bool) -> None:
    execution = IN_STATE[state]()
    assert execution.closes_with(message) is closes
    execution.feed(message, 9)
    assert execution.ended is closes


def test_a_fault_of_ours_is_told_as_the_last_event() -> None:
    end = Execution(OURS).fault("cellrun failed")
    assert isinstance(end, Finished)
    assert (end.status, end.reason, end.duration) == ("kernel_died", "cellrun failed", 0)
