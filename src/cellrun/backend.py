"""What is behind a session: a kernel of ours, or a service. One interface for both, and what both need."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from cellrun.errors import SessionLost
from cellrun.events import Event
from cellrun.limits import Limits
from cellrun.notebook import History
from cellrun.providers.base import FileStore, Shared
from cellrun.running import EventQueue, Run, RunOptions

if TYPE_CHECKING:
    import nbformat


class Backend(ABC):
    """Carries out what one session is asked for. The errors and the behaviour under cancellation are those that `AsyncSession` promises.

    `source`: the provider or service that it uses; `owned`: whether it is closed with it.
    """

    def __init__(self, source: Shared, *, owned: bool, limits: Limits, history: bool) -> None:
        self.source = source
        self.limits = limits
        self.closed = False
        self._owned = owned
        self._attached = False
        self._history = History() if history else None
        self._ended = "the session is closed"
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- what each does its own way --------------------------------------------------------------

    @property
    @abstractmethod
    def began(self) -> bool:
        """Whether there is something to close."""

    @property
    @abstractmethod
    def state(self) -> str:
        """What `repr` says of it, while it is not closed."""

    @property
    @abstractmethod
    def containment(self) -> str | None: ...

    @property
    @abstractmethod
    def language(self) -> str: ...

    def cpu_seconds(self) -> float | None:
        return None

    def disk_bytes(self) -> int | None:
        return None

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    def submit(self, code: str, options: RunOptions, queue: EventQueue | None, execution_id: str | None) -> Run:
        """The run, in its line. It goes on by itself, whoever waits for it."""

    async def accepted(self, run: Run) -> None:
        """Until its id is known. Raises what keeps it from being had."""

    @abstractmethod
    async def interrupt(self) -> None:
        """The cell that runs."""

    @abstractmethod
    async def interrupt_run(self, run: Run) -> None:
        """This one, if it runs."""

    @abstractmethod
    async def restart(self) -> None: ...

    @abstractmethod
    def late(self) -> AsyncIterator[Event]: ...

    @abstractmethod
    async def ask(self, request: str, content: dict[str, Any], *, timeout: float) -> Mapping[str, Any]:
        """The content of the kernel's reply to a request of the Jupyter messaging specification."""

    @abstractmethod
    async def send_comm(self, comm_id: str, data: Mapping[str, Any], buffers: tuple[bytes, ...]) -> None: ...

    @abstractmethod
    async def open_files(self) -> FileStore: ...

    async def fetch_notebook(self) -> nbformat.NotebookNode:
        return self.to_notebook()

    @abstractmethod
    async def _let_go(self) -> None:
        """Ends runs under way, and gives back what it has. Bounded. Called once."""

    # -- what both do the same way ---------------------------------------------------------------

    async def aclose(self) -> None:
        self.closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    def end(self, reason: str) -> None:
        """It ends by itself."""
        self.closed = True
        self._ended = reason
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        await self._let_go()
        if self._owned:
            await self.source.aclose()
        elif self._attached:
            await self.source.detach()

    def check_open(self) -> None:
        """Raises SessionLost, or RuntimeError on another event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this session belongs to another event loop: make one in each asyncio.run(), or use cellrun.Session"
            )
        if self.closed:
            raise SessionLost(f"{self._ended}; make a new one")

    def attach(self) -> None:
        if not self._attached:
            self.source.attach()
            self._attached = True

    def spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def remember(self, run: Run) -> None:
        """For the notebook."""
        if self._history is not None and run.result is not None and run.sent and not run.options.silent:
            self._history.add(run.code, run.result)

    def to_notebook(self) -> nbformat.NotebookNode:
        if self._history is None:
            raise RuntimeError("this session keeps nothing for a notebook: it was made with history=False")
        return self._history.to_notebook(self._language_info())

    def _language_info(self) -> dict[str, Any]:
        return {"name": self.language} if self.language else {}
