"""A session: variables, files, and the line of runs; on a kernel of ours, or on a service."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from cellrun.backend import Backend
from cellrun.events import Event
from cellrun.files import Files
from cellrun.kernel_session import KernelSession
from cellrun.limits import UNSET, Limits, Unset
from cellrun.providers import Provider, provider_for
from cellrun.providers.base import Shared, finish
from cellrun.remote.address import is_service
from cellrun.result import Result
from cellrun.running import EventQueue, OnEvent, OnInput, Run, RunOptions
from cellrun.stream import AsyncStream

if TYPE_CHECKING:
    import nbformat

    from cellrun.remote.service import CellrunService


class AsyncSession:
    """Runs code in one kernel, one run after the other, in the order of the calls.

    `provider`: where the kernel comes from: None (this machine), the address of a Jupyter server or of a cellrun service
    (`cellrun://host:port`, with TLS `cellruns://host`) as a string, or a provider or CellrunService object, which then can
    serve many sessions and is not closed with this one.
    The kernel is started by the first run, or by `start()` or `async with`.
    `key`, `session_id`: of a service named by its address: the key that opens it, and of any service the name of the session there.
    A named session is found or made, and stays when this object is closed; without a name it is a fresh one, and ends with this object.
    `history`: whether what was run is kept for `to_notebook()`.
    `succeeds`: why the kernel of an earlier session, which this one goes on from, is gone: the first run begins with a
    KernelRestarted that says so. None: there was none.

    Usable on one event loop; on another one calls raise RuntimeError. Closing twice is fine, forgetting warns (ResourceWarning).

    >>> import asyncio
    >>> async def main():
    ...     async with AsyncSession() as session:
    ...         await session.run("x = 41")
    ...         return (await session.run("x + 1")).text
    >>> asyncio.run(main())
    '42'
    """

    def __init__(
        self,
        provider: Provider | CellrunService | str | None = None,
        *,
        limits: Limits | None = None,
        key: str | None = None,
        session_id: str | None = None,
        history: bool = True,
        succeeds: str | None = None,
    ) -> None:
        self._backend = _backend_for(
            provider, limits or Limits(), key=key, session_id=session_id, history=history, succeeds=succeeds
        )
        self.files = Files(self._backend.open_files)

    def __repr__(self) -> str:
        backend = self._backend
        return f"<AsyncSession on {backend.source!r}, {'closed' if backend.closed else backend.state}>"

    @property
    def containment(self) -> str | None:
        """What walls hold the kernel: "none" where nothing does, None where it cannot be known (a remote
        server) or the kernel has not been started. A service tells it at the start."""
        return self._backend.containment

    @property
    def closed(self) -> bool:
        """Whether it has ended: by `aclose()`, or because it was not used for `Limits.idle_timeout`."""
        return self._backend.closed

    @property
    def language(self) -> str:
        """The kernel's language in lower case, "" before the start, and on a service that does not tell it."""
        return self._backend.language

    @property
    def began(self) -> bool:
        """Whether a kernel was started for it; on a service: whether that was asked for one."""
        return self._backend.began

    def cpu_seconds(self) -> float | None:
        """What the kernel and its processes have taken of processors so far; None where that cannot be known. Reads files of the
        system: from a thread, if others wait."""
        return self._backend.cpu_seconds()

    def disk_bytes(self) -> int | None:
        """What the session's files take on disk; None where that cannot be known. As `cpu_seconds`, for a thread."""
        return self._backend.disk_bytes()

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Starts the kernel now instead of at the first run. Raises KernelStartError, ConnectionFailed or
        AuthenticationError; on a service LimitExceeded too. Cancelled, it leaves no kernel behind."""
        await self._backend.start()
        return self

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except BaseException:
            await finish(self.aclose())
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        await finish(self.aclose())

    async def aclose(self) -> None:
        """Ends runs that are under way (status "interrupted"), then the kernel; a named session of a service stays. Never
        raises. A second call waits for the first; a cancelled one goes on in the background."""
        await self._backend.aclose()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        backend = getattr(self, "_backend", None)
        if backend is not None and not backend.closed and backend.began:
            _warn(f"{self!r} was not closed: use `async with`, or aclose()", ResourceWarning, source=self)

    # -- running ---------------------------------------------------------------------------------

    async def run(
        self,
        code: str,
        *,
        timeout: float | Unset | None = UNSET,
        queue_timeout: float | Unset | None = UNSET,
        stdin: Iterable[str] | None = None,
        on_input: OnInput | None = None,
        on_event: OnEvent | None = None,
        silent: bool = False,
        store_history: bool = True,
    ) -> Result:
        """Runs a cell and gives its Result; what the code does wrong is data in it.

        store_history   whether the cell counts and can be recalled in the kernel
        timeout         seconds from the start of the execution; then it is interrupted, after a grace
                        killed. None: no limit. Left out: what the session's Limits say
        queue_timeout   seconds to wait for earlier runs; then the status is "timeout" and nothing ran
        stdin           lines for `input()`, in order; after the last one EOFError
        on_input        called, or awaited, with each InputRequest; returns the line
        on_event        called with each event as it comes; it must be quick
        silent          nothing is counted or shown as a result, no history

        Raises AuthenticationError, ConnectionFailed or KernelStartError if no kernel can be had,
        SessionLost if the session is closed, LimitExceeded if too many runs wait; on a service Unsupported for
        queue_timeout, silent and store_history, and LimitExceeded for its quotas. Cancelled: the cell is
        interrupted (or leaves the line), and the session can be used on.
        """
        options = self._options(timeout, queue_timeout, silent, store_history, stdin, on_input, on_event)
        run = self._submit(code, options, None)
        try:
            await run.done.wait()
        except asyncio.CancelledError:
            run.stop()
            raise
        return run.raise_or_result()

    def stream(
        self,
        code: str,
        *,
        timeout: float | Unset | None = UNSET,
        queue_timeout: float | Unset | None = UNSET,
        stdin: Iterable[str] | None = None,
        on_input: OnInput | None = None,
        silent: bool = False,
        store_history: bool = True,
        execution_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncStream:
        """The events of a run as they happen: `async with session.stream(code) as stream`, in it
        `async for event in stream`, afterwards `stream.result`. Parameters and errors as in `run`. `execution_id`: one that
        is new, for a caller who must know it before; None: it is made. `metadata`: of the `execute_request`, for kernels that look at it
        (ours: `cellrun.kernel.asked`); Unsupported on a service.

        A reader that falls behind by more than `Limits.stream_buffer` slows the kernel down; nothing is
        dropped. Leaving the `async with` before the end interrupts the cell.
        """
        options = replace(
            self._options(timeout, queue_timeout, silent, store_history, stdin, on_input, None), metadata=metadata
        )
        queue = EventQueue(self._backend.limits.stream_buffer)
        return AsyncStream(
            lambda: self._submit(code, options, queue, execution_id),
            queue,
            accepted=self._backend.accepted,
            interrupt=self._backend.interrupt_run,
        )

    def _options(
        self,
        timeout: float | Unset | None,
        queue_timeout: float | Unset | None,
        silent: bool,
        store_history: bool,
        stdin: Iterable[str] | None,
        on_input: OnInput | None,
        on_event: OnEvent | None,
    ) -> RunOptions:
        limits = self._backend.limits
        named = not isinstance(timeout, Unset) or limits.timeout is not None
        timeout = limits.timeout if isinstance(timeout, Unset) else timeout
        queue_timeout = limits.queue_timeout if isinstance(queue_timeout, Unset) else queue_timeout
        for name, value in (("timeout", timeout), ("queue_timeout", queue_timeout)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be zero or more seconds, or None for no limit; not {value!r}")
        if isinstance(stdin, str):
            raise TypeError("stdin must be a list of lines, not one string: stdin=[…]")
        return RunOptions(
            timeout=timeout,
            timeout_named=named,
            queue_timeout=queue_timeout,
            silent=silent,
            store_history=store_history,
            stdin=stdin,
            on_input=on_input,
            on_event=on_event,
        )

    def _submit(self, code: str, options: RunOptions, queue: EventQueue | None, execution_id: str | None = None) -> Run:
        if not isinstance(code, str):
            self._backend.check_open()
            raise TypeError(f"code must be a str, not {type(code).__name__}")
        return self._backend.submit(code, options, queue, execution_id)

    async def interrupt(self) -> None:
        """Interrupts the running cell, as Ctrl-C does; nothing happens if none runs. What the cell makes of
        it is its own affair: there is no kill. Raises ConnectionFailed where it did not get through."""
        await self._backend.interrupt()

    async def restart(self) -> None:
        """A fresh kernel: variables are gone, files stay. A running cell ends as "interrupted"; runs that
        wait go on in the new kernel. Raises as `start` does."""
        await self._backend.restart()

    # -- besides running -------------------------------------------------------------------------

    def late(self) -> AsyncIterator[Event]:
        """Output that comes after its execution has finished (threads, callbacks), as events with `seq` 0
        and the old `execution_id`, from now on until the session is closed. A listener that falls behind by more than
        `Limits.late_events` misses the oldest. Unsupported on a service."""
        return self._backend.late()

    async def complete(self, code: str, cursor: int | None = None, *, timeout: float = 5.0) -> Mapping[str, Any]:
        """The content of the kernel's `complete_reply`: "matches", "cursor_start", "cursor_end".
        `cursor` counts characters. Raises ConnectionFailed if a busy kernel does not answer in time, Unsupported on a service."""
        content = {"code": code, "cursor_pos": len(code) if cursor is None else cursor}
        return await self._backend.ask("complete_request", content, timeout=timeout)

    async def inspect(self, code: str, cursor: int | None = None, *, timeout: float = 5.0) -> Mapping[str, Any]:
        """The content of the kernel's `inspect_reply`: "found", and a MIME bundle "data". Raises as `complete` does."""
        content = {"code": code, "cursor_pos": len(code) if cursor is None else cursor, "detail_level": 0}
        return await self._backend.ask("inspect_request", content, timeout=timeout)

    async def is_complete(self, code: str, *, timeout: float = 5.0) -> str:
        """ "complete", "incomplete", "invalid" or "unknown": whether the code can be run as it stands. Raises as `complete` does."""
        reply = await self._backend.ask("is_complete_request", {"code": code}, timeout=timeout)
        return str(reply.get("status", "unknown"))

    async def send_comm(self, comm_id: str, data: Mapping[str, Any], *, buffers: tuple[bytes, ...] = ()) -> None:
        """A message to a comm that the kernel opened (see the event Comm). Unsupported on a service."""
        await self._backend.send_comm(comm_id, data, buffers)

    def to_notebook(self) -> nbformat.NotebookNode:
        """A notebook (nbformat 4) of what was run through this object, with outputs in their last state. Raises RuntimeError if
        it was made with history=False."""
        return self._backend.to_notebook()

    async def fetch_notebook(self) -> nbformat.NotebookNode:
        """A notebook of what was run in the session: on a service also by others, and earlier, its newest 1000 runs. Else as
        `to_notebook()`. Raises ConnectionFailed, AuthenticationError or SessionLost."""
        return await self._backend.fetch_notebook()


