"""The addresses that the SDK asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Annotated, Final

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import JSONResponse, Response

from cellrun.errors import CellrunError
from cellrun.event_log import Entry
from cellrun.limits import KIB
from cellrun.service.answers import EventsAnswer, until_gone
from cellrun.service.bodies import Text
from cellrun.service.e2b.access import asked, body_of, refused
from cellrun.service.e2b.contexts import DEFAULT, Contexts, Told
from cellrun.service.e2b.lines import KEEP_ALIVE, Lines, as_bytes
from cellrun.service.problems import Problem
from cellrun.service.runs import RunRequest
from cellrun.wire import event_from_json

router: Final = APIRouter()
_PATIENCE: Final = 5.0  # seconds; then a sign of life is sent, as often as E2B's sandboxes do
_MOST: Final = 1_000
_LARGE: Final = 256 * KIB


def _variable(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise ValueError("a variable's name has neither = nor a null character, and is not empty")
    return name


def _value(text: str) -> str:
    if "\0" in text:
        raise ValueError("a variable's value has no null character")
    return text


_Variables = dict[Annotated[Text, AfterValidator(_variable)], Annotated[Text, AfterValidator(_value)]]


class ExecuteBody(BaseModel):
    code: Text
    context_id: str | None = None
    language: str | None = None
    env_vars: Annotated[_Variables, Field(max_length=_MOST)] | None = None


class ContextBody(BaseModel):
    language: str | None = None
    cwd: Annotated[Text, AfterValidator(_value), Field(max_length=4_096)] | None = None


class LinesAnswer(EventsAnswer):
    """A run as the SDK reads it."""

    def pieces(self) -> AsyncIterable[bytes]:
        return spelled(self._log.follow(patience=_PATIENCE))


async def spelled(pieces: AsyncIterable[list[Entry]]) -> AsyncGenerator[bytes, None]:
    lines = Lines()
    async for piece in pieces:
        if not piece:
            yield KEEP_ALIVE
        for entry in piece:
            # Others would wait for the JSON of what is large.
            told = await asyncio.to_thread(_told, lines, entry) if len(entry.data) > _LARGE else _told(lines, entry)
            for line in told:
                yield line


def _told(lines: Lines, entry: Entry) -> list[bytes]:
    return [as_bytes(line) for line in lines.of(event_from_json(entry.data), time.time_ns())]


@router.get("/health")
async def health() -> Response:
    return Response()


@router.post("/execute")
async def execute(request: Request) -> Response:
    contexts, tenant = await asked(request)
    body = await body_of(request, ExecuteBody)
    try:
        return await _execute(request, contexts, tenant, body)
    except (Problem, CellrunError) as error:
        raise refused(error) from None


async def _execute(request: Request, contexts: Contexts, tenant: str, body: ExecuteBody) -> Response:
    if body.context_id and body.language:
        raise Problem("bad_request", "a context has its language: send `context_id` or `language`, not both")
    contexts.check_language(body.language)
    if body.env_vars and not contexts.lean:
        raise Problem("unsupported", "the kernels of this service cannot be given `env_vars` for one execution")
    session = body.context_id or DEFAULT
    if body.context_id:
        contexts.find(tenant, session)
    wanted = RunRequest(
        code=body.code,
        stdin=(),
        on_disconnect="interrupt",
        metadata=contexts.metadata(tenant, session, body.env_vars or {}),
    )
    on_watch = contexts.hub.admission.watcher(tenant)
    run = await contexts.hub.start(tenant, session, wanted, make=not body.context_id)
    request.state.run = run.log.run
    return LinesAnswer(run, "ndjson", starter=True, on_watch=on_watch)


@router.get("/contexts")
async def list_contexts(request: Request) -> Response:
    contexts, tenant = await asked(request)
    return JSONResponse([told.as_json() for told in contexts.all(tenant)])


@router.post("/contexts")
async def create_context(request: Request) -> Response:
    contexts, tenant = await asked(request)
    body = await body_of(request, ContextBody)
    made: list[Told] = []

    async def making() -> None:
        made.append(await contexts.create(tenant, body.cwd))

    try:
        contexts.check_language(body.language)
        # Of a context whose id was never told, nobody would end the kernel.
        if not await until_gone(making(), request.receive):
            return Response(status_code=499)  # to nobody
    except (Problem, CellrunError) as error:
        raise refused(error) from None
    return JSONResponse(made[0].as_json(), 201)


@router.post("/contexts/{context}/restart")
async def restart_context(request: Request, context: str) -> Response:
    contexts, tenant = await asked(request)
    try:
        await contexts.restart(tenant, context)
    except (Problem, CellrunError) as error:
        raise refused(error) from None
    return Response(status_code=204)


@router.delete("/contexts/{context}")
async def remove_context(request: Request, context: str) -> Response:
    contexts, tenant = await asked(request)
    try:
        await contexts.delete(tenant, context)
    except (Problem, CellrunError) as error:
        raise refused(error) from None
    return Response(status_code=204)
