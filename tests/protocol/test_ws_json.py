from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from cellrun.errors import ProtocolError
from cellrun.protocol.message import Message
from cellrun.protocol.ws_json import decode, encode

EMPTY = b'{"channel":"iopub"}'


def message(*buffers: bytes | memoryview, **content: Any) -> Message:
    return Message("iopub", {"msg_id": "m"}, {"msg_id": "p"}, {"a": 1}, content, buffers)


def frame_of(*parts: bytes) -> bytes:
    """A binary frame laid out by hand, after the documentation's text."""
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f">{len(parts) + 1}I", len(parts), *offsets) + b"".join(parts)


def test_without_buffers_the_frame_is_json_text() -> None:
    frame = encode(message(text="hi"))
    assert isinstance(frame, str)
    assert json.loads(frame) == {
        "channel": "iopub",
        "header": {"msg_id": "m"},
        "parent_header": {"msg_id": "p"},
        "metadata": {"a": 1},
        "content": {"text": "hi"},
    }


def test_with_buffers_the_frame_is_binary_and_laid_out_as_documented() -> None:
    text = encode(message(text="hi"))
    assert isinstance(text, str)
    assert encode(message(b"\x00\xff", b"", text="hi")) == frame_of(text.encode(), b"\x00\xff", b"")


@pytest.mark.parametrize("buffers", [(), (b"",), (b"\x00\xff", b"", b"abc"), (memoryview(b"abcd").cast("H"),)])
def test_a_message_comes_back_as_it_went(buffers: tuple[bytes | memoryview, ...]) -> None:
    sent = message(*buffers, text="é😀\x00\n", number=1.5, nothing=None)
    back = decode(encode(sent))
    assert [bytes(buffer) for buffer in back.buffers] == [bytes(buffer) for buffer in sent.buffers]
    assert (back.channel, back.header, back.parent_header, back.metadata, back.content) == (
        sent.channel,
        sent.header,
        sent.parent_header,
        sent.metadata,
        sent.content,
    )


def test_a_text_frame_is_utf8_even_where_the_code_is_not() -> None:
    frame = encode(message(code="'\ud800'"))
    assert isinstance(frame, str)
    frame.encode("utf-8")
    assert decode(frame).content == {"code": "'\ud800'"}


def test_parts_that_are_missing_read_as_empty() -> None:
    assert decode('{"channel": "shell"}') == Message("shell", {}, {}, {}, {}, ())


def test_a_binary_frame_may_hold_no_buffer() -> None:
    assert decode(frame_of(EMPTY)) == Message("iopub", {}, {}, {}, {}, ())


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5_000, "not JSON"),
        ("[]", "not a JSON object but list"),
        ('"iopub"', "not a JSON object but str"),
        ("{}", "unknown channel"),
        ('{"channel": ["iopub"]}', "unknown channel"),
        ('{"channel": {}}', "unknown channel"),
        ('{"channel": "hb"}', "unknown channel 'hb'"),
        ('{"channel": "iopub", "header": [1]}', "header is not a JSON object but list"),
        ('{"channel": "iopub", "parent_header": "x"}', "parent_header is not"),
        ('{"channel": "iopub", "metadata": 1}', "metadata is not"),
        ('{"channel": "iopub", "content": true}', "content is not"),
        (b"", "too short"),
        (b"1234567", "too short"),
        (struct.pack(">2I", 0, 8), "claims 0 parts"),
        (struct.pack(">2I", 2**32 - 1, 8), "claims"),
        (struct.pack(">2I", 2, 12), "claims 2 parts"),
        (struct.pack(">2I", 1, 4) + EMPTY, "offsets"),
        (struct.pack(">2I", 1, 1000) + EMPTY, "offsets"),
        (struct.pack(">3I", 2, 12, 11) + EMPTY, "offsets"),
        (struct.pack(">3I", 2, 12, 1000) + EMPTY, "offsets"),
        (frame_of(b"\xff"), "not JSON"),
        (frame_of(b"", b"buffer"), "not JSON"),
        (frame_of(b"[]"), "not a JSON object"),
    ],
)
def test_what_is_no_frame_is_a_protocol_error_that_says_why(frame: str | bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode(frame)


@pytest.mark.parametrize(("depth", "taken"), [(100, True), (900, False)])
def test_json_that_is_nested_close_to_the_end_of_the_stack_is_refused(depth: int, taken: bool) -> None:
    # What can just be parsed here cannot be measured, shown or written where the stack is deeper.
    frame = '{"channel": "iopub", "content": {"data": ' + '{"a":' * depth + "1" + "}" * depth + "}}"
    if taken:
        assert "data" in decode(frame).content
    else:
        with pytest.raises(ProtocolError):
            decode(frame)


@pytest.mark.parametrize("empty", [None, [], "", 0, False])
def test_an_empty_value_of_any_kind_reads_as_an_empty_object(empty: Any) -> None:
    assert decode(json.dumps({"channel": "iopub", "content": empty})).content == {}


def test_an_error_text_holds_little_of_what_the_other_side_said() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(json.dumps({"channel": "x" * 10_000}))
    assert len(str(caught.value)) < 100
