from __future__ import annotations

from typing import Any

import pytest
from tests.protocol.says import heard, reply, status, stdout

from cellrun.protocol.message import Message
from cellrun.protocol.resume import LOG, Resume, numbered


def said(number: int, *, kernel: str = "kernel_1", channel: str = "iopub") -> Message:
    return heard(channel, "stream", msg_id=f"{kernel}_{number}", name="stdout", text=f"{number}")


def log(**content: Any) -> Message:
    return heard("iopub", LOG, parent="", msg_id="kernel_1_999", **content)


def answer(token: object = "token", *, complete: object = True, replies: object = (), after: object = 0) -> Message:
    replies = list(replies) if isinstance(replies, tuple) else replies
    return log(after=after, token=token, complete=complete, replies=replies)


def kept(message: Message) -> dict[str, Any]:
    """A reply as the log keeps it."""
    return {key: getattr(message, key) for key in ("header", "parent_header", "metadata", "content")}


def numbers(messages: list[Message]) -> list[int]:
    places = [numbered(message.msg_id) for message in messages]
    return [place[1] for place in places if place is not None]


def receive(resume: Resume, *messages: Message) -> list[int]:
    return [number for message in messages for number in numbers(resume.receive(message))]


def resuming(highest: int = 3) -> Resume:
    """The kernel keeps a log; the connection broke after its message `highest` and is back."""
    resume = Resume()
    resume.receive(log())
    resume.receive(said(highest))
    assert resume.begin("token") == highest
    return resume


# -- the numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("msg_id", "place"),
    [
        ("0c1f-22_4711_12", ("0c1f-22_4711", 12)),
        ("a_b_1_2", ("a_b_1", 2)),
        ("k_1_" + "9" * 18, ("k_1", 10**18 - 1)),
        ("k_1_" + "9" * 19, None),
        ("k_1_-2", None),
        ("k_1_2 ", None),
        ("1_2", None),
        ("None", None),
        ("", None),
    ],
)
def test_an_id_of_a_session_is_a_process_and_a_number(msg_id: str, place: tuple[str, int] | None) -> None:
    assert numbered(msg_id) == place


# -- while the connection holds ----------------------------------------------------------------------


def test_messages_go_on_as_they_come() -> None:
    assert receive(Resume(), said(5), said(4), said(9, kernel="another_1"), said(1)) == [5, 4, 9, 1]


def test_the_kernels_word_that_it_keeps_a_log_is_nobodys_message() -> None:
    resume = Resume()
    assert not resume.supported
    assert resume.receive(log()) == []
    assert resume.supported


def test_without_a_log_nothing_is_asked_and_nothing_waits() -> None:
    resume = Resume()
    receive(resume, said(3))
    assert resume.begin("token") is None
    assert not resume.waiting
    assert receive(resume, said(9), said(4)) == [9, 4]


def test_an_answer_that_nobody_waits_for_is_passed_over() -> None:
    resume = Resume()
    receive(resume, said(3))
    assert resume.receive(answer("")) == []
    assert not resume.supported
    assert not resume.complete


# -- after a break -----------------------------------------------------------------------------------


def test_what_comes_after_a_break_waits_for_the_answer_and_goes_on_in_order() -> None:
    resume = resuming()
    assert receive(resume, said(7), said(8), said(4), said(5), said(6)) == []
    assert resume.waiting
    assert receive(resume, answer()) == [4, 5, 6, 7, 8]
    assert not resume.waiting
    assert resume.complete
    assert receive(resume, said(9)) == [9]


def test_the_same_message_twice_goes_on_once() -> None:
    assert receive(resuming(), said(4), said(5), said(4), answer()) == [4, 5]


def test_the_next_request_asks_for_what_came_after_all_that_is_known() -> None:
    resume = resuming()
    receive(resume, said(8), said(5), answer())
    assert resume.begin("next") == 8
    receive(resume, answer("next"))
    assert resume.begin("last") == 8


def test_a_second_break_asks_for_the_same_under_another_token() -> None:
    resume = resuming(3)
    receive(resume, said(9))
    assert resume.begin("second") == 3
    assert resume.asked == "second"
    assert receive(resume, answer("token")) == []
    assert resume.waiting
    assert receive(resume, answer("second")) == [9]


def test_one_answer_is_enough() -> None:
    resume = resuming()
    assert receive(resume, said(4), answer(), answer(), said(5), answer()) == [4, 5]


def test_an_answer_is_complete_where_it_says_so_in_one_word() -> None:
    for complete in (False, None, 1, "True", [True]):
        resume = resuming()
        assert receive(resume, said(9), answer(complete=complete)) == [9]
        assert not resume.complete


def test_a_new_break_forgets_that_the_last_answer_was_complete() -> None:
    resume = resuming()
    receive(resume, answer())
    resume.begin("next")
    assert not resume.complete


def test_without_an_answer_what_waits_goes_on_with_its_gaps() -> None:
    resume = resuming()
    receive(resume, said(9), said(6))
    assert numbers(resume.give_up()) == [6, 9]
    assert not resume.waiting
    assert not resume.complete
    assert resume.give_up() == []


def test_an_answer_after_the_patience_is_passed_over() -> None:
    resume = resuming()
    resume.give_up()
    assert receive(resume, answer(), said(5)) == [5]
    assert not resume.complete


