"""Forked kernels: what a child has of its parent and what not, and who dies with whom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cellrun import KernelStartError
from cellrun.launch import preload
from cellrun.launch.descendants import MARK, children
from cellrun.launch.forked import ForkedKernel
from cellrun.launch.forkserver import ForkServer
from cellrun.launch.process import STOCK
from tests.support.forked import (
    TAG,
    Opener,
    OpenKernel,
    forking,
    links,
    living,
    stat_fields,
    tagged,
    thread_names,
    zombies_of,
)
from tests.support.waiting import HANG, PROCESS, eventually, process_exists

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Opener]:
    """A forkserver with everything loaded, for the tests that leave it as it is."""
    async with forking(tmp_path_factory.mktemp("work"), ForkServer()) as opener:
        await opener.server.load()
        yield opener


@pytest.fixture
def tag() -> str:
    """For the environment of a forkserver, to find its processes by."""
    return uuid.uuid4().hex


def small(tag: str, **options: Any) -> ForkServer:
    """A forkserver that is up in a moment."""
    return ForkServer(preload=options.pop("preload", []), env={TAG: tag, **options.pop("env", {})}, **options)


def with_path(folder: Path) -> str:
    """PYTHONPATH, with this folder first."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


async def gone(tag: str, seconds: float = HANG) -> None:
    await eventually(lambda: not tagged(tag), seconds)


# -- what a child has ----------------------------------------------------------------------------------


def unix_sockets() -> dict[str, str]:
    """The paths of all unix sockets, by what /proc/PID/fd calls them (proc(5), /proc/net/unix)."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {f"socket:[{row[6]}]": row[7] if len(row) > 7 else "" for row in rows}


async def test_every_descriptor_of_a_kernel_with_a_client_is_accounted_for(loaded: Opener) -> None:
    kernel = await loaded()

    def connected() -> int:
        """How many clients its sockets have: each socket shows once more for each."""
        paths = unix_sockets()
        sockets = [paths.get(to, "") for to in links(kernel.pid).values()]
        return len([path for path in sockets if path.startswith(f"{kernel.folder}/k-")]) - 5

    await eventually(lambda: connected() == 4)  # the kernel is ready before all four are
    found = links(kernel.pid)
    paths = unix_sockets()
    (lifeline,) = {to for to in found.values() if to.startswith("pipe:") and to in links(os.getpid()).values()}

    def kind(number: int, to: str) -> str:
        if to.startswith("socket:"):
            return paths[to].removeprefix(str(kernel.folder)) or "a pair that wakes a loop"
        log = "/memfd:log (deleted)"
        return {lifeline: "lifeline", found[1]: "stdout", found[2]: "stderr", log: "log"}.get(to, to)

    kinds = Counter(kind(number, to) for number, to in found.items())
    of_zmq = {name: kinds.pop(f"anon_inode:[{name}]") for name in ("eventpoll", "eventfd")}
    assert of_zmq["eventpoll"] == 2  # of its thread for input and output, and of its reaper
    assert of_zmq["eventfd"] <= 2 + 5 + 1  # of those two, of five sockets, of the context
    assert kinds == {
        "/dev/null": 1,
        "stdout": 3,  # the pipe in place of descriptor 1, both ends, and one that stays when the user closes that
        "stderr": 3,
        "log": 1,
        "lifeline": 1,
        "a pair that wakes a loop": 4,  # of the main thread and of the service thread
        "/k-1": 2,  # shell: listening, and the client's
        "/k-2": 2,
        "/k-3": 2,
        "/k-4": 2,
        "/k-5": 1,  # nobody asks for the heartbeat
    }
    assert len(found) <= 32
    assert len(thread_names(kernel.pid)) <= 5
    (parent,) = loaded.server.pids
    assert set(found.values()) & set(links(parent).values()) == {"/dev/null"}


FACTS = """
import asyncio, builtins, gc, locale, multiprocessing, os, pathlib, resource, signal, subprocess, sys, tempfile, threading, time
import __main__
with open("/proc/self/status") as file:
    status = dict(line.split(":\\t") for line in file.read().splitlines())
