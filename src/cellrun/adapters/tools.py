"""What the adapters share: the tools of a code interpreter, from whatever event loop or thread a framework calls them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final, Self, TypeVar

from cellrun import portal
from cellrun.errors import SessionLost, public_url
from cellrun.limits import Limits
from cellrun.providers import LocalKernels, Provider, provider_for
from cellrun.remote.address import is_service
from cellrun.remote.service import CellrunService
from cellrun.service import tool_calls
from cellrun.service.describe import Place
from cellrun.service.local_tools import LocalTools
from cellrun.service.tool_backend import Answer, promises_of
from cellrun.service.tool_calls import Tool
from cellrun.session import AsyncSession

T = TypeVar("T")

TIMEOUT: Final = 300.0
"""Seconds for a run that names none."""
_PLACE: Final = Place("connection", "")


def check(
    provider: Provider | CellrunService | str | None, *, key: str | None, session_id: str | None, timeout: float | None
) -> None:
    """Raises ValueError and TypeError for what a session does not take: one is made, and never started."""
    AsyncSession(provider, limits=Limits(timeout=timeout), key=key, session_id=session_id, history=False)


def ended(error: SessionLost) -> str | None:
    """Why the session is gone for good, for a model to read: without the advice to make a new one, which it cannot follow. None: it may be
    there still."""
    return None if error.retryable else str(error).partition("; make a new")[0]


class CodeTools:
    """The tools `run_code`, `get_run`, `interrupt`, `restart`, `list_files`, `read_file` and `write_file`, for one agent.

    provider    where the kernel comes from, as for AsyncSession: None (this machine, contained), the address of a Jupyter
                server or of a cellrun service, or an object with options of its own, which is not closed with this one
    key         opens the service at that address
    session_id  the name of the session on a service: it is found again, and stays when this object is closed
    timeout     seconds for a run that names none; None: no limit
    only        names of the tools that there are to be; None: all

    The kernel is started by the first call, and ends with `close()`, `aclose()`, the end of a `with` or `async with` block, or the process.
    A call after that has a fresh one. Everything runs on a loop of cellrun's own, so that a framework may call from any thread and any
    event loop, and from a new one each time; `provider` is used there alone. Raises ValueError for parameters that do not go together, for a
    string that is no address, a session that cannot be named so and a time limit below zero, TypeError for a provider that is none.
    """

    def __init__(
        self,
        provider: Provider | CellrunService | str | None = None,
        *,
        key: str | None = None,
        session_id: str | None = None,
        timeout: float | None = TIMEOUT,
        only: Collection[str] | None = None,
    ) -> None:
        check(provider, key=key, session_id=session_id, timeout=timeout)
        unknown = set(only or ()) - set(tool_calls.ARGUMENTS)
        if unknown:
            raise ValueError(f"there is no tool {sorted(unknown)[0]!r}; there are: {', '.join(tool_calls.ARGUMENTS)}")
        self._provider = provider
        self._key = key
        self._session_id = session_id
        self._timeout = timeout
        self._only = None if only is None else frozenset(only)
        self._backend: LocalTools | None = None
        # One that is not of our making says what its kernels do; of our own it is known before there is one.
        told = provider if provider is not None else LocalKernels(pool=0, preload=())
        self._promises = promises_of(told, timeout=timeout)

    def __repr__(self) -> str:
        given = self._provider
        # An address may have a token in it.
        where = "this machine" if given is None else public_url(given) if isinstance(given, str) else repr(given)
        return f"<{type(self).__name__} on {where}, {'idle' if self._backend is None else 'in use'}>"

    @property
    def tools(self) -> list[Tool]:
        """Names, descriptions that promise what the kernels do and no more, and JSON Schemas of the arguments."""
        every = tool_calls.tools(self._promises, _PLACE)
        return [tool for tool in every if self._only is None or tool.name in self._only]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """One of the tools. Whatever is wrong, with the arguments or the code, is told in the answer. Cancelled, it interrupts the run
        that it began. Raises KeyError where there is no such tool."""
        return await self._elsewhere(self._call(name, arguments))

    def call_blocking(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """`call`, for blocking code. Ctrl-C interrupts the run."""
        return portal.call(self._call(name, arguments))

    async def aclose(self) -> None:
        """Ends the kernel, and runs that go on. Never raises. Cancelled, it goes on in the background."""
        await self._elsewhere(self._close())

    def close(self) -> None:
        """The blocking `aclose()`."""
        portal.call(self._close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_backend", None) is not None:
            _warn(f"{self!r} was not closed: use `with` or `async with`, or close()", ResourceWarning, source=self)
            portal.start(self._close())

    # -- on the loop of our own ------------------------------------------------------------------

    async def _elsewhere(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(portal.submit(coroutine))

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        return await tool_calls.call(self._open(), _PLACE, name, arguments)

    def _open(self) -> LocalTools:
        if self._backend is None:
            given = self._provider
            target: Provider | CellrunService
            if isinstance(given, CellrunService):
                target = given
            elif isinstance(given, str) and is_service(given):
                target = CellrunService(given, key=self._key)
            else:
                target = provider_for(given)
            self._backend = LocalTools(
                target, timeout=self._timeout, owned=target is not given, session_id=self._session_id
            )
            portal.close_at_exit(self._backend)
        return self._backend

    async def _close(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.aclose()
