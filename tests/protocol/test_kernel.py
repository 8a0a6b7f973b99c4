from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.protocol.says import OURS, heard, reply, started, status, stdout

from cellrun.events import ErrorOutput, Event, Finished, OutputDropped, Started, Stdout
from cellrun.protocol.execution import Execution
from cellrun.protocol.kernel import (
    OUTCOME_UNKNOWN,
    TABLE,
    Answer,
    Cause,
    Changed,
    Effect,
    Emit,
    KernelConnection,
    KernelState,
    Late,
)
from cellrun.protocol.message import Message
from cellrun.protocol.resume import LOG

READY = Changed(KernelState.READY, None)


def info(probe: str) -> Message:
    return heard("shell", "kernel_info_reply", parent=probe, status="ok")


def receive(connection: KernelConnection, *messages: Message) -> list[Effect]:
    """All effects of these messages; message n arrives at n seconds."""
    return [effect for now, message in enumerate(messages, 1) for effect in connection.receive(message, now)]


def events_of(effects: list[Effect], execution_id: str = OURS) -> list[Event]:
    emitted = [effect for effect in effects if isinstance(effect, Emit) and effect.execution_id == execution_id]
    return [event for effect in emitted for event in effect.events]


def ready() -> KernelConnection:
    connection = KernelConnection()
    connection.probe("probe")
    receive(connection, status("idle", parent="probe"), info("probe"))
    return connection


def running(*ids: str) -> KernelConnection:
    """A ready connection with these executions sent, the one named `run` unless others are."""
    connection = ready()
    for execution_id in ids or (OURS,):
        connection.register(started(execution_id))
    return connection


# -- the table ---------------------------------------------------------------------------------------


def test_the_table_is_total() -> None:
    assert {state: set(row) for state, row in TABLE.items()} == {state: set(Cause) for state in KernelState}


def test_every_state_is_reached() -> None:
    reached = {KernelState.UNKNOWN}
    while more := {after for state in reached for after in TABLE[state].values()} - reached:
        reached |= more
    assert reached == set(KernelState)


def test_nothing_wakes_the_dead() -> None:
    assert set(TABLE[KernelState.DEAD].values()) == {KernelState.DEAD}


def restarting() -> KernelConnection:
    connection = ready()
    receive(connection, status("restarting", parent=""))
    return connection


def dead() -> KernelConnection:
    connection = ready()
    connection.died("exit code 3", 1)
    return connection


def answer(connection: KernelConnection) -> None:
    connection.probe("again")
    receive(connection, info("again"), status("idle", parent="again"))


IN_STATE: dict[KernelState, Callable[[], KernelConnection]] = {
    KernelState.UNKNOWN: KernelConnection,
    KernelState.READY: ready,
    KernelState.RESTARTING: restarting,
    KernelState.DEAD: dead,
}
DO: dict[Cause, Callable[[KernelConnection], object]] = {
    Cause.ANSWERED: answer,
    Cause.RESTARTING: lambda connection: receive(connection, status("restarting", parent="")),
    Cause.DIED: lambda connection: connection.died("killed", 1),
}


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("state", KernelState)
def test_what_happens_moves_the_states_as_the_table_says(state: KernelState, cause: Cause) -> None:
    connection = IN_STATE[state]()
    assert connection.state is state
    DO[cause](connection)
    assert connection.state is TABLE[state][cause]


# -- readiness ---------------------------------------------------------------------------------------

WELCOME = heard("iopub", "iopub_welcome", parent="", subscription="")


@pytest.mark.parametrize(
    "messages",
    [
        [info("probe"), status("idle", parent="probe")],
        [status("busy", parent="probe"), info("probe")],
        [info("probe"), WELCOME],
        [WELCOME, info("probe")],
    ],
)
def test_ready_is_a_reply_on_shell_and_a_word_on_iopub(messages: list[Message]) -> None:
    connection = KernelConnection()
    connection.probe("probe")
    *first, last = messages
    assert not any(isinstance(effect, Changed) for effect in receive(connection, *first))
    assert READY in receive(connection, last)
    assert connection.state is KernelState.READY


