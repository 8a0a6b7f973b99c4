"""Contenders that take turns, and what is said of their figures."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from bench.servers import NO_RATE_LIMITS, Server, jupyter_server

T = TypeVar("T")
Figures = Mapping[str, float]
Contender = Callable[[], Awaitable[Figures]]
"""Does its work once and gives the figures, by name, in the unit of its row."""

_RESAMPLES: Final = 1000


class Bench:
    """What rows share: the folder, and servers and kernels, started when the first row wants them."""

    def __init__(self, folder: Path, stack: AsyncExitStack, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self._stack = stack
        self._shared: dict[str, Any] = {}
        self._folders = 0

    def new_folder(self) -> Path:
        """A path, short enough for unix sockets, that does not exist yet."""
        self._folders += 1
        return self.folder / str(self._folders)

    async def server(self) -> Server:
        """With default settings."""
        return await self.shared("server", lambda: jupyter_server(self.new_folder()))

    async def unlimited_server(self) -> Server:
        """With its rate limits off: rows that move much data would measure what it drops."""
        return await self.shared("unlimited server", lambda: jupyter_server(self.new_folder(), NO_RATE_LIMITS))

    async def shared(self, name: str, opened: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What was opened under this name; it is closed after the last row."""
        if name not in self._shared:
            self._shared[name] = await self._stack.enter_async_context(opened())
        return cast("T", self._shared[name])


@dataclass(frozen=True)
class Check:
    """`over / under`, or the figure `over` itself, and what it must be."""

    over: str
    under: str | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def title(self) -> str:
        return f"{self.over} / {self.under}" if self.under else self.over

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""

    def holds(self, value: float) -> bool | None:
        """None where there is no target."""
        if self.at_most is not None:
            return value <= self.at_most
        return value >= self.at_least if self.at_least is not None else None


@dataclass(frozen=True)
class Row:
    """`rounds`: how often each contender has its turn, quick and full; 0 leaves the row out. `warmups`: turns
    before these that do not count. `settle`: seconds between turns, where a contender leaves processes behind that are still ending."""

    name: str
    title: str
    unit: str
    rounds: tuple[int, int]
    opened: Callable[[Bench], AbstractAsyncContextManager[Sequence[Contender]]]
    checks: tuple[Check, ...] = ()
    warmups: tuple[int, int] = (0, 1)
    settle: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A check's value, with the interval that holds it nine times in ten."""

    check: Check
    value: float
    low: float
    high: float

    @property
    def word(self) -> str:
        held = self.check.holds(self.value)
        return "" if held is None else "met" if held else "MISSED"


@dataclass
class Measured:
    row: Row
    rounds: int
    seconds: float = 0.0
    values: dict[str, list[float]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


async def measure(row: Row, bench: Bench) -> Measured:
    """All rounds of a row. The order is shuffled from the second on: a contender whose predecessor leaves
    the machine busy would otherwise pay for it every time."""
    mode = 0 if bench.quick else 1
    rounds, warmups = row.rounds[mode], row.warmups[mode]
    started = time.monotonic()
    measured = Measured(row, rounds)
    order = random.Random(row.name)
    async with row.opened(bench) as contenders:
        turns = list(contenders)
        for number in range(-warmups, rounds):
            for contender in turns:
                for name, value in (await contender()).items():
                    values = measured.values.setdefault(name, [])
                    if number >= 0:
                        values.append(value)
                await asyncio.sleep(row.settle)
            order.shuffle(turns)
    measured.seconds = time.monotonic() - started
    measured.outcomes = [_outcome(check, measured.values) for check in row.checks]
    return measured


def _outcome(check: Check, values: Mapping[str, list[float]]) -> Outcome:
    """The ratio of the medians. Its interval is that of rounds drawn again and again, whole rounds, so that
    what slowed all contenders alike does not widen it."""
    over, under = values[check.over], values[check.under] if check.under else None
    draw = random.Random(0)
    again = []
    for _ in range(_RESAMPLES):
        rounds = draw.choices(range(len(over)), k=len(over))
        again.append(_ratio([over[i] for i in rounds], under and [under[i] for i in rounds]))
    again.sort()
    return Outcome(check, _ratio(over, under), again[len(again) // 20], again[-len(again) // 20])


def _ratio(over: list[float], under: list[float] | None) -> float:
    return statistics.median(over) / (statistics.median(under) if under else 1.0)
