"""The tools over MCP's streamable HTTP, at `/mcp`: of whoever has the key, in the session that the headers name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from cellrun.service.context import Context
from cellrun.service.describe import Place
from cellrun.service.headers import Cors, caller_of, session_of
from cellrun.service.hub import Hub
from cellrun.service.hub_tools import HubTools
from cellrun.service.interfaces import Interface
from cellrun.service.mcp.server import Asking, make_server
from cellrun.service.problem_response import as_response
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import ToolBackend

_PATHS: Final = ("/mcp", "/mcp/")
_IDLE: Final = 1_800.0  # without a request, after which a connection's id is worth nothing
_CONNECTIONS: Final = 1_000  # of a tenant; the package allows ten times as many to all
_SWEEP: Final = 60.0
_OURS: Final = re.compile(r"mcp:[0-9a-f]{32}")
_ID: Final = "mcp-session-id"
_REVISION: Final = "mcp-protocol-version"
_FIRST: Final = HANDSHAKE_PROTOCOL_VERSIONS[0]  # of a request that names none
_log: Final = logging.getLogger("cellrun.service.mcp")


def interface() -> Interface:
    endpoint = _Endpoint()
    logging.getLogger("mcp").setLevel(logging.WARNING)  # it tells the ids of connections

    def mount(app: FastAPI) -> None:
        cors = Cors(endpoint)
        app.router.routes.extend(Route(path, cors, include_in_schema=False) for path in _PATHS)

    return Interface(name="mcp", paths=_PATHS, mount=mount, running=endpoint.running)


class _Endpoint:
    def __init__(self) -> None:
        self._manager: StreamableHTTPSessionManager | None = None
        self._connections: Connections | None = None

    @asynccontextmanager
    async def running(self, app: FastAPI, context: Context) -> AsyncIterator[None]:
        hub = context.hub

        def whose(asking: Asking) -> tuple[ToolBackend, Place]:
            request = asking.request
            assert isinstance(request, Request)
            place = place_of(request.headers)
            idle = _IDLE if place.kind == "connection" else None
            return HubTools(hub, request.state.caller.tenant, idle=idle), place

        self._manager = StreamableHTTPSessionManager(
            make_server(whose, version=app.version),
            session_idle_timeout=_IDLE,
            max_request_body_size=hub.options.body,
        )
        self._connections = Connections(hub)
        await self._connections.forget_earlier()
        sweeping = asyncio.ensure_future(self._connections.sweep_forever())
        try:
            async with self._manager.run():
                yield
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._manager is not None
        assert self._connections is not None
        connections = self._connections
        headers = Headers(scope=scope)
        id = headers.get(_ID, "")
        try:
            caller = await caller_of(scope, scope["app"].state.context)
            if not id and headers.get(_REVISION, _FIRST) in HANDSHAKE_PROTOCOL_VERSIONS:
                connections.check_room(caller.tenant)
        except Problem as problem:
            await as_response(problem)(scope, receive, send)
            return
        # By this the package keeps a connection to those who have opened it.
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=caller.tenant, scopes=[]))
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                opened = Headers(raw=message["headers"]).get(_ID, "")
                if opened and not id and status < 300:
                    connections.opened(caller.tenant, opened)
            await send(message)

        with connections.used(caller.tenant, id):
            await self._manager.handle_request(scope, receive, answer)
        if scope["method"] == "DELETE" and status < 300:
            await connections.end(caller.tenant, id)


def place_of(headers: Headers) -> Place:
    """The session of a request: that of its chat, or of its connection (revision 2025-11-25), or none."""
    if (session := session_of(headers)) is not None:
        return Place("chat", session)
    if (id := headers.get(_ID)) is not None:
        return Place("connection", f"mcp:{id}")
    return Place("none")


class Connections:
    """Those of the revision 2025-11-25, which there may be so many of, and the sessions that they have by themselves. Nobody can find one
    again when its connection has ended, so it ends, too."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._open: Counter[tuple[str, str]] = Counter()
        self._used: dict[tuple[str, str], float] = {}

    def check_room(self, tenant: str) -> None:
        """Raises Problem where this tenant may open no more."""
        if sum(owner == tenant for owner, _ in self._used) >= _CONNECTIONS:
            raise Problem(
                "quota_exceeded",
                f"{_CONNECTIONS} MCP connections at once are the limit: end those that are not used (DELETE), or wait until they "
                f"have not been used for {_IDLE:g} s",
                retry_after=_SWEEP,
            )

    def opened(self, tenant: str, id: str) -> None:
        self._used[tenant, f"mcp:{id}"] = time.monotonic()

    @contextlib.contextmanager
    def used(self, tenant: str, id: str) -> Iterator[None]:
        key = (tenant, f"mcp:{id}")
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
            if key in self._used or key in self._hub.held:
                self._used[key] = time.monotonic()

    async def end(self, tenant: str, id: str) -> None:
        await self._delete((tenant, f"mcp:{id}"))

    async def forget_earlier(self) -> None:
        """Those of a service that was here before us: its connections have ended with it."""
        for key in [key for key in self._hub.held if _OURS.fullmatch(key[1])]:
            await self._delete(key)

    async def sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            await self.sweep(time.monotonic())

    async def sweep(self, now: float) -> None:
        """Ends those whose connection the package has ended by now, for want of requests."""
        before = now - _IDLE - _SWEEP
        for key in [key for key, used in self._used.items() if used < before and key not in self._open]:
            await self._delete(key)

    async def _delete(self, key: tuple[str, str]) -> None:
        self._used.pop(key, None)
        if key in self._hub.held:
            try:
                await self._hub.delete(*key)
            except (Problem, OSError) as error:
                _log.error("a session of a connection that has ended cannot be deleted: %s", error)