@pytest.mark.parametrize(
    "messages",
    [
        [info("probe")],
        [info("probe"), status("starting", parent="")],
        [info("probe"), status("idle", parent="another client's")],
        [info("another client's"), status("idle", parent="probe")],
        [status("busy", parent="probe"), status("idle", parent="probe")],
        [WELCOME, status("idle", parent="probe")],
    ],
)
def test_one_of_the_two_alone_is_not_ready(messages: list[Message]) -> None:
    connection = KernelConnection()
    connection.probe("probe")
    receive(connection, *messages)
    assert connection.state is KernelState.UNKNOWN


def test_the_reply_and_iopubs_word_may_be_of_different_probes() -> None:
    connection = KernelConnection()
    connection.probe("one")
    connection.probe("two")
    effects = receive(connection, info("one"), status("busy", parent="two"))
    assert effects == [Answer("one", info("one")), READY]


def test_readiness_is_said_once() -> None:
    connection = ready()
    connection.probe("again")
    assert receive(connection, status("busy", parent="again"), info("again")) == [Answer("again", info("again"))]


def test_a_probe_is_answered_once() -> None:
    connection = KernelConnection()
    connection.probe("probe")
    assert receive(connection, info("probe"), info("probe")) == [Answer("probe", info("probe"))]


def test_a_kernel_that_we_had_restarted_must_show_its_readiness_anew() -> None:
    connection = dead()
    connection.renew()
    assert (connection.state, connection.reason) == (KernelState.UNKNOWN, None)
    connection.probe("new")
    assert not any(isinstance(effect, Changed) for effect in receive(connection, info("new")))
    assert receive(connection, status("idle", parent="new")) == [READY]


# -- requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_the_reply_to_an_expected_request_is_an_answer(channel: str) -> None:
    connection = ready()
    connection.expect("ask")
    message = heard(channel, "shutdown_reply", parent="ask")
    assert receive(connection, message, message) == [Answer("ask", message)]


@pytest.mark.parametrize(
    "message",
    [
        status("idle", parent="ask"),
        heard("shell", "status", parent="ask"),
        heard("stdin", "input_request", parent="ask"),
    ],
)
def test_other_messages_of_a_request_are_no_answer(message: Message) -> None:
    connection = ready()
    connection.expect("ask")
    assert receive(connection, message) == []


def test_a_request_that_was_forgotten_is_answered_to_nobody() -> None:
    connection = ready()
    connection.expect("ask")
    connection.forget("ask")
    connection.forget("ask")
    assert receive(connection, info("ask")) == []


def test_a_probe_that_was_forgotten_shows_nothing() -> None:
    connection = KernelConnection()
    connection.probe("probe")
    connection.forget("probe")
    assert receive(connection, info("probe"), status("idle", parent="probe")) == []
    assert connection.state is KernelState.UNKNOWN


# -- whose message it is -----------------------------------------------------------------------------


def test_messages_go_to_the_execution_that_their_parent_names() -> None:
    connection = running("a", "b")
    effects = receive(connection, stdout("of b", parent="b"), stdout("of a", parent="a"))
    assert events_of(effects, "a")[1:] == [Stdout(seq=2, execution_id="a", text="of a")]
    assert events_of(effects, "b")[1:] == [Stdout(seq=2, execution_id="b", text="of b")]


def test_messages_without_events_have_no_effect() -> None:
    assert receive(running(), status("busy"), heard("iopub", "debug_event")) == []


@pytest.mark.parametrize("parent", ["", "another client's"])
@pytest.mark.parametrize("channel", ["shell", "iopub", "stdin", "control"])
@pytest.mark.parametrize("msg_type", ["stream", "execute_reply", "input_request", "error", "kernel_info_reply"])
def test_messages_of_others_alter_nothing(channel: str, msg_type: str, parent: str) -> None:
    connection = running()
    assert receive(connection, heard(channel, msg_type, parent=parent, name="stdout", text="x")) == []
    assert list(connection.executions) == [OURS]


def test_an_execution_is_known_until_its_end() -> None:
    connection = running()
    effects = receive(connection, reply(), status("idle"))
    assert [type(event) for event in events_of(effects)] == [Finished]
    assert connection.executions == {}


def test_what_comes_after_the_end_is_late_and_outside_the_numbers() -> None:
    connection = running()
    receive(connection, reply(), status("idle"))
    assert receive(connection, stdout("late")) == [Late(Stdout(seq=0, execution_id=OURS, text="late"))]


