"""One `execute_request`, from before it is sent to its end: messages in, events out.

Rules, from Messaging in Jupyter ("Execute", "Kernel status") and from what kernels really do:

- Everything on IOPub and stdin whose parent is our request belongs to it, and nothing else does.
- The end is the reply on shell *and* the status "idle" on IOPub. They are two sockets, so either may be
  first, and output may come between them.
- What comes after the end (background threads keep the parent) is late: no longer part of it.
- A kernel that dies sends neither. Whoever knows of the death calls `abandon`.

The states and what moves them are the literal table below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, Literal

from cellrun.events import (
    ErrorOutput,
    Event,
    Finished,
    KernelRestarted,
    OutputDropped,
    Payload,
    Queued,
    Started,
    Status,
)
from cellrun.protocol.message import Message
from cellrun.protocol.outputs import error, integer, translate


class State(Enum):
    PREPARED = auto()  # not yet sent
    SENT = auto()  # sent, nothing heard
    RUNNING = auto()  # the kernel has begun
    REPLIED = auto()  # the reply is here, idle is not
    IDLE = auto()  # idle is here, the reply is not
    ENDED = auto()


class Trigger(Enum):
    SEND = auto()
    ACTIVITY = auto()  # busy, execute_input, any output, an input request
    REPLY = auto()
    IDLE = auto()
    ABANDON = auto()


TABLE: Final[Mapping[State, Mapping[Trigger, State]]] = {
    State.PREPARED: {Trigger.SEND: State.SENT, Trigger.ABANDON: State.ENDED},
    State.SENT: {
        Trigger.ACTIVITY: State.RUNNING,
        Trigger.REPLY: State.REPLIED,
        Trigger.IDLE: State.IDLE,
        Trigger.ABANDON: State.ENDED,
    },
    State.RUNNING: {
        Trigger.ACTIVITY: State.RUNNING,
        Trigger.REPLY: State.REPLIED,
        Trigger.IDLE: State.IDLE,
        Trigger.ABANDON: State.ENDED,
    },
    State.REPLIED: {
        Trigger.ACTIVITY: State.REPLIED,
        Trigger.REPLY: State.REPLIED,
        Trigger.IDLE: State.ENDED,
        Trigger.ABANDON: State.ENDED,
    },
    State.IDLE: {
        Trigger.ACTIVITY: State.IDLE,
        Trigger.IDLE: State.IDLE,
        Trigger.REPLY: State.ENDED,
        Trigger.ABANDON: State.ENDED,
    },
    State.ENDED: {},
}


class Execution:
    """The state machine. `feed` what arrives, hand on what it returns."""

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        self.state = State.PREPARED
        self.started_at: float | None = None
        self._seq = 0
        self._execution_count: int | None = None
        self._reply_status: str | None = None
        self._reply_error: Mapping[str, Any] | None = None
        self._saw_error = False
        self._payloads: list[Mapping[str, Any]] = []
        self._announced = False
        self._stop: tuple[Status, str | None] | None = None

    @property
    def ended(self) -> bool:
        return self.state is State.ENDED

    @property
    def replied(self) -> bool:
        return self._reply_status is not None

    def _fire(self, trigger: Trigger) -> None:
        self.state = TABLE[self.state][trigger]

    def _make(self, factory: Callable[..., Event], /, **fields: Any) -> Event:
        self._seq += 1
        return factory(seq=self._seq, execution_id=self.execution_id, **fields)

    # -- what we do ------------------------------------------------------------------------------

    def queued(self, position: int) -> Event:
        """The run waits at this position; 1 is next."""
        return self._make(Queued, position=position)

    def restarted(self, reason: str) -> Event:
        """A new kernel will run this: what was in the old one is gone."""
        return self._make(KernelRestarted, reason=reason)

    def dropped(self, reason: Literal["data_rate", "message_rate", "connection"], detail: str) -> Event:
        """Output of this execution is known to be lost."""
        return self._make(OutputDropped, reason=reason, detail=detail)

    def sent(self, now: float) -> None:
        """The request goes out now; the duration counts from here."""
        self._fire(Trigger.SEND)
        self.started_at = now

    def stop(self, status: Literal["timeout", "interrupted"], reason: str | None = None) -> None:
        """An interrupt is on its way: however the cell ends now, this is why. The first call counts,
        but a deadline outweighs an interrupt that was asked for."""
        if self._stop is None or (status == "timeout" and self._stop[0] == "interrupted"):
            self._stop = (status, reason)

    def abandon(self, status: Status, reason: str, now: float) -> list[Event]:
        """The end without the kernel's word for it: it died, it was killed, the connection is gone.
        An interrupt or deadline that led to it (`stop`) stays the status. Nothing if already ended."""
        if self.ended:
            return []
        self._fire(Trigger.ABANDON)
        if self._stop is not None:
            status, why = self._stop
            reason = "; ".join(text for text in (why, reason) if text)
        return [*self._pay(), self._finish(status, reason or None, now)]

    def died_waiting(self, reason: str, now: float) -> list[Event]:
        """The kernel died before this was sent."""
        self._stop = None
        return self.abandon("kernel_died", reason, now)

    def fault(self, reason: str) -> Event:
        """The last event of an execution whose own last events were lost to a fault of ours."""
        return self._finish("kernel_died", reason, 0.0)

    def outcome_unknown(self, name: str, value: str, now: float) -> list[Event]:
        """The cell is over, and the reply that says how is lost. Told as an error of that name."""
        if self.ended:
            return []
        self._fire(Trigger.ABANDON)
        status, reason = self._stop or ("error", value)
        told = [] if self._saw_error else [self._make(ErrorOutput, name=name, value=value, traceback="")]
        return [*told, self._finish(status, reason, now)]

    # -- what arrives ----------------------------------------------------------------------------

    def closes_with(self, message: Message) -> bool:
        """Whether this message would be the last one: the idle after the reply, or the other way round."""
        if message.channel == "shell":
            return self.state is State.IDLE and message.msg_type == "execute_reply"
        return self.state is State.REPLIED and message.content.get("execution_state") == "idle"

    def feed(self, message: Message, now: float) -> list[Event]:
        """The events of one message whose parent is this request. Unknown types give none."""
        if self.ended or self.state is State.PREPARED:
            return []
        if message.channel == "iopub" and self.state is State.IDLE:
            return []  # after idle comes late output only, wherever the reply is
        kind = message.msg_type
        if message.channel == "shell":
            return self._on_reply(message, now) if kind == "execute_reply" else []
        if kind == "status":
            state = message.content.get("execution_state")
            if state == "idle":
                self._fire(Trigger.IDLE)
                return self._end(now) if self.ended else []
            if state == "busy":
                self._fire(Trigger.ACTIVITY)
            return []
        translation = translate(message)
        if kind == "execute_input":
            self._count(message)
        elif translation is None:
            return []
        self._fire(Trigger.ACTIVITY)
        events: list[Event] = []
        if not self._announced:
            self._announced = True
            events.append(self._make(Started, execution_count=self._execution_count))
        if translation is not None:
            factory, fields = translation
            if factory is ErrorOutput:
                self._reply_error = None
                self._saw_error = True
            events.append(self._make(factory, **fields))
        return events

    def _on_reply(self, message: Message, now: float) -> list[Event]:
        content = message.content
        self._count(message)
        if self._reply_status is None:
            self._reply_status = str(content.get("status", "error"))
            if self._reply_status == "error" and not self._saw_error:
                self._reply_error = content  # its own message on IOPub may still come
        self._fire(Trigger.REPLY)
        payloads = content.get("payload")
        self._payloads += [p for p in payloads if isinstance(p, Mapping)] if isinstance(payloads, list) else []
        return self._end(now) if self.ended else []

    def _pay(self) -> list[Event]:
        """What the reply hands over comes after all output, whichever of the two channels was first."""
        payloads, self._payloads = self._payloads, []
        return [
            self._make(
                Payload,
                source=str(payload.get("source", "")),
                content={key: value for key, value in payload.items() if key != "source"},
            )
            for payload in payloads
        ]

    def _count(self, message: Message) -> None:
        count = integer(message.content.get("execution_count"))
        if count is not None:
            self._execution_count = count

    def _end(self, now: float) -> list[Event]:
        """Reply and idle are both here."""
        events = self._pay()
        if self._reply_error is not None:  # a kernel that says the error in its reply alone
            factory, fields = error(self._reply_error)
            events.append(self._make(factory, **fields))
        status: Status = "error"
        reason: str | None = None
        if self._stop is not None and (self._stop[0] == "timeout" or self._reply_status != "ok"):
            status, reason = self._stop
        elif self._reply_status == "ok":
            status = "ok"
        elif self._reply_status in ("aborted", "abort"):
            status, reason = "interrupted", "the kernel aborted the request before running it"
        events.append(self._finish(status, reason, now))
        return events

    def _finish(self, status: Status, reason: str | None, now: float) -> Event:
        duration = 0.0 if self.started_at is None else max(0.0, now - self.started_at)
        return self._make(
            Finished, status=status, execution_count=self._execution_count, duration=duration, reason=reason
        )
