"""The events of one run, to iterate over."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from cellrun.events import Event
from cellrun.result import Result
from cellrun.running import EventQueue, Run


class AsyncStream:
    """What `session.stream()` gives: an async context manager and an async iterator of events.

    The run is submitted on entering. The iteration ends after Finished. Errors of the plumbing are
    raised from the iteration, after the events that came before them.
    """

    def __init__(
        self,
        submit: Callable[[], Run],
        queue: EventQueue,
        *,
        accepted: Callable[[Run], Awaitable[None]],
        interrupt: Callable[[Run], Awaitable[None]],
    ) -> None:
        self._submit = submit
        self._queue = queue
        self._accepted = accepted
        self._interrupt = interrupt
        self._run: Run | None = None
        self._batch: deque[Event] = deque()

    async def __aenter__(self) -> Self:
        if self._run is not None:
            raise RuntimeError("a stream is used once; call session.stream() again for another run")
        self._run = self._submit()
        try:
            await self._accepted(self._run)
        except BaseException:
            self._run.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        run = self._entered()
        if not run.ended:
            run.stop()

    def __aiter__(self) -> Self:
        self._entered()
        return self

    async def __anext__(self) -> Event:
        """The next event. Cancelled, it loses none."""
        while not self._batch:
            batch = await self.next_batch()
            if not batch:
                raise StopAsyncIteration
            self._batch.extend(batch)
        return self._batch.popleft()

    async def next_batch(self) -> list[Event]:
        """All events that are there, at least one; the empty list after Finished."""
        run = self._entered()
        if self._batch:
            batch = list(self._batch)
            self._batch.clear()
            return batch
        while True:
            events = self._queue.take()
            if events:
                return events
            if run.ended:
                if run.error is not None:
                    raise run.error
                return []
            await self._queue.wait()

    @property
    def execution_id(self) -> str:
        return self._entered().execution_id

    @property
    def result(self) -> Result:
        """The Result, the same that `run()` gives. Raises RuntimeError before the end."""
        run = self._entered()
        if not run.ended:
            raise RuntimeError("the run has not ended: iterate to the end, or call finish()")
        return run.raise_or_result()

    async def finish(self) -> Result:
        """Passes over the remaining events and gives the Result."""
        while await self.next_batch():
            pass
        return self.result

    async def interrupt(self) -> None:
        """Interrupts this run's cell if it is the one that runs; see `AsyncSession.interrupt`."""
        run = self._entered()
        if run.sent and not run.ended:
            await self._interrupt(run)

    @property
    def begun(self) -> bool:
        """Whether the code was sent to the kernel."""
        return self._run is not None and self._run.sent

    @property
    def moments(self) -> tuple[float | None, float | None]:
        """When its turn came, and when its code was sent to the kernel: of the monotonic clock; None: not yet."""
        return (None, None) if self._run is None else (self._run.turn_at, self._run.sent_at)

    def cancel(self, reason: str | None = None) -> None:
        """The run is no longer wanted: it leaves the line, or its cell is interrupted and, if that does not end it, killed. Its
        events come to their end as always. `reason`: that its Result gives, of a kernel of a provider; None: that the caller stopped it."""
        if self._run is not None and not self._run.ended:
            self._run.stop(reason)

    def _entered(self) -> Run:
        if self._run is None:
            raise RuntimeError("enter the stream first: `async with session.stream(code) as stream`")
        return self._run
