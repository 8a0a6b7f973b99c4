"""The addresses of the service (FastAPI). What they do is in `hub`; what they answer with in `answers`, `encoding` and `problems`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from cellrun.errors import CellrunError
from cellrun.service import routes_files, routes_operation, routes_runs, routes_sessions
from cellrun.service.document import document
from cellrun.service.guard import Guard
from cellrun.service.hub import Hub
from cellrun.service.identity import LOCAL, PREFIX, Caller, Keys
from cellrun.service.metrics import Metrics
from cellrun.service.problems import Problem, as_response, problem_of
from cellrun.service.rates import Rates
from cellrun.service.tokens import Tokens

_log: Final = logging.getLogger("cellrun.service")
_OF_STATUS: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


@dataclass(frozen=True)
class Context:
    """What all requests share. Where there are neither `keys` nor `tokens`, the service serves this machine alone."""

    hub: Hub
    keys: Keys | None
    tokens: Tokens | None
    rates: Rates

    async def identify(self, authorization: str | None) -> Caller:
        """Who asks. Raises Problem where that is nobody we know, or asks too often."""
        caller = await self._caller(authorization)
        self.rates.count(caller.tenant)
        return caller

    async def _caller(self, authorization: str | None) -> Caller:
        """Of an Authorization header (RFC 6750)."""
        if self.keys is None and self.tokens is None:
            return Caller(LOCAL)
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if not token or scheme.lower() != "bearer":
            raise Problem(
                "unauthenticated", "send the header `Authorization: Bearer KEY`; `cellrun keys create` makes a key"
            )
        if self.keys is not None and (self.tokens is None or token.startswith(PREFIX)):
            return await self.keys.caller(token)
        assert self.tokens is not None
        return await self.tokens.caller(token)


def make_app(
    make: Callable[[], Awaitable[Context]], *, local: bool, body: int, metrics: Metrics, version: str
) -> Guard:
    """The service as an ASGI application. `make` is awaited at its start, on its event loop; its hub is closed at the end. `local`,
    `body`: see Guard."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context = app.state.context = await make()
        try:
            yield
        finally:
            await context.hub.aclose()

    app = FastAPI(
        title="cellrun",
        version=version,
        summary="Runs code in Jupyter kernels and gives back everything it prints, shows and draws, as it happens.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for routes in (routes_runs, routes_sessions, routes_files, routes_operation):
        app.include_router(routes.router)

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return as_response(error)

    @app.exception_handler(CellrunError)
    async def _plumbing(request: Request, error: CellrunError) -> Response:
        return as_response(problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return as_response(Problem("bad_request", "; ".join(_sentence(item) for item in error.errors()[:5])))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = _OF_STATUS.get(error.status_code, "bad_request")
        response = as_response(Problem(code, f"{request.method} {request.url.path}: {error.detail}"))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(OSError)
    async def _storage(request: Request, error: OSError) -> Response:
        _log.error("%s %s: %s", request.method, request.url.path, error)
        return as_response(
            Problem("storage", "the service cannot keep or read its data; its log says why", retry_after=5)
        )

    @app.exception_handler(Exception)
    async def _failed(request: Request, error: Exception) -> Response:
        return as_response(Problem("internal", "the service has failed; its log says why"))

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # to nobody

    async def identify(authorization: str | None) -> Caller:
        return await cast("Context", app.state.context).identify(authorization)

    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return Guard(app, local=local, body=body, metrics=metrics, identify=identify)


def _sentence(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"] if part != "body")
    return f"{where or 'the body'}: {item['msg']}" if item["type"] != "json_invalid" else "the body is not JSON"