code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
print(_json.dumps({
    "names": sorted(set(globals()) - {*"file status code _json".split()} - {n for n in globals() if hasattr(globals()[n], "__spec__")}),
    "In": len(In), "_dh": list(map(str, _dh)), "last": [_, __, ___, _i, _ii, _iii, list(Out)],
    "cwd": os.getcwd(), "argv": [pathlib.Path(argument).name for argument in sys.argv], "path": sys.path,
    "main": [vars(__main__) is globals(), sys.modules["__main__"] is __main__, sorted(vars(__main__).get(name) is None
             for name in ("__file__", "__spec__", "__doc__", "__package__", "__loader__"))],
    "handlers": {int(s): repr(signal.getsignal(s)) for s in signal.valid_signals()},
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd", "SigPnd")], "mask": list(signal.pthread_sigmask(0, ())),
    "wakeup": signal.set_wakeup_fd(-1), "timer": signal.getitimer(signal.ITIMER_REAL),
    "umask": status["Umask"], "nice": os.nice(0), "affinity": sorted(os.sched_getaffinity(0)),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")},
    "locale": locale.setlocale(locale.LC_ALL), "zone": time.tzname, "temporary": tempfile.gettempdir(),
    "environment": dict(os.environ),
    "session": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "stdin": repr(sys.stdin), "encoding": sys.stdout.encoding,
    "inherited": subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, close_fds=False).stdout,
    "main thread": threading.main_thread() is threading.current_thread(),
    "interpreter": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile(), repr(sys.flags), sys.dont_write_bytecode],
    "gc": [gc.get_threshold(), gc.isenabled()], "last exception": hasattr(sys, "last_value"), "count": get_ipython().execution_count,
    "loop": asyncio.get_event_loop().is_running(), "process": multiprocessing.current_process().name, "start": multiprocessing.get_start_method(True),
}))
"""


@pytest.mark.parametrize("when", ["before anything is loaded", "with all loaded"])
async def test_a_child_finds_what_a_kernel_finds_that_was_started(
    loaded: Opener, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment, with it what the forkserver has set for itself; folder, arguments, path, namespace and history; signals."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    assert set(preload.NO_THREADS) >= {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    stock = await loaded.started(STOCK)
    async with contextlib.AsyncExitStack() as stack:
        opener = loaded if when == "with all loaded" else await stack.enter_async_context(forking(loaded.folder))
        kernel = await opener()
        found, wanted = await kernel.value(FACTS), await stock.value(FACTS)
    for facts in (found, wanted):
        for name in (MARK, "JPY_PARENT_PID", "PYDEVD_USE_FRAME_EVAL"):  # the last is debugpy's
            facts["environment"].pop(name, None)
    assert found["environment"]["OPENBLAS_NUM_THREADS"] == "7"
    for fact, value in wanted.items():
        assert found[fact] == value, fact


DRAWS = """
import random, secrets, tempfile, uuid, numpy
print(_json.dumps([random.random(), numpy.random.rand(), numpy.random.default_rng().random(), str(uuid.uuid4()),
    secrets.token_hex(), next(tempfile._get_candidate_names()), get_ipython().kernel.session.session]))
"""


async def test_siblings_draw_different_random_numbers(loaded: Opener) -> None:
    draws = await asyncio.gather(*[(await loaded()).value(DRAWS) for _ in range(3)])
    for same_kind in zip(*draws, strict=True):
        assert len(set(same_kind)) == 3, same_kind


async def test_siblings_share_the_hash_seed_of_their_forkserver(loaded: Opener) -> None:
    """Known and accepted: it is drawn at an interpreter's start. The next forkserver has another."""
    code = "print(hash('a'))"
    async with forking(loaded.folder) as others:
        one, two, other = [await (await opener()).value(code) for opener in (loaded, loaded, others)]
    assert one == two
    assert one != other


async def test_what_is_preloaded_is_there_and_leaves_no_trace_in_the_kernel(loaded: Opener) -> None:
    code = """
import sys
there = [name for name in ("numpy", "numpy.random", "pandas", "matplotlib.pyplot") if name in sys.modules]
import matplotlib.pyplot as plt
print(_json.dumps([there, plt.get_fignums(), plt.get_backend()]))
"""
    kernel = await loaded()
    there, figures, backend = await kernel.value(code)
    assert (there, figures) == (["numpy", "numpy.random", "pandas", "matplotlib.pyplot"], [])
    assert backend.endswith("inline")
    history = await kernel.client.ask(
        "history_request", {"hist_access_type": "tail", "n": 10, "raw": True, "output": False}, timeout=HANG
    )
    assert [line[:2] for line in history["history"]] == [[0, 1]]


