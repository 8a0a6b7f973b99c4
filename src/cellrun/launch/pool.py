"""Which kernels to start, to give and to end: a pure function of (state, now).

A few kernels are kept ready, so that most callers get one at once. Callers that find none wait in a line, and one
start per caller goes on for as long as the limits allow. What nobody waits for is started one at a time, not while
all processors run cells, and not right after a take: the cell of whoever took a kernel goes first.

Kernels and callers are numbers here; the objects live in pooling.py. No number is used again, and a kernel's way is
one way: starting, ready, promised, held, leaving, ending. Only a promise that nobody claimed leads back to ready.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from cellrun.limits import MIB

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """How many kernels there are, and when.

    ===============  =========================================================================
    `ready`          kernels that are kept ready
    `most`           kernels that may exist at once, whatever they are doing; None: no limit
    `memory`         bytes that they may take together before no more are started; None: no limit
    `estimate`       bytes that a kernel takes, until that is measured
    `waiting`        callers that may wait
    `at_once`        starts under way at the same time, and as many ends
    `cpus`           processors: as many running cells leave none for a start that nobody waits for
    `refill_delay`   seconds after a take in which no such start begins
    `max_age`        seconds after which a ready kernel is replaced; None: never
    `start_timeout`  seconds that one start may take
    ===============  =========================================================================
    """

    ready: int = 2
    most: int | None = None
    memory: int | None = None
    estimate: int = 64 * MIB
    waiting: int = 1_000
    at_once: int = field(default_factory=lambda: max(2, _processors()))
    cpus: int = field(default_factory=_processors)
    refill_delay: float = 0.02
    max_age: float | None = None
    start_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = {"ready": 0, "refill_delay": 0, "max_age": 0.001, "start_timeout": 0.001}.get(name, 1)
            if value is not None and not value >= least:
                raise ValueError(f"{name} must be at least {least}, not {value!r}")


class Why(Enum):
    """Why a caller gets no kernel."""

    LIMIT = auto()
    TIME = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Give:
    """The caller may claim this kernel."""

    ticket: int
    kernel: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The caller, at this place of the line, gets an error."""

    ticket: int
    position: int
    why: Why


@dataclass(frozen=True, slots=True)
class Start:
    kernel: int


@dataclass(frozen=True, slots=True)
class End:
    """Of a kernel that is starting: the start is cancelled."""

    kernel: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """If nothing changes before, nothing is to be done until then."""

    at: float


Action = Give | Refuse | Start | End | WakeAt


@dataclass(frozen=True, slots=True)
class Kernel:
    generation: int
    since: float  # when it became ready, or its start began


@dataclass(frozen=True, slots=True)
class Waiter:
    """A caller. `obtainable_by` bounds the wait until a start for it is under way, `deadline` all of it."""

    deadline: float
    obtainable_by: float


