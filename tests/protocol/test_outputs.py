from __future__ import annotations

from typing import Any

import pytest
from tests.protocol.says import heard

from cellrun.events import (
    ClearOutput,
    Comm,
    Display,
    DisplayUpdate,
    ErrorOutput,
    ExecuteResult,
    InputRequest,
    OutputDropped,
    Stderr,
    Stdout,
)
from cellrun.protocol.message import Message
from cellrun.protocol.outputs import error, integer, translate

BUNDLE: dict[str, Any] = {"data": {"text/plain": "x"}, "metadata": {"text/plain": {"a": 1}}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (heard("iopub", "stream", name="stdout", text="hi"), (Stdout, {"text": "hi"})),
        (heard("iopub", "stream", name="stderr", text="hi"), (Stderr, {"text": "hi"})),
        (heard("iopub", "display_data", **BUNDLE), (Display, {**BUNDLE, "display_id": None})),
        (
            heard("iopub", "display_data", **BUNDLE, transient={"display_id": "d"}),
            (Display, {**BUNDLE, "display_id": "d"}),
        ),
        (
            heard("iopub", "update_display_data", **BUNDLE, transient={"display_id": "d"}),
            (DisplayUpdate, {**BUNDLE, "display_id": "d"}),
        ),
        (
            heard("iopub", "execute_result", **BUNDLE, execution_count=3),
            (ExecuteResult, {**BUNDLE, "execution_count": 3, "display_id": None}),
        ),
        (heard("iopub", "clear_output", wait=True), (ClearOutput, {"wait": True})),
        (heard("iopub", "clear_output"), (ClearOutput, {"wait": False})),
        (
            heard("iopub", "error", ename="E", evalue="v", traceback=["a", "b"]),
            (ErrorOutput, {"name": "E", "value": "v", "traceback": "a\nb"}),
        ),
        (
            heard("stdin", "input_request", prompt="? ", password=True),
            (InputRequest, {"prompt": "? ", "password": True}),
        ),
        (
            heard(
                "iopub", "comm_open", comm_id="c", target_name="t", data={"a": 1}, buffers=(b"\x00", memoryview(b"x"))
            ),
            (
                Comm,
                {
                    "kind": "open",
                    "comm_id": "c",
                    "target_name": "t",
                    "data": {"a": 1},
                    "metadata": {},
                    "buffers": (b"\x00", b"x"),
                },
            ),
        ),
        (
            heard("iopub", "comm_msg", comm_id="c", data={}),
            (
                Comm,
                {"kind": "message", "comm_id": "c", "target_name": None, "data": {}, "metadata": {}, "buffers": ()},
            ),
        ),
        (
            heard("iopub", "comm_close", comm_id="c", data={}),
            (Comm, {"kind": "close", "comm_id": "c", "target_name": None, "data": {}, "metadata": {}, "buffers": ()}),
        ),
    ],
)
def test_each_message_with_output_has_its_event(message: Message, expected: Any) -> None:
    assert translate(message) == expected


@pytest.mark.parametrize(
    "msg_type",
    ["", "status", "execute_input", "execute_reply", "iopub_welcome", "debug_event", "pyout", "shutdown_reply"],
)
def test_other_messages_have_none(msg_type: str) -> None:
    assert translate(heard("iopub", msg_type)) is None


def test_the_metadata_of_a_comm_is_that_of_its_message() -> None:
    message = Message("iopub", {"msg_type": "comm_open"}, {}, {"version": "2.1.0"}, {})
    translation = translate(message)
    assert translation is not None
    assert translation[1]["metadata"] == {"version": "2.1.0"}


def test_the_buffers_of_a_comm_no_longer_hold_the_frame() -> None:
    frame = bytearray(b"abc")
    translation = translate(heard("iopub", "comm_msg", buffers=(memoryview(frame),)))
    assert translation is not None
    frame[0] = 0
    assert translation[1]["buffers"] == (b"abc",)


def test_a_stream_of_an_unknown_name_is_standard_output() -> None:
    assert translate(heard("iopub", "stream", name="stdlog", text="x")) == (Stdout, {"text": "x"})


# -- the notices of the server's rate limits ---------------------------------------------------------

