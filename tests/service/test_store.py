"""The database behind the event loop: what one writes is not lost with what another does wrong."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cellrun.event_log import End, Entry
from cellrun.service import schema
from cellrun.service.database import Database, RunRow
from cellrun.service.store import Store
from tests.support.waiting import HANG


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    yield store
    await store.aclose()


def row(id: str, key: str | None = None) -> RunRow:
    return RunRow(id=id, tenant="t", session="s", created=0.0, digest=b"d", key=key)


async def add(store: Store, run: RunRow) -> RunRow:
    code = "\ud800" if run.id == "no text" else "1"
    return await store.write(lambda database: database.add_run(run, code))


async def in_one_batch(store: Store, *rows: RunRow) -> list[RunRow | BaseException]:
    """All are waiting when the writer comes to them."""
    free = threading.Event()
    blocking = asyncio.create_task(store.write(lambda database: free.wait(HANG)))
    adding = [asyncio.create_task(add(store, run)) for run in rows]
    await asyncio.sleep(0)  # each has had its turn
    free.set()
    assert await blocking
    return list(await asyncio.gather(*adding, return_exceptions=True))


@pytest.mark.parametrize("bad", [row("no text"), row("first")])
async def test_a_write_that_is_refused_takes_no_other_of_its_batch_with_it(store: Store, bad: RunRow) -> None:
    first, refused, last = await in_one_batch(store, row("first"), bad, row("last"))
    assert isinstance(refused, OSError)
    assert (first, last) == (row("first"), row("last"))
    runs = await store.ask(lambda database: database.runs_of("t", "s", 0.0, 10))
    assert [run.id for run in runs] == ["last", "first"]


async def test_of_two_runs_with_one_key_in_one_batch_the_first_is_had_by_both(store: Store) -> None:
    found = await in_one_batch(store, row("a", key="k"), row("b", key="k"), row("c"))
    assert [run.id for run in found if isinstance(run, RunRow)] == ["a", "a", "c"]


async def test_what_is_written_is_there_for_another_process_at_once(store: Store) -> None:
    await add(store, row("r"))
    await store.append("r", [Entry(1, "stdout", b"x")], 0, None)
    database = Database(store.path)
    try:
        assert database.alive() == [("r", 1)]
        assert database.events("r", 0, 1) == [Entry(1, "stdout", b"x")]
    finally:
        database.close()


async def test_events_of_a_run_that_is_not_there_are_refused(store: Store) -> None:
    with pytest.raises(OSError, match="there is no run nobody"):
        await store.append("nobody", [Entry(1, "stdout", b"x")], 0, None)
    with pytest.raises(OSError, match="there is no run nobody"):
        await store.read("nobody", 0, 1)


async def test_readers_at_one_place_share_what_they_hold_where_no_more_can_come_to_it(store: Store) -> None:
    await add(store, row("r"))
    entries = [Entry(1, "stdout", b"x"), Entry(2, "stdout", b"y")]
    size = sum(entry.size for entry in entries)
    await store.append("r", entries, 0, None)
    first, second = await store.read("r", 0, size), await store.read("r", 0, size)
    assert first is second
    assert [one.seq for one in first] == [1, 2]
    short = await store.read("r", 0, size + 1)
    await store.append("r", [Entry(3, "stdout", b"z")], 0, None)
    assert [one.seq for one in await store.read("r", 0, size + 1)] == [1, 2, 3]
    assert [one.seq for one in short] == [1, 2]


async def test_runs_that_are_forgotten_leave_nothing_and_their_neighbours_everything(store: Store) -> None:
    for id in ("a", "b", "c"):
        await add(store, row(id))
        await store.append(id, [Entry(seq, "stdout", id.encode()) for seq in range(1, 4)], 0, None)
    await store.write(lambda database: database.end_run("a", 1.0, End("ok", b"{}")))
    await store.write(lambda database: database.end_run("b", 2.0, End("ok", b"{}")))
    assert await store.ask(lambda database: database.oldest_end()) == 1.0
    assert await store.write(lambda database: database.forget_runs(2.0, 10)) == 1
    assert await store.ask(lambda database: database.run("a")) is None
    assert [entry.data for entry in await store.read("b", 1, 2**20)] == [b"b", b"b"]
    assert await store.ask(lambda database: database.alive()) == [("c", 3)]


async def test_the_write_ahead_log_begins_anew_also_where_writing_never_pauses(store: Store) -> None:
    await add(store, row("r"))
    entry = b"x" * 2**20
    numbers = iter(range(1, 201))
    largest = 0

    async def write_on() -> None:
        nonlocal largest
        for number in numbers:
            await store.append("r", [Entry(number, "stdout", entry)], number - 1, None)
            largest = max(largest, os.stat(f"{store.path}-wal").st_size)

    await asyncio.gather(*(write_on() for _ in range(4)))
    assert 2**20 < largest < 120 * 2**20


async def test_a_database_of_the_version_before_is_brought_up_with_all_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "cellrun.sqlite3"
    connection = sqlite3.connect(path)
    for statement in schema._VERSIONS[0].split(";\n"):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO runs (number, id, tenant, session, code, created, ended, status, result, digest) "
        "VALUES (7, 'r', 't', 's', '1+1', 1.0, 2.0, 'ok', ?, ?)",
        (b"{}", b"d"),
    )
    connection.execute("INSERT INTO events (row, type, data) VALUES (?, 'stdout', ?)", (7 * 2**32 + 1, b"x"))
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()
    store = Store(tmp_path)
    try:
        assert await store.ask(lambda database: database.code("r")) == "1+1"
        assert await store.ask(lambda database: database.result("r", slim=False)) == b"{}"
        assert [found.status for found in await store.ask(lambda database: database.runs_of("t", "s", 0, 9))] == ["ok"]
        assert await store.read("r", 0, 10) == [Entry(1, "stdout", b"x")]
        assert await store.ask(lambda database: database.usage()) == {"t": 5}
    finally:
        await store.aclose()


async def test_a_closed_store_says_so_and_what_was_waiting_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    adding = asyncio.create_task(add(store, row("r")))
    await asyncio.sleep(0)  # it is in the line
    await store.aclose()
    await store.aclose()
    assert (await adding).id == "r"
    with pytest.raises(OSError, match="is closed"):
        await store.write(lambda database: None)
    with pytest.raises(OSError, match="is closed"):
        await store.ask(lambda database: None)


def test_a_file_that_is_no_database_or_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"no database at all" * 100)
    with pytest.raises(OSError, match="cannot be used as the service's database"):
        Database(wrong)
    assert wrong.read_bytes() == b"no database at all" * 100

    newer = tmp_path / "newer"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(OSError, match="of a newer cellrun"):
        Database(newer)