def test_what_says_nothing_after_the_end_is_not_late() -> None:
    connection = running()
    receive(connection, reply(), status("idle"))
    assert receive(connection, status("busy"), reply(), status("idle")) == []


def test_ended_executions_are_remembered_within_bounds() -> None:
    connection = ready()
    ids = [f"run {number}" for number in range(300)]
    for execution_id in ids:
        connection.register(started(execution_id))
        receive(connection, reply(parent=execution_id), status("idle", parent=execution_id))
    late = [bool(receive(connection, stdout("x", parent=execution_id))) for execution_id in ids]
    assert late == [False] * (300 - 256) + [True] * 256


def test_an_execution_that_we_gave_up_has_its_end_and_what_follows_is_late() -> None:
    connection = running()
    execution = connection.executions[OURS]
    (end,) = connection.abandon(execution, "killed", 9)
    assert isinstance(end, Finished)
    assert (end.status, end.reason) == ("kernel_died", "killed")
    assert connection.executions == {}
    assert [type(effect) for effect in receive(connection, stdout("x"))] == [Late]


def test_giving_up_twice_ends_it_once() -> None:
    connection = running()
    execution = connection.executions[OURS]
    connection.abandon(execution, "killed", 9)
    assert connection.abandon(execution, "killed", 9) == []


def test_an_execution_that_was_never_registered_can_be_given_up() -> None:
    assert len(ready().abandon(Execution("unsent"), "not sent", 0)) == 1


# -- death -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("restarting", KernelState.RESTARTING),
        ("autorestarting", KernelState.RESTARTING),
        ("dead", KernelState.DEAD),
    ],
)
def test_a_word_of_the_server_ends_every_execution(word: str, state: KernelState) -> None:
    connection = running("a", "b")
    changed, *emitted = receive(connection, status(word, parent=""))
    assert isinstance(changed, Changed)
    assert changed.state is connection.state is state
    assert changed.reason == connection.reason
    assert changed.reason is not None
    assert "died" in changed.reason
    for execution_id, effect in zip(("a", "b"), emitted, strict=True):
        assert isinstance(effect, Emit)
        (end,) = effect.events
        assert isinstance(end, Finished)
        assert (end.execution_id, end.status, end.reason) == (execution_id, "kernel_died", changed.reason)
    assert connection.executions == {}


@pytest.mark.parametrize("word", ["starting", "busy", "idle", "unknown", "", "None"])
def test_other_words_without_a_parent_change_nothing(word: str) -> None:
    connection = running()
    assert receive(connection, status(word, parent="")) == []
    assert connection.state is KernelState.READY


def test_a_status_of_the_kernel_with_a_parent_is_no_death() -> None:
    connection = running()
    receive(connection, status("restarting"), status("dead", parent="another client's"))
    assert connection.state is KernelState.READY
    assert OURS in connection.executions


def test_a_death_says_why() -> None:
    connection = running()
    effects = connection.died("exit code 3", 5)
    assert effects == [
        Changed(KernelState.DEAD, "exit code 3"),
        Emit(
            OURS,
            [
                Finished(
                    seq=1,
                    execution_id=OURS,
                    status="kernel_died",
                    execution_count=None,
                    duration=5,
                    reason="exit code 3",
                )
            ],
        ),
    ]


def test_a_death_says_nothing_of_an_execution_that_its_holder_has_ended() -> None:
    connection = running()
    connection.executions[OURS].abandon("kernel_died", "killed", 3)
    assert connection.died("exit code 3", 5) == [Changed(KernelState.DEAD, "exit code 3")]
    assert connection.executions == {}


def test_a_second_death_is_not_said_again() -> None:
    connection = dead()
    assert connection.died("another reason", 9) == []
    assert connection.reason == "exit code 3"


def test_requests_of_a_dead_process_are_not_answered_by_the_next() -> None:
    connection = ready()
    connection.expect("ask")
    receive(connection, status("restarting", parent=""))
    assert receive(connection, info("ask")) == []


def test_after_a_restart_by_the_server_readiness_is_shown_anew() -> None:
    connection = restarting()
    connection.probe("new")
    assert READY not in receive(connection, status("starting", parent=""), info("new"))
    assert receive(connection, status("idle", parent="new")) == [READY]


