"""A kernel that was forked: the same to its owner as one that was started (process.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from cellrun.errors import KernelStartError
from cellrun.launch.death import OomWatch, describe_exit
from cellrun.launch.descendants import MARK, children, kill_family, process_name
from cellrun.launch.endpoints import Endpoints
from cellrun.launch.fork_parent import Child
from cellrun.launch.forkserver import ForkServer
from cellrun.limits import FLUSH_INTERVAL

_STDERR_KEPT: Final = 16 * 1024
_KILL: Final = 2.0


class ForkedKernel:
    """One kernel process and its private folder of sockets. `await start()` makes it.

    `on_exit` is called once, from the event loop, with a text that says how the process ended.
    """

    def __init__(self, endpoints: Endpoints, mark: str) -> None:
        self._endpoints = endpoints
        self._mark = mark
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
    ) -> ForkedKernel:
        """Forks a kernel that works in `cwd`, with `env` in addition to this process's variables. Its sockets can be connected
        to at once. Raises KernelStartError. Cancelled, it leaves nothing behind."""
        mark = uuid.uuid4().hex
        try:
            kernel = cls(Endpoints(transport), mark)
        except OSError as error:
            raise KernelStartError(
                f"a kernel's sockets cannot be made: {error.strerror or error}", retryable=True
            ) from None
        endpoints = kernel._endpoints
        birth = {
            "connection": endpoints.connection,
            "connection_file": str(endpoints.connection_file),
            "environment": {**os.environ, **(env or {}), MARK: mark},
            "folder": str(cwd),
            "name": process_name(mark),
            "log": str(endpoints.folder / "stderr"),
            "flush_interval": FLUSH_INTERVAL,
            "drop_nothing": True,
        }
        try:
            kernel._child = child = await server.fork(birth, endpoints.descriptors)
        except BaseException:
            endpoints.remove()
            raise
        endpoints.close()
        child.exited.add_done_callback(kernel._ended)
        return kernel

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
        """The last 16 KiB that the process wrote to its own standard error, not the cells' output."""
        with contextlib.suppress(OSError), open(self._endpoints.folder / "stderr", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _STDERR_KEPT))
            return file.read().decode("utf-8", "replace")
        return ""

    async def interrupt(self) -> None:
        """SIGINT to the process group."""
        with contextlib.suppress(ProcessLookupError):
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
        if not child.exited.done():
            if children(child.pid):
                kill_family(child.pid, self._mark)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            # Not yet the leader of a group of its own, if this comes right after the fork.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            await asyncio.wait({child.exited}, timeout=_KILL)
        child.parent.end_family(child.pid, self._mark)
        self._endpoints.remove()

    def _ended(self, exited: asyncio.Future[int | None]) -> None:
        code = exited.result()
        out_of_memory = code == -signal.SIGKILL and self._oom.happened()
        self.exit_reason = describe_exit(code, out_of_memory=out_of_memory)
        if self.on_exit is not None:
            self.on_exit(self.exit_reason)
