"""A run of the service: the code, its log, and the task that brings its events from the session to the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from cellrun.errors import CellrunError
from cellrun.event_log import End, Entry, EventLog, LogStore, end_of, entry_of
from cellrun.events import Display, DisplayUpdate, Event, ExecuteResult, Finished, InputRequest, Started
from cellrun.folding import Folder, fold
from cellrun.limits import KIB, MIB, UNSET, Limits, Unset
from cellrun.mime import size_of
from cellrun.result import DisplayOutput, Result
from cellrun.session import AsyncSession
from cellrun.stream import AsyncStream
from cellrun.wire import event_from_json

OnDisconnect = Literal["interrupt", "detach"]
RESULT: Final = Limits(text=4 * MIB, displays=64 * MIB)
"""What the Result of a run keeps, in memory and on disk."""
_SOON: Final = 0.001
_BEGUN: Final = 0.004
_MANY: Final = 32
_LARGE: Final = 256 * KIB
_log: Final = logging.getLogger("cellrun.service")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a caller asked for. `stdin`: lines for `input()`; None: they come by `answer`, where somebody can be asked (`asks`): whoever
    waits for the result of a run that has no session learns of it at its end. `on_disconnect`: what becomes of the run when the one who
    started it goes away before its end and nobody else watches. `metadata`: what the kernel is asked for with it; it may have secrets in it,
    and is not kept."""

    code: str
    timeout: float | Unset | None = UNSET
    stdin: tuple[str, ...] | None = None
    on_disconnect: OnDisconnect = "detach"
    asks: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class LiveRun:
    """A run that this process carries out, or has carried out. `reason`: why it ended so; `failure`: the error of the plumbing that it
    ended with; `stored`: whether its end is in the store, too; `starter_gone`: the one who started it went away before its end."""

    id: str
    tenant: str
    session: str | None
    request: RunRequest
    log: EventLog
    store: LogStore
    created: float = field(default_factory=time.time)
    end: End | None = None
    reason: str | None = None
    failure: CellrunError | None = None
    stored: bool = True
    watchers: int = 0
    starter_gone: bool = False
    task: asyncio.Task[None] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: InputRequest | None = None
    _answer: asyncio.Future[str] | None = None
    _stream: AsyncStream | None = None
    _unwanted: bool = False
    _why: str | None = None

    @property
    def begun(self) -> bool:
        """Whether its code was sent to a kernel."""
        return self._stream is not None and self._stream.begun

    @property
    def status(self) -> str | None:
        return None if self.end is None else self.end.status

    @property
    def state(self) -> str:
        """ "queued", "running", "waiting_for_input" or how it ended."""
        if self.end is not None:
            return self.end.status
        if self._asked is not None:
            return "waiting_for_input"
        return "running" if self.log.last and self.begun else "queued"

    @property
    def moments(self) -> tuple[float | None, float | None]:
        """When its turn came, and when its code was sent to the kernel: of the monotonic clock; None: not yet."""
        return (None, None) if self._stream is None else self._stream.moments

    async def carry_out(
        self, open_session: Callable[[], AsyncSession], on_event: Callable[[Sequence[Event]], None]
    ) -> None:
        """From the first event to the last. Never raises but for a cancellation; whatever happens, the log ends. It is `done` when whoever
        calls this says so."""
        request = self.request
        try:
            stream = self._stream = open_session().stream(
                request.code,
                timeout=request.timeout,
                stdin=() if request.stdin is None and not request.asks else request.stdin,
                on_input=self._ask if request.stdin is None and request.asks else None,
                execution_id=self.id,
                metadata=request.metadata or None,
            )
            async with stream:
                if self._unwanted:  # before it had begun
                    stream.cancel(self._why)
                while events := await stream.next_batch():
                    await _and_soon(stream, events)
                    on_event(events)
                    entries = await _entries(events)
                    if isinstance(events[-1], Finished):
                        await self._end(entries, stream.result)
                    else:
                        await self.log.append(entries)
        except CellrunError as error:
            self.failure = error
            await self.give_up(str(error))
        except OSError as error:  # the log's store
            _log.error("run %s: its output cannot be kept: %s", self.id, error)
            self._lose(f"the service could not keep the run's output: {error}")
        except asyncio.CancelledError:
            await self.give_up("the service ended")
            raise
        except Exception:
            _log.exception("run %s: the service has failed", self.id)
            await self.give_up("the service has failed; its log says why")

    async def interrupt(self) -> bool:
        """As Ctrl-C does; a run that waits leaves the line. Whether there was something to interrupt. Raises ConnectionFailed."""
        if self.done.is_set():
            return False
        if self._stream is None:
            self._unwanted = True
        elif self._stream.begun:
            await self._stream.interrupt()
        else:
            self._stream.cancel()
        return True

    def abandon(self, reason: str | None = None) -> None:
        """It may not go on: it is interrupted, and killed if that does not end it. `reason`: that its Result gives; None: nobody wants it."""
        self._unwanted, self._why = True, self._why or reason
        if not self.done.is_set() and self._stream is not None:
            self._stream.cancel(reason)

    def answer(self, line: str) -> bool:
        """The line that `input()` gets; False if nothing was asked."""
        if self._answer is None or self._answer.done():
            return False
        self._answer.set_result(line)
        return True

    async def _ask(self, request: InputRequest) -> str:
        self._asked = request
        self._answer = asyncio.get_running_loop().create_future()
        try:
            return await self._answer
        finally:
            self._asked = self._answer = None

    async def _end(self, entries: list[Entry], result: Result) -> None:
        end = await asyncio.to_thread(end_of, result) if _heavy(result) else end_of(result)
        await self.log.append(entries, end=end)
        self.end, self.reason = replace(end, blobs=()), result.reason

    async def give_up(self, reason: str) -> None:
        """The typed end of a run that has none. Raises nothing but a cancellation."""
        self.reason = reason
        if self.end is None:
            try:
                entries, end = await asyncio.shield(cut_off(self.store, self.id, self.log.last, reason))
                await asyncio.shield(self.log.append(entries, end=end))
                self.end = replace(end, blobs=())
            except OSError:
                self._lose(reason)

    def _lose(self, reason: str) -> None:
        self.reason = reason
        self.stored = False
        finished = _died(self.id, self.log.last, reason)
        self.log.end([entry_of(finished)])
        self.end = end_of(fold([finished]))