@pytest.mark.wide
async def test_a_forkserver_that_is_still_loading_forks_at_once(tmp_path: Path, modules: Path, tag: str) -> None:
    """What it has to load takes most of a minute, unless it is told to hurry."""
    hurry = tmp_path / "hurry"
    names = [f"slow_{number}" for number in range(500)]
    for name in names:
        code = f"import os, time\nif not os.path.exists({str(hurry)!r}): time.sleep(0.1)\n"
        modules.joinpath(f"{name}.py").write_text(code)
    server = small(tag, preload=names, env={"PYTHONPATH": with_path(modules)})
    count = "import sys\nprint(len([name for name in sys.modules if name.startswith('slow_')]))"
    async with forking(tmp_path, server) as opener:
        loading = asyncio.ensure_future(opener.server.load())
        kernel = await opener()
        assert await kernel.value(count) < len(names)
        assert not loading.done()
        hurry.touch()
        await loading
        assert await (await opener()).value(count) == len(names)
    await gone(tag)


async def test_the_forkserver_has_one_thread_no_event_loop_and_no_zeromq(loaded: Opener) -> None:
    await loaded()
    (parent,) = loaded.server.pids
    assert len(thread_names(parent)) == 1
    found = links(parent)
    kinds = Counter(to.partition(":")[0] for to in found.values() if not to.startswith("/"))
    # Control, and the pair that SIGCHLD writes to. Nothing for epoll or events.
    assert kinds == {"socket": 3}
    files = {to for to in found.values() if to.startswith("/")} - {"/dev/null", found[1]}
    assert found[1] == found[2]
    assert all(to.endswith(".ttf") for to in files)  # which matplotlib lets go of at a fork


