"""One kernel on this machine in its holder's hands: process, sockets, folder, walls."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import zmq

from cellrun.channels.client import KernelClient
from cellrun.channels.zmq import ZmqChannel
from cellrun.errors import CellrunError, ConnectionFailed, KernelStartError, SessionLost
from cellrun.launch.cpu_time import cpu_seconds
from cellrun.launch.forked import ForkedKernel
from cellrun.launch.forkserver import ForkServer
from cellrun.launch.process import KernelProcess
from cellrun.launch.sandbox.enclosure import Enclosure
from cellrun.launch.sandbox.policy import SandboxPolicy
from cellrun.launch.sandbox.sandbox import Sandbox
from cellrun.launch.sandbox.watch import Usage
from cellrun.launch.threads import in_thread
from cellrun.protocol.kernel import KernelState
from cellrun.providers.base import FileStore, Lease
from cellrun.providers.local_files import LocalFiles
from cellrun.providers.prepare import prepare

# An idle kernel is asked to end before it is killed, so that its exit handlers run and files are flushed.
_SHUTDOWN_GRACE: Final = 1.0
_LOOK: Final = 0.05
_FORKSERVERS: Final = 3  # that may end one after the other while one kernel starts


class _Process(Protocol):
    """What a lease wants of a kernel process, forked or started."""

    on_exit: Callable[[str], None] | None
    exit_reason: str | None

    @property
    def pid(self) -> int: ...
    @property
    def connection(self) -> dict[str, object]: ...
    @property
    def alive(self) -> bool: ...
    @property
    def stderr(self) -> str: ...
    async def interrupt(self) -> None: ...
    async def sealed(self) -> None: ...
    def usage(self) -> Usage: ...
    def end_for(self, cause: str) -> None: ...
    async def exited(self, timeout: float) -> bool: ...
    async def end(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How kernels are made, the same for all of one provider, and whom to tell what becomes of them."""

    kernel: str
    cwd: Path | None
    env: Mapping[str, str]
    transport: Literal["ipc", "tcp"]
    policy: SandboxPolicy | None
    sandbox: Sandbox | None
    server: ForkServer | None
    context: zmq.Context[zmq.Socket[bytes]]
    give_back: Callable[[LocalLease], None]
    lost: Callable[[LocalLease], None]
    quiet: Callable[[], None]


