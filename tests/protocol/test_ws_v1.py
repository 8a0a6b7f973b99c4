from __future__ import annotations

import struct
from typing import Any

import pytest

from cellrun.errors import ProtocolError
from cellrun.protocol.message import Message
from cellrun.protocol.ws_v1 import SUBPROTOCOL, decode, encode

HEADER = {"msg_id": "m", "msg_type": "comm_msg"}


def message(channel: str = "iopub", *buffers: bytes | memoryview, **content: Any) -> Message:
    return Message(channel, HEADER, {"msg_id": "p"}, {"a": 1}, content, buffers)


def frame_of(*parts: bytes, tail: bytes = b"") -> bytes:
    """A frame laid out by hand, after the specification's text."""
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts) + tail


def same(left: Message, right: Message) -> bool:
    return (left.channel, left.header, left.parent_header, left.metadata, left.content) == (
        right.channel,
        right.header,
        right.parent_header,
        right.metadata,
        right.content,
    ) and list(map(bytes, left.buffers)) == list(map(bytes, right.buffers))


def test_the_subprotocol_has_its_registered_name() -> None:
    assert SUBPROTOCOL == "v1.kernel.websocket.jupyter.org"


def test_the_frame_is_laid_out_as_specified() -> None:
    frame = encode(Message("shell", {"a": 1}, {}, {}, {"b": "é"}, (b"\x00\xff", b"")))
    assert frame == frame_of(b"shell", b'{"a":1}', b"{}", b"{}", '{"b":"é"}'.encode(), b"\x00\xff", b"")


@pytest.mark.parametrize("channel", ["shell", "iopub", "stdin", "control"])
@pytest.mark.parametrize("buffers", [(), (b"",), (b"\x00\xff", b"", b"abc"), (memoryview(b"abcd").cast("H"),)])
def test_a_message_comes_back_as_it_went(channel: str, buffers: tuple[bytes | memoryview, ...]) -> None:
    sent = message(channel, *buffers, text="é😀\x00\n", number=1.5, nothing=None)
    assert same(decode(encode(sent)), sent)


def test_lone_surrogates_survive() -> None:
    assert decode(encode(message(text="a\ud800"))).content == {"text": "a\ud800"}


def test_buffers_are_not_copied_out_of_the_frame() -> None:
    frame = encode(message("iopub", b"abc"))
    (buffer,) = decode(frame).buffers
    assert isinstance(buffer, memoryview)
    assert buffer.obj is frame


def test_a_text_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="text frame"):
        decode("{}")


def test_bytes_behind_the_last_offset_are_nobodys() -> None:
    frame = frame_of(b"iopub", b"{}", b"{}", b"{}", b"{}", tail=b"rest")
    assert decode(frame).buffers == ()


GOOD = frame_of(b"iopub", b"{}", b"{}", b"{}", b"{}")


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "too short"),
        (b"1234567", "too short"),
        (struct.pack("<Q", 0), "claims 0 offsets"),
        (struct.pack("<Q", 2**64 - 1), "claims"),
        (frame_of(b"iopub", b"{}", b"{}", b"{}"), "claims 5 offsets"),
        (struct.pack("<7Q", 7, *[64] * 6), "claims 7 offsets"),
        (GOOD[:-1], "offsets"),
        (struct.pack("<7Q", 6, *[57] * 6) + b" " * 8, "offsets"),
        (struct.pack("<7Q", 6, 56, 58, 57, 59, 60, 61) + b" " * 8, "offsets"),
        (struct.pack("<7Q", 6, 56, 57, 58, 59, 60, 2**63) + b" " * 8, "offsets"),
        (frame_of(b"", b"{}", b"{}", b"{}", b"{}"), "unknown channel ''"),
        (frame_of(b"\xff\xfe", b"{}", b"{}", b"{}", b"{}"), "unknown channel"),
        (frame_of(b"IOPub", b"{}", b"{}", b"{}", b"{}"), "unknown channel 'IOPub'"),
        (frame_of(b"iopub", b"", b"{}", b"{}", b"{}"), "not JSON"),
        (frame_of(b"iopub", b"{}", b"\xff", b"{}", b"{}"), "not JSON"),
        (frame_of(b"iopub", b"{}", b"{}", b"[]", b"{}"), "not a JSON object but list"),
        (frame_of(b"iopub", b"{}", b"{}", b"{}", b"null"), "not a JSON object but NoneType"),
        (frame_of(b"iopub", b"{}", b"{}", b"{}", b"[" * 100_000), "not JSON"),
        (frame_of(b"iopub", b"{}", b"{}", b"{}", b"9" * 5_000), "not JSON"),
    ],
)
def test_what_is_no_frame_is_a_protocol_error_that_says_why(frame: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode(frame)


@pytest.mark.parametrize(("depth", "taken"), [(100, True), (900, False)])
def test_json_that_is_nested_close_to_the_end_of_the_stack_is_refused(depth: int, taken: bool) -> None:
    # What can just be parsed here cannot be measured, shown or written where the stack is deeper.
    frame = frame_of(b"iopub", b"{}", b"{}", b"{}", b'{"data":' + b"[" * depth + b"]" * depth + b"}")
    if taken:
        assert "data" in decode(frame).content
    else:
        with pytest.raises(ProtocolError):
            decode(frame)


def test_json_may_be_as_wide_as_it_likes() -> None:
    sent = message(wide=[[] for _ in range(5_000)])
    assert same(decode(encode(sent)), sent)


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_a_frame_cut_anywhere_is_a_protocol_error(length: int) -> None:
    with pytest.raises(ProtocolError):
        decode(GOOD[:length])


def test_an_error_text_holds_little_of_what_the_other_side_said() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(frame_of(b"x" * 10_000, b"{}", b"{}", b"{}", b"{}"))
    assert len(str(caught.value)) < 100


def test_content_that_cannot_be_json_is_refused_before_it_is_sent() -> None:
    with pytest.raises(TypeError):
        encode(message(value=object()))
