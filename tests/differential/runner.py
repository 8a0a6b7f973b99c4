"""Runs sequences of cells on a provider's kernels and records what came of each cell."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import itertools
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from cellrun import AsyncSession, Limits, Provider, fold
from cellrun.events import Event, Finished, Stdout
from tests.differential.cells import Cell, Sequence
from tests.differential.normal import Normaliser, arranged
from tests.support.waiting import PROCESS

TIME_LIMIT: Final = PROCESS

# Between two sequences of one kernel: names of the first are gone, and so is what `from __future__` left.
_TIDY: Final = (
    'exec("""for name in [n for n in shell.user_ns if n[:1] != \'_\' and n not in shell.user_ns_hidden'
    " and n not in ('In', 'Out', 'get_ipython', 'exit', 'quit', 'open')]: del shell.user_ns[name]\n"
    'shell.compile.reset_compiler_flags()""", {\'shell\': get_ipython()})'
)


@dataclass(frozen=True)
class Record:
    """What one cell gave: its events and its Result without what differs from run to run."""

    code: str
    events: list[dict[str, Any]]
    result: dict[str, Any]
    late: list[dict[str, Any]]

    def lines(self) -> list[str]:
        head = f"---- {self.code[:200]!r}"
        told = [json.dumps(event, sort_keys=True) for event in self.events]
        later = [f"late {json.dumps(event, sort_keys=True)}" for event in self.late]
        result = [f"result.{name} = {json.dumps(value, sort_keys=True)}" for name, value in self.result.items()]
        return [head, *told, *later, *result]


class Side:
    """The kernels of one provider: a shared one, and fresh ones of which one is kept ready."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._shared: AsyncSession | None = None
        self._used = False
        self._spare: asyncio.Task[AsyncSession] | None = None
        self._endings: set[asyncio.Task[None]] = set()

    async def run(self, sequence: Sequence) -> list[Record]:
        if sequence.fresh:
            session = await self._fresh()
            try:
                return await run_sequence(session, sequence)
            finally:
                self._end(session)
        if self._shared is None:
            self._shared, self._used = await self._start(), False
        if self._used:
            await self._shared.run(_TIDY, silent=True, store_history=False, timeout=TIME_LIMIT)
        self._used = True
        return await run_sequence(self._shared, sequence)

    def renew(self) -> None:
        """The next sequence gets another shared kernel."""
        if self._shared is not None:
            self._end(self._shared)
            self._shared = None

    async def aclose(self) -> None:
        self.renew()
        if self._spare is not None:
            with contextlib.suppress(Exception):
                self._end(await self._spare)
        await asyncio.gather(*self._endings)
        await self._provider.aclose()

    async def _start(self) -> AsyncSession:
        return await AsyncSession(self._provider, limits=Limits(grace=5.0)).start()

    async def _fresh(self) -> AsyncSession:
        ready = self._spare or asyncio.create_task(self._start())
        self._spare = None
        session = await ready
        self._spare = asyncio.create_task(self._start())
        return session

    def _end(self, session: AsyncSession) -> None:
        ending = asyncio.create_task(session.aclose())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)


class Pair:
    """Stock ipykernel and ours, each with the same history of cells."""

    def __init__(self, stock: Provider, ours: Provider) -> None:
        self.stock = Side(stock)
        self.ours = Side(ours)

    async def run(self, sequence: Sequence, *, same: bool = True) -> tuple[list[Record], list[Record]]:
        """The records of both. Where they differ although they should be the `same`, or one fails, later sequences
        get new kernels."""
        fine = False
        try:
            stock, ours = await asyncio.gather(self.stock.run(sequence), self.ours.run(sequence))
            fine = stock == ours or not same
            return stock, ours
        finally:
            if not fine:
                self.stock.renew()
                self.ours.renew()

    async def aclose(self) -> None:
        await asyncio.gather(self.stock.aclose(), self.ours.aclose())


async def run_sequence(session: AsyncSession, sequence: Sequence) -> list[Record]:
    """Runs the cells one after the other."""
    normaliser = Normaliser()
    async with _late_output(session) as late:
        return [await _run_cell(session, cell, normaliser, late) for cell in sequence.cells]


async def _run_cell(session: AsyncSession, cell: Cell, normaliser: Normaliser, late: _Late) -> Record:
    stream = session.stream(
        cell.code, timeout=TIME_LIMIT, stdin=cell.stdin, silent=cell.silent, store_history=cell.store_history
    )
    seen: list[Event] = []
    async with stream:
        async for event in stream:
            seen.append(event)
            if cell.interrupt_at is not None and isinstance(event, Stdout) and cell.interrupt_at in event.text:
                await stream.interrupt()
    assert fold(seen) == stream.result
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [type(event) for event in seen].count(Finished) == 1
    came_late = await late.until(cell.late_until) if cell.late_until is not None else []
    masks = [re.compile(mask) for mask in cell.mask]
    events = arranged(seen, cell.order)
    return Record(
        cell.code,
        normaliser.events(events, masks),
        normaliser.result(events, masks),
        normaliser.events(arranged(came_late, "exact"), masks),
    )


@dataclass
class _Late:
    """Output that came after the end of its cell."""

    events: list[Event] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, text: str) -> list[Event]:
        while not any(isinstance(event, Stdout) and text in event.text for event in self.events):
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), TIME_LIMIT)
        taken = list(self.events)
        self.events.clear()
        return taken


@contextlib.asynccontextmanager
async def _late_output(session: AsyncSession) -> AsyncIterator[_Late]:
    late = _Late()

    async def listen() -> None:
        async for event in session.late():
            late.events.append(event)
            late.changed.set()

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)  # its first turn makes it a listener
    try:
        yield late
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def difference(stock: list[Record], ours: list[Record]) -> str:
    """Where two records differ, cell by cell; of long lines what surrounds the first difference."""
    told: list[str] = []
    for one, other in zip(stock, ours, strict=True):
        if one == other:
            continue
        before, after = one.lines(), other.lines()
        told.append(before[0])
        for _, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if before[i:j] != after[k:m]:
                pairs = list(itertools.zip_longest(before[i:j], after[k:m], fillvalue=""))
                told += [f"- {_around(left, right)}" for left, right in pairs if left]
                told += [f"+ {_around(right, left)}" for left, right in pairs if right]
    return "\n".join(told)


def _around(text: str, other: str) -> str:
    same = next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    start = max(0, same - 200)
    return ("…" if start else "") + text[start : same + 400]
