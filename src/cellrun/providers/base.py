"""The one interface between a session and whoever has kernels."""

from __future__ import annotations

import asyncio
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Self

from cellrun import portal
from cellrun.channels.client import KernelClient
from cellrun.errors import SessionLost

CHUNK: Final = 1024 * 1024


@dataclass(frozen=True)
class FileInfo:
    """A file of a session's folder. `path` is relative to it, with `/`; `size` in bytes, None where
    the server does not say; `modified` in seconds since the epoch."""

    path: str
    size: int | None
    modified: float
    is_dir: bool = False


class FileStore(ABC):
    """The files in a kernel's working folder. Paths are relative, with `/`, and stay beneath it.

    All calls raise FileNotFoundError, IsADirectoryError or PermissionError as `open` does, and
    ConnectionFailed where a server is in between. Cancelled, a write
    leaves the old file or none, never half of one (locally), or an unfinished upload (on a server).
    """

    @abstractmethod
    async def write(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        """Creates or replaces a file; folders on the way are made."""

    @abstractmethod
    def read(self, path: str, start: int = 0) -> AsyncIterator[bytes]:
        """The file from the byte `start` on, in chunks of at most 1 MiB."""

    async def stat(self, path: str) -> FileInfo:
        """Of the file or folder with this path."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for info in await self.list("/".join(parts[:-1])):
            if info.path == "/".join(parts):
                return info
        raise FileNotFoundError(f"no such file in the session's folder: {path!r}")

    @abstractmethod
    async def list(self, path: str = "") -> list[FileInfo]:
        """What is directly in this folder, by name."""

    @abstractmethod
    async def delete(self, path: str) -> None:
        """Removes a file or an empty folder."""


class Lease(ABC):
    """One kernel, held by one session from `acquire` to `release`."""

    client: KernelClient
    containment: str | None = None

    @abstractmethod
    async def open_files(self) -> FileStore:
        """The files of the kernel's folder. Raises Unsupported where there are none, ConnectionFailed."""

    def snapshot(self) -> dict[str, tuple[int, int]] | None:
        """Name → (size, time of change in ns) of every file in the kernel's folder; None where that
        cannot be known cheaply: then a Result names no files."""
        return None

    def cpu_seconds(self) -> float | None:
        """What the kernel and its processes have taken of processors so far; None where that cannot be known. Reads files of the
        system: for a thread."""
        return None

    def disk_bytes(self) -> int | None:
        """What the files in its folder take; None where that cannot be known. For a thread."""
        return None

    @abstractmethod
    async def interrupt(self) -> None:
        """Asks the kernel to stop the running cell. Raises ConnectionFailed where that did not get through."""

    @abstractmethod
    async def kill(self) -> None:
        """Ends the kernel process at once, whatever it does. Bounded; raises nothing."""

    @abstractmethod
    async def restart(self, timeout: float) -> None:
        """A fresh, ready kernel in place of the old one, whatever state that is in, within `timeout`
        seconds. `client` may be another object afterwards. Raises KernelStartError, ConnectionFailed or AuthenticationError."""

    _starting: asyncio.Task[None] | None = None
    _releasing: asyncio.Task[None] | None = None

    @abstractmethod
    async def start(self, timeout: float) -> None:
        """A ready kernel. Called once, by `begin`."""

    async def begin(self, timeout: float) -> None:
        """Starts it. A release meanwhile, by a provider that is closed, ends the start; then SessionLost."""
        await self._unless_ended(self.start(timeout))

    async def _unless_ended(self, start: Coroutine[Any, Any, None]) -> None:
        """This start, or SessionLost if a release ends it. Cancelled, it goes on until there is a release."""
        starting = self._starting = asyncio.ensure_future(start)
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise SessionLost("the provider was closed while the kernel started") from None
            raise

    async def release(self) -> None:
        """Gives the kernel back: it is ended and everything of it removed. Bounded, never raises. A second
        call waits for the first; a cancelled one goes on in the background."""
        if self._releasing is None:
            self._releasing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._releasing)

    async def _end(self) -> None:
        if self._starting is not None:
            if not self._starting.done():
                self._starting.cancel()
            await asyncio.wait({self._starting})
            if not self._starting.cancelled():
                self._starting.exception()
        await self._release()

    @abstractmethod
    async def _release(self) -> None:
        """Does it. Called once."""


class Shared(ABC):
    """What one or several sessions use, on one event loop: a provider of kernels, or a service.

    An async context manager. Closing twice is fine, forgetting warns (ResourceWarning). One that was never entered
    belongs to its sessions: with the last of them it lets go of everything it holds, and a later session takes it up again.
    """

    def __init__(self) -> None:
        self._closed = False
        self._entered = False
        self._used = False
        self._sessions = 0

    @abstractmethod
    async def _close(self) -> None:
        """Frees what is shared. A later use makes it anew."""

    def attach(self) -> None:
        """A session will use this provider, until it calls `detach`."""
        self._sessions += 1

    async def detach(self) -> None:
        """The session has let go of what it had."""
        self._sessions -= 1
        if self._sessions == 0 and not self._entered and not self._closed:
            await self._close()
            self._used = self._sessions > 0

    _closing: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Ends all that is still in use. A second call waits for the first; a cancelled one goes on in the background. Never raises."""
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionLost(f"{self!r} is closed")
        self._used = True

    def close(self) -> None:
        """The blocking `aclose()`, for blocking sessions."""
        portal.call(self.aclose())

    def __enter__(self) -> Self:
        self._check_open()
        self._entered = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._check_open()
        self._entered = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if getattr(self, "_used", False) and not self._closed:
            _warn(f"{self!r} was not closed: use `async with`, or aclose()", ResourceWarning, source=self)


class Provider(Shared):
    """Gives kernels to sessions. One provider may serve many sessions, on one event loop.

    An async context manager; `aclose()` ends every kernel that is still out. Closing twice is fine,
    forgetting warns (ResourceWarning). A provider that was never entered, as in
    `AsyncSession(JupyterServer(…))`, belongs to its sessions: with the last of them it lets go of everything
    it holds, and a later session takes it up again.
    """

    @property
    def containment(self) -> str | None:
        """What walls its kernels have; None where that cannot be known, or is not known yet."""
        return None

    @abstractmethod
    async def acquire(self, timeout: float) -> Lease:
        """A ready kernel within `timeout` seconds. Raises KernelStartError, ConnectionFailed or
        AuthenticationError. Cancelled or failed, it leaves no kernel behind."""

    @abstractmethod
    async def _close(self) -> None:
        """Ends all kernels and frees what is shared. A later `acquire` makes it anew."""


async def finish(coroutine: Any, timeout: float | None = None) -> None:
    """Awaits to the end even if we are cancelled meanwhile, or `timeout` seconds have passed: then the rest
    runs in the background. For clean-up that must happen."""
    task = in_background(coroutine)
    if timeout is None:
        await asyncio.shield(task)
    else:
        await asyncio.wait({task}, timeout=timeout)


def in_background(coroutine: Any) -> asyncio.Task[Any]:
    """Starts clean-up that nobody waits for, and holds on to it until it is done."""
    task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
    _background.add(task)
    task.add_done_callback(_forget)
    return task


def _forget(task: asyncio.Task[Any]) -> None:
    _background.discard(task)
    if not task.cancelled():
        task.exception()  # whoever waited has it; where nobody waits any more it is nobody's


_background: set[asyncio.Task[Any]] = set()
