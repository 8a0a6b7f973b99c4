"""The service without HTTP: requests that come at once, are given up, or find what they need broken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cellrun.errors import ConnectionFailed, KernelStartError
from cellrun.event_log import End, Entry
from cellrun.providers import LocalKernels, Provider
from cellrun.providers.base import Lease
from cellrun.service import upkeep
from cellrun.service.held import EndedRun
from cellrun.service.hub import Hub
from cellrun.service.hub_tools import HubRun
from cellrun.service.metrics import Metrics
from cellrun.service.options import Quotas, ServiceOptions
from cellrun.service.problems import Problem
from cellrun.service.runs import LiveRun, RunRequest
from cellrun.service.store import StorageError, Store
from tests.support.waiting import HANG, eventually


class NoKernels(Provider):
    """A machine that has no room for a kernel, until it has."""

    def __init__(self, real: LocalKernels) -> None:
        super().__init__()
        self.real = real
        self.full = True

    async def acquire(self, timeout: float) -> Lease:
        if self.full:
            raise KernelStartError("there is no memory for another kernel", retryable=True)
        return await self.real.acquire(timeout)

    async def _close(self) -> None:
        await self.real.aclose()


class FullDisk(Store):
    """Takes no events while it is full."""

    full = False

    async def append(self, run: str, entries: Sequence[Entry], forget: int, end: End | None) -> None:
        if self.full:
            raise StorageError("no space left on device")
        await super().append(run, entries, forget, end)


@asynccontextmanager
async def hub_of(folder: Path, quotas: Quotas | None = None, provider: Provider | None = None) -> AsyncIterator[Hub]:
    options = ServiceOptions(quotas=quotas or Quotas())
    hub = Hub(provider or LocalKernels(sandbox="none"), FullDisk(folder), options, Metrics())
    try:
        await hub.open()
        yield hub
    finally:
        await hub.aclose()


def asks(code: str) -> RunRequest:
    return RunRequest(code=code, timeout=HANG)


def refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except Problem:
        return True
    return False


async def ended_well(run: LiveRun | EndedRun) -> bool:
    async with asyncio.timeout(HANG):
        async for _ in run.log.follow():
            pass
    return isinstance(run, EndedRun) or run.status == "ok"


async def test_runs_that_come_at_once_do_not_pass_their_quota(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(runs=2)) as hub:
        # None of them ends before the last one has been looked at.
        starts = [hub.start("t", f"s{number}", asks("input()"), f"key {number}") for number in range(8)]
        found = await asyncio.gather(*starts, return_exceptions=True)
        begun = [one for one in found if isinstance(one, LiveRun)]
        refused = [one for one in found if isinstance(one, Problem)]
        assert (len(begun), len(refused)) == (2, 6)
        assert {problem.code for problem in refused} == {"quota_exceeded"}
        for run in begun:
            await eventually(partial(run.answer, ""))
        assert all([await ended_well(run) for run in begun])
        await eventually(lambda: not hub.live)
        assert await ended_well(await hub.start("t", "s7", asks("1"), "key 7"))


async def test_what_a_request_asks_its_kernel_for_is_part_of_it_and_kept_to_itself(tmp_path: Path) -> None:
    def named(name: str) -> RunRequest:
        asked = {"cellrun": {"environment": {"NAME": name}}}
        return replace(asks("import os; print(len(os.environ['NAME']))"), metadata=asked)

    async with hub_of(tmp_path) as hub:
        run = await hub.start("t", "s", named("a secret"), "key")
        assert await ended_well(run)
        assert (await hub.start("t", "s", named("a secret"), "key")).log.run == run.log.run
        for other in (named("another"), asks(named("").code)):
            with pytest.raises(Problem, match="came before with another request"):
                await hub.start("t", "s", other, "key")
        assert isinstance(run, LiveRun)
        assert run.end is not None
        assert b'"stdout":"8' in run.end.result
        assert "a secret" not in repr(run)
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert kept
    assert not any(b"a secret" in data for data in kept)


async def test_requests_with_one_key_that_come_at_once_are_one_run(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        await ended_well(await hub.start("t", "s", asks("n = 0")))
        found = await asyncio.gather(*(hub.start("t", "s", asks("n += 1"), "same") for _ in range(6)))
        assert len({run.log.run for run in found}) == 1
        assert all([await ended_well(run) for run in found])
        counted = await hub.start("t", "s", asks("n"))
        await ended_well(counted)
        assert isinstance(counted, LiveRun)
        assert counted.end is not None
        assert b'"text":"1"' in counted.end.result


async def test_a_request_that_is_given_up_before_it_began_leaves_no_run_without_end_and_its_key_free(
    tmp_path: Path,
) -> None:
    async with hub_of(tmp_path) as hub:
        for turns in range(12):
            starting = asyncio.create_task(hub.start("t", "s", asks("1"), "key"))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await eventually(lambda: not hub.live)
            if not starting.cancelled():
                break
        assert await hub.store.ask(lambda database: database.alive()) == []
        run = await hub.start("t", "s", asks("1"), "key" if starting.cancelled() else "another")
        assert await ended_well(run)


async def test_a_key_whose_run_found_no_kernel_can_be_sent_again(tmp_path: Path) -> None:
    provider = NoKernels(LocalKernels(sandbox="none"))
    async with hub_of(tmp_path, provider=provider) as hub:
        refused = await hub.start("t", "s", asks("1"), "key")
        assert isinstance(refused, LiveRun)
        await asyncio.wait_for(refused.done.wait(), HANG)
        assert isinstance(refused.failure, KernelStartError)
        await eventually(lambda: not hub.live)
        provider.full = False
        again = await hub.start("t", "s", asks("1"), "key")
        assert again.log.run != refused.id
        assert await ended_well(again)


@pytest.mark.wide
async def test_a_run_whose_end_cannot_be_stored_is_told_at_once_and_stored_when_that_can_be(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        store = hub.store
        assert isinstance(store, FullDisk)
        await ended_well(await hub.start("t", "s", asks("1")))
        store.full = True
        run = await hub.start("t", "s", asks("print('lost')"))
        assert not await ended_well(run)
        await eventually(lambda: not hub.live)
        found = await hub.run("t", run.log.run)
        assert isinstance(found, LiveRun)
        assert (found.status, found.stored) == ("kernel_died", False)
        with pytest.raises(OSError, match="no space left"):
            await hub.upkeep.sweep()
        store.full = False
        await hub.upkeep.sweep()
        kept = await hub.run("t", run.log.run)
        assert isinstance(kept, EndedRun)
        assert kept.row.status == "kernel_died"
        stored = await store.ask(lambda database: database.result(kept.row.id, slim=False))
        assert b"could not keep" in (stored or b"")
        assert await ended_well(await hub.start("t", "s", asks("1")))


@pytest.mark.wide
async def test_one_tenant_has_no_more_kernels_than_its_quota(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(kernels=2)) as hub:
        assert await ended_well(await hub.start("t", "a", asks("1")))
        alone = await hub.start("t", None, asks("input()"))
        for session in ("b", None):
            with pytest.raises(Problem, match="2 kernels at once"):
                await hub.start("t", session, asks("1"))
        assert await ended_well(await hub.start("t", "a", asks("1")))  # has one already
        assert await ended_well(await hub.start("another", None, asks("1")))
        assert isinstance(alone, LiveRun)
        alone.abandon()
        await eventually(lambda: not hub.live)
        assert await ended_well(await hub.start("t", "b", asks("1")))
        with pytest.raises(Problem):
            await hub.start("t", "c", asks("1"))
        await hub.delete("t", "a")
        assert await ended_well(await hub.start("t", "c", asks("1")))


BURN = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"


async def test_who_has_used_up_the_processor_seconds_is_stopped_and_waits_and_others_go_on(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(cpu=1.0)) as hub:
        burning = await hub.start("t", "s", asks(BURN))
        other = await hub.start("other", "s", asks("input()"))
        assert isinstance(burning, LiveRun)
        assert isinstance(other, LiveRun)
        assert not await ended_well(burning)
        assert (burning.status, burning.reason) == (
            "interrupted",
            "its tenant has used up the processor seconds of this hour",
        )
        with pytest.raises(Problem, match="1 processor seconds in an hour") as caught:
            await hub.start("t", "s", asks("1"))
        assert 3_000 < (caught.value.retry_after or 0) <= 3_600
        await eventually(lambda: other.answer(""))
        assert await ended_well(other)


async def test_a_kernel_that_burns_without_a_run_is_ended_with_its_tenants_processor_seconds(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(cpu=1.0)) as hub:
        thread = f"import threading\nthreading.Thread(target=exec, args=({BURN!r},), daemon=True).start()"
        assert await ended_well(await hub.start("t", "s", asks(thread)))
        await eventually(lambda: not hub.find("t", "s").alive)
        assert "processor seconds" in (hub.find("t", "s").succeeds or "")


@pytest.mark.wide
async def test_processor_seconds_of_kernels_that_end_before_a_look_are_counted_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_LOOK", 3_600.0)
    short = "import time\nend = time.process_time() + 0.15\nwhile time.process_time() < end: pass"
    async with hub_of(tmp_path, Quotas(cpu=1.0)) as hub:
        for session in (None, "s") * 6:
            if refused(lambda: hub.upkeep.check_cpu("t")):
                break
            assert await ended_well(await hub.start("t", session, asks(short)))
            if session is not None:
                await hub.delete("t", session)
        else:
            pytest.fail("1.8 processor seconds were taken, and 1 is the limit")


async def test_a_folder_is_not_looked_through_twice_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_FOLDERS", 3_600.0)
    async with hub_of(tmp_path, Quotas(disk=2_000_000)) as hub:
        session, looks, go = hub.kernel_of(await hub.session("t", "s")), 0, threading.Event()

        def slow() -> int:
            nonlocal looks
            looks += 1
            go.wait(HANG)
            return 3_000_000

        session.disk_bytes = slow  # type: ignore[method-assign]
        assert await ended_well(await hub.start("t", "s", asks("1")))
        await eventually(lambda: looks == 1)  # after each run there is a look
        async with asyncio.timeout(HANG):
            await hub.upkeep.measure_disk("t")
        go.set()
        await eventually(lambda: refused(lambda: hub.upkeep.check_disk("t")))
        assert looks == 1


async def test_files_and_runs_count_for_the_disk_of_a_tenant(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(disk=2_000_000)) as hub:
        assert await ended_well(await hub.start("t", "s", asks("open('f', 'wb').write(b'x' * 1_900_000); 1")))
        assert await ended_well(await hub.start("t", "s", asks("print('x' * 100_000)")))
        await eventually(lambda: refused(lambda: hub.upkeep.check_disk("t")))
        with pytest.raises(Problem, match="2000000 bytes on disk"):
            await hub.start("t", "s", asks("1"))
        assert await ended_well(await hub.start("other", "s", asks("1")))
        await hub.kernel_of(hub.find("t", "s")).files.delete("f")
        async with asyncio.timeout(HANG):
            while refused(lambda: hub.upkeep.check_disk("t")):  # another look may go on that began before
                await hub.upkeep.measure_disk("t")
                await asyncio.sleep(0.01)
        assert await ended_well(await hub.start("t", "s", asks("1")))


async def test_files_want_a_kernel_as_runs_do(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(kernels=1)) as hub:
        first, second = await hub.session("t", "a"), await hub.session("t", "b")
        await hub.kernel_of(first).files.list()
        with pytest.raises(Problem, match="1 kernels at once"):
            hub.kernel_of(second)
        assert await ended_well(await hub.start("t", "a", asks("1")))
        await hub.delete("t", "a")
        assert await hub.kernel_of(second).files.list() == []


async def test_a_kernel_that_could_not_be_started_is_not_counted(tmp_path: Path) -> None:
    provider = NoKernels(LocalKernels(sandbox="none"))
    async with hub_of(tmp_path, Quotas(kernels=1), provider) as hub:
        failed = await hub.start("t", "a", asks("1"))
        assert isinstance(failed, LiveRun)
        await failed.done.wait()
        assert isinstance(failed.failure, KernelStartError)
        provider.full = False
        assert hub.find("t", "a").state == "new"
        assert await ended_well(await hub.start("t", "b", asks("1")))


async def test_what_a_run_had_printed_is_told_although_its_connection_was_lost(tmp_path: Path) -> None:
    provider = NoKernels(LocalKernels(sandbox="none"))
    async with hub_of(tmp_path, provider=provider) as hub:
        never = await hub.start("t", "a", asks("1"))
        assert isinstance(never, LiveRun)
        await never.done.wait()
        with pytest.raises(Problem, match="no memory"):
            await HubRun(hub, never).result()
        provider.full = False
        begun = await hub.start("t", "a", asks("print('on')"))
        assert isinstance(begun, LiveRun)
        await begun.done.wait()
        begun.failure = ConnectionFailed("the server is gone")
        assert (await HubRun(hub, begun).result())["stdout"] == "on\n"


async def test_a_session_whose_kernel_has_ended_is_told_that_its_files_are_gone(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        for code in ("open('kept.txt', 'w').close()", "import os; 'kept.txt' in os.listdir()"):
            run = await hub.start("t", "a", asks(code))
            assert isinstance(run, LiveRun)
            await run.done.wait()
            session = hub.find("t", "a").session
            assert session is not None
            await session.aclose()
        told = await HubRun(hub, run).result()
        assert told["text"].startswith("False")
        assert told["restarted"] == "the session was not used for 1800 s; its files are gone, too"


async def test_the_key_of_a_run_that_may_be_sent_again_is_free_when_its_end_is_told(tmp_path: Path) -> None:
    provider = NoKernels(LocalKernels(sandbox="none"))
    async with hub_of(tmp_path, provider=provider) as hub:
        failed = await hub.start("t", "a", asks("1"), "key")
        assert isinstance(failed, LiveRun)
        await failed.done.wait()
        provider.full = False
        again = await hub.start("t", "a", asks("1"), "key")
        assert again.log.run != failed.id
        assert await ended_well(again)


async def test_a_session_that_was_not_used_for_as_long_as_runs_are_kept_is_forgotten(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(sessions=2)) as hub:
        old, used = await hub.session("t", "old"), await hub.session("t", "used")
        await hub.kernel_of(used).files.list()
        with pytest.raises(Problem, match="2 sessions are the limit"):
            await hub.session("t", "new")
        for held in (old, used):
            held.row = replace(held.row, used=held.row.used - hub.options.keep_runs - 60)
        await hub.upkeep.sweep()
        assert [held.row.id for held in hub.sessions("t")] == ["used"]  # it has a kernel
        await hub.session("t", "new")


async def test_readers_of_events_are_bounded_for_each_tenant(tmp_path: Path) -> None:
    async with hub_of(tmp_path, Quotas(watchers=2)) as hub:
        changes = [hub.admission.watcher("t"), hub.admission.watcher("t")]
        for change in changes:
            change(1)
        with pytest.raises(Problem, match="2 readers of events at once"):
            hub.admission.watcher("t")
        hub.admission.watcher("another")
        changes[0](-1)
        hub.admission.watcher("t")


async def test_a_chat_that_was_left_gives_way_to_a_new_one_and_its_runs_stay(tmp_path: Path) -> None:
    """A chat application makes a session for each chat and deletes none."""
    async with hub_of(tmp_path, Quotas(sessions=3)) as hub:
        left = await hub.start("t", "left", asks("1"))
        assert await ended_well(left)
        others = [await hub.session("t", name) for name in ("empty", "used")]
        await hub.kernel_of(others[1]).files.list()
        await hub.session("u", "left")
        held = hub.find("t", "left")
        assert held.session is not None
        await held.session.aclose()  # as it does when it is not used
        for one, ago in ((held, 90), (others[0], 80), (others[1], 100)):
            one.row = replace(one.row, used=one.row.used - ago)
        await hub.session("t", "new")
        assert [one.row.id for one in hub.sessions("t")] == ["empty", "used", "new"]
        assert [one.row.id for one in hub.sessions("u")] == ["left"]
        assert (await hub.run("t", left.log.run)).log.ended
        await hub.session("t", "newer")
        with pytest.raises(Problem, match="3 sessions are the limit"):  # one has a kernel, the others are just made
            await hub.session("t", "newest")
        stored = await hub.store.ask(lambda database: database.sessions())
        assert {row.id for row in stored if row.tenant == "t"} == {"used", "new", "newer"}
        hub.find("t", "new").row = replace(hub.find("t", "new").row, used=0.0)
        again = await hub.start("t", "left", asks("1"))
        assert await ended_well(again)
        assert isinstance(again, LiveRun)
        told = await HubRun(hub, again).result()
        assert told["restarted"].startswith("the session was not used, and gave way to others")
