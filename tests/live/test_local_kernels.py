"""Kernel processes on this machine: how they die, what they leave, which they are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import zmq
from jupyter_client.session import Session

from cellrun import (
    AsyncSession,
    ConnectionFailed,
    Event,
    InputRequest,
    KernelStartError,
    LimitExceeded,
    LocalKernels,
    SessionLost,
    Stdout,
)
from cellrun.channels.base import Channel, Gone, Incoming
from cellrun.channels.client import KernelClient
from cellrun.channels.zmq import ZmqChannel
from cellrun.protocol.message import Message
from cellrun.providers import local_lease
from cellrun.providers.local_lease import LocalLease
from tests.support.leases import lease_of
from tests.support.waiting import HANG, PROCESS, eventually, process_exists


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "the kernel process exited with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL (signal 9: killed)"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV (signal 11: segmentation fault)"),
        ("import os; os.abort()", "killed by SIGABRT"),
    ],
)
async def test_a_death_is_named_at_once(code: str, reason: str) -> None:
    async with AsyncSession() as session:
        said = asyncio.Event()

        def on_event(event: Event) -> None:
            if isinstance(event, Stdout) and "\n" in event.text:
                said.set()

        async def on_input(request: InputRequest) -> str:
            await asyncio.wait_for(said.wait(), HANG)
            return ""

        async with asyncio.timeout(2 * HANG):
            code = f"print('before', flush=True)\ninput()\n{code}"
            result = await session.run(code, on_event=on_event, on_input=on_input)
        assert (result.status, result.stdout) == ("kernel_died", "before\n")
        assert reason in (result.reason or "")


async def test_a_death_between_runs_is_told_to_the_next_one() -> None:
    async with AsyncSession() as session:
        await session.run("1")
        os.kill(pid_of(session), signal.SIGKILL)
        await eventually(lambda: "kernel is gone" in repr(session))
        result = await session.run("1")
        assert result.ok
        assert "SIGKILL" in (result.restarted or "")


@pytest.mark.wide
@pytest.mark.parametrize("sandbox", ["auto", "none"])
async def test_after_exit_every_run_has_a_fresh_kernel(sandbox: Literal["auto", "none"]) -> None:
    async with LocalKernels(sandbox=sandbox, pool=1) as kernels, AsyncSession(kernels) as session:
        for word in ("exit()", "quit"):
            first, second, third = await asyncio.gather(*(session.run(code) for code in (word, "6 * 7", "1")))
            assert first.ok
            assert (second.text, second.restarted) == ("42", "the code called exit()")
            assert (third.text, third.restarted) == ("1", None)


async def test_magics_keep_what_they_keep_in_the_sessions_own_profile() -> None:
    async with LocalKernels(pool=0) as kernels, AsyncSession(kernels) as session:
        assert (await session.run("%cd /usr")).text == "/usr"
        assert (await session.run("x = 3\n%store x")).ok
        assert (await session.run("del x\n%store -r x\nx")).text.endswith("3")
        async with AsyncSession(kernels) as other:
            assert not (await other.run("%store -r x\nx")).ok


def pid_of(session: AsyncSession) -> int:
    """Of its kernel, for us: in a sandbox it has another number for itself."""
    lease = lease_of(session)
    assert isinstance(lease, LocalLease)
    return lease.pid


def memory_cgroup() -> Path | None:
    """A folder of the memory controller in which we may make groups: version 2 or 1."""
    for base, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        probe = Path(base) / f"cellrun-test-{os.getpid()}"
        if not Path(base, "cgroup.procs").exists():  # of version 1 this is only the folder of the controllers
            continue
        try:
            probe.mkdir()
            probe.joinpath(limit).write_text(str(300 * 2**20))
        except OSError:
            if probe.is_dir():
                probe.rmdir()
            continue
        return probe
    return None


async def test_running_out_of_memory_is_named() -> None:
    group = memory_cgroup()
    try:
        async with AsyncSession(LocalKernels(sandbox="none", pool=0)) as session:
            pid = int((await session.run("import os; os.getpid()")).text)
            if group is not None:
                group.joinpath("cgroup.procs").write_text(str(pid))
                code = "x = bytearray(800 * 2**20)\nfor i in range(0, len(x), 4096): x[i] = 1"
                result = await session.run(code, timeout=30)
                assert result.status == "kernel_died"
                assert "ran out of memory" in (result.reason or "")
            else:
                # No group can be made here: what the system's own killer does is only a SIGKILL then.
                from cellrun.launch.death import describe_exit

                assert "out of memory" in describe_exit(-9, out_of_memory=True)
    finally:
        if group is not None:
            await eventually(lambda: not group.joinpath("cgroup.procs").read_text().split())
            group.rmdir()


async def test_children_grandchildren_and_daemons_end_with_the_session() -> None:
    code = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "300"]).pid
own_group = subprocess.Popen(["sleep", "300"], start_new_session=True).pid
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    daemon = os.fork()
    if daemon == 0:
        os.execvp("sleep", ["sleep", "300"])
    os.write(write, str(daemon).encode())
    os._exit(0)
time.sleep(0.2)
print(os.getpid(), child, own_group, int(os.read(read, 20)))
"""
    async with AsyncSession(LocalKernels(sandbox="none", pool=0)) as session:
        result = await session.run(code, timeout=HANG)
        pids = [int(pid) for pid in result.stdout.split()]
        assert len(pids) == 4
        assert all(process_exists(pid) for pid in pids)
    await eventually(lambda: not any(process_exists(pid) for pid in pids))