async def _and_soon(stream: AsyncStream, events: list[Event]) -> None:
    """Adds what comes within a millisecond, or four where nothing is there to be seen yet: of a short cell that is all there is, and each
    commit and each piece that is sent take a part of one."""
    with contextlib.suppress(TimeoutError, CellrunError):  # whoever reads on gets the error again
        async with asyncio.timeout(_BEGUN if isinstance(events[-1], Started) else _SOON):
            while len(events) < _MANY and not isinstance(events[-1], (Finished, InputRequest)):
                events += await stream.next_batch()


async def _entries(events: Sequence[Event]) -> list[Entry]:
    """In a thread where what is shown is large: others would wait for its JSON and its hash."""
    shown = sum(size_of(event.data) for event in events if isinstance(event, (Display, DisplayUpdate, ExecuteResult)))
    if shown > _LARGE:
        return await asyncio.to_thread(lambda: [entry_of(event) for event in events])
    return [entry_of(event) for event in events]


def _heavy(result: Result) -> bool:
    """Whether its JSON takes long enough to hold up others."""
    shown = (size_of(output.data) for output in result.outputs if isinstance(output, DisplayOutput))
    return len(result.outputs) > 100 or result.stdout_size + result.stderr_size + sum(shown) > _LARGE


def _died(run: str, last: int, reason: str) -> Finished:
    return Finished(
        seq=last + 1, execution_id=run, status="kernel_died", execution_count=None, duration=0.0, reason=reason
    )


async def cut_off(store: LogStore, run: str, last: int, reason: str) -> tuple[list[Entry], End]:
    """The end of a run whose events stop at the number `last`, and the result of all that is kept of them. Raises OSError."""
    folder, after = Folder(RESULT), 0
    while piece := await store.read(run, after, MIB):
        for entry in piece:
            folder.add(event_from_json(entry.data))
        after = piece[-1].seq
    finished = _died(run, last, reason)
    folder.add(finished)
    return [entry_of(finished)], end_of(folder.result())
