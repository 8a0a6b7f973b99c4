"""The database behind the event loop: what one writes is not lost with what another does wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cellrun.event_log import Entry
from cellrun.service.database import Database, RunRow
from cellrun.service.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    yield store
    await store.aclose()


def row(id: str, code: str = "1", key: str | None = None) -> RunRow:
    return RunRow(id=id, tenant="t", session="s", code=code, created=0.0, digest=b"d", key=key)


async def add(store: Store, run: RunRow) -> RunRow:
    return await store.write(lambda database: database.add_run(run))


async def in_one_batch(store: Store, *rows: RunRow) -> list[RunRow | BaseException]:
    """All are waiting when the writer comes to them."""
    free = threading.Event()
    blocking = asyncio.create_task(store.write(lambda database: free.wait(10)))
    adding = [asyncio.create_task(add(store, run)) for run in rows]
    await asyncio.sleep(0)  # each has had its turn
    free.set()
    assert await blocking
    return list(await asyncio.gather(*adding, return_exceptions=True))


@pytest.mark.parametrize("bad", [row("bad", code="\ud800"), row("first")])
async def test_a_write_that_is_refused_takes_no_other_of_its_batch_with_it(store: Store, bad: RunRow) -> None:
    first, refused, last = await in_one_batch(store, row("first"), bad, row("last"))
    assert isinstance(refused, OSError)
    assert (first, last) == (row("first"), row("last"))
    runs = await store.ask(lambda database: database.runs_of("t", "s", 10))
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


async def test_runs_that_are_forgotten_leave_nothing_and_their_neighbours_everything(store: Store) -> None:
    for id in ("a", "b", "c"):
        await add(store, row(id))
        await store.append(id, [Entry(seq, "stdout", id.encode()) for seq in range(1, 4)], 0, None)
    await store.write(lambda database: database.end_run("a", "ok", 1.0, b"{}"))
    await store.write(lambda database: database.end_run("b", "ok", 2.0, b"{}"))
    assert await store.ask(lambda database: database.oldest_end()) == 1.0
    assert await store.write(lambda database: database.forget_runs(2.0, 10)) == 1
    assert await store.ask(lambda database: database.run("a")) is None
    assert [entry.data for entry in await store.read("b", 1, 2**20)] == [b"b", b"b"]
    assert await store.ask(lambda database: database.alive()) == [("c", 3)]


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