async def test_exit_handlers_run_and_open_files_are_flushed_when_a_session_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_lease, "_SHUTDOWN_GRACE", HANG)  # a second is little on a busy machine
    async with LocalKernels(cwd=tmp_path) as provider, AsyncSession(provider) as session:
        result = await session.run(
            "import atexit\natexit.register(lambda: open('bye', 'w').write('x'))\nf = open('kept', 'w'); f.write('y');"
        )
        assert result.files == ("kept",)
    assert (tmp_path / "bye").read_text() == "x"
    assert (tmp_path / "kept").read_text() == "y"


async def test_nothing_of_a_session_is_left_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)  # sessions with a uid of their own must be able to pass through
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    async with AsyncSession() as session:
        await session.run("open('x', 'w').close()")
        # The sessions' folder; that of the sockets is gone, and nobody else can connect any more.
        assert ["rooms" in path.name for path in folder.iterdir()] == [True]
    folder.rmdir()  # it is empty


async def test_a_long_temporary_folder_does_not_break_the_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    async with AsyncSession() as session:
        assert (await session.run("1 + 1")).text == "2"


async def test_an_unknown_kernelspec_is_named_with_those_that_exist() -> None:
    async with LocalKernels(kernel="no such") as provider:
        with pytest.raises(KernelStartError, match=r"no kernelspec named 'no such'.*installed are: .*python3"):
            await provider.acquire(PROCESS)


async def test_a_kernel_that_crashes_at_its_start_says_why(bash_kernelspec: str) -> None:
    async with LocalKernels(kernel="crashing") as provider:
        started = time.monotonic()
        with pytest.raises(KernelStartError, match=r"exited with code 1.*cannot start: a reason"):
            await provider.acquire(PROCESS)
        assert time.monotonic() - started < PROCESS / 2


@pytest.mark.wide
async def test_a_kernel_of_another_language_works(bash_kernelspec: str) -> None:
    async with LocalKernels(kernel=bash_kernelspec) as provider, AsyncSession(provider) as session:
        assert session.language == "bash"
        result = await session.run('x=5; echo "x is $x"; echo oops >&2')
        assert result.ok
        assert "x is 5" in result.stdout
        assert (await session.run("echo $x")).stdout.strip() == "5"
        result = await session.run("for i in 1 2 3; do sleep 10; done", timeout=1)
        assert result.status == "timeout"
        assert "still" in (await session.run("echo still here", timeout=HANG)).stdout


async def test_the_working_folder_and_the_environment_are_the_callers(tmp_path: Path) -> None:
    async with LocalKernels(cwd=tmp_path, env={"MINE": "yes"}) as provider, AsyncSession(provider) as session:
        result = await session.run("import os; print(os.getcwd(), os.environ['MINE'])")
        assert result.stdout == f"{tmp_path} yes\n"
    assert tmp_path.is_dir()
    async with LocalKernels(cwd=tmp_path / "missing") as provider:
        with pytest.raises(KernelStartError, match="does not exist"):
            await provider.acquire(PROCESS)


async def test_the_result_names_the_files_that_were_made_or_changed() -> None:
    async with AsyncSession() as session:
        await session.files.write("old.txt", "1")
        first = await session.run(
            "import os; os.mkdir('d'); open('d/new.txt', 'w').write('x'); os.symlink('/etc/passwd', 'link');"
        )
        second = await session.run("open('old.txt', 'a').write('2');")
        third = await session.run("1")
        assert (first.files, second.files, third.files) == (("d/new.txt",), ("old.txt",), ())


async def test_links_and_pipes_that_code_plants_are_not_followed() -> None:
    async with AsyncSession() as session:
        await session.run("import os\nos.symlink('/etc/passwd', 'link'); os.symlink('/etc', 'dir'); os.mkfifo('pipe')")
        for path in ("link", "dir/passwd"):
            with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
                await session.files.read(path)
        with pytest.raises(PermissionError, match="not a regular file"):
            await asyncio.wait_for(session.files.read("pipe"), HANG)
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            await session.files.write("dir/owned", b"x")
        await session.files.write("link", b"replaced, not followed")
        assert await session.files.read("link") == b"replaced, not followed"
        assert "root:" in Path("/etc/passwd").read_text()
        assert sorted(info.path for info in await session.files.list()) == ["link"]


async def test_a_forked_or_spawned_child_of_the_cell_prints_too() -> None:
    async with AsyncSession() as session:
        result = await session.run("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(40 + 2)'])")
        assert "42\n" in result.stdout


