"""`/execute` and `/contexts`, as the SDK `e2b-code-interpreter` asks for them: its programs run on our kernels in its debug mode."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from cellrun.service.context import Context
from cellrun.service.e2b import routes
from cellrun.service.e2b.access import Refused, answer_refusal
from cellrun.service.e2b.contexts import Contexts
from cellrun.service.interfaces import Interface


def interface() -> Interface:
    def mount(app: FastAPI) -> None:
        app.include_router(routes.router, include_in_schema=False)
        app.add_exception_handler(Refused, answer_refusal)

    @contextlib.asynccontextmanager
    async def running(app: FastAPI, context: Context) -> AsyncIterator[None]:
        app.state.e2b = Contexts(context.hub)
        yield

    return Interface(name="e2b", paths=("/execute", "/contexts", "/health"), mount=mount, running=running)