def test_what_the_dead_process_had_said_last_is_late() -> None:
    connection = running()
    receive(connection, status("restarting", parent=""))
    assert [type(effect) for effect in receive(connection, stdout("last words"))] == [Late]


# -- a broken connection -----------------------------------------------------------------------------


def broken(*before: Message, execution_id: str = OURS) -> KernelConnection:
    """An execution was under way and had said `before` when the connection broke; a probe was sent."""
    connection = running(execution_id)
    receive(connection, *before)
    connection.reconnected("resync")
    return connection


RESYNC_REPLY = info("resync")
RESYNC_IDLE = status("idle", parent="resync")


def test_a_break_that_cost_nothing_is_not_told() -> None:
    connection = broken(status("busy"))
    effects = receive(connection, stdout("x"), reply(), status("idle"), RESYNC_REPLY, RESYNC_IDLE)
    assert [type(event) for event in events_of(effects)] == [Started, Stdout, Finished]


def test_a_reply_that_the_probe_overtook_is_lost_and_the_outcome_unknown() -> None:
    connection = broken(stdout("x"))
    dropped, error, end = events_of(receive(connection, RESYNC_REPLY))
    assert isinstance(dropped, OutputDropped)
    assert dropped.reason == "connection"
    assert isinstance(error, ErrorOutput)
    assert error.name == OUTCOME_UNKNOWN
    assert isinstance(end, Finished)
    assert end.status == "error"
    assert connection.executions == {}


def test_an_idle_that_the_probe_overtook_is_lost_and_the_replys_word_counts() -> None:
    connection = broken(reply("ok", execution_count=4))
    dropped, end = events_of(receive(connection, RESYNC_REPLY, RESYNC_IDLE))
    assert isinstance(dropped, OutputDropped)
    assert isinstance(end, Finished)
    assert (end.status, end.execution_count) == ("ok", 4)
    assert connection.executions == {}


@pytest.mark.parametrize(
    "order", [[RESYNC_REPLY, RESYNC_IDLE], [RESYNC_IDLE, RESYNC_REPLY]], ids=["shell first", "iopub first"]
)
@pytest.mark.parametrize(
    "before", [[], [stdout("x")], [status("idle")], [reply()]], ids=["nothing", "output", "idle", "reply"]
)
def test_after_both_of_the_probes_answers_nothing_is_waited_for(before: list[Message], order: list[Message]) -> None:
    connection = broken(*before)
    events = events_of(receive(connection, *order))
    assert connection.executions == {}
    assert [type(event) for event in events].count(Finished) == 1


def test_a_reply_between_the_probes_idle_and_its_reply_ends_it_without_its_lost_idle() -> None:
    connection = broken(stdout("x"))
    events = events_of(receive(connection, RESYNC_IDLE, reply("ok"), RESYNC_REPLY))
    assert connection.executions == {}
    assert [event.status for event in events if isinstance(event, Finished)] == ["ok"]


def test_an_execution_that_was_sent_after_the_break_is_not_overtaken() -> None:
    connection = ready()
    connection.reconnected("resync")
    connection.register(started())
    assert receive(connection, RESYNC_REPLY, RESYNC_IDLE) == []
    assert OURS in connection.executions


def test_a_busy_of_the_probe_overtakes_nothing() -> None:
    connection = broken(reply())
    assert receive(connection, status("busy", parent="resync")) == []
    assert OURS in connection.executions


def test_an_execution_that_ended_before_the_probe_was_answered_is_left_alone() -> None:
    connection = broken(reply())
    effects = receive(connection, status("idle"), RESYNC_REPLY, RESYNC_IDLE)
    assert [type(event) for event in events_of(effects)] == [Finished]


def test_a_resync_that_was_forgotten_overtakes_nothing() -> None:
    connection = broken()
    connection.forget("resync")
    assert receive(connection, RESYNC_REPLY, RESYNC_IDLE) == []
    assert OURS in connection.executions


def numbered(message: Message, number: int) -> Message:
    return Message(
        message.channel,
        {**message.header, "msg_id": f"kernel_1_{number}"},
        message.parent_header,
        message.metadata,
        message.content,
    )