def test_ctrl_c_in_a_program_leaves_no_kernel(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, cellrun\n"
        "async def main():\n"
        "    async with cellrun.AsyncSession() as session:\n"
        "        await session.run('1')\n"
        "        print(session._backend.lease.pid, flush=True)\n"
        "        await session.run('import time; time.sleep(60)')\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    kernel = int(process.stdout.readline())
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PROCESS)
    assert "KeyboardInterrupt" in stderr
    deadline = time.monotonic() + HANG
    while process_exists(kernel):
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_messages_that_are_not_signed_by_the_kernel_are_not_believed() -> None:
    """Code that knows the sockets but not the key cannot speak for the kernel."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = context.socket(zmq.XPUB)  # which is told of subscribers
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    ports = dict.fromkeys(("iopub_port", "shell_port", "stdin_port", "control_port"), port)
    channel = ZmqChannel({"transport": "tcp", "ip": "127.0.0.1", "key": "right", **ports}, context)
    try:
        receiving = asyncio.create_task(channel.receive())
        await eventually(lambda: publisher.poll(0))
        for key in (b"wrong", b"right"):
            header = {"msg_id": "x_1_1", "msg_type": "stream", "session": "x"}
            content = {"name": "stdout", "text": key.decode()}
            parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
            publisher.send_multipart([b"t", b"<IDS|MSG>", Session(key=key).sign(parts), *parts])
            publisher.send_multipart([b"t", b"<IDS|MSG>", b"", b"not json"])
            publisher.send_multipart([b"no delimiter"])
        # They come in their order: with the right one, what came before it has been thrown away.
        messages = await asyncio.wait_for(receiving, HANG)
        assert [message.content["text"] for message in messages if isinstance(message, Message)] == ["right"]
    finally:
        await channel.aclose()
        publisher.close(linger=0)
        context.term()


@pytest.mark.parametrize("once", [True, False])
async def test_a_channel_whose_context_is_ended_closes_itself_and_holds_up_nobody(once: bool, tmp_path: Path) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    ports = {f"{name}_port": number for number, name in enumerate(("iopub", "shell", "stdin", "control"), 1)}
    address = {"transport": "ipc", "ip": str(tmp_path / "k"), "key": "right"}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    channel = ZmqChannel(address | ports, context, once=once)
    ending = threading.Thread(target=context.term, daemon=True)
    ending.start()
    async with asyncio.timeout(HANG):
        (gone,) = await channel.receive()
        assert gone == Gone("the connection was closed")
        with pytest.raises(ConnectionFailed, match="is closed"):
            await channel.send(Message("shell", {}, {}, {}, {}))
        await eventually(lambda: not ending.is_alive())
    assert not faults


@pytest.mark.parametrize("steps", range(4))
async def test_a_client_whose_end_is_cancelled_closes_its_channel_all_the_same(steps: int) -> None:
    class Open(Channel):
        closed = False

        async def send(self, message: Message) -> None:
            raise AssertionError("nothing is asked")

        async def receive(self) -> Sequence[Incoming]:
            await asyncio.Event().wait()
            raise AssertionError("it waits")

        async def aclose(self) -> None:
            self.closed = True

    channel = Open()
    client = KernelClient(channel)
    await asyncio.sleep(0)
    closing = asyncio.create_task(client.aclose())
    for _ in range(steps):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await client.aclose()
    assert channel.closed


async def test_a_restart_that_is_overtaken_by_the_end_leaves_no_socket_open() -> None:
    async with LocalKernels(pool=0, preload=()) as kernels:
        lease = await kernels.acquire(PROCESS)
        (reader,) = [task for task in asyncio.all_tasks() if task.get_name() == "cellrun kernel reader"]
        restarting = asyncio.create_task(lease.restart(PROCESS))
        while not reader.cancelling():
            await asyncio.sleep(0)
        await lease.release()
        with pytest.raises(SessionLost, match="closed while the kernel started"):
            await restarting
    # The end of their ZeroMQ context, which waits for the last socket to be closed, is over.
    assert "term" not in {frame.f_code.co_name for frame in sys._current_frames().values()}


@pytest.mark.wide
@pytest.mark.parametrize(
    "code",
    ["import os; os.closerange(3, 200)", "print('x' * 300_000_000)"],
    ids=["closes its sockets", "says too much"],
)
async def test_a_kernel_that_cannot_be_heard_any_more_is_given_up(code: str) -> None:
    async with AsyncSession() as session:
        await session.run("1")
        result = await session.run(code)
        assert result.status == "kernel_died"
        # libzmq, too, may find out that its sockets are gone.
        cut_off = "the kernel closed its connection, or sent a message of more than 256 MiB"
        assert result.reason in (cut_off, "the kernel process was killed by SIGABRT (signal 6: aborted)")
        assert (await session.run("2")).text == "2"


async def test_a_file_without_end_is_not_held_in_memory() -> None:
    async with AsyncSession() as session:
        await session.run("open('sparse', 'wb').truncate(200 * 2**20)")
        with pytest.raises(LimitExceeded, match=r"'sparse' has more than 1 MiB: read it by chunks"):
            await session.files.read("sparse", limit=2**20)
        assert len(await session.files.read("sparse")) == 200 * 2**20
        assert len(await session.files.read("sparse", limit=None)) == 200 * 2**20
