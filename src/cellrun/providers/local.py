"""Kernels on this machine: forked where they can be, otherwise started from their kernelspec; over ipc."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import zmq

from cellrun.errors import KernelStartError, SessionLost
from cellrun.launch import forkserver
from cellrun.launch.forkserver import ForkServer
from cellrun.launch.memory import MemoryWatch
from cellrun.launch.pool import PoolLimits
from cellrun.launch.pooling import KernelPool, PoolStatus
from cellrun.launch.process import files_of, is_own_python
from cellrun.launch.sandbox.policy import SandboxPolicy, policy_of
from cellrun.launch.sandbox.sandbox import Sandbox
from cellrun.launch.sandbox.watch import Usage, Watch
from cellrun.launch.threads import in_thread
from cellrun.providers.base import Provider, finish
from cellrun.providers.local_lease import LocalLease, Ways

_POOL: Final = 2
_START_TIMEOUT: Final = 60.0
_LAST_SOCKETS: Final = 1.0
_SOCKETS: Final = 16_384  # of one ZeroMQ context; its default is enough for 250 kernels


class LocalKernels(Provider):
    """Kernels on this machine, a few of them ready ahead.

    kernel        "python3": this interpreter. On Linux its kernels are forked from a process that has the usual
                  libraries loaded, in milliseconds. "ipykernel": stock ipykernel in an interpreter started anew, for its
                  debugger, subshells and `%gui`, and for code that needs a clean interpreter. Any other name: an
                  installed kernelspec (`jupyter kernelspec list`), started anew
    cwd           working folder; None: a fresh temporary folder per session, removed with it
    env           environment variables in addition to what a contained kernel has by itself, or, where nothing contains it, to this
                  process's own
    sandbox       "auto": as a SandboxPolicy without arguments. A SandboxPolicy: so much is allowed. "none": code has the
                  rights of this process
    transport     "ipc" (unix sockets in a private folder), or "tcp" for kernels that know only that
    pool          kernels that are kept ready; None: 2 where kernels are forked, else 0
    preload       modules that are loaded before the fork; "auto": numpy, pandas and matplotlib.pyplot where they are
                  installed; empty: none. Their import must start no threads
    max_kernels   kernels that may exist at once, ready ones included; None: no limit
    max_memory    bytes that kernels may take together before no more are started; None: no limit
    queue_timeout seconds that a session waits for a kernel where a limit is reached; None: as long as its start may take
    queue_length  sessions that may wait; one more raises LimitExceeded

    A kernel is never used twice. What contains it is proved before the first one starts, by a process that tries to break out; where
    nothing holds, `acquire` raises KernelStartError, which says what to do. Raises TypeError and ValueError for arguments
    that make no sense, `cwd="/"` with a sandbox among them.
    """

    def __init__(
        self,
        *,
        kernel: str = "python3",
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        sandbox: SandboxPolicy | Literal["auto", "none"] = "auto",
        transport: Literal["ipc", "tcp"] = "ipc",
        pool: int | None = None,
        preload: Sequence[str] | Literal["auto"] = "auto",
        max_kernels: int | None = None,
        max_memory: int | None = None,
        queue_timeout: float | None = None,
        queue_length: int = 1_000,
    ) -> None:
        super().__init__()
        _check(kernel, env, transport, preload, {"pool": pool, "max_kernels": max_kernels, "max_memory": max_memory})
        if queue_timeout is not None and not queue_timeout >= 0:
            raise ValueError(f"queue_timeout must be zero or more seconds, or None, not {queue_timeout!r}")
        self._kernel = kernel
        self._cwd = None if cwd is None else Path(cwd).absolute()
        self._env = dict(env or {})
        self._transport: Literal["ipc", "tcp"] = transport
        self._forks = forkserver.AVAILABLE and is_own_python(kernel)
        self._policy = policy_of(sandbox)
        if self._policy is not None and self._cwd == Path("/"):
            raise ValueError(
                'a contained kernel cannot work in /: it could change everything; sandbox="none" says that'
            )
        self._sandbox: Sandbox | None = None
        self._walled: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self._preload = preload
        self._ready = (_POOL if self._forks else 0) if pool is None else pool
        self._limits = PoolLimits(ready=0, most=max_kernels, memory=max_memory, waiting=queue_length)
        self._queue_timeout = queue_timeout
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._server: ForkServer | None = None
        self._pool: KernelPool[LocalLease] | None = None
        self._leases: set[LocalLease] = set()
        self._held: set[LocalLease] = set()
        self._loading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._held)} kernels, {self.status.ready} ready"
        return f"<LocalKernels {self._kernel!r}, {state}>"

    # -- kernels ---------------------------------------------------------------------------------

    async def acquire(self, timeout: float) -> LocalLease:
        """See Provider. Raises LimitExceeded too, where a limit on kernels was reached and none became free in time."""
        self._check_open()
        lease = await self._open().take(timeout, queue_timeout=self._queue_timeout)
        self._held.add(lease)
        return lease

    async def ready(self, timeout: float = 60.0) -> None:
        """Until all `pool` kernels are there, with everything loaded. Raises KernelStartError when the time is up first, or
        what keeps them from starting."""
        self._check_open()
        self._entered = True
        pool = self._open()
        self._load_now.set()
        try:
            async with asyncio.timeout(timeout):
                assert self._loading is not None
                await asyncio.shield(self._loading)
                await pool.ready(timeout)
        except TimeoutError:
            raise KernelStartError(f"{pool.status.ready} of {self._ready} kernels are ready", retryable=True) from None

    @property
    def containment(self) -> str | None:
        """See Provider. Known once the walls were proved: with the first kernel, or after `ready()`."""
        if self._policy is None:
            return "none"
        proved = self._walled is not None and self._walled.done() and not self._walled.cancelled()
        if self._sandbox is None or not proved or self._walled is None or self._walled.exception() is not None:
            return None
        return self._sandbox.containment

    @property
    def kernel(self) -> str:
        """The name of the kernelspec."""
        return self._kernel

    @property
    def language(self) -> str:
        """Of the code that its kernels run; "" where that is not known before one is there."""
        return "python" if self._kernel in ("python3", "ipykernel") else ""

    @property
    def lean(self) -> bool:
        """Whether its kernels are ours, which do what the metadata of a request asks for (`cellrun.kernel.asked`)."""
        return self._forks

    @property
    def offline(self) -> bool:
        """Whether code can reach no network."""
        return self._policy is not None and self._policy.network == "none"

    @property
    def own_folders(self) -> bool:
        """Whether each session has a folder of its own."""
        return self._cwd is None

    @property
    def status(self) -> PoolStatus:
        """How many kernels are ready, starting, held, ending; how many sessions wait."""
        return PoolStatus(0, 0, 0, 0, 0) if self._pool is None else self._pool.status

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._open()
        self._load_now.set()
        return self

    def _open(self) -> KernelPool[LocalLease]:
        """What is shared by all kernels, made with the first use."""
        if self._pool is not None:
            return self._pool
        self._context = zmq.Context()
        self._context.max_sockets = _SOCKETS
        self._memory = MemoryWatch(lambda: [lease.pid for lease in self._leases], self._on_measured)
        pool = self._pool = KernelPool(
            self._start_lease,
            self._end_lease,
            limits=self._limits,
            busy=lambda: sum(lease.executing for lease in self._leases),
            memory=(lambda: None) if self._limits.memory is None else self._memory.latest,
        )
        if self._policy is not None:
            needed = () if self._forks else files_of(self._kernel)
            self._sandbox = Sandbox(self._policy, folder=self._cwd, readable=needed, shared=self._forks)
            self._walled = asyncio.ensure_future(in_thread(self._sandbox.open))
            self._walled.add_done_callback(lambda task: task.cancelled() or task.exception())
        if self._forks:
            self._server = ForkServer(preload=self._preload, env=self._env, sandbox=self._sandbox)
            self._server.on_renewed = pool.renew

        def give_back(lease: LocalLease) -> None:
            self._held.discard(lease)
            pool.give_back(lease)

        self._ways = Ways(
            kernel=self._kernel,
            cwd=self._cwd,
            env=self._env,
            transport=self._transport,
            policy=self._policy,
            sandbox=self._sandbox,
            server=self._server,
            context=self._context,
            give_back=give_back,
            lost=pool.lost,
            quiet=pool.changed,
        )
        self._load_now = asyncio.Event()
        self._loading = asyncio.ensure_future(self._load(pool))
        return pool

    def _on_measured(self) -> None:
        if self._pool is not None:
            self._pool.changed()

    async def _load(self, pool: KernelPool[LocalLease]) -> None:
        """Kernels for the pool are forked when everything is loaded. A kernel that is wanted before is forked at once:
        loading starts when nobody waits for that one any more."""
        await self._load_now.wait()
        await self._walls()
        if self._sandbox is not None and self._policy is not None and self._sandbox.watched:
            self._watch = Watch(self._policy, self._watched)
        if self._server is not None and self._preload:
            await self._server.load()
        pool.resize(self._ready)

    def _watched(self) -> Iterator[tuple[Callable[[], Usage], Callable[[str], None]]]:
        for lease in self._leases:
            if (process := lease.watched) is not None:
                yield process.usage, process.end_for

    async def _walls(self) -> None:
        """Until it is known what contains kernels here. Raises KernelStartError if nothing does."""
        if self._walled is not None:
            await asyncio.shield(self._walled)

    async def _start_lease(self) -> LocalLease:
        await self._walls()
        if self._pool is None:
            raise SessionLost("the provider was closed while the kernel started")
        lease = LocalLease(self._ways)
        self._leases.add(lease)
        try:
            await lease.begin(_START_TIMEOUT)
        except BaseException:
            await finish(self._end_lease(lease))
            raise
        self._load_now.set()
        return lease

    async def _end_lease(self, lease: LocalLease) -> None:
        await lease.end()
        self._leases.discard(lease)

    async def _close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        context, self._context = self._context, None
        server, self._server = self._server, None
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        closing = asyncio.ensure_future(pool.aclose())
        await asyncio.gather(*(lease.release() for lease in list(self._held)))
        await closing
        await pool.aclose()  # those that were held end, too
        await self._memory.aclose()
        if self._watch is not None:
            await self._watch.aclose()
            self._watch = None
        if server is not None:
            await server.aclose()
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None and self._walled is not None:
            await asyncio.wait({self._walled})
            await in_thread(sandbox.close)
        if context is not None:
            await _end_context(context)


async def _end_context(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Every socket is closed by now. Were one of a library left open, this would wait for it: so in a thread, and not for long; in one
    that the interpreter does not wait for; and not at all where there are no more threads, at its end."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        context.term()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(over.set)

    with contextlib.suppress(RuntimeError, TimeoutError):
        threading.Thread(target=end, name="cellrun context", daemon=True).start()
        async with asyncio.timeout(_LAST_SOCKETS):
            await over.wait()


def _check(kernel: Any, env: Any, transport: Any, preload: Any, numbers: Mapping[str, Any]) -> None:
    """Arguments that would fail later, or never: named now. Raises TypeError and ValueError."""
    if not isinstance(kernel, str) or not kernel:
        raise ValueError(f"kernel must be the name of a kernelspec, not {kernel!r}")
    if transport not in ("ipc", "tcp"):
        raise ValueError(f'transport must be "ipc" or "tcp", not {transport!r}')
    if isinstance(preload, str) and preload != "auto":
        raise TypeError(f'preload must be "auto" or several names of modules: preload=[{preload!r}]')
    if preload is None or not all(isinstance(name, str) for name in preload):
        raise TypeError(f'preload must be "auto" or several names of modules, not {preload!r}')
    if env is not None and not all(isinstance(text, str) for item in env.items() for text in item):
        raise TypeError("env must have texts as names and as values")
    for name, value in numbers.items():
        least = 0 if name == "pool" else 1
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} must be a whole number, or None, not {value!r}")
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, or None, not {value!r}")
