"""Who asks at the Jupyter address: a token in a header or in the address, or a cookie that a password has brought. The password, like
the token, is a key of the service."""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import time
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from cellrun.service.context import Context
from cellrun.service.identity import Caller
from cellrun.service.jupyter.kernels import Kernels
from cellrun.service.problems import Problem

PREFIX: Final = "/jupyter"
XSRF: Final = "_xsrf"
LOGIN: Final = "cellrun-login"
_SCHEMES: Final = ("token", "bearer")
_LOGINS: Final = 10_000
_LASTS: Final = 8 * 3_600.0
_log: Final = logging.getLogger("cellrun.service")
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


class Refused(Exception):
    """Ends a request as Jupyter Server does, with `message` and `reason` as JSON."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def as_answer(problem: Problem) -> Response:
    headers = {} if problem.retry_after is None else {"Retry-After": str(max(1, round(problem.retry_after)))}
    body = {"message": problem.detail, "reason": problem.code}
    return Response(json.dumps(body), problem.kind.status, headers, media_type="application/json")


async def answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return as_answer(error.problem)


class Logins:
    """What was logged in with a password: a random name for each key, for as long as a browser keeps it. The oldest go."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[str, float]] = {}

    def add(self, key: str) -> str:
        name = secrets.token_urlsafe(32)
        self._keys[name] = (key, time.monotonic() + _LASTS)
        while len(self._keys) > _LOGINS:
            self._keys.pop(next(iter(self._keys)))
        return name

    def key(self, name: str) -> str | None:
        key, until = self._keys.get(name, (None, 0.0))
        return key if time.monotonic() < until else None

    def forget(self, name: str) -> None:
        self._keys.pop(name, None)


def token_of(connection: HTTPConnection) -> str:
    """Of the header, else of the address; "": none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() in _SCHEMES and token.strip():
        return token.strip()
    query = connection.scope["query_string"].decode("latin-1")
    # A plus stands for itself: clients put a token into the address as it is.
    return next((value for name, value in parse_qsl(query.replace("+", "%2B")) if name == "token"), "")


async def caller_of(connection: HTTPConnection) -> Caller:
    """Raises Refused."""
    context: Context = connection.app.state.context
    logins: Logins = connection.app.state.jupyter_logins
    try:
        token = token_of(connection)
        if not token and (login := connection.cookies.get(LOGIN)) is not None and not context.local:
            token = logins.key(login) or ""
            if token:
                check_page(connection)
        caller = await context.caller_of(token)
    except Problem as problem:
        if problem.code == "unauthenticated":
            problem = Problem(
                "unauthenticated", "send `Authorization: token KEY` with a key of this service, or log in"
            )
        raise Refused(problem) from None
    except OSError as error:
        _log.error("keys cannot be read: %s", error)
        raise Refused(Problem("storage", "the service cannot read its data; its log says why", retry_after=5)) from None
    connection.scope.setdefault("state", {})["tenant"] = caller.tenant
    return caller


def check_page(connection: HTTPConnection) -> None:
    """Of a request that has nothing but a cookie: no page of another site may send it. A client that names no `Origin` is no browser
    with a page. Raises Problem."""
    origin = connection.headers.get("origin")
    if origin is None:
        return
    if not same_site(origin, connection.headers.get("host", "")):
        raise Problem("forbidden_host", "no page of another site may call this service")
    if connection.scope["type"] != "http" or connection.scope["method"] in _SAFE:
        return
    sent = connection.headers.get("x-xsrftoken") or connection.query_params.get(XSRF, "")
    if not is_xsrf(connection, sent):
        raise Problem("forbidden_host", "'_xsrf' argument missing: send the cookie's value as X-XSRFToken")


def same_site(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def is_xsrf(connection: HTTPConnection, sent: str) -> bool:
    kept = connection.cookies.get(XSRF, "")
    return bool(kept) and hmac.compare_digest(kept.encode(), sent.encode("utf-8", "replace"))


async def tenant_of(connection: HTTPConnection) -> tuple[Kernels, str]:
    """What all requests begin with. Raises Refused."""
    caller = await caller_of(connection)
    kernels: Kernels = connection.app.state.jupyter
    return kernels, caller.tenant


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request; empty where nothing was sent. Raises Refused."""
    text = await request.body()
    if not text.strip():
        return {}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(Problem("bad_request", "the body is not JSON")) from None
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise Refused(Problem("bad_request", "the body must be a JSON object"))
    return body
