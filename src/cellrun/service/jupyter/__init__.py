"""A Jupyter-compatible address, `/jupyter/`: programs that know Jupyter servers get warm, contained kernels by changing one address."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from cellrun.service.context import Context
from cellrun.service.interfaces import Interface
from cellrun.service.jupyter import routes, routes_contents, routes_sessions, socket
from cellrun.service.jupyter.access import PREFIX, Logins, Refused, answer_refusal
from cellrun.service.jupyter.kernels import Kernels


def interface() -> Interface:
    def mount(app: FastAPI) -> None:
        for part in (socket, routes, routes_sessions, routes_contents):  # those that are asked for most come first
            app.include_router(part.router, prefix=PREFIX, include_in_schema=False)
        app.add_exception_handler(Refused, answer_refusal)

    @contextlib.asynccontextmanager
    async def running(app: FastAPI, context: Context) -> AsyncIterator[None]:
        kernels = app.state.jupyter = Kernels(context.hub)
        app.state.jupyter_logins = Logins()
        try:
            yield
        finally:
            await kernels.aclose()

    return Interface(name="jupyter", paths=(PREFIX,), mount=mount, running=running)
