"""Answers that go on: a run's events while they come, and the wait for its result. They notice when the client goes away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cellrun.event_log import Entry, EventLog
from cellrun.limits import KIB
from cellrun.service.encoding import KEEP_ALIVE, MEDIA_TYPES, Encoding, encoded
from cellrun.service.held import EndedRun
from cellrun.service.runs import LiveRun

_SLICE: Final = 256 * KIB
_HEAD: Final = 0.01
"""Seconds in which the head of an answer waits for the first events: of a short run the client then has all at once."""
# Between us and the reader nothing may hold back or keep what we send (nginx's documentation of X-Accel-Buffering).
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@contextmanager
def watching(run: LiveRun | EndedRun, *, starter: bool) -> Iterator[None]:
    """While somebody watches. If the one who started the run goes before its end, and nobody else is there, it may be abandoned."""
    if isinstance(run, EndedRun):
        yield
        return
    run.watchers += 1
    try:
        yield
    finally:
        run.watchers -= 1
        run.starter_gone = run.starter_gone or starter
        if run.starter_gone and not run.watchers and run.request.on_disconnect == "interrupt":
            run.abandon()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_gone(work: Awaitable[object], receive: Receive) -> bool:
    """Whether the work came to its end before the client went away; if not, it is cancelled."""
    working, going = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, going}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, going):
            task.cancel()
        await asyncio.gather(working, going, return_exceptions=True)


class EventsAnswer(Response):
    """A run's events from the number `after` + 1 on. `starter`: this is the answer to the request that started it. `slim`: large values by
    reference.

    A reader that stalls is waited for here and nowhere else: no more of the log is taken for it than is being sent.
    """

    def __init__(
        self,
        run: LiveRun | EndedRun,
        encoding: Encoding,
        *,
        after: int = 0,
        starter: bool = False,
        slim: bool = False,
        on_watch: Callable[[int], None] = lambda change: None,
    ) -> None:
        super().__init__(headers={**_HEADERS, "Location": f"/v1/runs/{run.log.run}"}, media_type=MEDIA_TYPES[encoding])
        del self.headers["content-length"]
        self._run = run
        self._log: EventLog = run.log
        self._encoding: Encoding = encoding
        self._after = after
        self._starter = starter
        self._slim = slim
        self._on_watch = on_watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._on_watch(1)
        try:
            with watching(self._run, starter=self._starter):
                await until_gone(self._send(self.pieces(), send), receive)
        finally:
            self._on_watch(-1)

    def pieces(self) -> AsyncIterable[bytes]:
        """What is sent."""
        pieces = self._log.follow(self._after, patience=KEEP_ALIVE)
        return encoded(slimmed(pieces) if self._slim else pieces, self._encoding)

    async def _send(self, body: AsyncIterable[bytes], send: Send) -> None:
        # A client that has gone is noticed by `until_gone`; what could not be sent to it is in the log.
        with contextlib.suppress(ConnectionError):
            await self._log.await_more(self._after, _HEAD)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in body:
                # For a reader that stalls a slice is held, not a copy of the whole.
                for begin in range(0, len(piece), _SLICE):
                    part = piece[begin : begin + _SLICE]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def slimmed(pieces: AsyncIterable[list[Entry]]) -> AsyncGenerator[list[Entry], None]:
    async for piece in pieces:
        yield [entry if entry.slim is None else replace(entry, data=entry.slim) for entry in piece]


async def finished(run: LiveRun | EndedRun, receive: Receive, *, starter: bool) -> bool:
    """Until the run has ended; False if the client went away first."""
    if isinstance(run, EndedRun) or run.done.is_set():
        return True
    with watching(run, starter=starter):
        return await until_gone(run.done.wait(), receive)
