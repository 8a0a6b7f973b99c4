"""The service as a process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.types import ASGIApp

from cellrun.errors import CellrunError
from cellrun.providers.base import Provider
from cellrun.service.app import make_app
from cellrun.service.context import Context
from cellrun.service.gathering import GatheringProtocol
from cellrun.service.hub import Hub
from cellrun.service.identity import Keys
from cellrun.service.interfaces import interfaces
from cellrun.service.metrics import Metrics
from cellrun.service.options import ServiceOptions
from cellrun.service.rates import Rates
from cellrun.service.store import Store
from cellrun.service.tracing import Tracing

if TYPE_CHECKING:
    from cellrun.service.tokens import Issuer, Tokens

_STOPPED: Final = 300  # seconds in which a reader takes nothing of what was sent, after which it is cut off
_LAST_WORDS: Final = 5  # seconds for connections that are still open when all runs have ended
_log: Final = logging.getLogger("cellrun.service")


class ServeError(CellrunError):
    """The service cannot be started as it was asked to; the message says why and what to do."""

    code = "serve"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where it listens. Port 0: any that is free."""

    host: str = "127.0.0.1"
    port: int = 8080


async def serve(
    provider: Provider,
    data: Path,
    address: Address,
    options: ServiceOptions,
    *,
    version: str,
    issuer: Issuer | None = None,
    tracing: Tracing | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until SIGINT or SIGTERM; then runs that go on have `drain_timeout` seconds, and a second signal ends them at once.
    `issuer`: whose tokens are taken besides keys. `on_ready` is called with the address once requests are answered. Raises ServeError."""
    try:
        store = Store(data)
    except OSError as error:
        raise ServeError(f"the folder {data} cannot be used for data: {error}") from None
    try:
        keys = Keys(store)
        await keys.load()
        tokens = None if issuer is None else await _tokens(issuer)
        local = not len(keys) and tokens is None
        if local and not is_loopback(address.host):
            raise ServeError(
                f"without keys there is no telling who may run code, so only loopback is served, not {address.host}: "
                f"make a key (cellrun keys create NAME --data {data}), or leave --host out"
            )
        listener = listen(address)
    except BaseException as error:
        await store.aclose()
        if isinstance(error, ValueError):
            raise ServeError(str(error)) from None
        raise
    metrics = Metrics()
    hub = Hub(provider, store, options, metrics, tracing)

    async def make() -> Context:
        await hub.open()
        return Context(hub, None if local else keys, tokens, Rates(options.quotas.requests))

    app: ASGIApp = make_app(
        make,
        local=local,
        body=options.body,
        metrics=metrics,
        version=version,
        interfaces=interfaces(options.interfaces),
    )
    if tracing is not None:
        app = tracing.requests(app)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        http=GatheringProtocol,
        timeout_graceful_shutdown=_LAST_WORDS,
        server_header=False,
        # Only the Jupyter interface has WebSockets. Compressed, a picture takes longer than it saves, and each connection memory.
        ws="websockets-sansio" if "jupyter" in options.interfaces else "none",
        ws_per_message_deflate=False,
    )
    server = _Server(config, hub, lambda: on_ready(_url(address.host, listener)))
    try:
        await server.serve([listener])
    finally:
        listener.close()
        await hub.aclose()
        if tracing is not None:
            await tracing.aclose()
    if not server.started:
        raise ServeError("the service could not be started; its log says why")


async def _tokens(issuer: Issuer) -> Tokens:
    """Raises ValueError."""
    from cellrun.service.tokens import Tokens  # brings libraries that a service without it does not wait for

    tokens = Tokens(issuer)
    await tokens.load()
    return tokens


class _Server(uvicorn.Server):
    """Ours are the signals, and the word that it is ready."""

    def __init__(self, config: uvicorn.Config, hub: Hub, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._hub = hub
        self._on_ready = on_ready
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._drain())
        else:
            self._ending.cancel()

    async def _drain(self) -> None:
        _log.info("the service ends: it takes no new runs, and waits for %d", len(self._hub.live))
        try:
            await self._hub.drain()
        finally:
            self.should_exit = True
            for run in list(self._hub.live.values()):
                run.abandon("the service ended")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(address: Address) -> socket.socket:
    """Raises ServeError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it each piece of a stream waits 40 ms for the last.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Connections inherit it (tcp(7)). Without it what is sent to a reader that has stopped is kept for as long as that lives.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1_000 * _STOPPED)
        listener.bind((address.host, address.port))
        listener.listen(2_048)
    except OSError as error:
        listener.close()
        raise ServeError(
            f"{address.host} port {address.port} cannot be listened on: {error.strerror or error}"
        ) from None
    listener.setblocking(False)
    return listener


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
