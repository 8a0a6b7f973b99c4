"""What every request passes first: is it meant for us, and how long did its answer take. Plain ASGI, as it is on every path."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellrun.service.identity import Caller
from cellrun.service.metrics import Metrics
from cellrun.service.problem_response import as_response
from cellrun.service.problems import Problem

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_log: Final = logging.getLogger("cellrun.service.access")
_FILE: Final = re.compile(r"/v1/sessions/[^/]+/files/.+")
_LINGER: Final = 2.0  # seconds
_FOR_CALLERS: Final = ("/v1/", "/metrics")
# For a browser: nothing of ours is to be shown in another page, or guessed to be of another type.
_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


class Guard:
    """`local`: without keys, where anybody who reaches us may do all. Then only requests for a name of this machine, and from none
    but our own pages, are answered: a page of another site that has its name resolve to this machine (DNS rebinding) is not.
    `body`: bytes of a request, files apart. `identify`: who has this Authorization header; asked before anything of the body is read."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        local: bool,
        body: int,
        metrics: Metrics,
        identify: Callable[[str | None], Awaitable[Caller]],
    ) -> None:
        self._app = app
        self._local = local
        self._identify = identify
        self._body = body
        self._too_large = f"a request may have {body} bytes, files apart"
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket" and self._local and (problem := refusal(scope)) is not None:
                await _deny(problem, scope, receive, send)
                return
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
                self._metrics.answered(scope["method"], _route(scope), status, time.perf_counter() - began)
            await send(message)

        problem = await self._problem(scope)
        if not (scope["method"] == "PUT" and _FILE.fullmatch(scope["path"])):
            if problem is None and _declared(scope) > self._body:
                await _leave(receive, self._body)
                problem = Problem("too_large", self._too_large)
            receive = self._bounded(receive)
        try:
            if problem is not None:
                await as_response(problem)(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        finally:
            state: dict[str, Any] = scope.get("state", {})
            _log.info(
                "request",
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(time.perf_counter() - began, 4),
                    "tenant": state.get("tenant"),
                    "run": state.get("run"),
                },
            )

    async def _problem(self, scope: Scope) -> Problem | None:
        """Why it is not answered at all."""
        if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in scope["path"]):
            return Problem("bad_request", "the address has characters that cannot be in one")
        if self._local and (problem := refusal(scope)) is not None:
            return problem
        if not scope["path"].startswith(_FOR_CALLERS):
            return None
        header = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
        state = scope.setdefault("state", {})
        try:
            caller = state["caller"] = await self._identify(header)
        except Problem as problem:
            return problem
        except OSError as error:
            _log.error("keys cannot be read: %s", error)
            return Problem("storage", "the service cannot read its data; its log says why", retry_after=5)
        state["tenant"] = caller.tenant
        return None

    def _bounded(self, receive: Receive) -> Receive:
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._body:
                if message.get("more_body"):
                    await _leave(receive, self._body)
                raise HTTPException(413, self._too_large)
            return message

        return bounded


def _declared(scope: Scope) -> int:
    return next((int(value) for name, value in scope["headers"] if name == b"content-length" and value.isdigit()), 0)


async def _leave(receive: Receive, most: int) -> None:
    """Reads on for a moment. Where a connection is closed while its client still sends, the client is reset and does not see
    the answer (RFC 9112, section 9.6)."""
    left = 4 * most
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            more = True
            while more and left > 0:
                message = await receive()
                more = message.get("more_body", False)
                left -= len(message.get("body", b""))


async def _deny(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """The answer to a handshake (ASGI, "Websocket Denial Response")."""
    response = as_response(problem)
    headers = [*response.raw_headers, *_HEADERS]
    await receive()
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})


def refusal(scope: Scope) -> Problem | None:
    """Why a request is not answered without a key; None if it is."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
    host = headers.get(b"host", "")
    if _name(f"//{host}") not in _LOOPBACK:
        return Problem(
            "forbidden_host", "without keys only requests for localhost are answered; `cellrun keys create` makes a key"
        )
    origin = headers.get(b"origin")
    if origin is not None and _netloc(origin) != host.lower():
        return Problem("forbidden_host", "without keys no page of another site may call this service")
    return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None


def _route(scope: Scope) -> str:
    """The address as it is written in the document, not as it was asked for: there are few of those."""
    route = scope.get("route")
    return getattr(route, "path", "none")
