"""What can come out of an execution: frozen dataclasses and their union, `Event`.

Within one execution `seq` counts from 1 without holes, and exactly one `Finished` comes last.
`cellrun.fold(events)` makes the Result of them. Texts are as the kernel sent them, ANSI sequences and
carriage returns included; `Result.text` offers them rendered.

An event with `seq` 0 is outside this numbering: output of a background thread or callback that came
after its execution had finished. Only `session.late()` delivers such events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "error", "timeout", "interrupted", "kernel_died"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseEvent:
    """What all events have: their number within the execution and the execution's id."""

    seq: int
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(BaseEvent):
    """The run waits for its turn on the session. `position` 1 is next. Sent again as it moves up."""

    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(BaseEvent):
    """The kernel has begun. `execution_count` is None where the kernel did not say it yet."""

    execution_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stdout(BaseEvent):
    """Text written to standard output."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stderr(BaseEvent):
    """Text written to standard error."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Display(BaseEvent):
    """A MIME bundle was displayed. Binary types are base64 text, JSON types are objects."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    display_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayUpdate(BaseEvent):
    """Every display with this id is replaced in place, also one of an earlier execution."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    display_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteResult(BaseEvent):
    """The value of the cell's last expression, as a MIME bundle."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    execution_count: int | None
    display_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearOutput(BaseEvent):
    """Everything shown so far is to vanish: at once, or (`wait`) when the next output comes."""

    wait: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequest(BaseEvent):
    """The cell asks for a line of input. `password`: it must not be echoed."""

    prompt: str
    password: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorOutput(BaseEvent):
    """An exception ended the cell. `traceback` is one text, its lines joined, ANSI kept."""

    name: str
    value: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDropped(BaseEvent):
    """Output was lost before it reached us. `reason`: "data_rate", "message_rate" (limits of the
    Jupyter server), "connection" (a broken connection whose buffer was lost) or "log" (a reader of the
    service came so late that the run's bounded log had forgotten it; then `seq` is the last number forgotten)."""

    reason: Literal["data_rate", "message_rate", "connection", "log"]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRestarted(BaseEvent):
    """This run has a new kernel: the variables of earlier runs are gone. `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comm(BaseEvent):
    """A comm message of the kernel (widgets use them), passed through as it came."""

    kind: Literal["open", "message", "close"]
    comm_id: str
    target_name: str | None
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    buffers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload(BaseEvent):
    """Something the kernel hands to its front end with the reply: `source` "page" (the text of
    `len?`, a MIME bundle under "data"), "set_next_input", "ask_exit", "edit_magic"."""

    source: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(BaseEvent):
    """The end. `duration` is in seconds from the start of the execution. `reason` says why, where
    the status alone does not. `files`: names, relative to the session's folder, of the files that
    the execution created or changed; None where the provider cannot know."""

    status: Status
    execution_count: int | None
    duration: float
    reason: str | None = None
    files: tuple[str, ...] | None = field(default=None)


Event = (
    Queued
    | Started
    | Stdout
    | Stderr
    | Display
    | DisplayUpdate
    | ExecuteResult
    | ClearOutput
    | InputRequest
    | ErrorOutput
    | OutputDropped
    | KernelRestarted
    | Comm
    | Payload
    | Finished
)
