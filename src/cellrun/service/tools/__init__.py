"""The tools over plain HTTP, below `/tools/`, with an OpenAPI document of their own: for Open WebUI and others that make tools of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from cellrun.service.context import Context
from cellrun.service.headers import Cors, caller_of
from cellrun.service.interfaces import Interface
from cellrun.service.problem_response import as_response
from cellrun.service.problems import Problem
from cellrun.service.tools.operations import make_tools


def interface() -> Interface:
    tools: list[FastAPI] = []

    def mount(app: FastAPI) -> None:
        tools.append(make_tools(app.version))
        app.mount("/tools", Cors(_Known(tools[0])))

    @asynccontextmanager
    async def running(app: FastAPI, context: Context) -> AsyncIterator[None]:
        tools[0].state.context = context
        yield

    return Interface(name="tools", paths=("/tools/",), mount=mount, running=running)


class _Known:
    """Lets nobody pass who is not known, before anything of a body is read. The document says nothing of anybody."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].endswith("/openapi.json"):
            try:
                await caller_of(scope, self._app.state.context)
            except Problem as problem:
                await as_response(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)
