"""Sessions: made, looked at, restarted, ended; and what was run in one, as a notebook."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from cellrun.event_log import Entry
from cellrun.folding import Folder
from cellrun.limits import MIB
from cellrun.notebook import History
from cellrun.service.bodies import ListedRun, SessionDetail, SessionList, SessionState, problems
from cellrun.service.database import Database, RunRow
from cellrun.service.held import Held, ended
from cellrun.service.hub import Hub
from cellrun.service.identity import Caller
from cellrun.service.routes_runs import IfThere, state_of
from cellrun.service.runs import RESULT
from cellrun.wire import event_from_json

router: Final = APIRouter(tags=["sessions"])
_NOTEBOOK: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "nbformat 4", "content": {"application/x-ipynb+json": {}}}
}
_RUNS: Final = 100
_CODE: Final = 16_384  # characters of a listed run's code
_CELLS: Final = 1_000
_NOTEBOOK_SIZE: Final = 64 * MIB
WithCode = Annotated[bool, Query(description="Whether the runs come with their code")]
Id = Annotated[str, Path(description="Chosen by the caller: a chat's id, for instance", max_length=200)]


@router.get("/v1/sessions", summary="Your sessions", responses=problems(401, 403, 429))
async def list_sessions(request: Request) -> SessionList:
    hub, tenant = await _tenant(request)
    return SessionList(sessions=[_state(held) for held in hub.sessions(tenant)])


@router.put("/v1/sessions/{session}", summary="Make a session", responses=problems(400, 401, 403, 404, 429, 503, 507))
async def put_session(request: Request, session: Id, if_there: IfThere = None) -> SessionState:
    """Or find the one that is there. Its kernel is started by its first run, or the first look at its files."""
    hub, tenant = await _tenant(request)
    return _state(await hub.session(tenant, session, make=if_there is None))


@router.get("/v1/sessions/{session}", summary="A session and its runs", responses=problems(401, 403, 404, 429, 507))
async def get_session(request: Request, session: Id, code: WithCode = True) -> SessionDetail:
    hub, tenant = await _tenant(request)
    held = hub.find(tenant, session)

    def found(database: Database) -> list[tuple[RunRow, str | None]]:
        rows = database.runs_of(tenant, session, held.row.created, _RUNS)
        return [(row, database.code(row.id, most=_CODE + 1) if code else None) for row in rows]

    runs = []
    for row, text in await hub.store.ask(found):
        if code and text is None:  # it was forgotten in between
            continue
        state = state_of(hub.live.get(row.id) or hub.unstored.get(row.id) or ended(hub.store, row))
        runs.append(ListedRun(**state.model_dump(), code=text if text is not None and len(text) <= _CODE else None))
    return SessionDetail(**_state(held).model_dump(), runs=runs)


@router.delete(
    "/v1/sessions/{session}", summary="End a session", status_code=204, responses=problems(401, 403, 404, 429, 507)
)
async def delete_session(request: Request, session: Id) -> Response:
    """Its runs are interrupted, its kernel and its files are gone. Its runs can still be read."""
    hub, tenant = await _tenant(request)
    await hub.delete(tenant, session)
    return Response(status_code=204)


@router.post(
    "/v1/sessions/{session}/restart",
    summary="A fresh kernel",
    responses=problems(401, 403, 404, 409, 429, 502, 503, 507),
)
async def restart_session(request: Request, session: Id) -> SessionState:
    """Variables are gone, files stay. A run that goes on ends as interrupted; those that wait go on in the new kernel."""
    hub, tenant = await _tenant(request)
    return _state(await hub.restart(tenant, session))


@router.get(
    "/v1/sessions/{session}/notebook",
    summary="What was run, as a notebook",
    response_class=Response,
    responses=_NOTEBOOK | problems(401, 403, 404, 429, 507),
)
async def get_notebook(request: Request, session: Id) -> Response:
    """The newest 1000 runs; of what they show, the newest 64 MiB."""
    hub, tenant = await _tenant(request)
    async with hub.notebook:
        notebook = await _notebook(hub, tenant, session)
    headers = {"Content-Disposition": 'attachment; filename="session.ipynb"'}
    return Response(notebook, headers=headers, media_type="application/x-ipynb+json")


async def _notebook(hub: Hub, tenant: str, session: str) -> str:
    since = hub.find(tenant, session).row.created
    rows = await hub.store.ask(lambda database: database.runs_of(tenant, session, since, _CELLS))
    history = History(keep=_NOTEBOOK_SIZE)
    for row in reversed(rows):
        code = None if row.ended is None else await hub.store.ask(partial(Database.code, id=row.id))
        if code is not None:
            folder = Folder(RESULT)
            after, whole = 0, False
            while piece := await hub.store.read(row.id, after, MIB):
                await asyncio.to_thread(_fold, folder, piece)
                after, whole = piece[-1].seq, piece[-1].type == "finished"
            if whole:
                history.add(code, folder.result())
    return await asyncio.to_thread(lambda: json.dumps(history.to_notebook({"name": "python"}), ensure_ascii=True))


def _fold(folder: Folder, piece: list[Entry]) -> None:
    for entry in piece:
        folder.add(event_from_json(entry.data))


async def _tenant(request: Request) -> tuple[Hub, str]:
    context = request.app.state.context
    caller: Caller = request.state.caller
    return context.hub, caller.tenant


def _state(held: Held) -> SessionState:
    containment = None if held.session is None or not held.alive else held.session.containment
    return SessionState(
        id=held.row.id, state=held.state, created=held.row.created, used=held.row.used, containment=containment
    )
