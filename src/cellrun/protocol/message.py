"""A Jupyter message, and the builders of the requests that we send.

Source: Messaging in Jupyter, "General Message Format" and "Messages on the shell (ROUTER/DEALER) channel".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

MOST_PARTS: Final = 10_000
"""Of a message, buffers included: more are no message but an attack."""
_DEEPEST: Final = 400  # Python's stack holds a thousand; a kernel's JSON has a dozen
ChannelName = Literal["shell", "iopub", "stdin", "control"]
CHANNELS: Final = ("shell", "iopub", "stdin", "control")
PROTOCOL_VERSION: Final = "5.4"


@dataclass(slots=True)
class Message:
    """One message with its channel. Not frozen: thousands a second are made; nobody changes them."""

    channel: str
    header: Mapping[str, Any]
    parent_header: Mapping[str, Any]
    metadata: Mapping[str, Any]
    content: Mapping[str, Any]
    buffers: Sequence[bytes | memoryview] = field(default=())

    @property
    def msg_type(self) -> str:
        return str(self.header.get("msg_type", ""))

    @property
    def msg_id(self) -> str:
        return str(self.header.get("msg_id", ""))

    @property
    def parent_id(self) -> str:
        """The `msg_id` of the request that this answers, "" if none is named."""
        return str(self.parent_header.get("msg_id") or "")


def parse(text: str | bytes) -> Any:
    """The value of a part of a message. Raises ValueError, also for a value that is nested so deeply that
    handling it could exhaust the stack: where it is parsed is not where it is written again."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) > _DEEPEST:  # type: ignore[arg-type]
        level: list[Any] = [value]
        for _ in range(_DEEPEST):
            level = [item for outer in level if isinstance(outer, (dict, list)) for item in _inner(outer)]
            if not level:
                return value
        raise ValueError("nested too deeply")
    return value


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def request(
    channel: ChannelName,
    msg_type: str,
    content: Mapping[str, Any],
    *,
    msg_id: str,
    session: str,
    date: str,
    metadata: Mapping[str, Any] | None = None,
) -> Message:
    """A request of ours. `date` is ISO 8601 in UTC; `session` the id that all our messages share."""
    header = {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "username": "cellrun",
        "session": session,
        "date": date,
        "version": PROTOCOL_VERSION,
    }
    return Message(channel, header, {}, metadata or {}, content)


def execute_content(
    code: str, *, silent: bool = False, store_history: bool = True, allow_stdin: bool = False
) -> dict[str, Any]:
    """The content of an `execute_request` ("Execute"). One runs at a time, so there is no queue of the
    kernel's that an error would have to abort."""
    return {
        "code": code,
        "silent": silent,
        "store_history": store_history and not silent,
        "user_expressions": {},
        "allow_stdin": allow_stdin,
        "stop_on_error": False,
    }