# -- loading -------------------------------------------------------------------------------------------


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A folder of modules: one that is fine, one that starts a thread, one that is broken."""
    folder = tmp_path / "modules"
    folder.mkdir()
    folder.joinpath("fine.py").write_text("VALUE = 1\n")
    folder.joinpath("raising.py").write_text("raise RuntimeError('as it must')\n")
    folder.joinpath("starting.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='polls-for-ever', daemon=True).start()\n"
    )
    return folder


@pytest.mark.wide
@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("starting", "'starting' started threads"),
        ("no_such_module", "'no_such_module' .*ModuleNotFoundError"),
        ("raising", "'raising' .*as it must"),
    ],
)
async def test_a_module_of_the_callers_that_cannot_be_preloaded_is_named(
    modules: Path, tag: str, module: str, said: str
) -> None:
    server = small(tag, preload=["fine", module], env={"PYTHONPATH": with_path(modules)})
    async with forking(modules, server) as opener:
        with pytest.raises(KernelStartError, match=said):
            await server.load()
        with pytest.raises(KernelStartError, match=said):
            await opener()
        with pytest.raises(KernelStartError, match=said):
            await server.load()
    await gone(tag)


@pytest.mark.wide
async def test_a_module_of_the_callers_that_ends_the_process_is_an_error(modules: Path, tag: str) -> None:
    modules.joinpath("ending.py").write_text("import os\nos._exit(7)\n")
    server = small(tag, preload=["ending"], env={"PYTHONPATH": with_path(modules)})
    async with forking(modules, server):
        with pytest.raises(KernelStartError):
            await asyncio.wait_for(server.load(), PROCESS)
    await gone(tag)


@pytest.mark.wide
async def test_a_file_that_a_preloaded_module_holds_is_no_danger_to_the_kernel(modules: Path, tag: str) -> None:
    """Were its descriptor closed at the fork, the module's file would be one of the kernel's sockets."""
    modules.joinpath("holding.py").write_text("FILES = [open(__file__) for _ in range(12)]\n")
    server = small(tag, preload=["holding"], env={"PYTHONPATH": with_path(modules)})
    async with forking(modules, server) as opener:
        await server.load()
        kernel = await opener()
        code = "import holding\nprint(_json.dumps(holding.FILES[0].readline()))"
        assert str(await kernel.value(code)).startswith("FILES")
        code = "for file in holding.FILES: file.close()\nimport subprocess; subprocess.run(['echo', '1'])"
        assert await kernel.value(code) == 1
        assert await kernel.value("print(2)") == 2
    await gone(tag)


def usual(modules: Path, *names: str) -> dict[str, str]:
    """The environment of a forkserver for which these are the usual modules: its interpreter runs `sitecustomize` first."""
    modules.joinpath("sitecustomize.py").write_text(
        f"import cellrun.launch.preload\ncellrun.launch.preload.USUAL = {names!r}\n"
    )
    return {"PYTHONPATH": with_path(modules)}


@pytest.mark.wide
async def test_a_usual_module_that_starts_a_thread_is_left_out_by_itself(modules: Path, tag: str) -> None:
    server = small(
        tag, preload="auto", env=usual(modules, "raising", "no_such_module", "starting", "fine", "numpy.random")
    )
    async with forking(modules, server) as opener:
        kernels = [await opener()]
        # All of these meet the process that the module has broken, or the one after it.
        loading = asyncio.ensure_future(server.load())
        kernels += await asyncio.gather(*(opener() for _ in range(4)))
        await loading
        kernels.append(await opener())
        code = "import sys\nprint(_json.dumps([name in sys.modules for name in ('fine', 'starting', 'numpy.random')]))"
        assert await kernels[-1].value(code) == [True, False, True]
        await eventually(lambda: len(server.pids) == 2)  # the broken one has kernels
        for kernel in kernels[:-1]:
            assert await kernel.value("print(1)") == 1
            await kernel.close()
        await eventually(lambda: len(server.pids) == 1)


@pytest.mark.wide
async def test_forks_that_meet_a_broken_forkserver_together_all_get_kernels(modules: Path, tag: str) -> None:
    server = small(tag, preload="auto", env=usual(modules, "starting"))
    async with forking(modules, server) as opener:
        first = await opener()
        (parent,) = server.pids
        process = next(iter(server._parents))
        process.load()
        await asyncio.wait_for(process.loaded.wait(), HANG)
        assert process.broken is not None
        kernels = await asyncio.gather(*(opener() for _ in range(5)), server.load())
        assert {os.getppid() if kernel is None else parent_of(kernel.pid) for kernel in kernels} - {os.getppid()} != {
            parent
        }
        assert parent_of(first.pid) == parent


def parent_of(pid: int) -> int:
    return int(stat_fields(pid)[1])


# -- deaths --------------------------------------------------------------------------------------------


async def test_kernels_outlive_a_forkserver_that_is_killed(tmp_path: Path, tag: str) -> None:
    async with forking(tmp_path, small(tag)) as opener:
        one, two = await opener(), await opener()
        await one.run("x = 1")
        (before,) = opener.server.pids
        os.kill(before, signal.SIGKILL)
        await eventually(lambda: opener.server.pids == [])
        assert await one.value("print(x)") == 1
        three = await opener()
        assert opener.server.pids != [before]
        assert parent_of(three.pid) == opener.server.pids[0]
        await two.ask_to_end()
        assert "the kernel process ended" in await two.ended()
        os.kill(one.pid, signal.SIGKILL)
        assert "the kernel process" in await one.ended()
        assert await three.value("print(3)") == 3
    await gone(tag)


@pytest.mark.wide
@pytest.mark.parametrize("so_many", [1, 10])
async def test_a_forkserver_killed_amid_forks_costs_errors_and_leaves_nothing(
    tmp_path: Path, tag: str, so_many: int
) -> None:
    server = small(tag)
    async with forking(tmp_path, server) as opener:
        await opener()
        (parent,) = server.pids
        opening = [asyncio.ensure_future(opener()) for _ in range(25)]
        await eventually(lambda: len(children(parent)) > so_many)
        os.kill(parent, signal.SIGKILL)
        opened = await asyncio.wait_for(asyncio.gather(*opening, return_exceptions=True), PROCESS)
        for kernel in opened:
            assert isinstance(kernel, (OpenKernel, KernelStartError)), kernel
        living = [kernel for kernel in opened if isinstance(kernel, OpenKernel)]
        assert await asyncio.gather(*(kernel.value("print(2)") for kernel in living)) == [2] * len(living)
        assert await (await opener()).value("print(1)") == 1
    await gone(tag)


async def test_nothing_outlives_the_process_that_wanted_the_kernels(tmp_path: Path, tag: str) -> None:
    """Killed, with one kernel in C code that never lets go of the interpreter and one that has children."""
    program = f"""