def _backend_for(
    provider: Provider | CellrunService | str | None,
    limits: Limits,
    *,
    key: str | None,
    session_id: str | None,
    history: bool,
    succeeds: str | None,
) -> Backend:
    """Raises ValueError for parameters that do not go together."""
    if (isinstance(provider, str) and is_service(provider)) or (
        isinstance(provider, Shared) and not isinstance(provider, Provider)
    ):
        # It brings the HTTP library, which a program with local kernels does not need.
        from cellrun.remote.service import CellrunService, service_for
        from cellrun.remote.session import ServiceSession

        assert isinstance(provider, (str, CellrunService))
        service = service_for(provider, key)
        if succeeds is not None:
            raise ValueError(
                "succeeds= is for kernels of ours: a service tells by itself what became of a session's kernel"
            )
        return ServiceSession(
            service, owned=service is not provider, limits=limits, history=history, session_id=session_id
        )
    for name, value in (("key", key), ("session_id", session_id)):
        if value is not None:
            raise ValueError(
                f"{name}= is for a cellrun service (cellrun://host:port); "
                "JupyterServer(url, token=…) has the credentials of a Jupyter server"
            )
    owned = not isinstance(provider, Provider)
    return KernelSession(provider_for(provider), owned=owned, limits=limits, history=history, succeeds=succeeds)
