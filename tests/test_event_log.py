"""The log of a run: numbered, stored before it is shown, read by many from any number, bounded."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellrun.event_log import End, Entry, EventLog, LogStore, entry_of
from cellrun.events import Finished, Stdout
from cellrun.service.database import RunRow
from cellrun.service.store import Store
from tests.support.waiting import HANG

RUN = "r"
END = End("ok", b"{}")


class MemoryStore:
    """Keeps entries as the database does, and fails where it is told to."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.ends: list[End] = []
        self.broken = False

    async def append(self, run: str, entries: Sequence[Entry], forget: int, end: End | None) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise OSError("no space left")
        self.entries = [entry for entry in [*self.entries, *entries] if entry.seq > forget]
        self.ends += [] if end is None else [end]

    async def read(self, run: str, after: int, size: int) -> list[Entry]:
        await asyncio.sleep(0)
        found: list[Entry] = []
        for entry in self.entries:
            if entry.seq > after and (not found or size > 0):
                found.append(entry)
                size -= entry.size
        return found


def entry(seq: int, size: int = 10) -> Entry:
    return Entry(seq, "stdout", b"x" * size)


def entries(first: int, last: int, size: int = 10) -> list[Entry]:
    return [entry(seq, size) for seq in range(first, last + 1)]


async def read(log: EventLog, after: int = 0) -> list[Entry]:
    """To the end of the log."""
    async with asyncio.timeout(HANG):
        return [entry async for piece in log.follow(after) for entry in piece]


def numbers(found: Sequence[Entry]) -> list[int]:
    return [entry.seq for entry in found]


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    row = RunRow(id=RUN, tenant="t", session=None, created=0.0, digest=b"")
    await store.write(lambda database: database.add_run(row, ""))
    yield store
    await store.aclose()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, sqlite: Store) -> LogStore:
    return MemoryStore() if request.param == "memory" else sqlite


async def test_several_readers_each_from_its_own_number_get_all_that_follows(store: LogStore) -> None:
    log = EventLog(store, RUN)
    starts = [0, 0, 1, 5, 9, 10]
    readers = [asyncio.create_task(read(log, after)) for after in starts]
    for seq in range(1, 10):
        await log.append([entry(seq)])
    await log.append([entry(10)], end=END)
    assert [numbers(await reader) for reader in readers] == [list(range(after + 1, 11)) for after in starts]


async def test_a_late_reader_and_one_of_another_process_read_what_is_stored(store: LogStore) -> None:
    log = EventLog(store, RUN)
    await log.append(entries(1, 40, 100_000))  # more than is held in memory
    await log.append(entries(41, 50, 100_000), end=END)
    assert await read(log) == entries(1, 50, 100_000)
    assert await read(log, 33) == entries(34, 50, 100_000)
    later = EventLog.of_ended(store, RUN, last=50, forgotten=0)
    assert await read(later) == entries(1, 50, 100_000)
    assert await read(later, 49) == [entry(50, 100_000)]
    assert await read(later, 50) == []


async def test_a_reader_that_stalls_does_not_hold_up_the_writer(store: LogStore) -> None:
    log = EventLog(store, RUN)
    stalled = log.follow()
    await log.append([entry(1)])
    assert numbers(await anext(stalled)) == [1]
    async with asyncio.timeout(HANG):
        for seq in range(2, 60):
            await log.append([entry(seq, 100_000)])
        await log.append([entry(60)], end=END)
    assert numbers([found async for piece in stalled for found in piece]) == list(range(2, 61))


async def test_what_was_forgotten_is_told_in_its_place_and_nothing_else_is_missing(store: LogStore) -> None:
    log = EventLog(store, RUN, keep=500_000)
    await log.append(entries(1, 3, 50_000))
    early = log.follow()
    assert numbers(await anext(early)) == [1, 2, 3]
    for seq in range(4, 101):
        await log.append([entry(seq, 50_000)])
    await log.append([entry(101)], end=END)
    forgotten = log.forgotten
    assert 80 <= forgotten < 100

    for found, after in ((await read(log), 0), ([item async for piece in early for item in piece], 3)):
        assert numbers(found) == list(range(forgotten, 102))
        told = json.loads(found[0].data)
        assert (found[0].type, told["type"], told["reason"]) == ("output_dropped", "output_dropped", "log")
        assert (told["seq"], told["execution_id"]) == (forgotten, RUN)
        assert f"the events {after + 1} to {forgotten} " in told["detail"]
        assert found[1:] == [*entries(forgotten + 1, 100, 50_000), entry(101)]
    assert numbers(await read(log, forgotten)) == list(range(forgotten + 1, 102))


async def test_the_store_holds_no_more_than_is_kept_however_much_comes(store: LogStore) -> None:
    log = EventLog(store, RUN, keep=300_000)
    for first in range(1, 400, 4):
        await log.append(entries(first, first + 3, 9_000))
        kept = await store.read(RUN, 0, 2**40)
        assert sum(entry.size for entry in kept) < 300_000 + 2 * 64 * 1024 + 4 * 9_200
        assert kept[0].seq == log.forgotten + 1


async def test_countless_tiny_entries_are_bounded_as_well() -> None:
    store = MemoryStore()
    log = EventLog(store, RUN, keep=200_000)
    for first in range(1, 20_000, 100):
        await log.append(entries(first, first + 99, 0))
    assert len(store.entries) < 3_000


