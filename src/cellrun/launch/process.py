"""A kernel process on this machine: started by jupyter_client, watched, and ended with all its children.

Nothing here knows about sessions or messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import zmq
import zmq.asyncio
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from cellrun.errors import KernelStartError
from cellrun.launch.death import OomWatch, describe_exit
from cellrun.launch.descendants import MARK, kill_family
from cellrun.launch.endpoints import socket_folder
from cellrun.launch.sandbox import paths
from cellrun.launch.sandbox.enclosure import Enclosure
from cellrun.launch.sandbox.watch import Usage
from cellrun.launch.threads import in_thread

_STDERR_KEPT: Final = 16 * 1024
STOCK: Final = "ipykernel"
"""The name under which stock ipykernel in this interpreter is had, whatever kernelspecs are installed."""


class KernelProcess:
    """One kernel process and its private folder of sockets. `await start()` makes it.

    `on_exit` is called once, from the event loop, with a text that says how the process ended.
    """

    def __init__(self, manager: AsyncKernelManager, folder: Path, mark: str) -> None:
        self._manager = manager
        self._folder = folder
        self._mark = mark
        self._loop = asyncio.get_running_loop()
        self._oom = OomWatch()
        self._stderr = bytearray()
        self._stderr_fd = -1
        self._go = -1
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._starting: asyncio.Future[Any] | None = None
        self.pid = 0
        self.exit_reason: str | None = None
        self.on_exit: Callable[[str], None] | None = None
        self.enclosure: Enclosure | None = None

    @classmethod
    async def start(
        cls,
        kernel: str,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        transport: str = "ipc",
        context: zmq.Context[zmq.Socket[bytes]],
        enclosure: Enclosure | None = None,
    ) -> KernelProcess:
        """Starts the kernel of this kernelspec, in this enclosure or uncontained. `context` is shared, since each has a thread. Raises
        KernelStartError if there is no such kernelspec or its command cannot be run. Cancelled, it leaves nothing behind."""
        if enclosure is not None and transport != "ipc":
            raise KernelStartError(
                f'a started kernel that is contained has no network and cannot be reached by {transport}: use transport="ipc"'
            )
        try:
            folder = socket_folder() if enclosure is None else await in_thread(enclosure.make_sockets)
        except OSError as error:
            raise KernelStartError(f"there can be no folder for sockets: {error.strerror or error}") from None
        mark = uuid.uuid4().hex
        manager = AsyncKernelManager(
            kernel_name=kernel,
            transport=transport,
            connection_file=str(folder / "kernel.json"),
            context=zmq.asyncio.Context(shadow=context),
        )
        manager.shutdown_wait_time = 0
        if kernel == STOCK:
            manager._kernel_spec = KernelSpec(**get_kernel_dict())
        if transport == "ipc":
            manager.ip = str(folder / "k")
        process = cls(manager, folder, mark)
        process.enclosure = enclosure
        try:
            await process._launch(kernel, cwd, _environment(env or {}, mark, enclosure))
        except BaseException:
            await process.end()
            raise
        return process

    async def _launch(self, kernel: str, cwd: Path, env: dict[str, str]) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        self._stderr_fd = read
        self._loop.add_reader(read, self._read_stderr)
        how: dict[str, Any] = {"cwd": str(cwd)}
        with contextlib.ExitStack() as stack:
            if self.enclosure is not None and self._has_spec():
                how = self._walled_in(cwd, stack)
            # Not cancelled half-way: a process that we never learned of could not be ended.
            self._starting = asyncio.ensure_future(
                self._manager.start_kernel(
                    env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=write, **how
                )
            )
            kept = stack.pop_all()
            self._starting.add_done_callback(lambda _: kept.close())
        try:
            await asyncio.shield(self._starting)
        except NoSuchKernel:
            known = ", ".join(sorted(KernelSpecManager().find_kernel_specs())) or "none"
            raise KernelStartError(
                f"there is no kernelspec named {kernel!r} on this machine; installed are: {known} "
                "(`jupyter kernelspec list` shows where)"
            ) from None
        except OSError as error:
            raise KernelStartError(f"the command of kernelspec {kernel!r} cannot be run: {error.strerror}") from None
        finally:
            if self._starting.done():
                os.close(write)
            else:
                self._starting.add_done_callback(lambda _: os.close(write))
        self._find_process()
        if self.enclosure is not None:
            await self._admit(self.enclosure)
        if hasattr(os, "pidfd_open") and self.pid:
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._on_exit)
        else:
            self._poller = asyncio.create_task(self._poll_for_exit())

    async def _admit(self, enclosure: Enclosure) -> None:
        """Its limits hold before the program begins. Raises KernelStartError."""
        try:
            await in_thread(enclosure.admit_all, self.pid)
            with contextlib.suppress(
                BrokenPipeError
            ):  # it has ended already: what it said is told by whoever waits for it
                os.write(self._go, b"g")
        except OSError as error:
            why = error.strerror or str(error)
            raise KernelStartError(f"the kernel could not be put into its control group: {why}") from None

    def _has_spec(self) -> bool:
        """Whether there is such a kernelspec; otherwise the start says so."""
        try:
            return self._manager.kernel_spec is not None
        except NoSuchKernel:
            return False

    def _walled_in(self, cwd: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
        """Has the kernelspec's command started behind the walls; gives what that takes."""
        assert self.enclosure is not None
        spec = self._manager.kernel_spec
        assert spec is not None
        go, self._go = os.pipe()
        stack.callback(os.close, go)
        told = stack.enter_context(self.enclosure.as_file(str(cwd), go))
        self._manager._kernel_spec = KernelSpec(
            **{**spec.to_dict(), "argv": [*self.enclosure.command(told), *spec.argv], "resource_dir": spec.resource_dir}
        )
        self._manager.write_connection_file()  # which it does only once: then it can be given away
        self.enclosure.own(self._folder)
        return {"cwd": "/", "pass_fds": [told, go]}

    def _find_process(self) -> None:
        self.pid = int(getattr(self._manager.provisioner, "pid", 0) or 0)

    @property
    def connection(self) -> dict[str, Any]:
        """The content of the connection file, the key as text."""
        info = dict(self._manager.get_connection_info())
        key = info["key"]
        return {**info, "key": key.decode("ascii") if isinstance(key, bytes) else key}

    @property
    def alive(self) -> bool:
        return self.pid != 0 and self.exit_reason is None

    @property
    def stderr(self) -> str:
        """The last 16 KiB that the process wrote to its own standard error, not the cells' output."""
        return self._stderr.decode("utf-8", "replace")

    async def interrupt(self) -> None:
        """As the kernelspec wants it: SIGINT to the process group, or a message on control."""
        kernel = None if self.enclosure is None else self.enclosure.first_of(self.pid)
        spec = self._manager.kernel_spec
        if kernel is not None and spec is not None and spec.interrupt_mode == "signal":
            with contextlib.suppress(ProcessLookupError):  # within a sandbox: what we have started is around it
                os.kill(kernel, signal.SIGINT)
        else:
            await self._manager.interrupt_kernel()

    async def sealed(self) -> None:
        """Nobody else can connect to it from now on. Called when the client is connected, and before any code is sent."""
        if self.enclosure is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def usage(self) -> Usage:
        """What its session takes, so far as the system does not limit it."""
        return Usage() if self.enclosure is None else self.enclosure.usage(None)

    def end_for(self, cause: str) -> None:
        """SIGKILL, and `on_exit` says why."""
        if self.enclosure is not None and self.alive:
            self.enclosure.cause = cause
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.enclosure.first_of(self.pid) or self.pid, signal.SIGKILL)

    async def exited(self, timeout: float) -> bool:
        """Whether the process ends within this time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout)
        return self._ended.is_set()

    async def end(self) -> None:
        """SIGKILL to the process, its group and every descendant that can be found; then the folder goes."""
        self.on_exit = None
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
            self._find_process()
        if self.pid:
            kill_family(self.pid if self.exit_reason is None else None, self._mark)
            await self._reaped(2.0)
            if self.enclosure is not None:
                await in_thread(self.enclosure.end_all, None)
        self._unwatch()
        if self._stderr_fd >= 0:
            self._loop.remove_reader(self._stderr_fd)
            os.close(self._stderr_fd)
            self._stderr_fd = -1
        if self._go >= 0:
            os.close(self._go)
            self._go = -1
        with contextlib.suppress(Exception):
            await self._manager.cleanup_resources()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _reaped(self, timeout: float) -> None:
        """Until the process is gone and no zombie."""
        if self._pidfd >= 0 or self.exit_reason is not None:
            await self.exited(timeout)
            return
        popen = getattr(self._manager.provisioner, "process", None)  # cancelled before it was watched
        deadline = self._loop.time() + timeout
        while popen is not None and popen.poll() is None and self._loop.time() < deadline:
            await asyncio.sleep(0.005)

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        popen = getattr(self._manager.provisioner, "process", None)
        code = popen.poll() if popen is not None else None
        if popen is not None and code is None:
            return
        self._unwatch()
        self._read_stderr()
        if self.enclosure is not None:
            self.exit_reason = self.enclosure.describe_exit(code, started=True)
        else:
            self.exit_reason = describe_exit(code, out_of_memory=self._oom.happened())
        self._ended.set()
        if self.on_exit is not None:
            self.on_exit(self.exit_reason)

    async def _poll_for_exit(self) -> None:
        """Where there is no pidfd (macOS)."""
        while self.exit_reason is None:
            await asyncio.sleep(0.2)
            self._on_exit()

    def _read_stderr(self) -> None:
        """Keeps the end of what the process says; reading also keeps it from blocking on a full pipe."""
        try:
            while data := os.read(self._stderr_fd, 65536):
                self._stderr += data
                del self._stderr[:-_STDERR_KEPT]
        except BlockingIOError:
            return
        except OSError:
            pass
        if self._stderr_fd >= 0:
            self._loop.remove_reader(self._stderr_fd)


def _environment(extra: Mapping[str, str], mark: str, enclosure: Enclosure | None) -> dict[str, str]:
    """Ours, without the variable by which pytest marks a running test: ipykernel does not capture the output
    of subprocesses where it sees that (its iostream.py). Or the enclosure's."""
    if enclosure is not None:
        return {**enclosure.environment, **extra, MARK: mark}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {**inherited, **extra, MARK: mark}


def files_of(kernel: str) -> tuple[str, ...]:
    """Where the program of a kernelspec lies, and what belongs to it; nothing for one that is not installed."""
    if kernel == STOCK:
        return ()
    try:
        spec = KernelSpecManager().get_kernel_spec(kernel)
    except NoSuchKernel:
        return ()
    return paths.of_command(spec.argv, spec.resource_dir)


def is_own_python(kernel: str) -> bool:
    """Whether this kernelspec is ipykernel in this interpreter, with nothing set: what a forked kernel can stand in for."""
    try:
        spec = KernelSpecManager().get_kernel_spec(kernel)
    except NoSuchKernel:
        return False
    arguments = [argument for argument in spec.argv[1:] if not argument.startswith("-X")]
    own = spec.argv[0] in ("python", "python3", sys.executable) and arguments[:2] == ["-m", "ipykernel_launcher"]
    return own and kernel == "python3" and not spec.env