import asyncio, json, sys, time
from pathlib import Path
from cellrun.launch.forkserver import ForkServer
from tests.support.forked import forking, TAG

CHILDREN = '''
import os, subprocess, sys
apart = {{"start_new_session": True}}
pids = [subprocess.Popen(["sleep", "300"], **options).pid for options in ({{}}, apart, {{"env": {{}}}})]
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if (orphan := os.fork()) == 0:
        os.execve("/bin/sleep", ["sleep", "300"], {{}})
    os.write(write, b"%d" % orphan)
    os._exit(0)
os.wait()
print(_json.dumps([*pids, int(os.read(read, 20)), os.getpid()]))
'''

async def main():
    async with forking(Path({str(tmp_path)!r}), ForkServer(preload=[], env={{TAG: {tag!r}}})) as opener:
        busy, parent = await opener(), await opener()
        cell = await busy.start_cell("print('now', flush=True); sum(range(10**12))")
        await cell.shows("now")
        print(json.dumps([busy.pid, *opener.server.pids, *await parent.value(CHILDREN)]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        pids = json.loads(await asyncio.to_thread(service.stdout.readline))
        try:
            assert len(pids) == 7
            assert all(map(process_exists, pids))
        finally:
            service.kill()
        await eventually(lambda: not any(map(process_exists, pids)))
    await gone(tag)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "exited with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV (signal 11: segmentation fault)"),
        ("import os; os.abort()", "killed by SIGABRT"),
    ],
)
async def test_how_a_child_ended_is_told_and_it_is_no_zombie(loaded: Opener, code: str, reason: str) -> None:
    kernel = await loaded()
    cell = await kernel.start_cell(code)
    assert reason in await kernel.ended()
    assert reason in ((await cell.result()).reason or "")
    await kernel.close()
    (parent,) = loaded.server.pids
    await eventually(lambda: not zombies_of(parent))
    assert not os.path.exists(f"/proc/{kernel.pid}")


async def test_a_kernel_that_cannot_become_one_says_why(tmp_path: Path, tag: str) -> None:
    folder = tmp_path / "no longer there"
    async with forking(folder, small(tag)) as opener:
        with pytest.raises(KernelStartError, match=r"(?s)exited with code 1.*no longer there"):
            await opener()


ORPHANS = """
import os, subprocess, sys, time
double, fresh, execs = {double}, {fresh}, {execs}
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if not double or os.fork() == 0:
        os.write(write, b"%d\\n" % os.getpid())
        if fresh:
            os.environ.clear()
        if execs:
            os.execve("/bin/sleep", ["sleep", "300"], dict(os.environ))
        while True:
            time.sleep(300)
    os._exit(0)
if double:
    os.wait()
print(int(os.read(read, 20)))
"""


