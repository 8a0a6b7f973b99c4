"""A session on a kernel of ours: the kernel, and the line of runs that wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from cellrun.backend import Backend
from cellrun.channels.client import KernelClient
from cellrun.errors import CellrunError, KernelStartError, LimitExceeded, SessionLost
from cellrun.events import Event, InputRequest
from cellrun.limits import KILL_CONFIRMATION, Limits
from cellrun.protocol.execution import Execution, State
from cellrun.protocol.kernel import KernelState
from cellrun.protocol.timing import Action, Timing, plan
from cellrun.providers.base import FileStore, Lease, Provider, finish
from cellrun.result import Result
from cellrun.running import END_OF_INPUT, EventQueue, KernelRun, Run, RunOptions

RESTARTED: Final = "restart() was called"


class KernelSession(Backend):
    """One kernel of a provider, which comes with the first run or by `start`, and comes again when it is lost."""

    def __init__(
        self, provider: Provider, *, owned: bool, limits: Limits, history: bool = True, succeeds: str | None = None
    ) -> None:
        super().__init__(provider, owned=owned, limits=limits, history=history)
        self._provider = provider
        self.lease: Lease | None = None
        self._client: KernelClient | None = None
        self._line: deque[KernelRun] = deque()
        self._kernel_lock = asyncio.Lock()
        self._lost: str | None = None
        self._restarted = succeeds
        self._ours_to_kill = False
        self._killing: asyncio.Task[None] | None = None
        self._late: list[asyncio.Queue[Event | None]] = []
        self._idle: asyncio.TimerHandle | None = None

    @property
    def began(self) -> bool:
        return self.lease is not None

    @property
    def state(self) -> str:
        lost = ", its kernel is gone" if self._lost is not None else ""
        return ("not started" if self.lease is None else f"{len(self._line)} runs") + lost

    @property
    def containment(self) -> str | None:
        return None if self.lease is None else self.lease.containment

    @property
    def language(self) -> str:
        return "" if self._client is None else self._client.language

    def _language_info(self) -> dict[str, Any]:
        info = {} if self._client is None else self._client.info.get("language_info", {})
        return dict(info) if isinstance(info, Mapping) else {}

    def cpu_seconds(self) -> float | None:
        lease = self.lease  # asked in a thread, while it may be given up
        return None if lease is None else lease.cpu_seconds()

    def disk_bytes(self) -> int | None:
        lease = self.lease
        return None if lease is None else lease.disk_bytes()

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.check_open()
        await self._ensure_kernel(self.limits.start_timeout)

    def _used(self) -> None:
        """The time without use begins anew, if nothing is going on."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        limit = self.limits.idle_timeout
        if limit is not None and not self._line and not self.closed and self.lease is not None:
            reason = f"the session has ended, after {limit:g} s without use (idle_timeout), and its variables are gone"
            self._idle = asyncio.get_running_loop().call_later(limit, self.end, reason)

    async def _let_go(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        for run in list(self._line):
            run.execution.stop("interrupted", "the session was closed")
            run.deliver(run.execution.abandon("interrupted", "", time.monotonic()))
        for queue in self._late:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        await self.end_tasks()
        if self.lease is not None:
            await self.lease.release()

    # -- running ---------------------------------------------------------------------------------

    def submit(
        self, code: str, options: RunOptions, queue: EventQueue | None, execution_id: str | None = None
    ) -> KernelRun:
        self.check_open()
        if len(self._line) > self.limits.queue_length:
            raise LimitExceeded(f"{len(self._line) - 1} runs wait on this session already", retryable=True)
        run = KernelRun(
            execution=Execution(execution_id or uuid.uuid4().hex),
            code=code,
            options=options,
            limits=self.limits,
            queue=queue,
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
        run.task = self.spawn(self._drive(run))
        return run

    async def _drive(self, run: KernelRun) -> None:
        """The whole life of a run, in a task of the session: whoever waits for it may be cancelled."""
        try:
            if not await self._wait_turn(run):
                return
            run.turn_at = time.monotonic()
            client = await self._ensure_kernel(self._start_budget(run), run)
            run.snapshot = self.lease.snapshot if self.lease is not None else None
            run.before = run.snapshot() if run.snapshot is not None else None
            run.sent, run.sent_at = True, time.monotonic()
            # In a task of its own: the deadline holds also for a send that the other side does not take.
            sending = self.spawn(
                client.execute(
                    run.execution,
                    run.code,
                    run.deliver,
                    silent=run.options.silent,
                    store_history=run.options.store_history,
                    allow_stdin=run.options.allow_stdin,
                    metadata=run.options.metadata,
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

    def _start_budget(self, run: KernelRun) -> float:
        """The deadline of a run counts from its start; yet a server that never answers may not hold a run
        with a deadline for much longer than that."""
        limit = self.limits.start_timeout
        return limit if run.options.timeout is None else min(limit, run.options.timeout + self.limits.grace)

    async def _wait_turn(self, run: KernelRun) -> bool:
        try:
            async with asyncio.timeout(run.options.queue_timeout):
                await run.turn.wait()
        except TimeoutError:
            reason = f"the run waited {run.options.queue_timeout:g} s for its turn (queue_timeout) and did not begin"
            run.execution.stop("timeout", reason)
            run.deliver(run.execution.abandon("timeout", "", time.monotonic()))
        return not run.ended

    def _leave_line(self, run: KernelRun) -> None:
        if run not in self._line:
            return
        self._line.remove(run)
        self._used()
        self.remember(run)
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

    async def _watch(self, run: KernelRun, client: KernelClient, sending: asyncio.Task[None]) -> None:
        """Deadline, stop, kill: performs what `plan` decides until the run has ended."""
        timing = Timing(time.monotonic(), run.options.timeout, self.limits.grace, KILL_CONFIRMATION)
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
                    run.execution.stop("interrupted", run.stop_reason or "the caller stopped it")
                else:
                    run.execution.stop("timeout", f"the time limit of {run.options.timeout:g} s was reached")
                if run.queue is not None:
                    run.queue.lift()
                self.spawn(self._send_interrupt(run, client))
            elif action is Action.KILL:
                timing.killed = now
                self._ours_to_kill = True
                self._lost = (
                    f"the kernel was killed: a cell did not stop within {self.limits.grace:g} s of its interrupt"
                )
                assert self.lease is not None
                self._killing = self.spawn(self.lease.kill())
            else:
                run.deliver(client.abandon(run.execution, self._lost or ""))

    async def _send_interrupt(self, run: KernelRun, client: KernelClient) -> None:
        """The interrupt itself, and a request that makes the kernel's loop turn: an awaiting cell notices
        the interrupt only then. Failures show in the cell not ending."""
        await self._until_begun(run)
        if run.execution.ended:  # what runs by now is another one
            return
        with contextlib.suppress(Exception):
            assert self.lease is not None
            await self.lease.interrupt()
        with contextlib.suppress(Exception):
            await client.wake()

    async def _until_begun(self, run: KernelRun) -> None:
        """A kernel that has not begun with a cell ignores an interrupt, and then runs the cell."""
        limit = time.monotonic() + self.limits.grace / 2
        while run.execution.state is State.SENT and time.monotonic() < limit:
            await asyncio.sleep(0.005)

    def _answer_input(self, run: KernelRun, request: InputRequest) -> None:
        if self._client is not None:
            run.answering.append(self.spawn(self._answer(run, request, self._client)))

    async def _answer(self, run: KernelRun, request: InputRequest, client: KernelClient) -> None:
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
        self.check_open()
        if self._line:
            await self.interrupt_run(self._line[0])

    async def interrupt_run(self, run: Run) -> None:
        head = self._line[0] if self._line else None
        if head is None or head is not run or not head.sent or self._client is None or self.lease is None:
            return
        head.execution.stop("interrupted", "interrupt() was called")
        await self._until_begun(head)
        if head.execution.ended:  # what runs by now is another one
            return
        await self.lease.interrupt()
        await self._client.wake()

    # -- the kernel ------------------------------------------------------------------------------

    async def restart(self) -> None:
        self.check_open()
        async with self._kernel_lock:
            run = self._line[0] if self._line else None
            if run is not None and run.sent:
                run.execution.stop("interrupted", "the kernel was restarted")
            if self.lease is not None:
                self._lost = RESTARTED
                self._ours_to_kill = True
                if self._client is not None and run is not None and run.sent and not run.ended:
                    run.deliver(self._client.abandon(run.execution, ""))
        await self._ensure_kernel(self.limits.start_timeout)

    async def _ensure_kernel(self, timeout: float, run: KernelRun | None = None) -> KernelClient:
        """A ready kernel: the one that is there, a new one, or another one after a death."""
        async with self._kernel_lock:
            self.check_open()
            if self.lease is None:
                self.attach()
                try:
                    async with asyncio.timeout(timeout + 1.0):
                        lease = await self._provider.acquire(timeout)
                except TimeoutError:
                    raise KernelStartError(f"no kernel was ready within {timeout:g} s", retryable=True) from None
                if self.closed:
                    await finish(lease.release())
                    self.check_open()
                self._use(lease)
            elif self._lost is not None:
                reason = self._lost
                if self._killing is not None:
                    # Not its cancellation with ours: the kill is everybody's.
                    await asyncio.wait({self._killing})
                await self.lease.restart(self.limits.start_timeout)
                self._use(self.lease)
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
        self.lease, self._client = lease, lease.client
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
        self.check_open()
        queue: asyncio.Queue[Event | None] = asyncio.Queue(self.limits.late_events)
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

    async def ask(self, request: str, content: dict[str, Any], *, timeout: float) -> Mapping[str, Any]:
        client = await self._ensure_kernel(self.limits.start_timeout)
        return await client.ask(request, content, timeout=timeout)

    async def send_comm(self, comm_id: str, data: Mapping[str, Any], buffers: tuple[bytes, ...]) -> None:
        client = await self._ensure_kernel(self.limits.start_timeout)
        await client.send_comm({"comm_id": comm_id, "data": dict(data)}, buffers)

    async def open_files(self) -> FileStore:
        self.check_open()
        await self._ensure_kernel(self.limits.start_timeout)
        assert self.lease is not None
        return await self.lease.open_files()


def _exits(result: Result) -> bool:
    """Whether the cell asked the kernel to end: `exit()` or `quit()` (IPython's payload "ask_exit")."""
    return any(payload.get("source") == "ask_exit" and not payload.get("keepkernel") for payload in result.payloads)
