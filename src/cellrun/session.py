"""A session: one kernel, its variables, its files, and the line of runs that wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
import warnings
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from cellrun.channels.client import KernelClient
from cellrun.errors import CellrunError, KernelStartError, LimitExceeded, SessionLost
from cellrun.events import Event, InputRequest
from cellrun.files import Files
from cellrun.limits import KILL_CONFIRMATION, UNSET, Limits, Unset
from cellrun.notebook import History
from cellrun.protocol.execution import Execution, State
from cellrun.protocol.kernel import KernelState
from cellrun.protocol.timing import Action, Timing, plan
from cellrun.providers import Provider, provider_for
from cellrun.providers.base import Lease, finish
from cellrun.result import Result
from cellrun.running import END_OF_INPUT, EventQueue, OnEvent, OnInput, Run, RunOptions
from cellrun.stream import AsyncStream

if TYPE_CHECKING:
    import nbformat


class AsyncSession:
    """Runs code in one kernel, one run after the other, in the order of the calls.

    `provider`: where the kernel comes from: None (this machine), the address of a Jupyter server as a
    string, or a provider object, which then can serve many sessions and is not closed with this one.
    The kernel is started by the first run, or by `start()` or `async with`.
    `succeeds`: why the kernel of an earlier session, which this one goes on from, is gone: the first run begins with a
    KernelRestarted that says so. None: there was none.

    Usable on one event loop; on another one calls raise RuntimeError. Closing twice is fine, forgetting warns (ResourceWarning).
    """

    def __init__(
        self, provider: Provider | str | None = None, *, limits: Limits | None = None, succeeds: str | None = None
    ) -> None:
        self._owns_provider = not isinstance(provider, Provider)
        self._provider = provider_for(provider)
        self._attached = False
        self._limits = limits or Limits()
        self._lease: Lease | None = None
        self._client: KernelClient | None = None
        self._line: deque[Run] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._kernel_lock = asyncio.Lock()
        self._lost: str | None = None
        self._restarted = succeeds
        self._ours_to_kill = False
        self._killing: asyncio.Task[None] | None = None
        self._late: list[asyncio.Queue[Event | None]] = []
        self._history = History()
        self._closed = False
        self._ended = "the session is closed"
        self._idle: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.files = Files(self._open_files)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not started" if self._lease is None else f"{len(self._line)} runs"
        lost = ", its kernel is gone" if self._lost is not None and not self._closed else ""
        return f"<AsyncSession on {self._provider!r}, {state}{lost}>"

    @property
    def containment(self) -> str | None:
        """What walls hold the kernel: "none" where nothing does, None where it cannot be known (a remote
        server) or the kernel has not been started."""
        return None if self._lease is None else self._lease.containment

    @property
    def closed(self) -> bool:
        """Whether it has ended: by `aclose()`, or because it was not used for `Limits.idle_timeout`."""
        return self._closed

    @property
    def language(self) -> str:
        """The kernel's language in lower case, "" before the start."""
        return "" if self._client is None else self._client.language

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Starts the kernel now instead of at the first run. Raises KernelStartError, ConnectionFailed or
        AuthenticationError. Cancelled, it leaves no kernel behind."""
        self._check_open()
        await self._ensure_kernel(self._limits.start_timeout)
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
        """Ends runs that are under way (status "interrupted"), then the kernel. Never raises. A second call
        waits for the first; a cancelled one goes on in the background."""
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    def _used(self) -> None:
        """The time without use begins anew, if nothing is going on."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        limit = self._limits.idle_timeout
        if limit is not None and not self._line and not self._closed and self._lease is not None:
            self._idle = asyncio.get_running_loop().call_later(limit, self._end_idle, limit)

    def _end_idle(self, limit: float) -> None:
        self._closed = True
        self._ended = f"the session has ended, after {limit:g} s without use (idle_timeout), and its variables are gone"
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        for run in list(self._line):
            run.execution.stop("interrupted", "the session was closed")
            run.deliver(run.execution.abandon("interrupted", "", time.monotonic()))
        for queue in self._late:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._lease is not None:
            await self._lease.release()
        if self._owns_provider:
            await self._provider.aclose()
        elif self._attached:
            await self._provider.detach()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if not getattr(self, "_closed", True) and self._lease is not None:
            _warn(f"{self!r} was not closed: use `async with`, or aclose()", ResourceWarning, source=self)

    def _check_open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this session belongs to another event loop: make one in each asyncio.run(), or use cellrun.Session"
            )
        if self._closed:
            raise SessionLost(f"{self._ended}; make a new one")

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
        SessionLost if the session is closed, LimitExceeded if too many runs wait. Cancelled: the cell is
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
    ) -> AsyncStream:
        """The events of a run as they happen: `async with session.stream(code) as stream`, in it
        `async for event in stream`, afterwards `stream.result`. Parameters and errors as in `run`. `execution_id`: one that
        is new, for a caller who must know it before; None: it is made.

        A reader that falls behind by more than `Limits.stream_buffer` slows the kernel down; nothing is
        dropped. Leaving the `async with` before the end interrupts the cell.
        """
        options = self._options(timeout, queue_timeout, silent, store_history, stdin, on_input, None)
        queue = EventQueue(self._limits.stream_buffer)
        return AsyncStream(lambda: self._submit(code, options, queue, execution_id), queue, self.interrupt)

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
        timeout = self._limits.timeout if isinstance(timeout, Unset) else timeout
        queue_timeout = self._limits.queue_timeout if isinstance(queue_timeout, Unset) else queue_timeout
        for name, value in (("timeout", timeout), ("queue_timeout", queue_timeout)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be zero or more seconds, or None for no limit; not {value!r}")
        if isinstance(stdin, str):
            raise TypeError("stdin must be a list of lines, not one string: stdin=[…]")
        return RunOptions(
            timeout=timeout,
            queue_timeout=queue_timeout,
            silent=silent,
            store_history=store_history,
            stdin=stdin,
            on_input=on_input,
            on_event=on_event,
        )

    def _submit(self, code: str, options: RunOptions, queue: EventQueue | None, execution_id: str | None = None) -> Run:
        self._check_open()
        if not isinstance(code, str):
            raise TypeError(f"code must be a str, not {type(code).__name__}")
        if len(self._line) > self._limits.queue_length:
            raise LimitExceeded(f"{len(self._line) - 1} runs wait on this session already", retryable=True)
        run = Run(
            Execution(execution_id or uuid.uuid4().hex),
            code,
            options,
            self._limits,
            queue,
            answer=self._answer_input,
            on_end=self._leave_line,
        )
        self._line.append(run)
        run.position = len(self._line) - 1
        if run.position:
            run.deliver([run.execution.queued(run.position)])
            if run.ended:  # its callback failed
                return run
        else:
            run.turn.set()
        run.task = self._spawn(self._drive(run))
        return run

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _drive(self, run: Run) -> None:
        """The whole life of a run, in a task of the session: whoever waits for it may be cancelled."""
        try:
            if not await self._wait_turn(run):
                return
            client = await self._ensure_kernel(self._start_budget(run), run)
            run.snapshot = self._lease.snapshot if self._lease is not None else None
            run.before = run.snapshot() if run.snapshot is not None else None
            run.sent = True
            # In a task of its own: the deadline holds also for a send that the other side does not take.
            sending = self._spawn(
                client.execute(
                    run.execution,
                    run.code,
                    run.deliver,
                    silent=run.options.silent,
                    store_history=run.options.store_history,
                    allow_stdin=run.options.allow_stdin,
                )
            )
            sending.add_done_callback(lambda _: run.changed.set())
            try:
                await self._watch(run, client, sending)
            finally:
                sending.cancel()
        except asyncio.CancelledError:
            # By stop() or _close(), which have ended the run before they cancel this.
            pass
        except CellrunError as error:
            run.fail(error)
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            self._leave_line(run)

    def _start_budget(self, run: Run) -> float:
        """The deadline of a run counts from its start; yet a server that never answers may not hold a run
        with a deadline for much longer than that."""
        limit = self._limits.start_timeout
        return limit if run.options.timeout is None else min(limit, run.options.timeout + self._limits.grace)

    async def _wait_turn(self, run: Run) -> bool:
        try:
            async with asyncio.timeout(run.options.queue_timeout):
                await run.turn.wait()
        except TimeoutError:
            reason = f"the run waited {run.options.queue_timeout:g} s for its turn (queue_timeout) and did not begin"
            run.execution.stop("timeout", reason)
            run.deliver(run.execution.abandon("timeout", "", time.monotonic()))
        return not run.ended

    def _leave_line(self, run: Run) -> None:
        if run not in self._line:
            return
        self._line.remove(run)
        self._used()
        if run.result is not None and run.sent and not run.options.silent:
            self._history.add(run.code, run.result)
        if run.result is not None and run.result.status == "ok" and _exits(run.result):
            # It ends a moment after its answer: what came in that moment would end with it.
            self._lost = self._lost or "the code called exit()"
            self._ours_to_kill = True
        for position, waiting in enumerate(list(self._line)):
            if waiting not in self._line:  # it left during this loop, by the fault of its callback
                continue
            if position == 0:
                waiting.turn.set()
            elif position != waiting.position:
                waiting.deliver([waiting.execution.queued(position)])
            waiting.position = position

    async def _watch(self, run: Run, client: KernelClient, sending: asyncio.Task[None]) -> None:
        """Deadline, stop, kill: performs what `plan` decides until the run has ended."""
        timing = Timing(time.monotonic(), run.options.timeout, self._limits.grace, KILL_CONFIRMATION)
        while not run.execution.ended:
            run.changed.clear()
            if sending.done() and not sending.cancelled() and (error := sending.exception()) is not None:
                raise error
            timing.stop_wanted = run.stop_wanted
            now = time.monotonic()
            action, until = plan(timing, now)
            if action is Action.WAIT:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if until is None else until - now):
                        await run.changed.wait()
            elif action is Action.INTERRUPT:
                timing.interrupted = now
                if run.stop_wanted:
                    run.execution.stop("interrupted", "the caller stopped it")
                else:
                    run.execution.stop("timeout", f"the time limit of {run.options.timeout:g} s was reached")
                if run.queue is not None:
                    run.queue.lift()
                self._spawn(self._send_interrupt(run, client))
            elif action is Action.KILL:
                timing.killed = now
                self._ours_to_kill = True
                self._lost = (
                    f"the kernel was killed: a cell did not stop within {self._limits.grace:g} s of its interrupt"
                )
                assert self._lease is not None
                self._killing = self._spawn(self._lease.kill())
            else:
                run.deliver(client.abandon(run.execution, self._lost or ""))

    async def _send_interrupt(self, run: Run, client: KernelClient) -> None:
        """The interrupt itself, and a request that makes the kernel's loop turn: an awaiting cell notices
        the interrupt only then. Failures show in the cell not ending."""
        await self._until_begun(run)
        with contextlib.suppress(Exception):
            assert self._lease is not None
            await self._lease.interrupt()
        with contextlib.suppress(Exception):
            await client.wake()

    async def _until_begun(self, run: Run) -> None:
        """A kernel that has not begun with a cell ignores an interrupt, and then runs the cell."""
        limit = time.monotonic() + self._limits.grace / 2
        while run.execution.state is State.SENT and time.monotonic() < limit:
            await asyncio.sleep(0.005)

    def _answer_input(self, run: Run, request: InputRequest) -> None:
        if self._client is not None:
            run.answering.append(self._spawn(self._answer(run, request, self._client)))

    async def _answer(self, run: Run, request: InputRequest, client: KernelClient) -> None:
        value = END_OF_INPUT
        try:
            value = await run.next_line(request)
        except Exception as error:  # the caller's callback failed: the caller gets it, the cell is stopped
            run.stop()
            run.answering.clear()  # this task itself goes on: the cell still waits for its line
            run.fail(error)
        # A kernel does not look whose answer it is: one that comes too late would go to the next cell.
        if not run.execution.ended:
            with contextlib.suppress(CellrunError):
                await client.answer_input(run.execution, value)

    async def interrupt(self) -> None:
        """Interrupts the running cell, as Ctrl-C does; nothing happens if none runs. What the cell makes of
        it is its own affair: there is no kill. Raises ConnectionFailed where it did not get through."""
        self._check_open()
        run = self._line[0] if self._line else None
        if run is None or not run.sent or self._client is None or self._lease is None:
            return
        run.execution.stop("interrupted", "interrupt() was called")
        await self._until_begun(run)
        await self._lease.interrupt()
        await self._client.wake()

    # -- the kernel ------------------------------------------------------------------------------

    async def restart(self) -> None:
        """A fresh kernel: variables are gone, files stay. A running cell ends as "interrupted"; runs that
        wait go on in the new kernel. Raises as `start` does."""
        self._check_open()
        async with self._kernel_lock:
            run = self._line[0] if self._line else None
            if run is not None and run.sent:
                run.execution.stop("interrupted", "the kernel was restarted")
            if self._lease is not None:
                self._lost = "restart() was called"
                self._ours_to_kill = True
                if self._client is not None and run is not None and run.sent and not run.ended:
                    run.deliver(self._client.abandon(run.execution, ""))
        await self._ensure_kernel(self._limits.start_timeout)

    async def _ensure_kernel(self, timeout: float, run: Run | None = None) -> KernelClient:
        """A ready kernel: the one that is there, a new one, or another one after a death."""
        async with self._kernel_lock:
            self._check_open()
            if self._lease is None:
                if not self._attached:
                    self._provider.attach()
                    self._attached = True
                try:
                    async with asyncio.timeout(timeout + 1.0):
                        lease = await self._provider.acquire(timeout)
                except TimeoutError:
                    raise KernelStartError(f"no kernel was ready within {timeout:g} s", retryable=True) from None
                if self._closed:
                    await finish(lease.release())
                    self._check_open()
                self._use(lease)
            elif self._lost is not None:
                reason = self._lost
                if self._killing is not None:
                    # Not its cancellation with ours: the kill is everybody's.
                    await asyncio.wait({self._killing})
                await self._lease.restart(self._limits.start_timeout)
                self._use(self._lease)
                self._restarted = reason
            assert self._client is not None
            if self._lost is None and self._client.state is KernelState.DEAD:
                raise SessionLost(f"the session's kernel is gone: {self._client.reason}")
            if run is not None and self._restarted is not None:
                run.deliver([run.execution.restarted(self._restarted)])
                self._restarted = None
            self._used()
            return self._client

    def _use(self, lease: Lease) -> None:
        self._lease, self._client = lease, lease.client
        self._lost, self._ours_to_kill, self._killing = None, False, None
        lease.client.on_late = self._on_late
        lease.client.on_gone = self._on_gone

    def _on_gone(self, reason: str) -> None:
        """The kernel died. Runs that wait counted on its variables: they fail at once, unless the death
        was our own doing (a time limit, a restart)."""
        if self._ours_to_kill:
            return
        self._lost = self._lost or reason
        for run in list(self._line):
            if not run.sent:
                run.deliver(run.execution.died_waiting(f"{reason}; this run had not begun", time.monotonic()))

    # -- besides running -------------------------------------------------------------------------

    async def late(self) -> AsyncIterator[Event]:
        """Output that comes after its execution has finished (threads, callbacks), as events with `seq` 0
        and the old `execution_id`, from now on until the session is closed. A listener that falls behind by more than
        `Limits.late_events` misses the oldest."""
        self._check_open()
        queue: asyncio.Queue[Event | None] = asyncio.Queue(self._limits.late_events)
        self._late.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._late.remove(queue)

    def _on_late(self, event: Event) -> None:
        for queue in self._late:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    async def complete(self, code: str, cursor: int | None = None, *, timeout: float = 5.0) -> Mapping[str, Any]:
        """The content of the kernel's `complete_reply`: "matches", "cursor_start", "cursor_end".
        `cursor` counts characters. Raises ConnectionFailed if a busy kernel does not answer in time."""
        client = await self._ensure_kernel(self._limits.start_timeout)
        position = len(code) if cursor is None else cursor
        return await client.ask("complete_request", {"code": code, "cursor_pos": position}, timeout=timeout)

    async def inspect(self, code: str, cursor: int | None = None, *, timeout: float = 5.0) -> Mapping[str, Any]:
        """The content of the kernel's `inspect_reply`: "found", and a MIME bundle "data"."""
        client = await self._ensure_kernel(self._limits.start_timeout)
        content = {"code": code, "cursor_pos": len(code) if cursor is None else cursor, "detail_level": 0}
        return await client.ask("inspect_request", content, timeout=timeout)

    async def is_complete(self, code: str, *, timeout: float = 5.0) -> str:
        """ "complete", "incomplete", "invalid" or "unknown": whether the code can be run as it stands."""
        client = await self._ensure_kernel(self._limits.start_timeout)
        reply = await client.ask("is_complete_request", {"code": code}, timeout=timeout)
        return str(reply.get("status", "unknown"))

    async def send_comm(self, comm_id: str, data: Mapping[str, Any], *, buffers: tuple[bytes, ...] = ()) -> None:
        """A message to a comm that the kernel opened (see the event Comm)."""
        client = await self._ensure_kernel(self._limits.start_timeout)
        await client.send_comm({"comm_id": comm_id, "data": dict(data)}, buffers)

    def to_notebook(self) -> nbformat.NotebookNode:
        """A notebook (nbformat 4) of what was run, with outputs in their last state."""
        info = {} if self._client is None else self._client.info.get("language_info", {})
        return self._history.to_notebook(dict(info) if isinstance(info, Mapping) else {})

    async def _open_files(self) -> Any:
        self._check_open()
        await self._ensure_kernel(self._limits.start_timeout)
        assert self._lease is not None
        return await self._lease.open_files()


def _exits(result: Result) -> bool:
    """Whether the cell asked the kernel to end: `exit()` or `quit()` (IPython's payload "ask_exit")."""
    return any(payload.get("source") == "ask_exit" and not payload.get("keepkernel") for payload in result.payloads)
