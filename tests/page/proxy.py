"""The proxy that breaks (`tests.support.proxy`) for a test that is not a coroutine: on a loop of its own, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.proxy import FaultProxy
from tests.support.waiting import HANG


class Proxy:
    """A context manager; `url` is the service's by way of it."""

    def __init__(self, url: str) -> None:
        port = urlsplit(url).port
        assert port is not None
        self._proxy = FaultProxy(port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result(HANG)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._proxy.__aexit__(None, None, None), self._loop).result(HANG)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(HANG)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._proxy.port}"

    @property
    def connections(self) -> int:
        return self._proxy.connections

    def reset(self) -> None:
        self._call(self._proxy.reset)

    def refuse(self) -> None:
        self._call(self._proxy.refuse)

    def accept(self) -> None:
        self._call(lambda: self._proxy.refuse(refusing=False))

    def _call(self, what: Callable[[], None]) -> None:
        async def called() -> None:
            what()

        asyncio.run_coroutine_threadsafe(called(), self._loop).result(HANG)
