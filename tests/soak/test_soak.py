"""Long runs, bounded in time: `make soak`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest

from cellrun import AsyncSession, JupyterServer, LocalKernels, Stdout
from cellrun.providers.local_lease import LocalLease
from tests.live.test_leaks import children, descriptors, living_children, settled
from tests.support.leases import lease_of
from tests.support.servers import Server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

SESSIONS = int(os.environ.get("CELLRUN_SOAK_SESSIONS", "500"))
CYCLES = int(os.environ.get("CELLRUN_SOAK_CYCLES", "2000"))
SECONDS = float(os.environ.get("CELLRUN_SOAK_SECONDS", "240"))


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_hundreds_of_sessions_leave_nothing(free_server: Server) -> None:
    """Up to 500 sessions, half of them here and half on a server, as far as the time allows; most run to the
    end, some are cancelled, killed or interrupted."""
    chance = random.Random(500)
    before_children = children()
    deadline = time.monotonic() + SECONDS
    done = 0
    async with LocalKernels() as local, JupyterServer(free_server.url, token=free_server.token) as remote:

        async def one(number: int) -> None:
            async with AsyncSession(local if number % 2 else remote) as session:
                assert (await session.run(f"{number}", timeout=60)).text == str(number)
                fate = chance.random()
                if fate < 0.1:
                    await session.run("import os; os._exit(1)")
                elif fate < 0.2:
                    task = asyncio.create_task(session.run("import time; time.sleep(60)"))
                    await asyncio.sleep(chance.random() / 5)
                    task.cancel()
                elif fate < 0.3:
                    assert (await session.run("import time; time.sleep(60)", timeout=0.2)).status == "timeout"

        await one(0)
        await one(1)
        await settled(local)
        gc.collect()
        base_descriptors, base_memory = descriptors(), memory()
        while done < SESSIONS and time.monotonic() < deadline:
            await asyncio.gather(*(one(done + offset) for offset in range(4)))
            done += 4
        await settled(local)
        gc.collect()
        await eventually(lambda: descriptors() <= base_descriptors + 4)
        assert memory() - base_memory < 64 * 2**20
        await eventually(lambda: " 0 kernels" in repr(local) and " 0 kernels" in repr(remote))
    await eventually(lambda: not living_children(before_children))
    await eventually(lambda: free_server.kernels() == [])
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    assert done >= 40
    print(f"{done} sessions")


async def test_thousands_of_forked_kernels_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 2 000 kernels forked, used and killed or ended, as far as the time allows; in the middle of it the forkserver is
    killed twice."""
    chance = random.Random(2000)
    before_children = children()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deadline = time.monotonic() + SECONDS / 2
    done = 0
    async with LocalKernels(pool=2) as kernels:

        async def one(number: int) -> None:
            async with AsyncSession(kernels) as session:
                await session.run("1", timeout=60)
                lease = lease_of(session)
                assert isinstance(lease, LocalLease)
                pid = lease.pid
                fate = chance.random()
                # The kernel may be gone or another by now: it ends with a forkserver that is killed in a pid namespace.
                if fate < 0.3:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                elif fate < 0.4:
                    assert (await session.run("import os; os._exit(1)")).status == "kernel_died"
                if number in (CYCLES // 4, CYCLES // 2):
                    assert kernels._server is not None
                    os.kill(kernels._server.pids[-1], signal.SIGKILL)

        await asyncio.gather(*(one(-1) for _ in range(8)))
        await settled(kernels)
        gc.collect()
        base_descriptors, base_memory = descriptors(), memory()
        while done < CYCLES and time.monotonic() < deadline:
            await asyncio.gather(*(one(done + offset) for offset in range(8)))
            done += 8
        await settled(kernels)
        gc.collect()
        # Of a forkserver that was replaced and has a kernel in the pool left.
        await eventually(lambda: descriptors() <= base_descriptors + 12)
        assert memory() - base_memory < 32 * 2**20
    await eventually(lambda: not living_children(before_children))
    assert os.listdir(tmp_path) == []
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    assert done >= 100
    print(f"{done} forked kernels")


async def test_streaming_five_hundred_megabytes_grows_memory_by_less_than_sixty_four() -> None:
    async with AsyncSession() as session:
        await session.run("line = 'x' * 99")
        gc.collect()
        base = peak = memory()
        received = 0
        code = "for i in range(2_500_000):\n    print(line); print(line)"
        async with session.stream(code, timeout=550) as stream:
            async for event in stream:
                if isinstance(event, Stdout):
                    received += len(event.text)
                    peak = max(peak, memory())
        assert stream.result.ok
        assert received == 500_000_000
        assert stream.result.truncated
        assert peak - base < 64 * 2**20, f"{(peak - base) / 2**20:.0f} MiB"
