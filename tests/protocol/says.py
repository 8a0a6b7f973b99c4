"""Short spellings of what a kernel says, for the tables of these tests."""

from __future__ import annotations

from typing import Any

from cellrun.events import Event
from cellrun.protocol.execution import Execution
from cellrun.protocol.message import Message

OURS = "run"  # the id of the execution under test


def heard(
    channel: str,
    msg_type: str,
    /,
    *,
    parent: str = OURS,
    msg_id: str = "",
    buffers: tuple[bytes | memoryview, ...] = (),
    **content: Any,
) -> Message:
    parent_header = {"msg_id": parent, "session": "client"} if parent else {}
    header = {"msg_id": msg_id, "msg_type": msg_type, "session": "kernel"}
    return Message(channel, header, parent_header, {}, content, buffers)


def status(state: str, *, parent: str = OURS, msg_id: str = "") -> Message:
    return heard("iopub", "status", parent=parent, msg_id=msg_id, execution_state=state)


def stdout(text: str, *, parent: str = OURS, msg_id: str = "") -> Message:
    return heard("iopub", "stream", parent=parent, msg_id=msg_id, name="stdout", text=text)


def reply(status: str = "ok", *, parent: str = OURS, msg_id: str = "", **content: Any) -> Message:
    return heard("shell", "execute_reply", parent=parent, msg_id=msg_id, status=status, **content)


def started(execution_id: str = OURS) -> Execution:
    """An execution whose request went out at 0."""
    execution = Execution(execution_id)
    execution.sent(0)
    return execution


def feed(execution: Execution, *messages: Message) -> list[Event]:
    """All events of these messages; message n arrives at n seconds."""
    return [event for now, message in enumerate(messages, 1) for event in execution.feed(message, now)]
