"""A kernel that was forked: the same to its owner as one that was started (process.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from cellrun.errors import KernelStartError
from cellrun.launch.death import OomWatch, describe_exit
from cellrun.launch.descendants import MARK, children, kill_family, process_name
from cellrun.launch.endpoints import Endpoints
from cellrun.launch.fork_parent import Child
from cellrun.launch.forkserver import ForkServer
from cellrun.launch.sandbox.enclosure import Enclosure
from cellrun.launch.sandbox.watch import Usage
from cellrun.launch.threads import in_thread
from cellrun.limits import FLUSH_INTERVAL

_KILL: Final = 2.0


class ForkedKernel:
    """One kernel process and its private folder of sockets. `await start()` makes it.

    `on_exit` is called once, from the event loop, with a text that says how the process ended.
    """

    def __init__(self, endpoints: Endpoints, mark: str, enclosure: Enclosure | None) -> None:
        self._endpoints = endpoints
        self._mark = mark
        self._enclosure = enclosure
        self._admitted: asyncio.Future[None] | None = None
        self._oom = OomWatch()
        self._child: Child | None = None
        self.exit_reason: str | None = None
        self.on_exit: Callable[[str], None] | None = None

    @classmethod
    async def start(
        cls,
        server: ForkServer,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        transport: Literal["ipc", "tcp"] = "ipc",
        enclosure: Enclosure | None = None,
    ) -> ForkedKernel:
        """Forks a kernel that works in `cwd`, with `env` in addition to this process's variables, or to those of its `enclosure` if it is
        contained. Its sockets can be connected to at once. Raises KernelStartError. Cancelled, it leaves nothing behind."""
        mark = uuid.uuid4().hex
        try:
            kernel = cls(Endpoints(transport), mark, enclosure)
        except OSError as error:
            raise KernelStartError(
                f"a kernel's sockets cannot be made: {error.strerror or error}", retryable=True
            ) from None
        endpoints = kernel._endpoints
        birth = {
            "connection_file": str(endpoints.connection_file),
            "environment": {**(os.environ if enclosure is None else enclosure.environment), **(env or {}), MARK: mark},
            "folder": str(cwd),
            "name": process_name(mark),
            "flush_interval": FLUSH_INTERVAL,
            "drop_nothing": True,
            "room": None if enclosure is None else asdict(enclosure.room),
        }
        try:
            kernel._child = child = await server.fork(birth, endpoints.descriptors)
        except BaseException:
            endpoints.remove()
            raise
        endpoints.close()
        if enclosure is not None:
            kernel._admitted = asyncio.ensure_future(in_thread(enclosure.admit, child.pid))
            kernel._admitted.add_done_callback(lambda task: task.cancelled() or task.exception())
        child.exited.add_done_callback(kernel._ended)
        return kernel

    async def sealed(self) -> None:
        """Until its limits hold and nobody else can connect to it. Called when the client is connected, and before any code is sent. Raises
        KernelStartError."""
        if self._admitted is None:
            return
        try:
            await self._admitted
        except OSError as error:
            if self.alive:
                why = error.strerror or str(error)
                raise KernelStartError(f"the kernel could not be put into its control group: {why}") from None
        self._endpoints.seal()

    @property
    def pid(self) -> int:
        return 0 if self._child is None else self._child.pid

    @property
    def connection(self) -> dict[str, Any]:
        """The content of the connection file."""
        return self._endpoints.connection

    @property
    def alive(self) -> bool:
        return self.exit_reason is None

    @property
    def orphaned(self) -> bool:
        """Whether the forkserver that it came from has ended."""
        return self._child is not None and self._child.parent.ended.is_set()

    @property
    def stderr(self) -> str:
        """The first 16 KiB that the process wrote to its own standard error, not the cells' output."""
        return self._endpoints.log

    def usage(self) -> Usage:
        """What its session takes, so far as the system does not limit it."""
        child = self._child
        assert child is not None
        assert self._enclosure is not None
        return Usage() if child.parent.ended.is_set() else self._enclosure.usage(child.parent.pid)

    def end_for(self, cause: str) -> None:
        """SIGKILL, and `on_exit` says why."""
        if self._enclosure is not None and self.alive and self.pid > 0:
            self._enclosure.cause = cause
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def interrupt(self) -> None:
        """SIGINT to the process group."""
        if self.pid > 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGINT)

    async def exited(self, timeout: float) -> bool:
        """Whether the process ends within this time."""
        assert self._child is not None
        await asyncio.wait({self._child.exited}, timeout=timeout)
        return self._child.exited.done()

    async def end(self) -> None:
        """SIGKILL to the process, its group and every descendant that can be found; then the folder goes."""
        self.on_exit = None
        child = self._child
        assert child is not None
        if self._admitted is not None:
            await asyncio.wait({self._admitted})
        if not child.exited.done() and child.pid > 0:
            if self._enclosure is None and children(child.pid):
                kill_family(child.pid, self._mark)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            # Not yet the leader of a group of its own, if this comes right after the fork.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            await asyncio.wait({child.exited}, timeout=_KILL)
        if self._enclosure is None:
            child.parent.end_family(child.pid, self._mark)
        else:
            await in_thread(self._enclosure.end_all, None if child.parent.ended.is_set() else child.parent.pid)
        self._endpoints.remove()

    def _ended(self, exited: asyncio.Future[int | None]) -> None:
        self.exit_reason = self._describe(exited.result())
        if self.on_exit is not None:
            self.on_exit(self.exit_reason)

    def _describe(self, code: int | None) -> str:
        if self._enclosure is not None:
            return self._enclosure.describe_exit(code)
        return describe_exit(code, out_of_memory=code == -signal.SIGKILL and self._oom.happened())
