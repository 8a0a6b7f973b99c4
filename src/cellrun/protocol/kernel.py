"""One connection to one kernel: who each message is for, whether the kernel is ready, when it is gone.

Rules, from Messaging in Jupyter and from what kernels and servers really do:

- A message belongs to the request that its parent names. Others' messages alter nothing.
- Ready means two things: a reply came on shell, and IOPub delivered something. A reply alone does not
  prove that the subscription stands ("iopub_welcome", JEP 65, or the status of our own probe does).
- The status "restarting", without a parent, comes from the Jupyter server: the process died and what was
  in flight will never be answered. "starting" and an answered probe mean that a new one is there.
- After a reconnect, and after an interrupt, a probe is sent on shell. Shell answers in order: if the
  probe's reply comes before the reply of an execution, that reply will not come; the same with its idle
  on IOPub.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from cellrun.events import Event
from cellrun.protocol.execution import Execution, State
from cellrun.protocol.gaps import Gaps
from cellrun.protocol.message import Message
from cellrun.protocol.outputs import translate
from cellrun.protocol.resume import Resume, foreign


class KernelState(Enum):
    UNKNOWN = auto()  # connected, not yet heard on both channels
    READY = auto()
    RESTARTING = auto()  # the server replaces a dead process by itself
    DEAD = auto()  # nobody will bring it back


class Cause(Enum):
    ANSWERED = auto()  # a probe was answered on shell and on IOPub
    RESTARTING = auto()
    DIED = auto()


TABLE: Final[Mapping[KernelState, Mapping[Cause, KernelState]]] = {
    KernelState.UNKNOWN: {
        Cause.ANSWERED: KernelState.READY,
        Cause.RESTARTING: KernelState.RESTARTING,
        Cause.DIED: KernelState.DEAD,
    },
    KernelState.READY: {
        Cause.ANSWERED: KernelState.READY,
        Cause.RESTARTING: KernelState.RESTARTING,
        Cause.DIED: KernelState.DEAD,
    },
    KernelState.RESTARTING: {
        Cause.ANSWERED: KernelState.READY,
        Cause.RESTARTING: KernelState.RESTARTING,
        Cause.DIED: KernelState.DEAD,
    },
    KernelState.DEAD: {
        Cause.ANSWERED: KernelState.DEAD,
        Cause.RESTARTING: KernelState.DEAD,
        Cause.DIED: KernelState.DEAD,
    },
}


@dataclass(frozen=True, slots=True)
class Emit:
    """Events for the holder of this execution."""

    execution_id: str
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to a request other than an execution."""

    msg_id: str
    message: Message


@dataclass(frozen=True, slots=True)
class Late:
    """Output of an execution that has ended."""

    event: Event


@dataclass(frozen=True, slots=True)
class Changed:
    """The kernel's state is another one; `reason` says why if it is gone."""

    state: KernelState
    reason: str | None


Effect = Emit | Answer | Late | Changed

OUTCOME_UNKNOWN: Final = "OutcomeUnknown"
_LOST_REPLY: Final = (
    "the connection to the server broke and the server had not kept the reply: "
    "the cell is over, how it ended is not known"
)
_REMEMBERED: Final = 256  # ended executions whose late output is still told apart from strangers'


@dataclass(slots=True)
class _Resync:
    """A probe after a reconnect (`lossy`) or an interrupt: the executions that were under way, and the
    channels it was answered on."""

    waiting: list[str]
    lossy: bool
    heard: set[str] = field(default_factory=set)


