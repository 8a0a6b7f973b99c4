"""The WebSocket subprotocol `v1.kernel.websocket.jupyter.org`: binary frames.

Layout, all integers little-endian unsigned 64 bit: the number of offsets, the offsets, then the parts
channel, header, parent_header, metadata, content and buffers one after the other. The first offset is
where the channel begins, the last where the frame ends. Source: jupyter_server documentation,
"WebSocket kernel wire protocols".
"""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any, Final

from cellrun.errors import ProtocolError
from cellrun.protocol.message import CHANNELS, MOST_PARTS, Message, parse

SUBPROTOCOL: Final = "v1.kernel.websocket.jupyter.org"


def encode(message: Message) -> bytes:
    """The frame of a message."""
    parts: list[bytes | memoryview] = [message.channel.encode("ascii")]
    parts.extend(
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        for value in (message.header, message.parent_header, message.metadata, message.content)
    )
    parts.extend(memoryview(buffer).cast("B") for buffer in message.buffers)
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), *parts])


def decode(frame: bytes | str) -> Message:
    """The message of a frame. Raises ProtocolError and nothing else."""
    if isinstance(frame, str):
        raise ProtocolError("a text frame came where the v1 subprotocol has only binary ones")
    view = memoryview(frame)
    if len(view) < 8:
        raise ProtocolError(f"a frame of {len(view)} bytes is too short for the v1 subprotocol")
    (count,) = struct.unpack_from("<Q", view)
    if not 6 <= count <= min((len(view) - 8) // 8, MOST_PARTS):
        raise ProtocolError(f"a v1 frame of {len(view)} bytes claims {count} offsets")
    offsets = struct.unpack_from(f"<{count}Q", view, 8)
    if offsets[0] != 8 * (count + 1) or offsets[-1] > len(view) or list(offsets) != sorted(offsets):
        raise ProtocolError("the offsets of a v1 frame are not in order or point outside of it")
    parts = [view[start:end] for start, end in itertools.pairwise(offsets)]
    channel = bytes(parts[0]).decode("ascii", "replace")
    if channel not in CHANNELS:
        raise ProtocolError(f"unknown channel {channel[:20]!r}")
    header, parent, metadata, content = (_object(part) for part in parts[1:5])
    return Message(channel, header, parent, metadata, content, tuple(parts[5:]))


def _object(part: memoryview) -> dict[str, Any]:
    try:
        value = parse(bytes(part).decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise ProtocolError(f"a part of a message is not JSON: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"a part of a message is not a JSON object but {type(value).__name__}")
    return value
