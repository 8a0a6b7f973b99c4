"""What a client that has gone away will be given when it comes back. Bounded; what is forgotten is said at its place. Pure."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cellrun.limits import MIB
from cellrun.mime import size_of
from cellrun.protocol.message import Message

KEPT: Final = 8 * MIB
_OVERHEAD: Final = 512
_BEFORE: Final = 2_000  # of others' cells, mostly: a client that is away asks nothing
# What can be missing without a client waiting for it for ever: its end and its questions can not.
_FORGETTABLE: Final = frozenset(
    ("stream", "display_data", "update_display_data", "execute_result", "clear_output", "comm_msg", "execute_input")
)


def weight(message: Message) -> int:
    """About how many bytes it takes."""
    content = message.content
    data = content.get("data")
    text = content.get("text")
    size = _OVERHEAD + sum(len(buffer) for buffer in message.buffers)
    if isinstance(text, str):
        return size + len(text)
    return size + size_of(data if isinstance(data, Mapping) else content)


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
        self._before: list[Message | _Gap] = []  # older than those above: what could not be forgotten, and gaps

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
            self._keep(message)
            return
        last = self._before[-1] if self._before else None
        if not isinstance(last, _Gap) or last.parent.get("msg_id") != message.parent_id:
            last = _Gap(message.parent_header)
            self._keep(last)
        last.messages += 1
        last.size += size

    def _keep(self, item: Message | _Gap) -> None:
        self._before.append(item)
        if len(self._before) > _BEFORE:
            del self._before[0]

    def take(self) -> list[Message]:
        before = [item.told() if isinstance(item, _Gap) else item for item in self._before]
        found = before + [message for message, _ in self._messages]
        self._before, self._size = [], 0
        self._messages.clear()
        return found
