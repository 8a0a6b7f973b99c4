"""One run on a session, from its submission to its end: where its events go, and how it is waited for."""

from __future__ import annotations

import asyncio
import inspect
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cellrun.events import Event, Finished, InputRequest
from cellrun.folding import Folder
from cellrun.limits import Limits
from cellrun.mime import size_of
from cellrun.protocol.execution import Execution
from cellrun.result import Result

OnInput = Callable[[InputRequest], "Awaitable[str] | str"]
OnEvent = Callable[[Event], None]
_EVENT_OVERHEAD = 256
# ipykernel raises EOFError in the cell when this is what a line of input says (its kernelbase.py).
END_OF_INPUT = "\x04"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the caller asked for, besides the code. `timeout_named`: whether the caller or the Limits said something of it; if not, a
    service has a limit of its own. `metadata`: of the execute_request; it may have secrets in it."""

    timeout: float | None = None
    timeout_named: bool = True
    queue_timeout: float | None = None
    silent: bool = False
    store_history: bool = True
    stdin: Iterable[str] | None = None
    on_input: OnInput | None = None
    on_event: OnEvent | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def allow_stdin(self) -> bool:
        return self.stdin is not None or self.on_input is not None


class EventQueue:
    """The events that a reader of `stream()` has not taken yet. Bounded by bytes: above the mark
    `put` gives an awaitable that is done when all is taken; `lift` ends that for good."""

    def __init__(self, high: int) -> None:
        self._events: deque[tuple[Event, int]] = deque()
        self._size = 0
        self._high = high
        self._lifted = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, events: Iterable[Event]) -> Awaitable[Any] | None:
        for event in events:
            size = _EVENT_OVERHEAD + _event_size(event)
            self._events.append((event, size))
            self._size += size
        self._filled.set()
        if self._lifted or self._size <= self._high:
            return None
        self._room.clear()
        return self._room.wait()

    def wake(self) -> None:
        self._filled.set()

    def lift(self) -> None:
        self._lifted = True
        self._room.set()

    def take(self) -> list[Event]:
        """All that is there, perhaps nothing."""
        events = [event for event, _ in self._events]
        self._events.clear()
        self._size = 0
        self._room.set()
        self._filled.clear()
        return events

    async def wait(self) -> None:
        await self._filled.wait()


def _event_size(event: Event) -> int:
    text = getattr(event, "text", None)
    if text is not None:
        return len(text)
    data = getattr(event, "data", None)
    return size_of(data) if data is not None else 0


@dataclass(eq=False, kw_only=True)
class Run(ABC):
    """The state of one run, wherever its code goes. `deliver` is the sink of its events. `on_end` is called when what runs it is
    free for the next one, which can be later than the caller has its answer. `sent`: whether the code has left us."""

    code: str
    options: RunOptions
    limits: Limits
    queue: EventQueue | None = None
    answer: Callable[[Any, InputRequest], None] | None = None
    on_end: Callable[[Any], None] | None = None
    sent: bool = False
    turn_at: float | None = None
    sent_at: float | None = None
    stop_wanted: bool = False
    stop_reason: str | None = None
    result: Result | None = None
    error: BaseException | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    answering: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._folder = Folder(self.limits)
        self._lines: Iterator[str] | None = None if self.options.stdin is None else iter(self.options.stdin)

    @property
    @abstractmethod
    def execution_id(self) -> str:
        """Raises RuntimeError while it is not known."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether its last event was seen; then nothing of it can come any more."""

    @abstractmethod
    def withdraw(self) -> None:
        """Ends it before its code was sent."""

    @property
    def ended(self) -> bool:
        return self.done.is_set()

    def deliver(self, events: list[Event]) -> Awaitable[Any] | None:
        """Folds the events and hands them on. With the last one the run has its result."""
        if not events:
            return None
        last = events[-1]
        if self.ended:  # it failed for its caller; the cell itself has now come to its end
            if isinstance(last, Finished):
                self._leave()
            return None
        if isinstance(last, Finished):
            events[-1] = last = self._completed(last)
        for event in events:
            self._folder.add(event)
            if self.options.on_event is not None:
                self._tell(event)
            if isinstance(event, InputRequest) and self.answer is not None:
                self.answer(self, event)
        waiting = self.queue.put(events) if self.queue is not None else None
        if isinstance(last, Finished):
            self.result = self._folder.result()
            self._end()
            return None
        return waiting

    def fail(self, error: BaseException) -> None:
        """The run ends without a result: the caller gets this exception."""
        if not self.ended:
            self.error = error
            self._end()

    def raise_or_result(self) -> Result:
        """What the caller gets, once `done` is set."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def stop(self, reason: str | None = None) -> None:
        """The caller no longer wants it: an interrupt follows, or the run never begins. `reason`: that its Result gives."""
        self.stop_wanted = True
        self.stop_reason = self.stop_reason or reason
        if self.queue is not None:
            self.queue.lift()
        self.changed.set()
        if not self.sent and not self.ended:
            # Ended here and not by its task, which may not have had its first turn.
            self.withdraw()
            if self.task is not None:
                self.task.cancel()

    async def next_line(self, request: InputRequest) -> str:
        """The answer to an input request: from the list, from the callback, or the end of input."""
        if self._lines is not None:
            return next(self._lines, END_OF_INPUT)
        if self.options.on_input is None:
            return END_OF_INPUT
        value = self.options.on_input(request)
        if inspect.isawaitable(value):
            value = await value
        if not isinstance(value, str):
            raise TypeError(f"on_input must return a str, not {type(value).__name__}")
        return value

    def _tell(self, event: Event) -> None:
        assert self.options.on_event is not None
        try:
            self.options.on_event(event)
        except Exception as error:  # the caller's own fault: it is the caller who gets it, not the reader task
            self.fail(error)
            self.stop()

    def _completed(self, finished: Finished) -> Finished:
        """The last event, with what only we know."""
        return finished

    def _end(self) -> None:
        for answering in self.answering:  # nobody asks any more
            answering.cancel()
        if self.queue is not None:
            self.queue.lift()
            self.queue.wake()
        self.done.set()
        self.changed.set()
        if self.over or not self.sent:
            self._leave()

    def _leave(self) -> None:
        self.changed.set()
        if self.on_end is not None:
            self.on_end(self)


@dataclass(eq=False, kw_only=True)
class KernelRun(Run):
    """A run on a kernel of ours. `before` and `snapshot`: the files that were there, and how to look again."""

    execution: Execution
    before: dict[str, tuple[int, int]] | None = None
    snapshot: Callable[[], dict[str, tuple[int, int]] | None] | None = None
    position: int = 0
    turn: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def execution_id(self) -> str:
        return self.execution.execution_id

    @property
    def over(self) -> bool:
        return self.execution.ended

    def withdraw(self) -> None:
        self.execution.stop("interrupted", self.stop_reason or "cancelled before it began")
        self.deliver(self.execution.abandon("interrupted", "", time.monotonic()))

    def _completed(self, finished: Finished) -> Finished:
        if self.snapshot is None or self.before is None or not self.sent:
            return finished
        after = self.snapshot()
        if after is None:
            return finished
        changed = tuple(sorted(name for name, state in after.items() if self.before.get(name) != state))
        return replace(finished, files=changed)
