"""Keeps kernels ready and gives them out: performs what pool.py decides.

After each change the plan is made anew and its actions are begun, all without an await in between: nobody ever sees a
half-done change. Starts and ends are tasks of their own, so a cancelled caller stops none of them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from cellrun.errors import KernelStartError, LimitExceeded, SessionLost
from cellrun.launch.pool import Action, End, Give, PoolLimits, PoolState, Refuse, Start, WakeAt, Why, plan
from cellrun.limits import MIB

T = TypeVar("T")


@dataclass(frozen=True)
class PoolStatus:
    """How many kernels are ready, starting, held and ending, and how many callers wait."""

    ready: int
    starting: int
    held: int
    ending: int
    waiting: int


@dataclass(slots=True)
class _Call:
    """A take that goes on."""

    timeout: float
    queue_timeout: float | None
    on_position: Callable[[int], object]
    position: int = 0
    error: BaseException | None = None
    woken: asyncio.Future[None] | None = None

    def wake(self, error: BaseException | None = None) -> None:
        self.error = error
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


class KernelPool(Generic[T]):
    """Kernels of one kind. Made on a running event loop, for that loop; it begins at once.

    start     makes a kernel; cancelled or failed, it leaves nothing behind
    end       ends one, dead or alive; bounded
    limits    how many there may be
    busy      how many of the held kernels run a cell right now. Cheap
    memory    bytes that all kernels take, as last measured; None: not known yet. Cheap

    The owner calls `changed()` when `busy` or `memory` would say something else, and `lost()` when a kernel has died.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[T]],
        end: Callable[[T], Awaitable[None]],
        *,
        limits: PoolLimits,
        busy: Callable[[], int] = lambda: 0,
        memory: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._start, self._end = start, end
        self._busy, self._memory = busy, memory
        self._state = PoolState(limits)
        self._loop = asyncio.get_running_loop()
        self._objects: dict[int, T] = {}
        self._numbers: dict[int, int] = {}  # by the object's id()
        self._calls: dict[int, _Call] = {}
        self._starts: dict[int, asyncio.Task[None]] = {}
        self._ends: set[asyncio.Future[None]] = set()
        self._awaiting_ready: list[asyncio.Future[None]] = []
        self._failure: str | None = None
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._planning = self._again = False
        self.changed()

    @property
    def status(self) -> PoolStatus:
        state = self._state
        held, ending = len(state.held) + len(state.promised), len(state.leaving) + len(state.ending)
        return PoolStatus(len(state.ready), len(state.starting), held, ending, len(state.waiters))

    async def take(
        self,
        timeout: float,
        *,
        queue_timeout: float | None = None,
        on_position: Callable[[int], object] | None = None,
    ) -> T:
        """A kernel that nobody had before: a ready one, else the next one that this caller's turn brings. It is the
        caller's until `give_back`. `on_position` hears the place in the line, from 1, whenever it changes.

        Raises KernelStartError if there was none within `timeout` seconds, LimitExceeded if too many wait or if for
        `queue_timeout` seconds not even a start for this caller could begin, SessionLost if the pool is closed, and what
        the start raised. Cancelled, it leaves the line, and a kernel that was just given to it goes to the next.
        """
        self._check_open()
        if self._state.full:
            text = f"{len(self._state.waiters)} callers wait for a kernel already; {self._circumstances()}"
            raise LimitExceeded(text, retryable=True)
        now = time.monotonic()
        ticket = self._state.ask(now + timeout, math.inf if queue_timeout is None else now + queue_timeout)
        call = self._calls[ticket] = _Call(timeout, queue_timeout, on_position or (lambda position: None))
        try:
            self.changed()
            while (number := self._state.claim(ticket)) is None:
                if call.error is not None:
                    raise call.error
                call.woken = self._loop.create_future()
                await call.woken
        except BaseException:
            self._state.withdraw(ticket)
            self.changed()
            raise
        finally:
            del self._calls[ticket]
        return self._objects[number]

    def give_back(self, kernel: T) -> None:
        """The holder is done with it. It is ended in the background, never given again. Twice is once."""
        self._state.give_back(self._numbers.get(id(kernel), 0))
        self.changed()

    def lost(self, kernel: T) -> None:
        """This kernel has died. A ready one is replaced; a held one stays its holder's, who may restart it."""
        self._state.lost(self._numbers.get(id(kernel), 0))
        self.changed()

    def renew(self) -> None:
        """Ready kernels of before, and those whose start has begun, are to be replaced."""
        self._state.generation += 1
        self.changed()

    def resize(self, ready: int) -> None:
        """So many kernels are kept ready from now on."""
        self._state.limits = replace(self._state.limits, ready=ready)
        self.changed()

    async def ready(self, timeout: float) -> None:
        """Until as many kernels are ready as are to be. Raises KernelStartError when the time is up first, SessionLost if
        the pool is closed, and what a start raises meanwhile."""
        self._check_open()
        try:
            async with asyncio.timeout(timeout):
                while len(self._state.ready) < self._state.target:
                    self._awaiting_ready.append(future := self._loop.create_future())
                    await future
                    self._check_open()
        except TimeoutError:
            text = f"{len(self._state.ready)} of {self._state.target} kernels are ready after {timeout:g} s"
            reason = self._circumstances() if self._failure is None else f"the last start failed: {self._failure}"
            raise KernelStartError(f"{text}; {reason}", retryable=True) from None

    async def aclose(self) -> None:
        """Ends what is starting, ready or given back, and refuses who waits. Held kernels are their holders'. A second call
        waits for the first; a cancelled one goes on in the background."""
        if not self._state.closed:
            self._state.close()
            self._tell_ready(SessionLost("the provider was closed while its kernels started"))
        self.changed()
        await self._over.wait()

    def changed(self) -> None:
        """Decides anew. What an action or a callback changes meanwhile is decided on right after."""
        self._again = True
        if self._planning:
            return
        self._planning = True
        try:
            while self._again:
                self._state.see(self._busy(), self._memory())
                self._again = False
                self._decide()
                self._tell_positions()
        finally:
            self._planning = False
        if len(self._state.ready) >= self._state.target:
            self._tell_ready(None)
        self._over.clear()
        if self._state.closed and not (self._state.leaving or self._state.ending):
            self._over.set()

    # -- performing --------------------------------------------------------------------------------

    def _decide(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        for action in plan(self._state, now):
            self._state.begin(action, now)
            self._perform(action, now)
            if self._again:  # the rest of the plan may not fit any more
                return

    def _perform(self, action: Action, now: float) -> None:
        match action:
            case Give(ticket):
                self._calls[ticket].wake()
            case Refuse(ticket, position, why):
                self._calls[ticket].wake(self._refusal(self._calls[ticket], position, why))
            case Start(number):
                task = self._starts[number] = self._loop.create_task(self._bring_up(number))
                task.add_done_callback(partial(self._came_up, number))
            case End(number) if number in self._objects:
                end = asyncio.ensure_future(self._end(self._objects[number]))
                self._ends.add(end)
                end.add_done_callback(partial(self._came_down, number))
            case End(number):
                self._starts[number].cancel()
            case WakeAt(at):
                self._timer = self._loop.call_later(at - now, self.changed)

    async def _bring_up(self, number: int) -> None:
        limit = self._state.limits.start_timeout
        try:
            async with asyncio.timeout(limit) as bound:
                kernel = await self._start()
        except TimeoutError:
            if not bound.expired():
                raise
            raise KernelStartError(f"no kernel came up within {limit:g} s", retryable=True) from None
        # In the same step: a death right after must find the kernel here.
        self._objects[number] = kernel
        self._numbers[id(kernel)] = number
        self._failure = None
        self._state.started(number, time.monotonic())
        self.changed()

    def _came_up(self, number: int, task: asyncio.Task[None]) -> None:
        del self._starts[number]
        error = KernelStartError("the start was cancelled", retryable=True) if task.cancelled() else task.exception()
        if error is None:
            return
        if number in self._state.starting:  # otherwise it was cancelled by us
            self._failure = str(error)
            self._tell_ready(error)
        ticket = self._state.failed(number, time.monotonic())
        if ticket is not None:
            self._calls[ticket].wake(error)
        self.changed()

    def _came_down(self, number: int, task: asyncio.Future[None]) -> None:
        self._ends.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report("the end of a kernel failed", error)
        del self._numbers[id(self._objects.pop(number))]
        self._state.ended(number)
        self.changed()

    def _tell_positions(self) -> None:
        for position, call in enumerate([self._calls[ticket] for ticket in self._state.waiters], 1):
            if call.position != position:
                call.position = position
                try:
                    call.on_position(position)
                except Exception as error:  # a callback that fails is not to take the others' kernels with it
                    self._report("on_position failed", error)

    def _tell_ready(self, error: BaseException | None) -> None:
        for future in self._awaiting_ready:
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)
        self._awaiting_ready.clear()

    def _refusal(self, call: _Call, position: int, why: Why) -> Exception:
        match why:
            case Why.CLOSED:
                return SessionLost("the provider is closed")
            case Why.TIME:
                return KernelStartError(f"no kernel was ready within {call.timeout:g} s", retryable=True)
            case Why.LIMIT:
                text = f"no kernel could be started within {call.queue_timeout:g} s, at place {position} of the line"
                return LimitExceeded(f"{text}; {self._circumstances()}", retryable=True)

    def _circumstances(self) -> str:
        state, limits = self._state, self._state.limits
        text = f"{state.total} kernels exist" + ("" if limits.most is None else f", of at most {limits.most}")
        if limits.memory is not None:
            text += f", and take {state.used / MIB:.0f} of {limits.memory / MIB:.0f} MiB"
        return text

    def _report(self, message: str, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error})

    def _check_open(self) -> None:
        if self._state.closed:
            raise SessionLost("the provider is closed")
