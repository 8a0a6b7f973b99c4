"""Forks kernels, from a process that is started when it is needed and replaced when it is old or gone."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cellrun.errors import KernelStartError
from cellrun.launch.fork_parent import Child, ForkParent, ForkRefused, ForkServerLost
from cellrun.launch.sandbox.sandbox import Sandbox

AVAILABLE: Final = sys.platform == "linux"
"""Whether kernels can be forked on this system. On macOS a forked process must not use most system libraries."""

RECYCLE_AFTER: Final = 1000  # forks. The kernels of one process share its hash seed and address layout
RECYCLE_SECONDS: Final = 3600.0
_TRIES: Final = 8  # as many steps of the preload may have to be left out
_RETRY: Final = 60.0  # seconds until a replacement that failed is tried again


class ForkServer:
    """A process that has everything loaded, and forks.

    preload            names of modules, or "auto" for those that are usual and installed. A usual module that starts
                       threads is left out by itself; one of the caller's own list is an error, told at each fork
    env                variables in addition to this process's own
    recycle_after      forks after which the process is replaced
    recycle_seconds    seconds after which it is
    python             the interpreter, which must have cellrun
    sandbox            what contains its kernels; None: nothing. It is the caller's to close

    While the next process starts, the old one still forks; its kernels live on. For one event loop.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] | str = "auto",
        env: Mapping[str, str] | None = None,
        recycle_after: int = RECYCLE_AFTER,
        recycle_seconds: float = RECYCLE_SECONDS,
        python: str = sys.executable,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._preload = preload if isinstance(preload, str) else list(preload)
        self._env = dict(env or {})
        self._recycle_after = recycle_after
        self._recycle_seconds = recycle_seconds
        self._python = python
        self._sandbox = sandbox
        self._without: list[str] = []
        self._load = False
        self._loading: asyncio.Task[None] | None = None
        self._current: asyncio.Task[ForkParent] | None = None
        self._next: asyncio.Task[ForkParent] | None = None
        self._parents: set[ForkParent] = set()
        self._closed = False
        self._retry_at = 0.0
        self.on_renewed: Callable[[], None] | None = None

    @property
    def pids(self) -> list[int]:
        """Of its processes: one, and while one is being replaced or has kernels left, more."""
        return [parent.pid for parent in self._parents if not parent.ended.is_set()]

    async def load(self) -> None:
        """Has everything loaded. Forks go on meanwhile. Returns when it is done. Raises KernelStartError if a module of
        the caller's list cannot be loaded or the process cannot be started."""
        self._load = True
        while True:
            parent = await self._parent()
            parent.load()
            await parent.loaded.wait()
            if parent.broken is not None:
                self._avoid(parent)
            elif parent.ended.is_set():
                raise KernelStartError(f"the forkserver ended while it loaded{parent.last_words}")
            else:
                return

    def load_soon(self) -> None:
        """Has everything loaded in the background, once. A module that cannot be loaded is told at forks."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self.load())
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def fork(self, birth: Mapping[str, Any], descriptors: Sequence[int]) -> Child:
        """A new process that becomes a kernel; see ForkParent.fork. Raises KernelStartError. Cancelled, it leaves no process."""
        for _ in range(_TRIES):
            parent = await self._parent()
            try:
                child = await parent.fork(birth, descriptors)
            except ForkServerLost as error:
                reason = str(error)
                # A send notices its end before the reader does; only then is there another one to be had.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(parent.ended.wait(), 1.0)
                continue
            except ForkRefused as error:
                reason = str(error)
                if parent.broken is None:
                    break
                self._avoid(parent)
                continue
            self._recycle_if_due(parent)
            return child
        raise KernelStartError(f"no kernel could be forked: {reason}", retryable=True)

    async def _parent(self) -> ForkParent:
        if self._closed:
            raise KernelStartError("the forkserver is closed")
        current = self._current
        if current is not None and current.done() and not _usable(current):
            current = None
        if current is None:
            current = self._current = asyncio.ensure_future(self._start())
        try:
            return await asyncio.shield(current)
        except asyncio.CancelledError:
            if current.cancelled():
                raise KernelStartError("the forkserver is closed") from None
            raise

    async def _start(self) -> ForkParent:
        parent = ForkParent(self._python, self._preload, self._without, self._env, self._parents.discard, self._sandbox)
        self._parents.add(parent)
        try:
            await parent.booted()
        except BaseException:
            await parent.aclose()
            raise
        if self._load:
            parent.load()
        return parent

    def _avoid(self, parent: ForkParent) -> None:
        """The next process does without what this one broke on. Raises KernelStartError if the caller wants just that."""
        assert parent.broken is not None
        step, why = parent.broken
        if self._preload != "auto":
            raise KernelStartError(f"{why}: leave it out of preload=")
        if parent.avoided:  # by another caller
            return
        parent.avoided = True
        if step in self._without or not step:
            raise KernelStartError(why)
        self._without.append(step)
        current = self._current
        if current is not None and current.done() and _usable(current) and current.result() is parent:
            self._current = None
        parent.retire()

    def _recycle_if_due(self, parent: ForkParent) -> None:
        age = time.monotonic() - parent.since
        if self._closed or time.monotonic() < self._retry_at:
            return
        if self._next is None and (parent.forks >= self._recycle_after or age >= self._recycle_seconds):
            self._next = asyncio.ensure_future(self._replacement())
            self._next.add_done_callback(lambda task: self._replace(parent, task))

    async def _replacement(self) -> ForkParent:
        parent = await self._start()
        if self._load:
            await parent.loaded.wait()
        return parent

    def _replace(self, old: ForkParent, task: asyncio.Task[ForkParent]) -> None:
        self._next = None
        if self._closed or task.cancelled():
            return
        if task.exception() is not None or task.result().broken is not None or task.result().ended.is_set():
            # The old one goes on; a later fork tries again.
            self._retry_at = time.monotonic() + _RETRY
            if task.exception() is None:
                task.result().retire()
            return
        self._current = task
        old.retire()
        if self.on_renewed is not None:
            self.on_renewed()

    async def aclose(self) -> None:
        """Ends the processes, and with them the kernels that are left. Never raises."""
        self._closed = True
        tasks: list[asyncio.Task[Any]] = [
            task for task in (self._current, self._next, self._loading) if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(parent.aclose() for parent in list(self._parents)))


def _usable(started: asyncio.Task[ForkParent]) -> bool:
    return not started.cancelled() and started.exception() is None and not started.result().ended.is_set()
