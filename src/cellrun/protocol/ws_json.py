"""The WebSocket framing without a subprotocol: JSON text, or binary where there are buffers.

Binary layout, big-endian unsigned 32 bit: the number of parts (JSON included), their offsets, then the
JSON and the buffers. Source: jupyter_server documentation, "WebSocket kernel wire protocols" (default).
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Mapping
from typing import Any

from cellrun.errors import ProtocolError
from cellrun.protocol.message import CHANNELS, MOST_PARTS, Message, parse


def encode(message: Message) -> str | bytes:
    """The frame of a message: text, or bytes if it has buffers."""
    text = json.dumps(
        {
            "channel": message.channel,
            "header": message.header,
            "parent_header": message.parent_header,
            "metadata": message.metadata,
            "content": message.content,
        },
        # ASCII, because a text frame must be UTF-8 and code may hold lone surrogates.
        ensure_ascii=True,
        separators=(",", ":"),
    )
    if not message.buffers:
        return text
    parts = [memoryview(text.encode("ascii"))] + [memoryview(buffer).cast("B") for buffer in message.buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f">{len(parts) + 1}I", len(parts), *offsets), *parts])


def decode(frame: bytes | str, *, channel: str | None = None) -> Message:
    """The message of a frame; `channel`: of one that names none. Raises ProtocolError and nothing else."""
    if isinstance(frame, str):
        return _message(frame, (), channel)
    view = memoryview(frame)
    if len(view) < 8:
        raise ProtocolError(f"a binary frame of {len(view)} bytes is too short")
    (count,) = struct.unpack_from(">I", view)
    if not 1 <= count <= min(len(view) // 4 - 1, MOST_PARTS):
        raise ProtocolError(f"a binary frame of {len(view)} bytes claims {count} parts")
    offsets = [*struct.unpack_from(f">{count}I", view, 4), len(view)]
    if offsets[0] != 4 * (count + 1) or offsets != sorted(offsets):
        raise ProtocolError("the offsets of a binary frame are not in order or point outside of it")
    parts = [view[start:end] for start, end in itertools.pairwise(offsets)]
    return _message(bytes(parts[0]), tuple(parts[1:]), channel)


def _message(text: str | bytes, buffers: tuple[memoryview, ...], otherwise: str | None) -> Message:
    try:
        data = parse(text)
    except ValueError as error:
        raise ProtocolError(f"a frame is not JSON: {type(error).__name__}") from None
    if not isinstance(data, dict):
        raise ProtocolError(f"a frame is not a JSON object but {type(data).__name__}")
    channel = data.get("channel", otherwise)
    if channel not in CHANNELS:
        raise ProtocolError(f"unknown channel {str(channel)[:20]!r}")
    parts: list[Mapping[str, Any]] = []
    for key in ("header", "parent_header", "metadata", "content"):
        value = data.get(key) or {}
        if not isinstance(value, dict):
            raise ProtocolError(f"{key} is not a JSON object but {type(value).__name__}")
        parts.append(value)
    header, parent, metadata, content = parts
    return Message(channel, header, parent, metadata, content, buffers)