class KernelConnection:
    """Feed `receive` with every message; perform the effects that it and the other calls return."""

    def __init__(self) -> None:
        self.state = KernelState.UNKNOWN
        self.reason: str | None = None
        self._executions: dict[str, Execution] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._requests: set[str] = set()
        self._probes: set[str] = set()
        self._resyncs: dict[str, _Resync] = {}
        self._heard_reply = self._heard_iopub = False
        self._gaps = Gaps()
        self._resume = Resume()

    @property
    def executions(self) -> Mapping[str, Execution]:
        """The executions that have not ended, by id."""
        return self._executions

    # -- what we do ------------------------------------------------------------------------------

    def register(self, execution: Execution) -> None:
        """Before its request is sent, so that no fast reply is missed."""
        self._executions[execution.execution_id] = execution

    def expect(self, msg_id: str) -> None:
        """A request will be sent and its reply is wanted as an Answer."""
        self._requests.add(msg_id)

    def forget(self, msg_id: str) -> None:
        """The reply to this request is no longer wanted."""
        self._requests.discard(msg_id)
        self._probes.discard(msg_id)
        self._resyncs.pop(msg_id, None)

    def probe(self, msg_id: str) -> None:
        """A `kernel_info_request` that shows readiness will be sent; its reply is an Answer too."""
        self._requests.add(msg_id)
        self._probes.add(msg_id)

    def renew(self) -> None:
        """We had the kernel restarted: what was ready is no longer."""
        self._heard_reply = self._heard_iopub = False
        self._resume = Resume()
        self.state, self.reason = KernelState.UNKNOWN, None

    def reconnected(self, probe_id: str) -> int | None:
        """The connection broke and is back; a probe with this id will be sent. What it overtakes is lost.
        Not None: the kernel keeps a log and is to be asked for everything after this number."""
        if self._executions:
            self._gaps.reconnected()
        self._resyncs[probe_id] = _Resync(list(self._executions), lossy=True)
        return self._resume.begin(probe_id)

    def interrupted(self, probe_id: str) -> None:
        """An interrupt was sent; a probe with this id will follow on shell. An interrupt that hits a kernel
        between taking a request and running it leaves that request without a reply (ipykernel: "caught in
        kernel"): the probe's reply shows it."""
        self._resyncs[probe_id] = _Resync(list(self._executions), lossy=False)

    def resume_failed(self, probe_id: str, now: float) -> list[Effect]:
        """The kernel did not answer the request with this probe in time: what waited for that goes on. Nothing
        if it did, or if a later break has asked anew."""
        return self._release(now) if self._resume.asked == probe_id else []

    def _release(self, now: float) -> list[Effect]:
        return [effect for message in self._resume.give_up() for effect in self._receive(message, now)]

    def abandon(self, execution: Execution, reason: str, now: float) -> list[Event]:
        """We wait for this execution no longer (it was killed, or not even sent). What still comes of it
        is late."""
        self._retire(execution)
        return execution.abandon("kernel_died", reason, now)

    def died(self, reason: str, now: float) -> list[Effect]:
        """The kernel or the way to it is gone for good: every execution ends."""
        return self._gone(Cause.DIED, reason, now)

    # -- what arrives ----------------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> list[Effect]:
        was_waiting = self._resume.waiting
        released = self._resume.receive(message)
        if was_waiting and not self._resume.waiting and self._resume.complete:
            self._gaps.closed()  # before what was released: an end among it must not count what is no output
        return [effect for ready in released for effect in self._receive(ready, now)]

    def _receive(self, message: Message, now: float) -> list[Effect]:
        parent = message.parent_id
        execution = self._executions.get(parent)
        ours = any(parent in known for known in (self._executions, self._requests, self._resyncs, self._ended))
        if not foreign(message):
            self._gaps.saw(message.msg_id, parent, ours=ours or not parent, iopub=message.channel == "iopub")
        effects: list[Effect] = []
        if message.channel == "iopub":
            if not parent and message.msg_type == "status":
                return self._on_lifecycle(str(message.content.get("execution_state")), now)
            if parent in self._probes or message.msg_type == "iopub_welcome":
                self._heard_iopub = True
                effects += self._maybe_ready()
            if message.msg_type == "status" and message.content.get("execution_state") == "idle":
                effects += self._overtaken(parent, "iopub", now)
        if execution is not None and message.channel == "iopub" and execution.state is State.IDLE:
            return effects + self._late(message)
        if execution is not None:
            return effects + self._feed(execution, message, now)
        if message.channel == "shell":
            effects += self._overtaken(parent, "shell", now)
        if parent in self._requests and message.channel in ("shell", "control") and message.msg_type != "status":
            self._requests.discard(parent)
            if parent in self._probes:
                self._heard_reply = True
                effects += self._maybe_ready()
            effects.append(Answer(parent, message))
        elif parent in self._ended:
            effects += self._late(message)
        return effects

    def _late(self, message: Message) -> list[Effect]:
        """Output that came after the idle of its execution."""
        translation = translate(message)
        if translation is None:
            return []
        factory, fields = translation
        return [Late(factory(seq=0, execution_id=message.parent_id, **fields))]

    def _feed(self, execution: Execution, message: Message, now: float) -> list[Effect]:
        events: list[Event] = []
        if execution.closes_with(message) and (lost := self._gaps.lost()):
            events.append(execution.dropped("connection", f"{lost} messages were lost when the connection broke"))
        events += execution.feed(message, now)
        if execution.ended:
            self._retire(execution)
        return [Emit(execution.execution_id, events)] if events else []

    def _retire(self, execution: Execution) -> None:
        self._executions.pop(execution.execution_id, None)
        if not self._executions:
            self._resume.settled()
            self._gaps.closed()  # what this one has lost is no loss of the next
        self._ended[execution.execution_id] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _maybe_ready(self) -> list[Effect]:
        if not (self._heard_reply and self._heard_iopub):
            return []
        return self._change(Cause.ANSWERED, None)

    def _change(self, cause: Cause, reason: str | None) -> list[Effect]:
        state = TABLE[self.state][cause]
        if state is self.state:
            return []
        self.state, self.reason = state, reason
        return [Changed(state, reason)]

    def _on_lifecycle(self, state: str, now: float) -> list[Effect]:
        if state in ("restarting", "autorestarting"):
            return self._gone(Cause.RESTARTING, "the kernel process died; the server is restarting it", now)
        if state == "dead":
            return self._gone(Cause.DIED, "the kernel process died and the server could not restart it", now)
        return []

    def _gone(self, cause: Cause, reason: str, now: float) -> list[Effect]:
        self._heard_reply = self._heard_iopub = False
        self._requests.clear()
        self._probes.clear()
        self._resyncs.clear()
        effects = self._release(now)
        self._resume = Resume()
        for execution in list(self._executions.values()):
            events = execution.abandon("kernel_died", reason, now)
            self._retire(execution)
            if events:  # none where the holder has ended it already
                effects.append(Emit(execution.execution_id, events))
        return self._change(cause, reason) + effects

    def _overtaken(self, probe_id: str, channel: str, now: float) -> list[Effect]:
        """The probe's reply or its idle is here: what an execution still waits for on that channel went
        down with the old connection. The two may come in either order."""
        resync = self._resyncs.get(probe_id)
        if resync is None:
            return []
        resync.heard.add(channel)
        if len(resync.heard) == 2:
            del self._resyncs[probe_id]
        effects: list[Effect] = []
        for execution_id in resync.waiting:
            execution = self._executions.get(execution_id)
            if execution is None or ("iopub" if execution.replied else "shell") not in resync.heard:
                continue
            events: list[Event] = []
            if resync.lossy:
                self._gaps.lost()
                events = [execution.dropped("connection", "output may be missing from before the connection broke")]
            if execution.replied:
                events += execution.feed(_idle(execution_id), now)
            elif resync.lossy:
                events += execution.outcome_unknown(OUTCOME_UNKNOWN, _LOST_REPLY, now)
            else:
                events += execution.abandon("interrupted", "the kernel ended the request without a reply", now)
            self._retire(execution)
            effects.append(Emit(execution_id, events))
        return effects


def _idle(parent_id: str) -> Message:
    content: dict[str, Any] = {"execution_state": "idle"}
    return Message("iopub", {"msg_type": "status"}, {"msg_id": parent_id}, {}, content)
