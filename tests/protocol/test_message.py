from __future__ import annotations

import json
from typing import Any

import pytest

from cellrun.protocol.message import CHANNELS, PROTOCOL_VERSION, Message, execute_content, request


def test_a_request_has_the_header_of_the_specification_and_no_parent() -> None:
    message = request("control", "interrupt_request", {}, msg_id="m", session="s", date="2026-01-01T00:00:00Z")
    assert message == Message(
        "control",
        {
            "msg_id": "m",
            "msg_type": "interrupt_request",
            "username": "cellrun",
            "session": "s",
            "date": "2026-01-01T00:00:00Z",
            "version": PROTOCOL_VERSION,
        },
        {},
        {},
        {},
        (),
    )


def test_the_channels_are_the_four_that_carry_messages() -> None:
    assert CHANNELS == ("shell", "iopub", "stdin", "control")


def test_the_properties_read_the_headers() -> None:
    message = Message("iopub", {"msg_id": "a", "msg_type": "stream"}, {"msg_id": "b"}, {}, {})
    assert (message.msg_id, message.msg_type, message.parent_id) == ("a", "stream", "b")


def test_headers_without_the_keys_read_as_empty_texts() -> None:
    message = Message("iopub", {}, {}, {}, {})
    assert (message.msg_id, message.msg_type, message.parent_id) == ("", "", "")


@pytest.mark.parametrize("hostile", [7, 1.5, True, [], ["a"], {"a": 1}])
def test_header_values_of_other_kinds_still_read_as_texts(hostile: Any) -> None:
    message = Message("iopub", {"msg_id": hostile, "msg_type": hostile}, {"msg_id": hostile}, {}, {})
    assert all(isinstance(text, str) for text in (message.msg_id, message.msg_type, message.parent_id))


def test_a_parent_id_of_null_is_no_parent() -> None:
    assert Message("iopub", {}, {"msg_id": None}, {}, {}).parent_id == ""


def test_an_execute_request_never_lets_an_error_abort_what_is_queued() -> None:
    assert execute_content("1") == {
        "code": "1",
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }


@pytest.mark.parametrize(
    ("silent", "store_history", "stored"),
    [(False, True, True), (False, False, False), (True, True, False), (True, False, False)],
)
def test_silent_code_is_never_stored(silent: bool, store_history: bool, stored: bool) -> None:
    content = execute_content("1", silent=silent, store_history=store_history)
    assert (content["silent"], content["store_history"]) == (silent, stored)


def test_input_is_allowed_only_where_somebody_answers() -> None:
    assert execute_content("1", allow_stdin=True)["allow_stdin"] is True


def test_a_request_is_ready_for_json() -> None:
    message = request("shell", "execute_request", execute_content("é"), msg_id="m", session="s", date="d")
    assert json.loads(json.dumps([message.header, message.content])) == [message.header, message.content]