class LocalLease(Lease):
    """One kernel process, its sockets and its folder."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._ended = asyncio.Event()
        self._leaving = False
        self._process: _Process | None = None
        self._enclosure: Enclosure | None = None
        self._own_folder = ways.cwd is None
        self.containment = "none" if ways.sandbox is None else ways.sandbox.containment
        self._lifetime: asyncio.TimerHandle | None = None
        self._ready = False
        self._look: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """Of the kernel's process; 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    @property
    def watched(self) -> _Process | None:
        """The process, once code may run in it."""
        return self._process if self._process is not None and self._process.alive and self._ready else None

    @property
    def executing(self) -> bool:
        """Whether a cell runs."""
        return self._process is not None and hasattr(self, "client") and self.client.executing

    async def start(self, timeout: float) -> None:
        """A ready kernel process. Raises KernelStartError; then nothing of it is left but the folder."""
        deadline = time.monotonic() + timeout
        await self._make_folder()
        for left in range(_FORKSERVERS, -1, -1):
            try:
                await self._start_once(deadline)
                return
            except KernelStartError:
                # A kernel that nobody has asked anything yet dies with its forkserver; there is another one then.
                if not left or not isinstance(self._process, ForkedKernel) or not self._process.orphaned:
                    raise
            await self._stop()

    async def _make_folder(self) -> None:
        """Once: it outlives a restart."""
        if hasattr(self, "folder"):
            return
        try:
            if self._ways.sandbox is not None:
                self._enclosure = await in_thread(Enclosure, self._ways.sandbox, undo=Enclosure.close)
                self.folder = self._enclosure.folder
            else:
                self.folder = Path(tempfile.mkdtemp(prefix="cellrun-work-")) if self._own_folder else Path()
        except OSError as error:
            raise KernelStartError(
                f"there can be no folder for the session: {error.strerror or error}", retryable=True
            ) from None
        if not self._own_folder:
            assert self._ways.cwd is not None
            self.folder = self._ways.cwd
        owner = None if self._enclosure is None else self._enclosure.room.uid
        self._files = LocalFiles(self.folder, owner=owner, contained=self._enclosure is not None and self._own_folder)

    async def _start_once(self, deadline: float) -> None:
        if not self.folder.is_dir():
            raise KernelStartError(f"the working folder does not exist or is no folder: {self.folder}")
        process = self._process = await self._make_process()
        contained = self._enclosure is not None
        channel = ZmqChannel(
            process.connection, self._ways.context, once=self._ways.server is not None, final=contained
        )
        self.client = KernelClient(channel)
        self.client.on_quiet = self._on_quiet
        process.on_exit = self._on_exit
        try:
            if process.exit_reason is not None:
                channel.gone(process.exit_reason)
            await self.client.wait_ready(deadline - time.monotonic())
            await channel.connected(deadline - time.monotonic())
            await process.sealed()
            if self._ways.server is None:
                terminals = self._ways.sandbox is None or self._ways.sandbox.walls.terminals
                await prepare(self.client, timeout=max(0.1, deadline - time.monotonic()), terminals=terminals)
            self._ready = True
            self._limit_lifetime(process)
        except KernelStartError as error:
            said = process.stderr.strip()
            text = f"{error}; it said: …{said[-500:]}" if said else str(error)
            raise KernelStartError(text, retryable=error.retryable) from None

    async def _make_process(self) -> _Process:
        ways = self._ways
        if self._ways.server is not None:
            return await ForkedKernel.start(
                self._ways.server,
                cwd=self.folder,
                env=ways.env,
                transport=ways.transport,
                enclosure=self._enclosure,
            )
        return await KernelProcess.start(
            ways.kernel,
            cwd=self.folder,
            env=ways.env,
            transport=ways.transport,
            context=self._ways.context,
            enclosure=self._enclosure,
        )

    def _limit_lifetime(self, process: _Process) -> None:
        lifetime = None if self._ways.policy is None else self._ways.policy.lifetime
        if lifetime is not None:
            cause = f"its lifetime of {lifetime:g} s is over"
            self._lifetime = asyncio.get_running_loop().call_later(lifetime, process.end_for, cause)

    def _on_quiet(self) -> None:
        if self._enclosure is not None and self._look is None:
            # Not for each cell: it is a file of the system's, whose reading takes a tenth of a millisecond.
            self._look = asyncio.get_running_loop().call_later(_LOOK, self._look_back, self._enclosure)
        self._ways.quiet()

    def _look_back(self, enclosure: Enclosure, kills: int | None = None) -> None:
        """In two steps: a kernel that was killed may not be known to be dead yet when the kills are counted."""
        self._look = None
        if not self._ready or self._process is None or not self._process.alive:
            return
        if kills is None:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(_LOOK, self._look_back, enclosure, enclosure.kills)
        else:
            enclosure.outlived(kills)

    def _on_exit(self, reason: str) -> None:
        channel = self.client.channel
        assert isinstance(channel, ZmqChannel)
        channel.gone(reason)
        self._ways.lost(self)

    async def open_files(self) -> FileStore:
        return self._files

    def snapshot(self) -> dict[str, tuple[int, int]] | None:
        return self._files.snapshot()

    def cpu_seconds(self) -> float | None:
        enclosure = self._enclosure
        counted = None if enclosure is None else enclosure.cpu_seconds
        if counted is not None:
            return counted
        return cpu_seconds(self.pid) if self.pid > 0 else None

    def disk_bytes(self) -> int | None:
        return self._files.disk_bytes() if hasattr(self, "_files") and self._own_folder else None

    async def interrupt(self) -> None:
        if self._process is None or not self._process.alive:
            raise ConnectionFailed("there is no kernel process to interrupt")
        await self._process.interrupt()

    async def kill(self) -> None:
        if self._process is not None:
            # The exit is reported to the channel by the process's watch, as any other death.
            on_exit = self._process.on_exit
            await self._process.end()
            if on_exit is not None:
                on_exit("the kernel process was killed")

    async def restart(self, timeout: float) -> None:
        await self._give_up_start()
        if self._leaving:
            raise SessionLost("the provider is closed")
        # Whoever ends the lease waits for it, also when we are cancelled.
        await self._unless_ended(self._restart(timeout))

    async def _restart(self, timeout: float) -> None:
        await self._stop()
        await self.start(timeout)

    async def _give_up_start(self) -> None:
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait({self._starting})

    async def _release(self) -> None:
        self._leaving = True
        self._ways.give_back(self)
        # Nobody sees what a kernel with a folder of its own still writes at its end: the holder need not wait for that.
        if not self._own_folder:
            await self._ended.wait()

    async def end(self) -> None:
        """Asks the kernel to end, makes sure, and removes its folder. Bounded; never raises."""
        self._leaving = True
        await self._give_up_start()
        with contextlib.suppress(Exception):
            await self._ask_to_end()
        await self._stop()
        if hasattr(self, "folder"):
            await in_thread(self._remove_folder)
        self._ended.set()

    def _remove_folder(self) -> None:
        if self._enclosure is not None:
            self._enclosure.close()
        elif self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _ask_to_end(self) -> None:
        process = self._process
        if process is None or not process.alive or self.client.state is not KernelState.READY:
            return
        if self.client.executing:
            return
        with contextlib.suppress(CellrunError):
            await self.client.ask("shutdown_request", {"restart": False}, channel="control", timeout=_SHUTDOWN_GRACE)
            await process.exited(_SHUTDOWN_GRACE)

    async def _stop(self) -> None:
        self._ready = False
        for timer in (self._lifetime, self._look):
            if timer is not None:
                timer.cancel()
        self._look = None
        process = self._process
        if process is not None:
            await process.end()
            if self._process is process:
                self._process = None
        if hasattr(self, "client"):
            await self.client.aclose()
