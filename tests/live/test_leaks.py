"""Nothing is left: not by closing, not by a cancel at any await."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from cellrun import AsyncSession, CellrunError, JupyterServer, Limits, LocalKernels, Provider
from tests.support.servers import Server
from tests.support.waiting import PROCESS, eventually


class CancelledAt(Coroutine[Any, Any, Any]):
    """Runs a coroutine and throws CancelledError into its n-th await, as a task's cancel() would there."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int) -> None:
        self._coroutine = coroutine
        self._at = at
        self.awaits = 0

    def send(self, value: Any) -> Any:
        self.awaits += 1
        if self.awaits == self._at + 1:
            return self._coroutine.throw(asyncio.CancelledError())
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        return self._coroutine.throw(*args)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise TypeError("run it as a task")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        # A thread may have ended since.
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{task}/children") as file:
            found |= {int(pid) for pid in file.read().split()}
    return found


def living_children(before: set[int]) -> set[int]:
    from tests.support.waiting import process_exists

    return {pid for pid in children() - before if process_exists(pid)}


async def settled(provider: Provider) -> None:
    """Until a pool is full: kernels that wait in it have descriptors, too."""
    if isinstance(provider, LocalKernels):
        await eventually(lambda: provider.status.held + provider.status.ending == 0)
        await provider.ready()


async def use(provider: Provider) -> None:
    """A session's life, with something of everything."""
    async with AsyncSession(provider, limits=Limits(grace=0.5)) as session:
        await session.run("x = 1")
        async with session.stream("print(x)") as stream:
            async for _ in stream:
                pass
        await session.files.write("f", b"1")
        await session.files.read("f")
        await session.interrupt()


def provider_of(kind: str, server: Server) -> Provider:
    return LocalKernels() if kind == "local" else JupyterServer(server.url, token=server.token)


async def drive(coroutine: Coroutine[Any, Any, Any], at: int) -> tuple[int, bool]:
    wrapped = CancelledAt(coroutine, at)
    task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(wrapped)
    cancelled = False
    try:
        await asyncio.wait_for(task, PROCESS)
    except asyncio.CancelledError:
        cancelled = True
    except CellrunError:
        pass
    return wrapped.awaits, cancelled


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["local", pytest.param("server", marks=pytest.mark.wide)])
async def test_a_cancel_at_any_await_leaves_nothing_and_the_provider_works_on(kind: str, free_server: Server) -> None:
    await eventually(lambda: free_server.kernels() == [])
    before_children = children()
    async with provider_of(kind, free_server) as provider:
        await use(provider)
        await settled(provider)
        before = descriptors()
        at = 0
        while True:
            awaits, cancelled = await drive(use(provider), at)
            if not cancelled and awaits <= at:
                break
            at += 1 if at < 12 else 3
        assert at > 5
        await eventually(lambda: " 0 kernels" in repr(provider))
        async with AsyncSession(provider) as session:
            assert (await session.run("'x' in globals()")).text == "False"
        gc.collect()
        await settled(provider)
        await eventually(lambda: descriptors() <= before + 2)
    await eventually(lambda: not living_children(before_children))
    await eventually(lambda: free_server.kernels() == [])
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_cancelled_run_never_shows_in_the_next_one(free_server: Server) -> None:
    async with LocalKernels() as provider, AsyncSession(provider) as session:
        await session.run("1")
        for at in range(1, 6):
            _, cancelled = await drive(
                session.run("print('of the cancelled one', flush=True)\nimport time; time.sleep(1)"), at
            )
            result = await session.run("'mine'")
            assert (result.text, result.status) == ("'mine'", "ok"), at
            if not cancelled:
                break


@pytest.mark.parametrize("kind", ["local", pytest.param("server", marks=pytest.mark.wide)])
async def test_many_sessions_leave_no_descriptor_process_file_or_task(kind: str, free_server: Server) -> None:
    await eventually(lambda: free_server.kernels() == [])
    before_children = children()
    async with provider_of(kind, free_server) as provider:
        await use(provider)
        await settled(provider)
        before = descriptors()
        for _ in range(5):
            async with AsyncSession(provider) as one, AsyncSession(provider) as two:
                await asyncio.gather(one.run("1"), two.run("2"))
        await settled(provider)
        await eventually(lambda: descriptors() <= before + 2)
    await eventually(lambda: not living_children(before_children))
    await eventually(lambda: free_server.kernels() == [])
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


async def test_forgetting_to_close_warns() -> None:
    provider = LocalKernels()
    session = AsyncSession(provider)
    await session.start()
    with pytest.warns(ResourceWarning, match="was not closed"):
        session.__del__()
    with pytest.warns(ResourceWarning, match="LocalKernels.*was not closed"):
        provider.__del__()
    await session.aclose()
    await provider.aclose()
