"""Kernels on this machine: ordinary kernels of installed kernelspecs, over ipc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import zmq

from cellrun.channels.client import KernelClient
from cellrun.channels.zmq import ZmqChannel
from cellrun.errors import CellrunError, ConnectionFailed, KernelStartError
from cellrun.launch.process import KernelProcess
from cellrun.protocol.kernel import KernelState
from cellrun.providers.base import FileStore, Lease, Provider, finish
from cellrun.providers.local_files import LocalFiles
from cellrun.providers.prepare import prepare

# An idle kernel is asked to end before it is killed, so that its exit handlers run and files are flushed.
_SHUTDOWN_GRACE: Final = 1.0


class LocalKernels(Provider):
    """Starts a kernel process per session.

    kernel      name of an installed kernelspec (`jupyter kernelspec list`)
    cwd         working folder; None: a fresh temporary folder per session, removed with it
    env         environment variables in addition to this process's own
    transport   "ipc" (unix sockets in a private folder), or "tcp" for kernels that know only that

    Code runs with the rights of this process: nothing contains it, and `containment` says so ("none").
    """

    def __init__(
        self,
        *,
        kernel: str = "python3",
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        transport: Literal["ipc", "tcp"] = "ipc",
    ) -> None:
        super().__init__()
        self._kernel = kernel
        self._cwd = None if cwd is None else Path(cwd).absolute()
        self._env = dict(env or {})
        self._transport = transport
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._leases: set[LocalLease] = set()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._leases)} kernels"
        return f"<LocalKernels {self._kernel!r}, {state}>"

    async def acquire(self, timeout: float) -> LocalLease:
        self._check_open()
        if self._cwd is not None and not self._cwd.is_dir():
            raise KernelStartError(f"the working folder does not exist or is no folder: {self._cwd}")
        if self._context is None:
            self._context = zmq.Context()
        lease = LocalLease(self)
        self._leases.add(lease)
        try:
            await lease.begin(timeout)
        except BaseException:
            await finish(lease.release())
            raise
        return lease

    async def _close(self) -> None:
        context, self._context = self._context, None
        leases, self._leases = self._leases, set()
        await asyncio.gather(*(lease.release() for lease in leases))
        if context is not None:
            # Every socket is closed by now. Were one of a library left open, this would wait for it: so
            # in a thread, and not for long.
            ending = asyncio.ensure_future(asyncio.to_thread(context.term))
            await asyncio.wait({ending}, timeout=1.0)


class LocalLease(Lease):
    """One kernel process, its sockets and its folder."""

    containment = "none"

    def __init__(self, provider: LocalKernels) -> None:
        self._provider = provider
        self._context = provider._context
        self._process: KernelProcess | None = None
        self._own_folder = provider._cwd is None
        self.folder = provider._cwd or Path(tempfile.mkdtemp(prefix="cellrun-work-"))
        self._files = LocalFiles(self.folder)

    async def start(self, timeout: float) -> None:
        """A ready kernel process. Raises KernelStartError; then nothing of it is left but the folder."""
        provider = self._provider
        assert self._context is not None
        deadline = time.monotonic() + timeout
        process = self._process = await KernelProcess.start(
            provider._kernel,
            cwd=self.folder,
            env=provider._env,
            transport=provider._transport,
            context=self._context,
        )
        channel = ZmqChannel(process.connection, self._context)
        self.client = KernelClient(channel)
        process.on_exit = channel.gone
        try:
            if process.exit_reason is not None:
                channel.gone(process.exit_reason)
            await self.client.wait_ready(deadline - time.monotonic())
            await prepare(self.client, timeout=max(0.1, deadline - time.monotonic()))
        except KernelStartError as error:
            said = process.stderr.strip()
            text = f"{error}; it said: …{said[-500:]}" if said else str(error)
            raise KernelStartError(text, retryable=error.retryable) from None

    async def open_files(self) -> FileStore:
        return self._files

    def snapshot(self) -> dict[str, tuple[int, int]] | None:
        return self._files.snapshot()

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
        await self._stop()
        await self.start(timeout)

    async def _release(self) -> None:
        with contextlib.suppress(Exception):
            await self._ask_to_end()
        await self._stop()
        if self._own_folder:
            try:
                await asyncio.to_thread(shutil.rmtree, self.folder, True)
            except RuntimeError:  # the interpreter is shutting down: there are no more threads to be had
                shutil.rmtree(self.folder, ignore_errors=True)
        self._provider._leases.discard(self)

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
        process, self._process = self._process, None
        if process is not None:
            await process.end()
        if hasattr(self, "client"):
            await self.client.aclose()
