"""The tools over plain HTTP, below `/tools/`, with an OpenAPI document of their own: for Open WebUI and others that make tools of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from cellrun.service.context import Context
from cellrun.service.headers import Cors
from cellrun.service.interfaces import Interface
from cellrun.service.tools.operations import make_tools


def interface() -> Interface:
    tools: list[FastAPI] = []

    def mount(app: FastAPI) -> None:
        tools.append(make_tools(app.version))
        app.mount("/tools", Cors(tools[0]))

    @asynccontextmanager
    async def running(app: FastAPI, context: Context) -> AsyncIterator[None]:
        tools[0].state.context = context
        yield

    return Interface(name="tools", paths=("/tools/",), mount=mount, running=running)
