"""The pump around a kernel connection: one reader task, every request registered before it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cellrun.channels.base import Channel, Gone, Reconnected
from cellrun.errors import CellrunError, ConnectionFailed, KernelStartError, SessionLost
from cellrun.events import Event, Finished
from cellrun.protocol.execution import Execution
from cellrun.protocol.kernel import Answer, Changed, Effect, Emit, KernelConnection, KernelState, Late
from cellrun.protocol.message import ChannelName, Message, execute_content, request
from cellrun.protocol.resume import RESEND

_PROBE_EVERY: Final = 0.25
# A kernel in the middle of C code answers on control only when that lets go of the interpreter.
_RESEND_PATIENCE: Final = 3.0

Sink = Callable[[list[Event]], Awaitable[None] | None]
"""Takes the events of one execution. Where it returns an awaitable, nothing more is read from the kernel
until that is done: this is how a slow reader slows the kernel instead of filling memory."""


class KernelClient:
    """Requests to one kernel and the way of its answers. Used by one session at a time.

    `session_id` stands in the header of all our messages; over a Jupyter server it must be the one that
    the connection was opened with. `on_late` gets output of executions that have ended; `on_gone` is told once, with the reason, when
    the kernel is dead or its restart by the server begins; `on_quiet` each time that no execution is under way any more. `on_message`
    gets every message before we look at it; where it returns an awaitable, nothing more is read until that is done. `occupied`: whether
    others' executions are under way, which are not in our books.
    """

    def __init__(self, channel: Channel, session_id: str | None = None) -> None:
        self.channel = channel
        self.session_id = session_id or uuid.uuid4().hex
        self.info: Mapping[str, Any] = {}
        self.on_late: Callable[[Event], None] | None = None
        self.on_gone: Callable[[str], None] | None = None
        self.on_quiet: Callable[[], None] | None = None
        self.on_message: Callable[[Message], Awaitable[None] | None] | None = None
        self.occupied = False
        self._connection = KernelConnection()
        self._sinks: dict[str, Sink] = {}
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._changed = asyncio.Event()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._resyncs: set[asyncio.Task[None]] = set()
        # Effects are performed in the order in which they were made, also where performing waits.
        self._performing = asyncio.Lock()
        self._reader = asyncio.create_task(self._read(), name="cellrun kernel reader")

    @property
    def state(self) -> KernelState:
        return self._connection.state

    @property
    def executing(self) -> bool:
        """Whether an execution is under way."""
        return self.occupied or bool(self._connection.executions)

    @property
    def reason(self) -> str:
        """Why the kernel is not there, if it is not."""
        return self._connection.reason or "the kernel is gone"

    @property
    def language(self) -> str:
        """The kernel's language as its kernel_info_reply names it, in lower case; "" before that."""
        info = self.info.get("language_info")
        return str(info.get("name", "")).lower() if isinstance(info, Mapping) else ""

    async def aclose(self) -> None:
        """Ends the reader and closes the channel. Executions under way end as "kernel_died". A second call waits for the first; a
        cancelled one goes on in the background."""
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            tasks = [self._reader, *self._resyncs]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._perform(self._connection.died("the session was closed", time.monotonic()))
            self._fail_answers("the session was closed")
        finally:
            await self.channel.aclose()

    # -- requests --------------------------------------------------------------------------------

    def new_id(self) -> str:
        return uuid.uuid4().hex

    async def execute(
        self,
        execution: Execution,
        code: str,
        sink: Sink,
        *,
        silent: bool,
        store_history: bool,
        allow_stdin: bool,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Sends the request; its events go to `sink`. Raises ConnectionFailed if it was not sent: the
        execution is then as if it had never been."""
        content = execute_content(code, silent=silent, store_history=store_history, allow_stdin=allow_stdin)
        message = self._request("shell", "execute_request", content, execution.execution_id, metadata)
        self._connection.register(execution)
        self._sinks[execution.execution_id] = sink
        execution.sent(time.monotonic())
        try:
            await self.channel.send(message)
        except ConnectionFailed:
            self.abandon(execution, "not sent")
            raise

    async def ask(
        self, msg_type: str, content: Mapping[str, Any], *, channel: ChannelName = "shell", timeout: float
    ) -> Mapping[str, Any]:
        """One request and the content of its reply. Raises ConnectionFailed after `timeout` seconds, and
        SessionLost when the kernel goes away."""
        msg_id = self.new_id()
        self._connection.expect(msg_id)
        try:
            reply = await self._await_answer(msg_id, self._request(channel, msg_type, content, msg_id), timeout)
        finally:
            self._connection.forget(msg_id)
        return reply.content

    async def wake(self) -> None:
        """After an interrupt: a request that makes the kernel's event loop turn, since a cell that awaits
        notices the interrupt only then; and whose reply shows if the cell's own reply will never come."""
        probe_id = self.new_id()
        self._connection.interrupted(probe_id)
        with contextlib.suppress(CellrunError):
            await self.channel.send(self._request("shell", "kernel_info_request", {}, probe_id))

    async def answer_input(self, execution: Execution, value: str) -> None:
        """The `input_reply` to the execution's input request."""
        parent = {"msg_id": execution.execution_id, "session": self.session_id}
        message = self._request("stdin", "input_reply", {"value": value, "status": "ok"}, self.new_id())
        await self.channel.send(Message("stdin", message.header, parent, {}, message.content))

    async def send_comm(self, content: Mapping[str, Any], buffers: tuple[bytes, ...]) -> None:
        """A `comm_msg` to the kernel."""
        message = self._request("shell", "comm_msg", content, self.new_id())
        await self.channel.send(Message("shell", message.header, {}, {}, message.content, buffers))

    def abandon(self, execution: Execution, reason: str) -> list[Event]:
        """Closes an execution without the kernel's word; gives its last events to the caller."""
        self._sinks.pop(execution.execution_id, None)
        return self._connection.abandon(execution, reason, time.monotonic())

    def renew(self) -> None:
        """The kernel was restarted at our wish: wait_ready is needed again."""
        self._connection.renew()

    async def wait_ready(self, timeout: float) -> None:
        """Until a probe was answered on shell and seen on IOPub. Raises KernelStartError when the time
        is up or the kernel dies."""
        deadline = time.monotonic() + timeout
        probes: list[str] = []
        try:
            await self._probe_until_ready(deadline, timeout, probes)
        finally:
            for probe_id in probes:
                self._connection.forget(probe_id)

    async def _probe_until_ready(self, deadline: float, timeout: float, probes: list[str]) -> None:
        while self.state is not KernelState.READY:
            if self.state is KernelState.DEAD:
                raise KernelStartError(f"the kernel did not start: {self.reason}")
            left = deadline - time.monotonic()
            if left <= 0:
                raise KernelStartError(f"the kernel did not become ready within {timeout:g} s", retryable=True)
            probe_id = self.new_id()
            probes.append(probe_id)
            self._connection.probe(probe_id)
            with contextlib.suppress(ConnectionFailed, SessionLost):
                probe = self._request("shell", "kernel_info_request", {}, probe_id)
                await self._await_answer(probe_id, probe, min(_PROBE_EVERY, left))
            # The reply came or did not; IOPub's word may still be on its way.
            self._changed.clear()
            if self.state not in (KernelState.READY, KernelState.DEAD):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(0.05, max(left, 0.001)))

    def _request(
        self,
        channel: ChannelName,
        msg_type: str,
        content: Mapping[str, Any],
        msg_id: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> Message:
        date = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return request(channel, msg_type, content, msg_id=msg_id, session=self.session_id, date=date, metadata=metadata)

    async def _await_answer(self, msg_id: str, message: Message, timeout: float) -> Message:
        if self._closed:
            raise SessionLost("the session is closed")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[msg_id] = answer
        try:
            async with asyncio.timeout(timeout):
                await self.channel.send(message)
                return await answer
        except TimeoutError:
            raise ConnectionFailed(f"the kernel did not answer a {message.msg_type} within {timeout:g} s") from None
        finally:
            self._answers.pop(msg_id, None)

    # -- the reader ------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            await self._read_to_the_end()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of ours: whoever waits must hear of it, and then it is raised
            reason = f"cellrun failed to read from the kernel: {type(error).__name__}: {error}"
            await self._perform(self._connection.died(reason, time.monotonic()))
            self._fail_answers(reason)
            for execution_id in list(self._sinks):  # ended in the machine, its last events lost to the fault
                await self._perform([Emit(execution_id, [Execution(execution_id).fault(reason)])])
            raise

    async def _read_to_the_end(self) -> None:
        while True:
            for item in await self.channel.receive():
                now = time.monotonic()
                if isinstance(item, Message):
                    if self.on_message is not None and (waiting := self.on_message(item)) is not None:
                        await waiting
                    effects = self._connection.receive(item, now)
                elif isinstance(item, Reconnected):
                    effects = []
                    self._resync()
                else:
                    assert isinstance(item, Gone)
                    await self._perform(self._connection.died(item.reason, now))
                    self._fail_answers(item.reason)
                    return
                if effects:
                    await self._perform(effects)

    async def _perform(self, effects: list[Effect]) -> None:
        async with self._performing:
            await self._perform_in_order(effects)

    async def _perform_in_order(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Emit):
                sink = self._sinks.get(effect.execution_id)
                if sink is not None:
                    if isinstance(effect.events[-1], Finished):
                        del self._sinks[effect.execution_id]
                    waiting = sink(effect.events)
                    if self.on_quiet is not None and isinstance(effect.events[-1], Finished) and not self.executing:
                        self.on_quiet()
                    if waiting is not None:
                        await waiting
            elif isinstance(effect, Answer):
                if effect.message.msg_type == "kernel_info_reply":
                    # Also of a probe that we no longer wait for: it may be the one that showed readiness.
                    self.info = effect.message.content
                answer = self._answers.get(effect.msg_id)
                if answer is not None and not answer.done():
                    answer.set_result(effect.message)
            elif isinstance(effect, Late):
                if self.on_late is not None:
                    self.on_late(effect.event)
            elif isinstance(effect, Changed):
                self._on_change(effect)

    def _on_change(self, change: Changed) -> None:
        self._changed.set()
        if change.state in (KernelState.RESTARTING, KernelState.DEAD):
            self._fail_answers(change.reason or "the kernel is gone")
            if self.on_gone is not None and not self._closed:
                self.on_gone(change.reason or "the kernel is gone")

    def _fail_answers(self, reason: str) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SessionLost(reason, retryable=True))

    def _resync(self) -> None:
        """After a reconnect: a probe that shows what the break has cost. Not awaited here, since sending
        may wait for a connection that has broken again."""
        probe_id = self.new_id()
        after = self._connection.reconnected(probe_id)
        task = asyncio.create_task(self._resume(probe_id, after))
        self._resyncs.add(task)
        task.add_done_callback(self._resyncs.discard)

    async def _resume(self, probe_id: str, after: int | None) -> None:
        if after is not None:
            await self._send_quietly(
                self._request("control", RESEND, {"after": after, "token": probe_id}, self.new_id())
            )
        await self._send_quietly(self._request("shell", "kernel_info_request", {}, probe_id))
        if after is not None:
            await asyncio.sleep(_RESEND_PATIENCE)
            await self._perform(self._connection.resume_failed(probe_id, time.monotonic()))

    async def _send_quietly(self, message: Message) -> None:
        with contextlib.suppress(CellrunError):
            await self.channel.send(message)