async def test_a_store_that_fails_shows_nothing_of_it_and_the_end_is_still_told() -> None:
    store = MemoryStore()
    log = EventLog(store, RUN)
    await log.append([entry(1)])
    reader = log.follow(patience=0.05)
    assert numbers(await anext(reader)) == [1]
    store.broken = True
    with pytest.raises(OSError, match="no space left"):
        await log.append([entry(2)])
    assert (log.last, log.ended) == (1, False)
    assert await anext(reader) == []
    log.end([entry(2, 5)])
    assert await anext(reader) == [entry(2, 5)]
    with pytest.raises(StopAsyncIteration):
        await anext(reader)
    assert numbers(store.entries) == [1]


async def test_a_reader_is_shown_nothing_before_it_is_stored() -> None:
    stored = asyncio.Event()

    class Slow(MemoryStore):
        async def append(self, run: str, entries: Sequence[Entry], forget: int, end: End | None) -> None:
            await stored.wait()
            await super().append(run, entries, forget, end)

    log = EventLog(Slow(), RUN)
    writing = asyncio.create_task(log.append([entry(1)], end=END))
    reader = log.follow(patience=0.05)
    assert await anext(reader) == []
    stored.set()
    await writing
    assert await anext(reader) == [entry(1)]


async def test_a_follower_with_patience_hears_that_nothing_came_and_misses_nothing(store: LogStore) -> None:
    log = EventLog(store, RUN)
    reader = log.follow(patience=0.02)
    assert [await anext(reader), await anext(reader)] == [[], []]
    await log.append([entry(1)])
    assert await anext(reader) == [entry(1)]
    assert await anext(reader) == []
    await log.append([entry(2)], end=END)
    assert [piece async for piece in reader] == [[entry(2)]]


async def test_who_waits_for_more_is_told_of_an_entry_of_the_end_and_of_neither(store: LogStore) -> None:
    log = EventLog(store, RUN)
    await log.await_more(0, 0.02)  # nothing comes, and it returns
    waiting = asyncio.create_task(log.await_more(0, HANG))
    await log.append([entry(1)])
    async with asyncio.timeout(HANG / 2):
        await waiting
        await log.await_more(0, HANG)
        ending = asyncio.create_task(log.await_more(1, HANG))
        await log.append([], end=END)
        await ending
        await log.await_more(1, HANG)


async def test_a_hole_in_the_store_is_an_error_and_never_a_silent_jump() -> None:
    store = MemoryStore()
    log = EventLog.of_ended(store, RUN, last=3, forgotten=0)
    with pytest.raises(OSError, match="has lost what comes after its number 0"):
        await read(log)


async def test_an_entry_is_its_event_as_one_line_of_json() -> None:
    made = entry_of(Stdout(seq=7, execution_id=RUN, text="a\n\u2028é\ud800"))
    assert (made.seq, made.type) == (7, "stdout")
    assert b"\n" not in made.data
    assert json.loads(made.data.decode("utf-8"))["text"] == "a\n\u2028é\ud800"


async def test_a_log_is_read_by_another_process_after_a_kill(tmp_path: Path) -> None:
    first = Store(tmp_path / "first")
    row = RunRow(id=RUN, tenant="t", session=None, created=0.0, digest=b"")
    await first.write(lambda database: database.add_run(row, ""))
    log = EventLog(first, RUN)
    last = entry_of(Finished(seq=2, execution_id=RUN, status="ok", execution_count=1, duration=0.0))
    await log.append([entry(1), last], end=END)
    shutil.copytree(tmp_path / "first", tmp_path / "second")  # as it would be left: the first has not been closed
    second = Store(tmp_path / "second")
    kept = await second.ask(lambda database: database.run(RUN))
    assert kept is not None
    assert (kept.status, kept.last, kept.forgotten) == ("ok", 2, 0)
    assert await read(EventLog.of_ended(second, RUN, kept.last, kept.forgotten)) == [entry(1), last]
    await second.aclose()
    await first.aclose()


@settings(max_examples=150)
@given(data=st.data())
def test_any_split_into_appends_gives_any_reader_exactly_what_comes_after_its_number(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    sizes = data.draw(st.lists(st.sampled_from([0, 10, 5_000, 300_000]), min_size=count, max_size=count))
    cuts = sorted(data.draw(st.sets(st.integers(1, count))) | {count})
    keep = data.draw(st.sampled_from([1, 100_000, 600_000, 2**40]))
    readers = data.draw(st.lists(st.tuples(st.integers(0, count), st.integers(0, len(cuts))), max_size=4))
    whole = [entry(seq, size) for seq, size in enumerate(sizes, 1)]

    async def scenario() -> None:
        log = EventLog(MemoryStore(), RUN, keep=keep)
        tasks: list[tuple[int, asyncio.Task[list[Entry]]]] = []
        before = 0
        for turn, cut in enumerate([*cuts, None]):
            tasks += [(after, asyncio.create_task(read(log, after))) for after, when in readers if when == turn]
            if cut is not None:
                await log.append(whole[before:cut], end=END if cut == count else None)
                before = cut
        for after, task in tasks:
            seen, reached = await task, after
            for found in seen:
                if found.type == "output_dropped":
                    assert reached < found.seq <= log.forgotten
                else:
                    assert (found.seq, found) == (reached + 1, whole[found.seq - 1])
                reached = found.seq
            assert reached == count
            if keep == 2**40:
                assert seen == whole[after:]

    asyncio.run(scenario())