@dataclass(slots=True)
class PoolState:
    """All that is decided on. Its methods are what happens to it; what cannot be so (a second end, the death of a
    kernel that is gone) changes nothing."""

    limits: PoolLimits
    generation: int = 0
    starting: dict[int, Kernel] = field(default_factory=dict)
    ready: dict[int, Kernel] = field(default_factory=dict)
    promised: dict[int, tuple[int, Kernel, Waiter]] = field(default_factory=dict)  # by ticket
    held: set[int] = field(default_factory=set)
    leaving: list[int] = field(default_factory=list)
    ending: set[int] = field(default_factory=set)
    waiters: dict[int, Waiter] = field(default_factory=dict)  # by ticket, the first first
    busy: int = 0
    memory: int | None = None
    measured: int = 0  # kernels that were there when `memory` was measured
    last_take: float = -math.inf
    failures: int = 0
    retry_at: float = -math.inf
    closed: bool = False
    kernels: int = 0  # numbers given so far
    tickets: int = 0

    def copy(self) -> PoolState:
        return replace(
            self,
            starting=self.starting.copy(),
            ready=self.ready.copy(),
            promised=self.promised.copy(),
            held=self.held.copy(),
            leaving=self.leaving.copy(),
            ending=self.ending.copy(),
            waiters=self.waiters.copy(),
        )

    @property
    def grown(self) -> int:
        """Kernels that have started and not ended."""
        return len(self.ready) + len(self.promised) + len(self.held) + len(self.leaving) + len(self.ending)

    @property
    def total(self) -> int:
        return len(self.starting) + self.grown

    @property
    def target(self) -> int:
        """Kernels that are to be ready."""
        return self.limits.ready if self.limits.most is None else min(self.limits.ready, self.limits.most)

    @property
    def full(self) -> bool:
        """Whether one more caller cannot even wait. Where one waits, nothing is ready."""
        return len(self.waiters) >= self.limits.waiting

    @property
    def mean(self) -> float:
        """Bytes per kernel."""
        return self.memory / self.measured if self.memory and self.measured else self.limits.estimate

    @property
    def used(self) -> float:
        """Bytes of all that have started. Those that came after the measurement count as the mean: otherwise a burst
        of starts between two measurements would know no limit."""
        return (self.memory or 0) + max(0, self.grown - self.measured) * self.mean

    @property
    def allows_start(self) -> bool:
        if self.limits.most is not None and self.total >= self.limits.most:
            return False
        if self.limits.memory is None or not self.total:  # the first one is always allowed, or nothing could ever run
            return True
        return self.used + (len(self.starting) + 1) * self.mean <= self.limits.memory

    @property
    def refill_from(self) -> float:
        """When a start that nobody waits for may begin."""
        return max(self.last_take + self.limits.refill_delay, self.retry_at)

    def stale(self, now: float) -> set[int]:
        """The ready kernels that are to be replaced."""
        age = math.inf if self.limits.max_age is None else self.limits.max_age
        old = {number for number, kernel in self.ready.items() if kernel.since + age <= now}
        return old | {number for number, kernel in self.ready.items() if kernel.generation < self.generation}

    # -- what happens to it ----------------------------------------------------------------------

    def see(self, busy: int, memory: int | None) -> None:
        """What is measured from time to time. Another number is another measurement."""
        self.busy = busy
        if memory != self.memory:
            self.memory, self.measured = memory, 0 if memory is None else self.grown

    def ask(self, deadline: float, obtainable_by: float = math.inf) -> int:
        self.tickets += 1
        self.waiters[self.tickets] = Waiter(deadline, obtainable_by)
        return self.tickets

    def claim(self, ticket: int) -> int | None:
        """The kernel that was promised to this caller, which holds it from now on."""
        if ticket not in self.promised:
            return None
        number = self.promised.pop(ticket)[0]
        self.held.add(number)
        return number

    def withdraw(self, ticket: int) -> None:
        """The caller has gone. What it was promised has not been used, and is ready again."""
        self.waiters.pop(ticket, None)
        if ticket in self.promised:
            number, kernel, _ = self.promised.pop(ticket)
            self.ready[number] = kernel

    def started(self, number: int, now: float) -> None:
        if number in self.ending:  # its cancellation came too late
            self.ending.remove(number)
            self.leaving.append(number)
        elif number in self.starting:
            self.ready[number] = replace(self.starting.pop(number), since=now)
            self.failures, self.retry_at = 0, -math.inf

    def failed(self, number: int, now: float) -> int | None:
        """A start came to nothing. The caller that is to be told."""
        self.ending.discard(number)  # where it had been cancelled
        if self.starting.pop(number, None) is None:
            return None
        if now >= self.retry_at:  # several that fail together are one failure
            self.retry_at = now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.failures, 20))
            self.failures += 1
        first = next(iter(self.waiters), None)
        self.waiters.pop(first or 0, None)
        return first

    def give_back(self, number: int) -> None:
        if number in self.held:
            self.held.remove(number)
            self.leaving.append(number)

    def lost(self, number: int) -> None:
        """A kernel died. A holder keeps it; a caller that has not claimed it yet has its old place in the line."""
        for ticket, (promised, _, waiter) in list(self.promised.items()):
            if promised == number:
                self.withdraw(ticket)
                self.waiters = dict(sorted([*self.waiters.items(), (ticket, waiter)]))
        if self.ready.pop(number, None) is not None:
            self.leaving.append(number)

    def ended(self, number: int) -> None:
        self.ending.discard(number)

    def close(self) -> None:
        """No more takes. What was promised has not been claimed, so it ends too."""
        self.closed = True
        for number in [*self.ready, *(promised[0] for promised in self.promised.values())]:
            self.lost(number)

    def begin(self, action: Action, now: float) -> None:
        match action:
            case Give(ticket, number):
                self.promised[ticket] = (number, self.ready.pop(number), self.waiters.pop(ticket))
                self.last_take = now
            case Refuse(ticket):
                del self.waiters[ticket]
            case Start(number):
                self.kernels = number
                self.starting[number] = Kernel(self.generation, now)
            case End(number):
                if self.starting.pop(number, None) is None and self.ready.pop(number, None) is None:
                    self.leaving.remove(number)
                self.ending.add(number)
            case WakeAt():
                pass


