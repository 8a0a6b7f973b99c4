"""What a session does with its kernel at moments that a real kernel does not hit at will."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cellrun import AsyncSession, Limits, Provider, Unsupported
from cellrun.channels.client import KernelClient
from cellrun.channels.scripted import ScriptedChannel, execution, say
from cellrun.protocol.message import Message
from cellrun.providers.base import FileStore, Lease
from tests.support.waiting import HANG, eventually


class ScriptedLease(Lease):
    def __init__(self) -> None:
        self.channel = ScriptedChannel()
        self.interrupts = 0

    async def start(self, timeout: float) -> None:
        self.client = KernelClient(self.channel)
        await self.client.wait_ready(timeout)

    async def interrupt(self) -> None:
        self.interrupts += 1

    async def kill(self) -> None:
        raise AssertionError("nothing here is to be killed")

    async def restart(self, timeout: float) -> None:
        raise AssertionError("nothing here is to be restarted")

    async def open_files(self) -> FileStore:
        raise Unsupported("there are none")

    async def _release(self) -> None:
        await self.client.aclose()

    @property
    def requests(self) -> list[Message]:
        return [message for message in self.channel.sent if message.msg_type == "execute_request"]


class Scripted(Provider):
    def __init__(self) -> None:
        super().__init__()
        self.lease = ScriptedLease()

    async def acquire(self, timeout: float) -> Lease:
        self._check_open()
        await self.lease.begin(timeout)
        return self.lease

    async def _close(self) -> None:
        await self.lease.release()


@pytest.mark.parametrize("stopping", ["interrupt", "cancel"])
async def test_an_interrupt_for_a_run_that_ends_while_it_waits_does_not_hit_the_next_one(stopping: str) -> None:
    async with Scripted() as provider, AsyncSession(provider, limits=Limits(grace=4 * HANG)) as session:
        lease = provider.lease
        first = asyncio.create_task(session.run("first"))
        second = asyncio.create_task(session.run("second"))
        await eventually(lambda: len(lease.requests) == 1)
        # The kernel has said nothing yet: the interrupt waits until it has begun, for half of the grace.
        if stopping == "interrupt":
            waiting: asyncio.Task[Any] = asyncio.create_task(session.interrupt())
        else:
            first.cancel()
            waiting = first
        await asyncio.sleep(0.02)
        lease.channel.play(execution(), parent=lease.requests[0])
        await eventually(lambda: len(lease.requests) == 2)
        lease.channel.play([say("iopub", "status", execution_state="busy")], parent=lease.requests[1])
        await asyncio.wait([waiting])
        await asyncio.sleep(0.05)  # time in which one could be sent
        assert lease.interrupts == 0
        lease.channel.play(execution()[1:], parent=lease.requests[1])
        assert (await second).status == "ok"
        assert lease.interrupts == 0


async def test_an_interrupt_goes_to_a_run_that_has_begun() -> None:
    async with Scripted() as provider, AsyncSession(provider) as session:
        lease = provider.lease
        running = asyncio.create_task(session.run("first"))
        await eventually(lambda: len(lease.requests) == 1)
        lease.channel.play(execution()[:2], parent=lease.requests[0])
        await asyncio.sleep(0.02)
        await session.interrupt()
        assert lease.interrupts == 1
        lease.channel.play(
            execution(status="error", ename="KeyboardInterrupt", evalue="")[2:], parent=lease.requests[0]
        )
        assert (await running).status == "interrupted"


async def test_a_session_without_history_keeps_no_results() -> None:
    async with AsyncSession(history=False) as session:
        assert (await session.run("1")).text == "1"
        with pytest.raises(RuntimeError, match="history=False"):
            session.to_notebook()
    async with AsyncSession() as session:
        await session.run("1")
        assert len((await session.fetch_notebook()).cells) == len(session.to_notebook().cells) == 1


async def test_what_a_kernel_has_taken_is_told_by_its_session() -> None:
    session = AsyncSession()
    assert (session.cpu_seconds(), session.disk_bytes()) == (None, None)
    async with session:
        before = session.cpu_seconds()
        await session.run("sum(range(5_000_000)); open('file', 'wb').write(bytes(200_000));")
        after, size = session.cpu_seconds(), session.disk_bytes()
    assert before is not None
    assert after is not None
    assert after > before
    assert size is not None
    assert size >= 200_000
