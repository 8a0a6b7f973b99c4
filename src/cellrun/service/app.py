"""The addresses of the service (FastAPI). What they do is in `hub`; what they answer with in `answers`, `encoding` and `problems`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from cellrun.errors import CellrunError
from cellrun.service import page, routes_blobs, routes_files, routes_operation, routes_runs, routes_sessions
from cellrun.service.context import Context
from cellrun.service.document import document
from cellrun.service.guard import Guard
from cellrun.service.identity import Caller
from cellrun.service.interfaces import Interface
from cellrun.service.metrics import Metrics
from cellrun.service.problem_response import as_response
from cellrun.service.problems import Problem, problem_of

_log: Final = logging.getLogger("cellrun.service")
_OF_STATUS: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def make_app(
    make: Callable[[], Awaitable[Context]],
    *,
    local: bool,
    body: int,
    metrics: Metrics,
    version: str,
    interfaces: Sequence[Interface] = (),
) -> Guard:
    """The service as an ASGI application. `make` is awaited at its start, on its event loop; its hub is closed at the end. `local`,
    `body`: see Guard."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context = app.state.context = await make()
        try:
            async with AsyncExitStack() as stack:
                for interface in interfaces:
                    await stack.enter_async_context(interface.running(app, context))
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
    for routes in (routes_runs, routes_blobs, routes_sessions, routes_files, routes_operation, page):
        app.include_router(routes.router)
    for interface in interfaces:
        interface.mount(app)

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return as_response(error)

    @app.exception_handler(CellrunError)
    async def _plumbing(request: Request, error: CellrunError) -> Response:
        return as_response(problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        if isinstance(error.body, bytes):
            # What was not named as JSON was not read as such.
            return as_response(Problem("bad_request", "send the body as JSON, with `Content-Type: application/json`"))
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