def plan(state: PoolState, now: float) -> list[Action]:
    """What to begin now, in this order, and at the end when to ask again. When it has begun, the plan is empty but for
    that.

    >>> plan(PoolState(PoolLimits(ready=1)), 0.0)
    [Start(kernel=1)]
    """
    actions: list[Action] = []
    state = state.copy()
    while (action := _next(state, now)) is not None:
        actions.append(action)
        state.begin(action, now)
    wake = _wake(state, now)
    return actions if wake is None else [*actions, WakeAt(wake)]


def _next(state: PoolState, now: float) -> Action | None:
    limits, waiting, starting = state.limits, len(state.waiters), len(state.starting)
    may_end = len(state.ending) < limits.at_once
    if state.leaving and may_end:
        return End(state.leaving[0])
    if state.closed:
        if waiting:
            return Refuse(next(iter(state.waiters)), 1, Why.CLOSED)
        return End(next(iter(state.starting))) if starting else None
    stale = state.stale(now)
    if waiting and state.ready:
        # Oldest first: then few ever get too old. Those that have are for when there is nothing better.
        best = min(state.ready, key=lambda number: (number in stale, state.ready[number].since, number))
        return Give(next(iter(state.waiters)), best)
    may_start = state.allows_start and starting < min(waiting, limits.at_once)
    refusal = _refusal(state, now, may_start)
    if refusal is not None:
        return refusal
    if may_start:
        return Start(state.kernels + 1)
    missing = state.target - len(state.ready) + len(stale)
    if starting > max(waiting, missing):  # nobody waits for it any more; the newest has cost the least
        return End(max(state.starting))
    if waiting:
        return None
    worst = min(state.ready, key=lambda number: (number not in stale, state.ready[number].since, number), default=0)
    if len(state.ready) > state.target:
        return End(worst) if may_end else None
    if starting or missing <= 0 or state.busy >= limits.cpus or now < state.refill_from:
        return None
    if state.allows_start:
        return Start(state.kernels + 1)
    # No room to replace first. An end makes room, but where starts fail what is there serves on.
    if stale and not state.ending and not state.failures and _makes_room(state, worst):
        return End(worst)
    return None


def _refusal(state: PoolState, now: float, may_start: bool) -> Refuse | None:
    """The first caller that has waited too long. Starts under way are for the first in the line: whoever has one keeps
    it, because a success and a failure both move the line with the starts."""
    for position, (ticket, waiter) in enumerate(state.waiters.items(), 1):
        limited = position > len(state.starting) and waiter.obtainable_by <= now
        if waiter.deadline <= now or (limited and not may_start):
            return Refuse(ticket, position, Why.LIMIT if limited else Why.TIME)
    return None


def _wake(state: PoolState, now: float) -> float | None:
    if state.closed:
        return None
    times = [waiter.deadline for waiter in state.waiters.values()]
    times += [waiter.obtainable_by for waiter in list(state.waiters.values())[len(state.starting) :]]
    if state.limits.max_age is not None:
        times += [kernel.since + state.limits.max_age for kernel in state.ready.values()]
    idle = not state.waiters and not state.starting and state.busy < state.limits.cpus
    if idle and len(state.ready) - len(state.stale(now)) < state.target:
        times.append(state.refill_from)
    return min((at for at in times if now < at < math.inf), default=None)


def _makes_room(state: PoolState, number: int) -> bool:
    less = state.copy()
    if less.memory is not None:
        less.memory, less.measured = int(less.memory - less.mean), max(0, less.measured - 1)
    del less.ready[number]
    return less.allows_start