def test_messages_that_a_break_has_cost_are_counted_at_the_end() -> None:
    connection = broken(numbered(stdout("x"), 10))
    effects = receive(connection, numbered(reply(), 16), numbered(status("idle"), 17))
    dropped, end = events_of(effects)
    assert dropped == OutputDropped(
        seq=3, execution_id=OURS, reason="connection", detail="5 messages were lost when the connection broke"
    )
    assert isinstance(end, Finished)
    assert end.status == "ok"


def test_a_break_whose_messages_were_all_replayed_has_cost_none() -> None:
    connection = broken(numbered(stdout("x"), 10))
    effects = receive(connection, numbered(stdout("y"), 11), numbered(status("idle"), 13), numbered(reply(), 12))
    assert [type(event) for event in events_of(effects)] == [Stdout, Finished]


# -- a broken connection to a kernel that keeps a log ------------------------------------------------


def resuming(*before: Message) -> KernelConnection:
    """The same where the kernel keeps a log; `before` has the numbers from 1."""
    connection = running()
    receive(connection, heard("iopub", LOG, parent=""))
    receive(connection, *(numbered(message, number) for number, message in enumerate(before, 1)))
    assert connection.reconnected("resync") == len(before)
    return connection


def all_sent(token: object = "resync", *, complete: object = True, replies: object = None) -> Message:
    return heard("iopub", LOG, parent="", after=0, token=token, complete=complete, replies=replies)


def spelled(message: Message) -> dict[str, object]:
    return {key: getattr(message, key) for key in ("header", "parent_header", "metadata", "content")}


def test_a_kernel_that_keeps_no_log_is_asked_for_nothing() -> None:
    connection = running()
    receive(connection, numbered(status("busy"), 1))
    assert connection.reconnected("resync") is None


def test_the_kernels_word_that_it_keeps_a_log_has_no_effect() -> None:
    assert receive(running(), heard("iopub", LOG, parent=""), heard("iopub", LOG)) == []


def test_what_was_lost_is_sent_again_and_told_at_its_place() -> None:
    connection = resuming(status("busy"), stdout("1"))
    assert receive(connection, numbered(stdout("3"), 4), numbered(stdout("2"), 3)) == []
    events = events_of(receive(connection, all_sent(), numbered(reply(), 5), numbered(status("idle"), 6)))
    assert [event.text for event in events if isinstance(event, Stdout)] == ["2", "3"]
    assert [type(event) for event in events] == [Stdout, Stdout, Finished]


def test_a_reply_that_was_lost_is_got_from_the_log() -> None:
    connection = resuming(status("busy"))
    lost = numbered(reply("ok", execution_count=4), 2)
    receive(connection, numbered(status("idle"), 3), numbered(RESYNC_IDLE, 6), numbered(RESYNC_REPLY, 5))
    (end,) = events_of(receive(connection, all_sent(replies=[spelled(lost)])))
    assert isinstance(end, Finished)
    assert (end.status, end.execution_count) == ("ok", 4)


def test_after_a_complete_answer_numbers_that_are_missing_are_no_loss() -> None:
    connection = resuming(status("busy"))
    receive(connection, numbered(stdout("x"), 9), all_sent())
    events = events_of(receive(connection, numbered(reply(), 10), numbered(status("idle"), 11)))
    assert [type(event) for event in events] == [Finished]


def test_what_the_log_has_forgotten_is_told_as_lost() -> None:
    connection = resuming(status("busy"))
    released = receive(connection, numbered(stdout("x"), 9), all_sent(complete=False))
    assert [type(event) for event in events_of(released)] == [Started, Stdout]
    dropped, end = events_of(receive(connection, numbered(reply(), 10), numbered(status("idle"), 11)))
    assert isinstance(dropped, OutputDropped)
    assert dropped.detail.startswith("7 messages")
    assert isinstance(end, Finished)
    assert end.status == "ok"


def test_what_waits_goes_on_when_the_kernel_does_not_answer_in_time() -> None:
    connection = resuming(status("busy"))
    messages = [numbered(stdout("x"), 9), numbered(status("idle"), 11), numbered(reply(), 10)]
    assert receive(connection, *messages) == []
    events = events_of(connection.resume_failed("resync", 3))
    assert [type(event) for event in events] == [Started, Stdout, OutputDropped, Finished]
    assert connection.resume_failed("resync", 4) == []