@pytest.mark.parametrize("execs", [True, False], ids=["another program", "the same program"])
@pytest.mark.parametrize("fresh", [True, False], ids=["without environment", "with environment"])
@pytest.mark.parametrize("double", [True, False], ids=["an orphan", "a child"])
@pytest.mark.parametrize("how", ["while it lives", "when it has ended"])
async def test_what_a_kernel_has_started_is_gone_after_its_end(
    loaded: Opener, double: bool, fresh: bool, execs: bool, how: str
) -> None:
    kernel = await loaded()
    pid = await kernel.value(ORPHANS.format(double=double, fresh=fresh, execs=execs))
    assert process_exists(pid)
    if execs:  # it tells its number before; in the middle of execve(2) a process shows no environment
        await eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
    try:
        if how == "when it has ended":
            os.kill(kernel.pid, signal.SIGKILL)
            await kernel.ended()
        await kernel.close()
        if fresh and execs and (double or how == "when it has ended"):
            # No group, no mark, no name and no parent: nobody knows whose it is. It ends with the forkserver, see below.
            assert process_exists(pid)
        else:
            await eventually(lambda: not process_exists(pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (parent,) = loaded.server.pids
    await eventually(lambda: not zombies_of(parent))


@pytest.mark.parametrize("how", ["closed", "retired"])
async def test_an_orphan_that_has_left_every_trace_ends_with_the_forkserver(tmp_path: Path, tag: str, how: str) -> None:
    server = small(tag, recycle_after=1)
    async with forking(tmp_path, server) as opener:
        renewed = asyncio.Event()
        server.on_renewed = renewed.set
        kernel = await opener()
        pid = await kernel.value(ORPHANS.format(double=True, fresh=True, execs=True))
        parent = parent_of(pid)
        assert parent == parent_of(kernel.pid)
        await asyncio.wait_for(renewed.wait(), PROCESS)
        if how == "retired":
            await kernel.close()
        else:
            await server.aclose()
        try:
            await eventually(lambda: not process_exists(pid))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await gone(tag)


# -- replacing the process -----------------------------------------------------------------------------


async def test_a_forkserver_is_replaced_without_a_gap(tmp_path: Path, tag: str) -> None:
    server = small(tag, recycle_after=3)
    renewals = 0
    renewed = asyncio.Event()

    def on_renewed() -> None:
        nonlocal renewals
        renewals += 1
        renewed.set()

    server.on_renewed = on_renewed
    async with forking(tmp_path, server) as opener:
        kernels = [await opener() for _ in range(3)]
        (old,) = {parent_of(kernel.pid) for kernel in kernels}
        # The next process is on its way; until it is there, the old one forks.
        kernels.append(await opener())
        await asyncio.wait_for(renewed.wait(), PROCESS)
        kernels.append(await opener())
        new = parent_of(kernels[-1].pid)
        assert new != old
        assert set(server.pids) == {old, new}
        assert renewals == 1
        of_old = [kernel for kernel in kernels if parent_of(kernel.pid) == old]
        assert len(of_old) >= 3
        assert [await kernel.value("print(1)") for kernel in of_old] == [1] * len(of_old)
        for kernel in of_old[1:]:
            await kernel.close()
        assert process_exists(old)
        assert await of_old[0].value("print(2)") == 2
        await of_old[0].ask_to_end()
        assert await of_old[0].ended() == "the kernel process exited with code 0"
        await eventually(lambda: not process_exists(old))
        await eventually(lambda: server.pids == [new])
        assert await kernels[-1].value("print(3)") == 3
    await gone(tag)


@pytest.mark.wide
async def test_an_old_forkserver_is_replaced_by_its_age(tmp_path: Path, tag: str) -> None:
    server = small(tag, recycle_seconds=0.0)
    renewed = asyncio.Event()
    server.on_renewed = renewed.set
    async with forking(tmp_path, server) as opener:
        first = await opener()
        await asyncio.wait_for(renewed.wait(), PROCESS)
        assert parent_of((await opener()).pid) != parent_of(first.pid)


# -- many, large, cancelled, closed --------------------------------------------------------------------


async def test_more_forks_at_once_than_the_socket_holds_all_succeed(tmp_path: Path, tag: str) -> None:
    server = small(tag)
    large = {f"LARGE_{number}": "x" * 1000 for number in range(60)}
    async with forking(tmp_path, server):
        starting = [ForkedKernel.start(server, cwd=tmp_path, env=large) for _ in range(20)]
        kernels = await asyncio.wait_for(asyncio.gather(*starting), PROCESS)
        assert len({kernel.pid for kernel in kernels}) == 20
        await asyncio.gather(*(kernel.end() for kernel in kernels))
    await gone(tag)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """For sockets, so that those of others do not show."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return Path(tempfile.gettempdir())


async def test_an_environment_that_is_too_large_is_an_error(loaded: Opener, own_folder: Path) -> None:
    with pytest.raises(KernelStartError, match="environment of the kernel is too large"):
        await loaded(env={"HUGE": "x" * 1_000_000})
    assert list(own_folder.iterdir()) == []
    assert all(not parent._pending for parent in loaded.server._parents)
    assert (
        await (await loaded(env={"LARGE": "x" * 100_000})).value("import os\nprint(len(os.environ['LARGE']))")
        == 100_000
    )


async def test_a_fork_that_is_cancelled_leaves_nothing(tmp_path: Path, tag: str, own_folder: Path) -> None:
    server = small(tag)
    async with forking(tmp_path, server) as opener:
        await (await opener()).close()
        (parent,) = server.pids
        await eventually(lambda: not children(parent))
        gc.collect()
        before = descriptors()

        async def cancel(when: Callable[[], bool], turns: int) -> None:
            starting = asyncio.ensure_future(ForkedKernel.start(server, cwd=tmp_path))
            for _ in range(turns):
                await asyncio.sleep(0)
            while not when():
                pass  # our event loop does not turn meanwhile: the answer is there, and not yet read
            starting.cancel()
            kernel = await asyncio.gather(starting, return_exceptions=True)
            if isinstance(kernel[0], ForkedKernel):  # it was there before it could be cancelled
                await kernel[0].end()
            else:
                assert isinstance(kernel[0], asyncio.CancelledError)

        for turns in (0, 1, 2, 3, 5, 10, 50, 200):
            await cancel(lambda: True, turns)
        for _ in range(3):
            await eventually(lambda: not children(parent))
            await cancel(lambda: bool(children(parent)), 2)
        await eventually(lambda: not children(parent))
        await eventually(lambda: list(own_folder.iterdir()) == [])
        gc.collect()
        await eventually(lambda: descriptors() <= before)  # what was told of a kernel that has ended is read later
        assert await (await opener()).value("print(1)") == 1
        assert server.pids == [parent]
    own_folder.rmdir()
    await gone(tag)


@pytest.mark.wide
@pytest.mark.parametrize("turns", [0, 1, 3, 10])
async def test_a_first_fork_that_is_cancelled_leaves_a_forkserver_that_can_be_used(
    tmp_path: Path, tag: str, own_folder: Path, turns: int
) -> None:
    before = descriptors()
    async with forking(tmp_path, small(tag)) as opener:
        starting = asyncio.ensure_future(ForkedKernel.start(opener.server, cwd=tmp_path))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert list(own_folder.iterdir()) == []
        assert await (await opener()).value("print(1)") == 1
    own_folder.rmdir()
    await gone(tag)
    gc.collect()
    assert descriptors() <= before


async def test_closing_ends_the_kernels_that_are_left(tmp_path: Path, tag: str) -> None:
    before = descriptors()
    async with forking(tmp_path, small(tag)) as opener:
        kernels = [await opener(), await opener()]
        busy = await kernels[0].start_cell("print('now', flush=True); sum(range(10**12))")
        await busy.shows("now")
        await opener.server.aclose()
        assert not any(process_exists(kernel.pid) for kernel in kernels)
        assert ["the kernel process" in await kernel.ended() for kernel in kernels] == [True, True]
        assert (await busy.result()).status == "kernel_died"
        await opener.server.aclose()
        assert opener.server.pids == []
        with pytest.raises(KernelStartError, match="closed"):
            await opener()
        with pytest.raises(KernelStartError, match="closed"):
            await opener.server.load()
    await gone(tag)
    gc.collect()
    assert descriptors() <= before


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
async def test_closing_while_the_process_boots_tells_whoever_waits(tmp_path: Path, tag: str, turns: int) -> None:
    before = descriptors()
    async with forking(tmp_path, small(tag)) as opener:
        waiting = [asyncio.ensure_future(opener()), asyncio.ensure_future(opener.server.load())]
        for _ in range(turns):
            await asyncio.sleep(0)
        await opener.server.aclose()
        for told in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(told, KernelStartError), repr(told)
    await gone(tag)
    gc.collect()
    assert descriptors() <= before


async def test_closing_at_once_and_twice_is_fine(tag: str) -> None:
    server = small(tag)
    await server.aclose()
    await server.aclose()
    assert server.pids == []
    assert not living(lambda pid: pid in tagged(tag))


async def test_an_interpreter_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    async with forking(tmp_path, ForkServer(python=str(tmp_path / "no-python"))) as opener:
        with pytest.raises(KernelStartError, match="cannot be started"):
            await opener()
    script = tmp_path / "no-cellrun"
    script.write_text("#!/bin/sh\necho 'there is no such module here' >&2\nexit 1\n")
    script.chmod(0o755)
    async with forking(tmp_path, ForkServer(python=str(script))) as opener:
        with pytest.raises(KernelStartError, match="there is no such module here"):
            await opener()


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
async def test_a_kernel_is_reached_over_either_transport(loaded: Opener, transport: Any) -> None:
    kernel = await loaded(transport=transport)
    assert kernel.kernel.connection["transport"] == transport
    assert await kernel.value("print(6 * 7)") == 42
    await kernel.close()
    assert not kernel.folder.exists()
