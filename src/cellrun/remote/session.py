"""A session on a service: its runs are the service's, and their events are read from there, again and again if need be."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote

import aiohttp

from cellrun.backend import Backend
from cellrun.errors import CellrunError, ConnectionFailed, KernelStartError, LimitExceeded, ProtocolError, Unsupported
from cellrun.events import Event, InputRequest
from cellrun.limits import Limits
from cellrun.providers.base import FileStore
from cellrun.remote.events import Signs, events_in
from cellrun.remote.files import ServiceFiles
from cellrun.remote.http import IF_THERE, ServiceHttp
from cellrun.remote.problems import Refused
from cellrun.remote.run import ServiceRun
from cellrun.remote.service import CellrunService
from cellrun.running import EventQueue, Run, RunOptions

if TYPE_CHECKING:
    import nbformat

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}")  # it is a part of addresses
_EVENTS: Final = {"Accept": "application/x-ndjson"}
_GOODBYE: Final = 10.0
_LAST_ID: Final = 3.0  # seconds at the end for the answer to a run that was just submitted: it has to be ended there
_CONTROL: Final = 5.0  # seconds for which an interrupt is tried again: later it would come too late
_FRUITLESS: Final = 10  # connections in a row that brought nothing whole: no event, no sign of life
_RUNNING: Final = ("running", "waiting_for_input")
_ALIVE: Final = ("queued", *_RUNNING)


class ServiceSession(Backend):
    """`session_id`: the session's name there, which stays at the end; None: a fresh one, which goes."""

    def __init__(
        self,
        service: CellrunService,
        *,
        owned: bool,
        limits: Limits,
        history: bool = True,
        session_id: str | None = None,
    ) -> None:
        super().__init__(service, owned=owned, limits=limits, history=history)
        if session_id is not None and not _NAME.fullmatch(session_id):
            raise ValueError(
                "a session is named with up to 128 letters, digits and . _ ~ : @ -, the first a letter or digit; "
                "session_id=None is a fresh one that ends with this object"
            )
        for name in ("queue_timeout", "idle_timeout"):
            if getattr(limits, name) is not None:
                raise Unsupported(f"a service has its own {name}: leave it out of Limits")
        self._service = service
        self._named = session_id is not None
        self._id = session_id or uuid.uuid4().hex
        self._line: list[ServiceRun] = []
        self._starting = asyncio.Lock()
        self._submitting = asyncio.Lock()
        self._making: asyncio.Task[Any] | None = None
        self._away: deque[Exception] = deque(maxlen=1)  # what the newest try met, where that was the connection
        self._touched = False
        self._ready = False
        self._containment: str | None = None
        self._language = ""

    @property
    def began(self) -> bool:
        return self._touched

    @property
    def state(self) -> str:
        return f"session {self._id!r}, " + ("not started" if not self._ready else f"{len(self._line)} runs")

    @property
    def containment(self) -> str | None:
        return self._containment

    @property
    def language(self) -> str:
        return self._language

    @property
    def _http(self) -> ServiceHttp:
        return self._service.http

    @property
    def _path(self) -> str:
        return f"v1/sessions/{quote(self._id, safe='')}"

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._begin(self.limits.start_timeout)

    async def _begin(self, limit: float) -> None:
        """The session, with a kernel in it: it is there, or it is made."""
        async with self._starting:
            self.check_open()
            if self._ready:
                return
            assert self._http is not None  # a service that is closed says so here, before anything is begun
            self.attach()
            self._touched = True
            try:
                async with asyncio.timeout(limit + 1.0):
                    await self._make(limit)
                    self._away.clear()
                    with contextlib.suppress(Unsupported):  # it has a kernel now, and that one has no files
                        # A look at the files starts the kernel, and says what keeps it from starting. What is slow here is the
                        # kernel, not the connection: the limit outside comes first.
                        await self._ask("GET", f"{self._path}/files", timeout=limit + 2.0, on_away=self._away.append)
                    self._away.clear()
                    told = await self._ask("GET", self._path, on_away=self._away.append)
            except TimeoutError:
                if self._away:
                    raise self._away.pop() from None
                raise KernelStartError(f"no kernel was ready within {limit:g} s", retryable=True) from None
            containment, language = told.get("containment"), told.get("language")
            self._containment = containment if isinstance(containment, str) else None
            self._language = language if isinstance(language, str) else ""
            self._ready = True

    async def _make(self, limit: float) -> None:
        """By a task of the session, which goes on if the caller is cancelled: `_let_go` waits for it, or the DELETE could overtake it."""
        if self._making is not None:
            await asyncio.wait({self._making})
        self.check_open()
        self._making = self.spawn(
            self._ask(
                "PUT", self._path, timeout=min(self._http.timeout, limit), patience=limit, on_away=self._away.append
            )
        )
        self._making.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({self._making})
        self.check_open()
        self._making.result()

    async def _let_go(self) -> None:
        runs = list(self._line)
        for run in runs:
            run.close("interrupted", "the session was closed")
        submitted: list[asyncio.Future[Any]] = [asyncio.ensure_future(run.known.wait()) for run in runs if run.sent]
        if self._making is not None and not self._named:
            submitted.append(self._making)
        if submitted:
            await asyncio.wait(submitted, timeout=_LAST_ID)
            for waiting in submitted:
                waiting.cancel()
        await self.end_tasks()
        with contextlib.suppress(Exception):  # it has a time there of its own, after which what is not used ends
            async with asyncio.timeout(_GOODBYE + self.limits.grace):
                if self._touched and not self._named:
                    await self._ask("DELETE", self._path, timeout=_GOODBYE, patience=_CONTROL)
                else:
                    await asyncio.gather(*(self._end_there(run) for run in runs if run.id), return_exceptions=True)

    # -- running ---------------------------------------------------------------------------------

    def submit(
        self, code: str, options: RunOptions, queue: EventQueue | None, execution_id: str | None = None
    ) -> ServiceRun:
        self.check_open()
        asked = {
            "queue_timeout": options.queue_timeout is not None,
            "silent": options.silent,
            "store_history": not options.store_history,
            "execution_id": execution_id is not None,
            "metadata": options.metadata is not None,
        }
        if any(asked.values()):
            self._unsupported(", ".join(f"{name}=" for name, is_asked in asked.items() if is_asked))
        if len(self._line) > self.limits.queue_length:
            raise LimitExceeded(f"{len(self._line) - 1} runs wait on this session already", retryable=True)
        run = ServiceRun(
            code=code,
            options=options,
            limits=self.limits,
            queue=queue,
            on_end=self._leave_line,
            on_stop=lambda run: self.spawn(self._stop(run)),
        )
        if run.lines is None:
            run.answer = self._answer_input
        self._line.append(run)
        run.task = self.spawn(self._drive(run))
        return run

    async def accepted(self, run: Run) -> None:
        assert isinstance(run, ServiceRun)
        await run.known.wait()
        if run.error is not None and not run.id:
            raise run.error

    async def _drive(self, run: ServiceRun) -> None:
        """The whole life of a run, in a task of the session: whoever waits for it may be cancelled."""
        try:
            # One after the other: on connections of their own two runs could overtake each other.
            async with self._submitting:
                limit, timeout = self.limits.start_timeout, run.options.timeout
                await self._begin(limit if timeout is None else min(limit, timeout + self.limits.grace))
                run.sent = True
                answer = await self._start(run)
            await self._follow(run, answer)
        except asyncio.CancelledError:
            # By stop() or aclose(), which have ended the run before they cancel this.
            pass
        except Exception as error:
            run.fail(error)
            if not isinstance(error, (CellrunError, ValueError)):
                raise
        finally:
            run.known.set()
            self._leave_line(run)

    async def _start(self, run: ServiceRun) -> aiohttp.ClientResponse:
        """Submits it, as often as it takes: its key sees to it that it runs once."""
        path, headers = f"{self._path}/runs", {**_EVENTS, **IF_THERE, "Idempotency-Key": run.key}
        http, body = self._http, run.body()
        try:
            answer = await http.again(lambda: http.open("POST", path, body=body, headers=headers), http.patience)
        except Refused as problem:
            raise problem.error from None
        id = answer.headers.get("Location", "").rpartition("/")[2]
        if not id:
            answer.close()
            raise ProtocolError(f"{self._service!r} did not say where the run is: is it a cellrun service?")
        run.accept(id)
        return answer

    async def _follow(self, run: ServiceRun, answer: aiohttp.ClientResponse) -> None:
        """Its events to the last one, over as many connections as it takes."""
        fruitless = 0
        while True:
            last, broke = run.last, "its stream ended before it did"
            signs = Signs(self._http.pieces(answer, run.silence))
            try:
                async with contextlib.aclosing(signs), contextlib.aclosing(events_in(signs)) as batches:
                    async for events in batches:
                        waiting = run.take(events)
                        if waiting is not None:
                            await waiting
            except ConnectionFailed as error:
                broke = str(error)
            finally:
                answer.close()
            if run.over:
                return
            # A cell can be silent for longer than a proxy leaves a connection. An event that no connection is long enough for is another
            # thing: all that comes of it is a part of a line, and it would be asked for without end.
            fruitless = 0 if signs.seen else fruitless + 1
            if fruitless > _FRUITLESS:
                raise ConnectionFailed(self._lost_words(run, broke))
            await asyncio.sleep(0 if run.last > last else min(1.0, 0.05 * 2**fruitless))
            answer = await self._come_back(run, broke)

    async def _come_back(self, run: ServiceRun, broke: str) -> aiohttp.ClientResponse:
        http, path = self._http, f"v1/runs/{quote(run.id, safe='')}/events"
        params = {"after": str(run.last)}
        try:
            return await http.again(
                lambda: http.open("GET", path, params=params, headers=_EVENTS), min(http.patience, run.patience())
            )
        except Refused as problem:
            raise problem.error from None
        except ConnectionFailed as error:
            raise ConnectionFailed(self._lost_words(run, f"{broke}; {error}")) from None

    def _lost_words(self, run: ServiceRun, why: str) -> str:
        return f"the run {run.id} could not be watched to its end, and may go on: {why}"

    def _leave_line(self, run: ServiceRun) -> None:
        if run in self._line:
            self._line.remove(run)
            self.remember(run)

    # -- stopping --------------------------------------------------------------------------------

    async def _stop(self, run: ServiceRun) -> None:
        """Nobody wants it any more. Failures show in the run not ending."""
        await run.known.wait()
        if run.id:
            with contextlib.suppress(CellrunError, ValueError):
                await self._end_there(run)

    async def _end_there(self, run: ServiceRun) -> None:
        """An interrupt, and where that does not end it within the grace, a new kernel: as a session on a kernel does it."""
        path = f"v1/runs/{quote(run.id, safe='')}"
        await self._interrupt(run.id)
        limit = time.monotonic() + self.limits.grace
        pause = 0.05
        while True:
            if self.closed:  # nobody reads its events any more
                await asyncio.sleep(pause)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(run.gone.wait(), pause)
                    return
            if (await self._ask("GET", path)).get("status") not in _ALIVE:
                return
            if time.monotonic() > limit:
                await self._ask("POST", f"{self._path}/restart", timeout=self.limits.start_timeout)
                return
            pause = min(2 * pause, 0.5)

    async def _interrupt(self, id: str) -> None:
        try:
            await self._http.json("POST", f"v1/runs/{quote(id, safe='')}/interrupt", patience=_CONTROL)
        except Refused as problem:
            if problem.code != "conflict":  # it has ended
                raise problem.error from None

    async def interrupt(self) -> None:
        self.check_open()
        if not self._ready:
            return
        own = next((run for run in self._line if run.begun_at is not None and not run.over), None)
        if own is not None:
            await self._interrupt(own.id)
            return
        # Of a named session it can be somebody else's.
        for told in (await self._ask("GET", self._path)).get("runs", ()):
            if told.get("status") in _RUNNING:
                await self._interrupt(str(told.get("execution_id")))

    async def interrupt_run(self, run: Run) -> None:
        assert isinstance(run, ServiceRun)
        if not run.id or run.over:
            return
        if run.begun_at is None:  # as far as we have read
            told = await self._ask("GET", f"v1/runs/{quote(run.id, safe='')}")
            if told.get("status") not in _RUNNING:
                return
        await self._interrupt(run.id)

    async def restart(self) -> None:
        await self._begin(self.limits.start_timeout)
        await self._ask("POST", f"{self._path}/restart", timeout=self.limits.start_timeout + 5.0)

    # -- input -----------------------------------------------------------------------------------

    def _answer_input(self, run: Run, request: InputRequest) -> None:
        assert isinstance(run, ServiceRun)
        run.answering.append(self.spawn(self._answer(run, request)))

    async def _answer(self, run: ServiceRun, request: InputRequest) -> None:
        try:
            await self._send_line(run, request, await run.next_line(request))
        except Exception as error:  # the caller's callback failed, or the line cannot be had there: the cell is stopped
            run.answering.clear()  # this task is one of them
            run.fail(error)
            run.stop()

    async def _send_line(self, run: ServiceRun, request: InputRequest, line: str) -> None:
        """Sent again only where it is certain that it did not arrive: the cell's next question would get it."""
        path = f"v1/runs/{quote(run.id, safe='')}"
        while not run.ended:
            try:
                answer = await self._http.open("POST", f"{path}/input", body={"line": line})
                answer.close()
                return
            except Refused as problem:
                if problem.code == "conflict":  # the run has ended, or was interrupted
                    return
                if not problem.passing:
                    raise problem.error from None
            except ConnectionFailed as error:
                if not error.retryable:
                    raise
            told = await self._ask("GET", path)
            while told.get("status") in _ALIVE and told.get("last", 0) > run.last and not run.ended:
                await asyncio.sleep(0.05)  # what came since tells whether it asks anew
            if told.get("status") != "waiting_for_input" or run.asked != request.seq:
                return

    # -- besides running -------------------------------------------------------------------------

    def late(self) -> AsyncIterator[Event]:
        self._unsupported("late()")

    async def ask(self, request: str, content: dict[str, Any], *, timeout: float) -> Mapping[str, Any]:
        self._unsupported(f"{request.removesuffix('_request')}()")

    async def send_comm(self, comm_id: str, data: Mapping[str, Any], buffers: tuple[bytes, ...]) -> None:
        self._unsupported("send_comm()")

    async def open_files(self) -> FileStore:
        await self._begin(self.limits.start_timeout)
        return ServiceFiles(self._http, self._path)

    async def fetch_notebook(self) -> nbformat.NotebookNode:
        await self._begin(self.limits.start_timeout)
        told = await self._ask("GET", f"{self._path}/notebook", timeout=60.0)
        import nbformat

        try:
            notebook: nbformat.NotebookNode = nbformat.from_dict(told)
        except Exception:  # nbformat's are of many kinds
            raise ProtocolError("what the service sent is no notebook") from None
        return notebook

    def _unsupported(self, what: str) -> NoReturn:
        raise Unsupported(f"a service does not offer {what}: leave it out, or use a kernel of your own for it")

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None = None,
        patience: float | None = None,
        on_away: Callable[[Exception], None] | None = None,
    ) -> Any:
        """The decoded answer. Raises errors of the library."""
        try:
            return await self._http.json(method, path, timeout=timeout, patience=patience, on_away=on_away)
        except Refused as problem:
            raise problem.error from None
