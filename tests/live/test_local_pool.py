"""LocalKernels as a whole: its pool, its limits, its forkserver."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from cellrun import AsyncSession, KernelStartError, LimitExceeded, Limits, LocalKernels, SandboxPolicy, SessionLost
from tests.live.test_leaks import children, descriptors, living_children
from tests.support.waiting import PROCESS, eventually

WHERE = "import os; os.getpid(), os.getppid()"  # numbers that mean something to us where nothing contains the kernel


async def test_kernels_are_ready_before_they_are_wanted_and_replaced_when_they_are_taken() -> None:
    async with LocalKernels(pool=2) as kernels:
        await kernels.ready()
        assert kernels.status.ready == 2
        async with AsyncSession(kernels) as session:
            assert (await session.run("1 + 1")).text == "2"
            await kernels.ready()
            assert (kernels.status.ready, kernels.status.held) == (2, 1)


async def test_a_kernel_of_the_pool_has_the_usual_libraries_loaded_and_no_names_in_it() -> None:
    async with LocalKernels(pool=1) as kernels:
        await kernels.ready()
        async with AsyncSession(kernels) as session:
            code = "import sys; [name in sys.modules for name in ('numpy', 'pandas', 'matplotlib.pyplot')]"
            assert (await session.run(code)).text == "[True, True, True]"
            names = (await session.run("%who_ls")).text
            assert names == "['sys']"
            assert (await session.run("plt")).error is not None


async def test_no_kernel_serves_two_sessions() -> None:
    async with LocalKernels(pool=2, sandbox="none") as kernels:
        seen = set()
        for _ in range(6):
            async with AsyncSession(kernels) as session:
                seen.add((await session.run("import os; os.getpid()")).text)
                assert (await session.run("'x' in globals()")).text == "False"
                await session.run("x = 1")
        assert len(seen) == 6


async def test_where_all_kernels_are_taken_a_session_waits_and_then_is_told() -> None:
    async with LocalKernels(pool=0, preload=(), max_kernels=1, queue_timeout=0.4) as kernels:
        async with AsyncSession(kernels) as first:
            await first.run("1")
            with pytest.raises(LimitExceeded, match=r"at place 1 of the line; 1 kernels exist, of at most 1") as caught:
                await AsyncSession(kernels).start()
            assert caught.value.retryable
        # The next one would wait no longer for the end of that kernel, either.
        await eventually(lambda: kernels.status.held + kernels.status.ending == 0)
        async with AsyncSession(kernels) as second:
            assert (await second.run("2")).text == "2"


async def test_a_session_that_waits_gets_the_kernel_that_becomes_free() -> None:
    async with LocalKernels(pool=0, max_kernels=1) as kernels:
        first = await AsyncSession(kernels).start()
        second = AsyncSession(kernels)
        waiting = asyncio.create_task(second.start())
        await eventually(lambda: kernels.status.waiting == 1)
        await first.aclose()
        await waiting
        assert (await second.run("3")).text == "3"
        await second.aclose()


async def test_too_many_that_wait_are_turned_away_at_once() -> None:
    async with LocalKernels(pool=0, max_kernels=1, queue_length=1) as kernels, AsyncSession(kernels) as held:
        await held.run("1")
        waiting = asyncio.create_task(AsyncSession(kernels).start())
        await eventually(lambda: kernels.status.waiting == 1)
        with pytest.raises(LimitExceeded, match="1 callers wait for a kernel already"):
            await AsyncSession(kernels).start()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_memory_bounds_the_number_of_kernels() -> None:
    async with (
        LocalKernels(pool=0, preload=(), max_memory=1, queue_timeout=0.2) as kernels,
        AsyncSession(kernels) as one,
    ):
        assert (await one.run("1")).ok  # the first is always allowed
        with pytest.raises(LimitExceeded, match="MiB"):
            await AsyncSession(kernels).start()


@pytest.mark.wide
async def test_a_ready_kernel_that_dies_is_replaced() -> None:
    async with LocalKernels(pool=1) as kernels:
        await kernels.ready()
        (lease,) = kernels._leases
        os.kill(lease.pid, signal.SIGKILL)
        await eventually(lambda: lease not in kernels._leases)
        await kernels.ready()
        async with AsyncSession(kernels) as session:
            assert (await session.run("1")).text == "1"


@pytest.mark.wide
async def test_sessions_live_on_when_the_forkserver_is_killed_and_others_can_be_made() -> None:
    async with LocalKernels(pool=1, sandbox="none") as kernels, AsyncSession(kernels) as session:
        pid, parent = eval((await session.run(WHERE)).text or "")
        await session.run("x = 41")
        os.kill(parent, signal.SIGKILL)
        assert (await session.run("x + 1")).text == "42"
        async with AsyncSession(kernels) as other:
            other_pid, other_parent = eval((await other.run(WHERE)).text or "")
        assert other_pid != pid
        async with AsyncSession(kernels) as later:
            # The kernel that was ready came from the old one; this one cannot have.
            assert eval((await later.run(WHERE)).text or "")[1] not in (parent, 1) or other_parent != parent
        result = await session.run("import os; os._exit(3)")
        assert result.status == "kernel_died"
        assert (await session.run("'again'")).text == "'again'"


async def test_in_the_strong_form_sessions_end_with_their_forkserver_and_go_on_with_another() -> None:
    async with (
        LocalKernels(pool=0, preload=(), sandbox=SandboxPolicy(form="strong")) as kernels,
        AsyncSession(kernels) as session,
    ):
        await session.run("x = 41")
        assert kernels._server is not None
        server = kernels._server
        os.kill(server.pids[0], signal.SIGKILL)
        await eventually(lambda: server.pids == [])
        async with asyncio.timeout(PROCESS):
            result = await session.run("'x' in globals()")
            while (
                result.status == "kernel_died" or not result.restarted
            ):  # it came before the end, or before that was known
                result = await session.run("'x' in globals()")
        assert result.text == "False"


async def test_a_module_of_the_callers_own_is_loaded_before_the_fork(tmp_path: Path) -> None:
    tmp_path.joinpath("mine.py").write_text("import os\nloaded_by = os.getpid()\n", "utf-8")
    async with LocalKernels(
        preload=["mine"], env={"PYTHONPATH": str(tmp_path)}, sandbox=SandboxPolicy(read_only=[tmp_path])
    ) as kernels:
        await kernels.ready()
        async with AsyncSession(kernels) as session:
            result = await session.run("import mine, os; mine.loaded_by == os.getppid()")
            assert result.text == "True"


async def test_a_module_that_is_not_there_is_named() -> None:
    async with LocalKernels(preload=["no_such_module"]) as kernels:
        with pytest.raises(KernelStartError, match=r"'no_such_module' of preload= cannot be imported"):
            await kernels.ready(PROCESS)


async def test_a_module_that_starts_a_thread_is_named(tmp_path: Path) -> None:
    code = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    tmp_path.joinpath("threads.py").write_text(code, "utf-8")
    async with LocalKernels(
        preload=["threads"], env={"PYTHONPATH": str(tmp_path)}, sandbox=SandboxPolicy(read_only=[tmp_path])
    ) as kernels:
        with pytest.raises(KernelStartError, match=r"'threads' started threads .*leave it out of preload="):
            await kernels.ready(PROCESS)


async def test_stock_ipykernel_can_be_had_and_kept_ready_too() -> None:
    async with LocalKernels(kernel="ipykernel", pool=1) as kernels:
        await kernels.ready(PROCESS)
        async with AsyncSession(kernels) as session:
            result = await session.run("type(get_ipython().kernel).__module__")
            assert result.text == "'ipykernel.ipkernel'"


async def test_a_session_of_its_own_forks_a_kernel_with_nothing_loaded() -> None:
    async with AsyncSession() as session:
        result = await session.run("import sys; [name in sys.modules for name in ('numpy', 'cellrun.kernel')]")
        assert result.text == "[False, True]"


async def test_a_session_ends_after_its_idle_time_and_says_so() -> None:
    async with LocalKernels(pool=0, preload=()) as kernels:
        session = AsyncSession(kernels, limits=Limits(idle_timeout=0.3))
        assert (await session.run("x = 1; x")).text == "1"
        await eventually(lambda: kernels.status == type(kernels.status)(0, 0, 0, 0, 0))
        with pytest.raises(SessionLost, match=r"after 0\.3 s without use \(idle_timeout\), and its variables are gone"):
            await session.run("x")
        await session.aclose()


async def test_the_idle_time_begins_anew_with_each_run_and_not_during_one() -> None:
    async with AsyncSession(limits=Limits(idle_timeout=2.0)) as session:
        assert (await session.run("import time; time.sleep(2.5); 1")).text == "1"
        for _ in range(3):
            assert (await session.run("time.sleep(0.8); 2")).text == "2"


@pytest.mark.wide
async def test_an_idle_kernel_uses_no_processor_time() -> None:
    async with LocalKernels(pool=0, preload=()) as kernels, AsyncSession(kernels) as session:
        await session.run("1")
        (pid,) = (lease.pid for lease in kernels._leases)

        def used() -> int:
            return sum(
                int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text("ascii").split()[0])
                for task in os.listdir(f"/proc/{pid}/task")
            )

        # What a cell leaves to be done takes a busy machine a while: what is not idle is so each time.
        for _ in range(5):
            await asyncio.sleep(0.3)
            before = used()
            await asyncio.sleep(1.5)  # the time that is measured
            if (taken := used() - before) < 3_000_000:  # nanoseconds
                break
        assert taken < 3_000_000


async def test_cancelling_while_a_kernel_is_forked_leaves_nothing() -> None:
    before_children = children()
    async with LocalKernels(pool=0, preload=()) as kernels:
        async with AsyncSession(kernels) as session:
            await session.run("1")
        await eventually(lambda: kernels.status.ending == 0)
        before = descriptors()
        for step in range(12):
            task = asyncio.create_task(AsyncSession(kernels).start())
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: kernels.status.starting + kernels.status.held + kernels.status.ending == 0)
        await eventually(lambda: descriptors() <= before + 1)
    await eventually(lambda: not living_children(before_children))
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