NOTICE = "IOPub data rate exceeded.\nThe Jupyter server will temporarily stop sending output\nto the client…\n"


def notice(text: str, *, session: str | None = "client", name: str = "stderr") -> Message:
    header: dict[str, Any] = {"msg_type": "stream", "session": session}
    return Message("iopub", header, {"msg_id": "run", "session": "client"}, {}, {"name": name, "text": text})


@pytest.mark.parametrize("reason", ["data_rate", "message_rate"])
@pytest.mark.parametrize("before", ["", "\n", " \n"])
def test_the_servers_notice_of_lost_output_is_said_as_such(reason: str, before: str) -> None:
    line = f"IOPub {reason.replace('_', ' ')} exceeded."
    assert translate(notice(f"{before}{line}\nThe Jupyter server…")) == (
        OutputDropped,
        {"reason": reason, "detail": line},
    )


@pytest.mark.parametrize(
    "message",
    [
        notice(NOTICE, session="kernel"),
        notice(NOTICE, session=None),
        notice("He said: " + NOTICE),
        notice("IOPub data rate"),
        notice(""),
    ],
)
def test_what_the_kernel_prints_cannot_pass_for_a_notice(message: Message) -> None:
    assert translate(message) == (Stderr, {"text": message.content["text"]})


def test_a_notice_on_standard_output_is_none() -> None:
    assert translate(notice(NOTICE, name="stdout")) == (Stdout, {"text": NOTICE})


def test_without_any_session_a_notice_is_text() -> None:
    message = Message("iopub", {"msg_type": "stream"}, {"msg_id": "run"}, {}, {"name": "stderr", "text": NOTICE})
    assert translate(message) == (Stderr, {"text": NOTICE})


# -- content that breaks the specification -----------------------------------------------------------

HOSTILE = [None, True, 0, -1, 1.5, "", "text", [], ["a", 1, None], {}, {"a": [None]}]
KEYS = [
    *("name", "text", "data", "metadata", "transient", "execution_count", "wait", "ename", "evalue", "traceback"),
    *("prompt", "password", "comm_id", "target_name"),
]
TYPES = [
    *("stream", "display_data", "update_display_data", "execute_result", "clear_output", "error", "input_request"),
    *("comm_open", "comm_msg", "comm_close"),
]


@pytest.mark.parametrize("msg_type", TYPES)
@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_values_of_any_kind_are_read_as_far_as_they_go(msg_type: str, value: Any) -> None:
    translation = translate(heard("iopub", msg_type, **dict.fromkeys(KEYS, value)))
    assert translation is not None
    factory, fields = translation
    event = factory(seq=1, execution_id="run", **fields)
    for name in ("text", "name", "value", "traceback", "prompt", "comm_id"):
        assert isinstance(getattr(event, name, ""), str)
    for name in ("data", "metadata"):
        assert isinstance(getattr(event, name, {}), dict)


@pytest.mark.parametrize("msg_type", TYPES)
def test_empty_content_has_an_event_too(msg_type: str) -> None:
    assert translate(heard("iopub", msg_type)) is not None


@pytest.mark.parametrize("transient", [None, [], {"display_id": None}, {"display_id": 1}, {"display_id": ["d"]}])
def test_a_display_id_that_is_no_text_is_none(transient: Any) -> None:
    translation = translate(heard("iopub", "display_data", transient=transient))
    assert translation == (Display, {"data": {}, "metadata": {}, "display_id": None})


@pytest.mark.parametrize(
    ("traceback", "text"),
    [(["a", "b"], "a\nb"), ([], ""), ("all in one", "all in one"), (None, ""), (["a", 1, None], "a\n1\n")],
)
def test_a_traceback_is_one_text(traceback: Any, text: str) -> None:
    factory, fields = error({"ename": "E", "evalue": "v", "traceback": traceback})
    assert (factory, fields) == (ErrorOutput, {"name": "E", "value": "v", "traceback": text})


@pytest.mark.parametrize(
    ("value", "read"), [(3, 3), (0, 0), (-1, -1), (True, None), (3.0, None), ("3", None), (None, None), ([], None)]
)
def test_only_an_integer_is_a_count(value: Any, read: int | None) -> None:
    assert integer(value) == read