def test_an_input_request_does_not_wait() -> None:
    resume = resuming()
    assert receive(resume, said(6, channel="stdin")) == [6]
    assert receive(resume, said(5), answer()) == [5]


def test_messages_without_a_number_do_not_wait() -> None:
    resume = resuming()
    message = stdout("x", msg_id="no number")
    assert resume.receive(message) == [message]
    assert resume.waiting


def test_another_kernel_ends_the_waiting_for_the_old_one() -> None:
    resume = resuming()
    receive(resume, said(9), said(8))
    assert receive(resume, said(1, kernel="another_1")) == [8, 9, 1]
    assert not resume.waiting
    assert receive(resume, said(2, kernel="another_1")) == [2]


# -- replies that the log kept -----------------------------------------------------------------------


def test_a_reply_that_was_lost_is_got_from_the_answer_and_stands_at_its_place() -> None:
    resume = resuming()
    lost = reply("ok", msg_id="kernel_1_5", execution_count=7)
    receive(resume, said(4), status("idle", msg_id="kernel_1_6"))
    released = resume.receive(answer(replies=[kept(lost)]))
    assert numbers(released) == [4, 5, 6]
    assert released[1] == lost


def test_a_reply_that_came_itself_is_not_taken_from_the_answer() -> None:
    resume = resuming()
    came = reply("ok", msg_id="kernel_1_5")
    receive(resume, came)
    (released,) = resume.receive(answer(replies=[kept(came)]))
    assert released is came


def test_replies_from_before_the_break_are_not_taken() -> None:
    resume = Resume()
    receive(resume, log(), reply(msg_id="kernel_1_3"), said(4))
    resume.begin("token")
    assert receive(resume, answer(replies=[kept(reply(msg_id="kernel_1_3"))])) == []


NO_HEADERS: list[object] = [None, 0, "kernel_1_5", ["kernel_1_5"], {}]
NO_IDS: list[object] = [None, 5, [], {}, "", "kernel_1_", "kernel_1_-5", "kernel_1_" + "9" * 5_000]


@pytest.mark.parametrize(
    "replies",
    [
        None,
        0,
        "replies",
        {"header": {"msg_id": "kernel_1_5"}},
        [None, 0, "x", [], {}, [{"header": {"msg_id": "kernel_1_5"}}]],
        [{"header": header} for header in NO_HEADERS],
        [{"header": {"msg_id": msg_id}} for msg_id in NO_IDS],
        [{"header": {"msg_id": f"{kernel}_5"}} for kernel in ("another_1", "kernel_2", "kernel_11", "_1", "1")],
    ],
)
def test_replies_that_are_none_are_passed_over(replies: object) -> None:
    resume = resuming()
    assert receive(resume, said(4), answer(replies=replies)) == [4]
    assert not resume.waiting


@pytest.mark.parametrize("part", [None, 0, "x", [], [{}]])
def test_a_reply_with_parts_that_are_no_objects_has_them_empty(part: object) -> None:
    header = {"msg_id": "kernel_1_5", "msg_type": "execute_reply"}
    spelled = {"header": header, "parent_header": part, "metadata": part, "content": part}
    assert resuming().receive(answer(replies=[spelled])) == [Message("shell", header, {}, {}, {})]


@pytest.mark.parametrize("token", [None, 0, [], {}, ["token"], "", "TOKEN", 10**400])
def test_an_answer_with_another_token_ends_no_waiting(token: object) -> None:
    resume = resuming()
    assert receive(resume, said(4), answer(token)) == []
    assert resume.waiting


@pytest.mark.parametrize("after", [None, -1, 10**400, "3", [], {}])
def test_the_number_in_the_answer_is_ours_to_know(after: object) -> None:
    assert receive(resuming(), said(4), answer(after=after)) == [4]


# -- what is not the kernel's own --------------------------------------------------------------------


def test_what_a_child_of_the_kernel_prints_waits_too_and_ends_no_waiting() -> None:
    resume = resuming()
    assert receive(resume, said(5), said(4, kernel="kernel_2"), said(4)) == []
    assert receive(resume, answer()) == [4, 4, 5]
    receive(resume, said(99, kernel="kernel_2"))
    assert resume.begin("next") == 5


def test_a_notice_of_the_server_ends_no_waiting() -> None:
    resume = resuming()
    header = {"msg_id": "client_9_1", "msg_type": "stream", "session": "client"}
    notice = Message("iopub", header, {"session": "client"}, {}, {})
    assert resume.receive(notice) == [notice]
    assert receive(resume, said(5), said(4), answer()) == [4, 5]


def test_channels_that_are_ahead_of_iopub_do_not_say_what_came_on_it() -> None:
    resume = Resume()
    receive(resume, log(), said(3), said(9, channel="stdin"), reply(msg_id="kernel_1_8"))
    assert resume.begin("token") == 3
    assert receive(resume, reply(msg_id="kernel_1_8"), answer(replies=[kept(reply(msg_id="kernel_1_8"))])) == []


def test_what_was_not_answered_in_full_is_asked_for_again_until_all_is_settled() -> None:
    resume = resuming(3)
    receive(resume, said(9), answer(complete=False))
    assert resume.begin("second") == 3
    resume.give_up()
    resume.settled()
    assert resume.begin("third") == 9
