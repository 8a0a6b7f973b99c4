"""The books of what was asked: what is over, what has no end of its own, and how much may wait."""

from __future__ import annotations

from typing import Any

import pytest

from cellrun.errors import ConnectionFailed
from cellrun.limits import MIB
from cellrun.protocol.message import Message
from cellrun.service.jupyter.connection import Connection
from cellrun.service.jupyter.replay import says
from cellrun.service.jupyter.requests import MOST, MOST_BYTES, Requests

CONNECTION = Connection("", plain=False)


def asked(id: str, kind: str = "execute_request", **content: Any) -> Message:
    return Message("shell", {"msg_id": id, "msg_type": kind}, {}, {}, content)


def status(id: str, state: str) -> Message:
    return says("status", {"execution_state": state}, {"msg_id": id})


def reply(id: str) -> Message:
    return says("execute_reply", {"status": "ok"}, {"msg_id": id}, "shell")


@pytest.mark.parametrize("ends", [("idle", "reply"), ("reply", "idle")])
def test_a_request_is_over_with_its_reply_and_its_idle_in_whatever_order(ends: tuple[str, str]) -> None:
    requests = Requests()
    requests.add(asked("1"), CONNECTION)
    assert not requests.note(status("1", "busy"), 1.0)
    assert requests.running is requests.get("1")
    first, second = (reply("1") if end == "reply" else status("1", end) for end in ends)
    assert not requests.note(first, 2.0)
    assert requests.note(second, 2.0)
    assert not list(requests)
    assert not requests.executing


def test_the_next_cell_is_the_first_even_before_it_has_begun() -> None:
    requests = Requests()
    requests.add(asked("0", "kernel_info_request"), CONNECTION)
    requests.add(asked("1"), CONNECTION)
    requests.add(asked("2"), CONNECTION)
    assert requests.first is requests.get("1")
    assert requests.running is None
    requests.note(status("1", "idle"), 1.0)
    requests.note(reply("1"), 1.0)
    assert requests.first is requests.get("2")


def test_a_comm_message_is_over_with_its_idle() -> None:
    requests = Requests()
    requests.add(asked("1", "comm_msg"), CONNECTION)
    assert requests.note(status("1", "idle"), 1.0)


def test_what_the_kernel_does_not_know_makes_room_for_others() -> None:
    requests = Requests()
    for number in range(MOST):
        requests.add(asked(str(number), "unheard_of_request"), CONNECTION)
        requests.note(status(str(number), "idle"), 1.0)
    requests.add(asked("new"), CONNECTION)
    assert [one.header["msg_id"] for one in requests] == ["new"]


def test_too_many_and_too_large_ones_are_refused_and_one_may_be_of_any_size() -> None:
    requests = Requests()
    requests.add(asked("1", code="x" * 2 * MOST_BYTES), CONNECTION)
    with pytest.raises(ConnectionFailed, match="too many requests"):
        requests.add(asked("2"), CONNECTION)
    requests.drop("1")
    for number in range(MOST):
        requests.add(asked(str(number)), CONNECTION)
    with pytest.raises(ConnectionFailed, match="too many requests"):
        requests.add(asked("new"), CONNECTION)
    small = Requests()
    for number in range(MOST_BYTES // MIB - 1):
        small.add(asked(str(number), code="x" * MIB), CONNECTION)
    with pytest.raises(ConnectionFailed, match="too many requests"):
        small.add(asked("new", code="x" * MIB), CONNECTION)


def test_what_has_no_end_of_its_own_is_given_one() -> None:
    requests = Requests()
    requests.add(asked("1"), CONNECTION)
    requests.add(asked("2", "comm_msg"), CONNECTION)
    requests.add(asked("3", "inspect_request"), CONNECTION)
    requests.note(status("1", "busy"), 1.0)
    told = [(message.parent_id, message.channel, message.msg_type) for _, message in requests.ends("aborted", "E", "r")]
    assert told == [
        ("1", "iopub", "error"),
        ("1", "shell", "execute_reply"),
        ("1", "iopub", "status"),
        ("2", "iopub", "status"),
        ("3", "shell", "inspect_reply"),
        ("3", "iopub", "status"),
    ]
    assert not list(requests)
    assert not list(requests.ends("aborted", "E", "r"))
