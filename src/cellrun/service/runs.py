"""A run of the service: the code, its log, and the task that brings its events from the session to the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from cellrun.errors import CellrunError
from cellrun.event_log import End, Entry, EventLog, LogStore, entry_of
from cellrun.events import Event, Finished, InputRequest
from cellrun.folding import Folder, fold
from cellrun.limits import MIB, UNSET, Limits, Unset
from cellrun.result import Result
from cellrun.session import AsyncSession
from cellrun.stream import AsyncStream
from cellrun.wire import event_from_json, result_to_json

OnDisconnect = Literal["interrupt", "detach"]
RESULT: Final = Limits(text=4 * MIB, displays=64 * MIB)
"""What the Result of a run keeps, in memory and on disk."""
_log: Final = logging.getLogger("cellrun.service")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a caller asked for. `stdin`: lines for `input()`; None: they come by `answer`. `on_disconnect`: what becomes of the run
    when the one who started it goes away before its end and nobody else watches."""

    code: str
    timeout: float | Unset | None = UNSET
    stdin: tuple[str, ...] | None = None
    on_disconnect: OnDisconnect = "detach"


@dataclass(eq=False)
class LiveRun:
    """A run that this process carries out, or has carried out. `reason`: why it ended so; `failure`: the error of the plumbing that it ended with."""

    id: str
    tenant: str
    session: str | None
    request: RunRequest
    log: EventLog
    store: LogStore
    created: float = field(default_factory=time.time)
    status: str | None = None
    result: bytes | None = None
    reason: str | None = None
    failure: CellrunError | None = None
    watchers: int = 0
    task: asyncio.Task[None] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: InputRequest | None = None
    _answer: asyncio.Future[str] | None = None
    _stream: AsyncStream | None = None
    _unwanted: bool = False

    @property
    def state(self) -> str:
        """ "queued", "running", "waiting_for_input" or how it ended."""
        if self.status is not None:
            return self.status
        if self._asked is not None:
            return "waiting_for_input"
        return "queued" if self.log.last == 0 or self._stream is None or not self._stream.begun else "running"

    async def carry_out(
        self, open_session: Callable[[], AsyncSession], on_event: Callable[[Sequence[Event]], None]
    ) -> None:
        """From the first event to the last. Never raises but for a cancellation; whatever happens, the log ends."""
        request = self.request
        try:
            stream = self._stream = open_session().stream(
                request.code,
                timeout=request.timeout,
                stdin=request.stdin,
                on_input=self._ask if request.stdin is None else None,
                execution_id=self.id,
            )
            async with stream:
                if self._unwanted:  # before it had begun
                    stream.cancel()
                while events := await stream.next_batch():
                    on_event(events)
                    entries = [entry_of(event) for event in events]
                    if isinstance(events[-1], Finished):
                        await self._end(entries, stream.result)
                    else:
                        await self.log.append(entries)
        except CellrunError as error:
            self.failure = error
            await self._give_up(str(error))
        except OSError as error:  # the log's store
            _log.error("run %s: its output cannot be kept: %s", self.id, error)
            self._lose(f"the service could not keep the run's output: {error}")
        except asyncio.CancelledError:
            await self._give_up("the service ended")
            raise
        except Exception:
            _log.exception("run %s: the service has failed", self.id)
            await self._give_up("the service has failed; its log says why")
        finally:
            self.done.set()

    async def interrupt(self) -> bool:
        """As Ctrl-C does; a run that waits leaves the line. Whether there was something to interrupt. Raises ConnectionFailed."""
        if self.done.is_set() or self._stream is None:
            return False
        if self._stream.begun:
            await self._stream.interrupt()
        else:
            self._stream.cancel()
        return True

    def abandon(self) -> None:
        """Nobody wants it any more: it is interrupted, and killed if that does not end it."""
        self._unwanted = True
        if not self.done.is_set() and self._stream is not None:
            self._stream.cancel()

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
        end = End(result.status, result_to_json(result).encode("utf-8"))
        await self.log.append(entries, end=end)
        self.status, self.result, self.reason = end.status, end.result, result.reason

    async def _give_up(self, reason: str) -> None:
        """The typed end of a run that has none."""
        self.reason = reason
        if self.status is None:
            try:
                entries, end = await asyncio.shield(cut_off(self.store, self.id, self.log.last, reason))
                await asyncio.shield(self.log.append(entries, end=end))
                self.status, self.result = end.status, end.result
            except OSError:
                self._lose(reason)

    def _lose(self, reason: str) -> None:
        self.reason = reason
        finished = _died(self.id, self.log.last, reason)
        self.log.end([entry_of(finished)])
        self.status, self.result = finished.status, result_to_json(fold([finished])).encode("utf-8")


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
    result = folder.result()
    return [entry_of(finished)], End(result.status, result_to_json(result).encode("utf-8"))
