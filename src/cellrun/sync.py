"""The blocking twin: the names of the async session, over one portal, without `late` and `send_comm`, which
make sense only beside a running loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from cellrun import portal
from cellrun.events import Event
from cellrun.files import READ_LIMIT
from cellrun.limits import UNSET, Limits, Unset
from cellrun.providers.base import FileInfo, Provider
from cellrun.result import Result
from cellrun.running import OnEvent, OnInput
from cellrun.session import AsyncSession
from cellrun.stream import AsyncStream

if TYPE_CHECKING:
    import nbformat

    from cellrun.remote.service import CellrunService


class Session:
    """A session for blocking code; see AsyncSession, whose parameters and errors it has.

    Callbacks (`on_input`, `on_event`) are called on the portal's thread. Ctrl-C during a call interrupts the
    cell and raises KeyboardInterrupt. Sessions left open are closed when the process ends.
    """

    def __init__(
        self,
        provider: Provider | CellrunService | str | None = None,
        *,
        limits: Limits | None = None,
        key: str | None = None,
        session_id: str | None = None,
        history: bool = True,
    ) -> None:
        self._session = portal.on_loop(
            lambda: AsyncSession(provider, limits=limits, key=key, session_id=session_id, history=history)
        )
        self.files = BlockingFiles(self._session)
        portal.close_at_exit(self._session)
        self._closed = False

    def __repr__(self) -> str:
        return repr(self._session).replace("AsyncSession", "Session")

    @property
    def containment(self) -> str | None:
        return self._session.containment

    @property
    def closed(self) -> bool:
        return self._session.closed

    @property
    def language(self) -> str:
        return self._session.language

    @property
    def began(self) -> bool:
        return self._session.began

    def cpu_seconds(self) -> float | None:
        return self._session.cpu_seconds()

    def disk_bytes(self) -> int | None:
        return self._session.disk_bytes()

    def start(self) -> Self:
        portal.call(self._session.start())
        return self

    def close(self) -> None:
        self._closed = True
        portal.call(self._session.aclose())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def run(
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
        return portal.call(
            self._session.run(
                code,
                timeout=timeout,
                queue_timeout=queue_timeout,
                stdin=stdin,
                on_input=on_input,
                on_event=on_event,
                silent=silent,
                store_history=store_history,
            )
        )

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
    ) -> Stream:
        def make() -> AsyncStream:
            return self._session.stream(
                code,
                timeout=timeout,
                queue_timeout=queue_timeout,
                stdin=stdin,
                on_input=on_input,
                silent=silent,
                store_history=store_history,
            )

        return Stream(make)

    def interrupt(self) -> None:
        """From another thread: a running `run()` blocks its own."""
        portal.call(self._session.interrupt())

    def restart(self) -> None:
        portal.call(self._session.restart())

    def complete(self, code: str, cursor: int | None = None, *, timeout: float = 5.0) -> Mapping[str, Any]:
        return portal.call(self._session.complete(code, cursor, timeout=timeout))

    def inspect(self, code: str, cursor: int | None = None, *, timeout: float = 5.0) -> Mapping[str, Any]:
        return portal.call(self._session.inspect(code, cursor, timeout=timeout))

    def is_complete(self, code: str, *, timeout: float = 5.0) -> str:
        return portal.call(self._session.is_complete(code, timeout=timeout))

    def to_notebook(self) -> nbformat.NotebookNode:
        return portal.on_loop(self._session.to_notebook)

    def fetch_notebook(self) -> nbformat.NotebookNode:
        return portal.call(self._session.fetch_notebook())

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if not getattr(self, "_closed", True):
            # The session inside is alive still and would warn later, from another thread.
            self._closed = True
            _warn(f"{self!r} was not closed: use `with`, or close()", ResourceWarning, source=self)
            portal.start(self._session.aclose())


class Stream:
    """The events of one run, to iterate over, once: `for event in session.stream(code)`. Afterwards
    `.result`. A `with` around it, or leaving the loop early, interrupts a cell that still runs."""

    def __init__(self, make: Callable[[], AsyncStream]) -> None:
        self._make = make
        self._stream: AsyncStream | None = None

    def __enter__(self) -> Self:
        self._stream = portal.on_loop(self._make)
        portal.call(self._stream.__aenter__())
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._stream is not None:
            portal.call(self._stream.__aexit__(None, None, None))

    def __iter__(self) -> Iterator[Event]:
        if self._stream is None:
            self.__enter__()
        assert self._stream is not None
        try:
            while batch := portal.call(self._stream.next_batch()):
                yield from batch
        finally:
            self.__exit__()

    @property
    def execution_id(self) -> str:
        return self._entered().execution_id

    @property
    def result(self) -> Result:
        return self._entered().result

    def finish(self) -> Result:
        """Passes over the remaining events and gives the Result."""
        return portal.call(self._entered().finish())

    def interrupt(self) -> None:
        portal.call(self._entered().interrupt())

    def _entered(self) -> AsyncStream:
        if self._stream is None:
            raise RuntimeError("iterate over the stream first")
        return self._stream


class BlockingFiles:
    """The files of a blocking session; see `cellrun.files.Files`. Data is held whole."""

    def __init__(self, session: AsyncSession) -> None:
        self._files = session.files

    def write(self, path: str, data: bytes | str) -> None:
        portal.call(self._files.write(path, data))

    def read(self, path: str, *, limit: int | None = READ_LIMIT) -> bytes:
        return portal.call(self._files.read(path, limit=limit))

    def list(self, path: str = "") -> list[FileInfo]:
        return portal.call(self._files.list(path))

    def delete(self, path: str) -> None:
        portal.call(self._files.delete(path))


def run(
    code: str,
    provider: Provider | CellrunService | str | None = None,
    *,
    timeout: float | Unset | None = UNSET,
    stdin: Iterable[str] | None = None,
    on_input: OnInput | None = None,
    on_event: OnEvent | None = None,
    limits: Limits | None = None,
    key: str | None = None,
) -> Result:
    """One snippet in a fresh kernel, which is gone afterwards. Blocking; also from inside a running event
    loop or a notebook. Parameters and errors as those of `AsyncSession` and its `run`.

    >>> run("6 * 7").text
    '42'
    """

    async def body() -> Result:
        async with AsyncSession(provider, limits=limits, key=key) as session:
            return await session.run(code, timeout=timeout, stdin=stdin, on_input=on_input, on_event=on_event)

    return portal.call(body())
