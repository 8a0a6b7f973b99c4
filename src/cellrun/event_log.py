"""The events of one run, numbered and kept: written once, read by many, each from any number on.

Whoever holds the kernel writes the log. A reader that comes late, falls behind or comes again reads what is kept; it
never holds up the writer, and what it has seen is on disk, since an entry is shown to nobody before it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from cellrun.blobs import LARGE, Blob, apart
from cellrun.events import Event, OutputDropped
from cellrun.limits import KIB, MIB
from cellrun.result import Result
from cellrun.wire import data_to_json, event_to_dict, event_type, result_to_dict

KEEP: Final = 256 * MIB
"""Bytes of one run's events that are kept, counted as JSON; of more, the oldest are forgotten."""
_TAIL: Final = 1 * MIB
_PIECE: Final = 1 * MIB
_SEGMENT: Final = 64 * KIB
_OVERHEAD: Final = 128  # of an entry, in memory and on disk: a run of countless tiny events is bounded by this


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as JSON without a newline. `slim`: the same without its large values, where it has such; `blobs`: those, until they are stored."""

    seq: int
    type: str
    data: bytes
    slim: bytes | None = None
    blobs: tuple[Blob, ...] = ()

    @property
    def size(self) -> int:
        return len(self.data) + _OVERHEAD


def entry_of(event: Event) -> Entry:
    told = event_to_dict(event)
    data = _json(told)
    parts = apart(told) if len(data) >= LARGE else None
    if parts is None:
        return Entry(event.seq, event_type(event), data)
    return Entry(event.seq, event_type(event), data, _json(parts[0]), parts[1])


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: its status, and its Result as JSON. `slim` and `blobs` as of an Entry."""

    status: str
    result: bytes
    slim: bytes | None = None
    blobs: tuple[Blob, ...] = ()


def end_of(result: Result) -> End:
    told = result_to_dict(result)
    data = _json(told)
    parts = [apart(output) for output in told["outputs"]] if len(data) >= LARGE else []
    if not any(parts):
        return End(result.status, data)
    outputs = [output if part is None else part[0] for output, part in zip(told["outputs"], parts, strict=True)]
    blobs = tuple(blob for part in parts if part is not None for blob in part[1])
    return End(result.status, data, _json({**told, "outputs": outputs}), blobs)


def _json(data: dict[str, Any]) -> bytes:
    return data_to_json(data).encode("utf-8", "backslashreplace")


class LogStore(Protocol):
    """Where entries are kept. Errors of the medium are raised as OSError."""

    async def append(self, run: str, entries: Sequence[Entry], forget: int, end: End | None) -> None:
        """Stores entries, in order, and forgets those up to the number `forget`. With an `end` these are the last. When it returns they survive the death of this process."""
        ...

    async def read(self, run: str, after: int, size: int) -> list[Entry]:
        """Entries from `after` + 1 on, at least one if there is one, and no more than about `size` bytes."""
        ...


class EventLog:
    """Of the run `run`. `last`: the number of its newest entry; `forgotten`: of the newest one that is no longer kept."""

    def __init__(self, store: LogStore, run: str, *, keep: int = KEEP) -> None:
        self._store = store
        self.run = run
        self.last = 0
        self.forgotten = 0
        self.ended = False
        self._keep = keep
        self._size = 0
        self._segments: deque[tuple[int, int]] = deque()  # number of the last entry, bytes
        self._tail: deque[Entry] = deque()
        self._tail_size = 0
        self._grown = asyncio.Event()

    @classmethod
    def of_ended(cls, store: LogStore, run: str, last: int, forgotten: int) -> EventLog:
        """The log of a run that has ended: only to be read."""
        log = cls(store, run)
        log.last, log.forgotten, log.ended = last, forgotten, True
        return log

    async def append(self, entries: Sequence[Entry], *, end: End | None = None) -> None:
        """Stores, then shows. One writer, one call at a time. Raises OSError where the store does; then nothing is shown."""
        forget = self._make_room(entries)
        await self._store.append(self.run, entries, forget, end)
        self.forgotten = max(self.forgotten, forget)
        self._show(entries, ended=end is not None)

    def end(self, entries: Sequence[Entry]) -> None:
        """The end of a run whose store has failed: shown, and kept in memory only."""
        self._show(entries, ended=True)

    def _show(self, entries: Sequence[Entry], *, ended: bool) -> None:
        for entry in entries:
            self._tail.append(replace(entry, blobs=()) if entry.blobs else entry)
            self._tail_size += entry.size
            self.last = entry.seq
        while self._tail_size > _TAIL and len(self._tail) > 1:
            self._tail_size -= self._tail.popleft().size
        self.ended = self.ended or ended
        self._grown.set()
        self._grown = asyncio.Event()

    def _make_room(self, entries: Sequence[Entry]) -> int:
        """Counts what comes, and gives the number up to which is forgotten for it."""
        for entry in entries:
            self._size += entry.size
            if self._segments and self._segments[-1][1] < _SEGMENT:
                self._segments[-1] = (entry.seq, self._segments[-1][1] + entry.size)
            else:
                self._segments.append((entry.seq, entry.size))
        forget = self.forgotten
        while self._size > self._keep and len(self._segments) > 1:
            forget, size = self._segments.popleft()
            self._size -= size
        # The newest are not stored yet: what comes is kept, however large.
        return min(forget, self.last)

    async def follow(self, after: int = 0, *, patience: float | None = None) -> AsyncGenerator[list[Entry], None]:
        """Entries from the number `after` + 1 on, in pieces, until the run has ended and all is read. An empty piece means that for
        `patience` seconds nothing came. What is no longer kept is told by an `output_dropped` entry in its place, which has
        the number of the last one that was forgotten. Raises OSError where the store does."""
        while True:
            grown, ended = self._grown, self.ended
            if after < self.forgotten:
                entry = _dropped(self.run, after, self.forgotten)
                after = entry.seq
                yield [entry]
            elif after < self.last:
                piece = await self._piece(after)
                if piece:
                    after = piece[-1].seq
                    yield piece
            elif ended:
                return
            else:
                try:
                    async with asyncio.timeout(patience):
                        await grown.wait()
                except TimeoutError:
                    yield []

    async def await_more(self, after: int, seconds: float) -> None:
        """Until there is an entry after the number `after`, or the run has ended; not for longer than `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.last <= after and not self.ended:
                    await self._grown.wait()

    async def _piece(self, after: int) -> list[Entry]:
        if self._tail and self._tail[0].seq <= after + 1:
            return [entry for entry in self._tail if entry.seq > after]
        piece = await self._store.read(self.run, after, _PIECE)
        if piece and piece[0].seq > after + 1:
            # Of what was forgotten after the numbers were compared; the next turn tells of it.
            self.forgotten = max(self.forgotten, piece[0].seq - 1)
            return []
        if not piece:
            raise OSError(f"the log of the run {self.run} has lost what comes after its number {after}")
        return piece


def _dropped(run: str, after: int, forgotten: int) -> Entry:
    detail = f"the events {after + 1} to {forgotten} are no longer kept: the log of a run is bounded"
    return entry_of(OutputDropped(seq=forgotten, execution_id=run, reason="log", detail=detail))
