"""What a client that has gone away will be given when it comes back. Bounded; what is forgotten is said at its place. Pure."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cellrun.limits import KIB, MIB
from cellrun.protocol.message import Message

KEPT: Final = 8 * MIB
_OVERHEAD: Final = 512
_ITEM: Final = 8
_BEFORE: Final = 2_000  # of others' cells, mostly: a client that is away asks nothing
_BEFORE_BYTES: Final = 4 * MIB
_LONG: Final = 16 * KIB
# What can be missing without a client waiting for it for ever: its end and its questions can not.
_FORGETTABLE: Final = frozenset(
    (
        *("stream", "display_data", "update_display_data", "execute_result", "clear_output", "execute_input"),
        *("comm_open", "comm_msg", "comm_close"),
    )
)


def weight(message: Message) -> int:
    """About how many bytes it takes, with all that user code and clients can make large in it."""
    size = _OVERHEAD + sum(len(buffer) for buffer in message.buffers)
    left: list[Any] = [message.content, message.metadata, message.parent_header, message.header]
    while left:
        value = left.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, Mapping):
            size += _ITEM * len(value)
            left += value.values()
            left += value
        elif isinstance(value, list):
            size += _ITEM * len(value)
            left += value
    return size


def says(msg_type: str, content: Mapping[str, Any], parent: Mapping[str, Any], channel: str = "iopub") -> Message:
    """A message of ours, in the kernel's place."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "username": "cellrun",
        "session": str(parent.get("session", "")),
        "date": str(parent.get("date", "")),
        "version": "5.4",
    }
    return Message(channel, header, parent, {}, content)


@dataclass
class _Gap:
    """Messages that were forgotten one after the other, of one request."""

    parent: Mapping[str, Any]
    messages: int = 0
    size: int = 0

    def told(self) -> Message:
        text = f"\n[cellrun: {self.messages} messages ({self.size} bytes) were forgotten while the client was away]\n"
        return says("stream", {"name": "stderr", "text": text}, self.parent)


class Replay:
    """`add` in the order of the messages, `take` all of them once. Of more than `kept` bytes the oldest output goes."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._size = 0
        self._messages: deque[tuple[Message, int]] = deque()
        # Older than those above: what could not be forgotten, and gaps; with their bytes.
        self._before: deque[tuple[Message | _Gap, int]] = deque()
        self._before_size = 0

    def add(self, message: Message) -> None:
        size = weight(message)
        self._messages.append((message, size))
        self._size += size
        while self._size > self._kept and self._messages:
            self._forget_one()

    def _forget_one(self) -> None:
        message, size = self._messages.popleft()
        self._size -= size
        if message.msg_type not in _FORGETTABLE:
            kept = message if size <= _LONG else _shortened(message)
            self._keep(kept, weight(kept))
            return
        last = self._before[-1][0] if self._before else None
        if not isinstance(last, _Gap) or last.parent.get("msg_id") != message.parent_id:
            last = _Gap(_short(message.parent_header))
            self._keep(last, _OVERHEAD)
        last.messages += 1
        last.size += size

    def _keep(self, item: Message | _Gap, size: int) -> None:
        self._before.append((item, size))
        self._before_size += size
        while len(self._before) > _BEFORE or (self._before_size > _BEFORE_BYTES and len(self._before) > 1):
            self._before_size -= self._before.popleft()[1]

    def take(self) -> list[Message]:
        before = [item.told() if isinstance(item, _Gap) else item for item, _ in self._before]
        found = before + [message for message, _ in self._messages]
        self._size = self._before_size = 0
        self._before.clear()
        self._messages.clear()
        return found


def _shortened(message: Message) -> Message:
    """An end, or a question, without what is long in it."""
    return Message(message.channel, _short(message.header), _short(message.parent_header), {}, _short(message.content))


def _short(values: Mapping[str, Any]) -> dict[str, Any]:
    """Long texts are cut, what is made of parts is left out; there are no more of them than a message has."""
    few = list(values.items())[:32]
    return {key[:64]: _cut(value) for key, value in few}


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:256]
    return type(value)() if isinstance(value, (list, dict)) else value