def test_the_time_of_an_earlier_request_ends_no_waiting_for_a_later_one() -> None:
    connection = resuming(status("busy"))
    receive(connection, numbered(stdout("x"), 2))
    assert connection.reconnected("second") == 1
    assert connection.resume_failed("resync", 3) == []
    assert receive(connection, all_sent("resync")) == []
    assert [type(event) for event in events_of(connection.resume_failed("second", 4))] == [Started, Stdout]


def test_what_waits_is_told_before_the_death_that_ends_it() -> None:
    connection = resuming(status("busy"))
    receive(connection, numbered(stdout("last words"), 3))
    events = events_of(connection.died("gone", 5))
    assert [type(event) for event in events] == [Started, Stdout, Finished]


def test_a_kernel_that_was_restarted_must_say_anew_that_it_keeps_a_log() -> None:
    connection = resuming(status("busy"))
    connection.renew()
    assert connection.reconnected("again") is None


def test_a_server_that_restarts_the_kernel_ends_the_waiting() -> None:
    connection = resuming(status("busy"))
    receive(connection, numbered(stdout("last words"), 3))
    dies = heard("iopub", "status", parent="", msg_id="server_1_1", execution_state="restarting")
    events = events_of(receive(connection, dies))
    assert [type(event) for event in events] == [Started, Stdout, Finished]
    assert connection.reconnected("again") is None


def test_a_notice_of_the_server_is_told_at_once_and_leaves_the_order_as_it_is() -> None:
    connection = resuming(status("busy"))
    header = {"msg_id": "client_9_1", "msg_type": "stream", "session": "client"}
    content = {"name": "stderr", "text": "IOPub message rate exceeded"}
    notice = Message("iopub", header, {"msg_id": OURS, "session": "client"}, {}, content)
    told = receive(connection, numbered(stdout("2"), 3), notice, numbered(stdout("1"), 2), all_sent())
    assert [type(event) for event in events_of(told)] == [Started, OutputDropped, Stdout, Stdout]
    assert [event.text for event in events_of(told) if isinstance(event, Stdout)] == ["1", "2"]


def test_what_an_execution_lost_that_we_gave_up_is_no_loss_of_the_next() -> None:
    connection = broken(numbered(status("busy"), 1))
    receive(connection, numbered(stdout("x"), 9))
    connection.abandon(connection.executions[OURS], "killed", 3)
    connection.register(started("next"))
    effects = receive(connection, numbered(reply(parent="next"), 10), numbered(status("idle", parent="next"), 11))
    assert [type(event) for event in events_of(effects, "next")] == [Finished]


# -- hostile words -----------------------------------------------------------------------------------


def test_a_message_of_any_type_may_carry_an_execution_state() -> None:
    connection = broken(reply())
    receive(connection, heard("iopub", "stream", name="stdout", text="x", execution_state="idle"))
    assert OURS in connection.executions


def test_an_id_with_digits_without_end_is_an_id() -> None:
    connection = running()
    assert events_of(receive(connection, stdout("x", msg_id="kernel_1_" + "9" * 5_000)))


def executing() -> KernelConnection:
    connection = KernelConnection()
    connection.register(started())
    connection.receive(status("busy"), 1)
    return connection


def test_a_request_that_an_interrupt_left_without_a_reply_ends_as_interrupted() -> None:
    connection = executing()
    connection.interrupted("wake")
    connection.receive(status("idle"), 2)
    (emitted,) = connection.receive(heard("shell", "kernel_info_reply", parent="wake"), 3)
    assert isinstance(emitted, Emit)
    (finished,) = emitted.events
    assert isinstance(finished, Finished)
    assert (finished.status, finished.reason) == ("interrupted", "the kernel ended the request without a reply")


def test_an_interrupted_cell_that_replies_ends_as_it_says() -> None:
    connection = executing()
    connection.interrupted("wake")
    connection.receive(reply(), 2)
    connection.receive(heard("shell", "kernel_info_reply", parent="wake"), 3)
    (emitted,) = connection.receive(status("idle", parent="wake"), 4)
    assert isinstance(emitted, Emit)
    finished = emitted.events[-1]
    assert isinstance(finished, Finished)
    assert finished.status == "ok"
