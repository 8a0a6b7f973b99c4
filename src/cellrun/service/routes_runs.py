"""Runs: started, watched, come back to, interrupted, answered."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from cellrun.service.answers import EventsAnswer, finished
from cellrun.service.bodies import InputBody, RunBody, RunState, problems
from cellrun.service.decoding import in_turn
from cellrun.service.encoding import chosen
from cellrun.service.held import EndedRun
from cellrun.service.hub import Hub
from cellrun.service.identity import Caller
from cellrun.service.model_view import BUDGET, model_view
from cellrun.service.problem_response import as_response
from cellrun.service.problems import Problem, problem_of
from cellrun.service.runs import LiveRun, OnDisconnect

router: Final = APIRouter(tags=["runs"])
_STREAMS: Final[dict[str, Any]] = {
    "application/json": {"schema": {"type": "object"}},
    "text/event-stream": {"schema": {"type": "string"}},
    "application/x-ndjson": {"schema": {"type": "string"}},
}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The result, or the events", "content": _STREAMS}
}
_SEEN: Final[dict[int | str, dict[str, Any]]] = {204: {"description": "The event with the Last-Event-ID was the last"}}
_ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {202: {"description": "It was started", "model": RunState}}
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]
# A session has no other state of which one could be meant (RFC 9110, section 13.1.1).
IfThere = Annotated[
    Literal["*"] | None, Header(alias="If-Match", description="*: only in a session that is there; none is made")
]
View = Annotated[
    Literal["full", "model"], Query(description="model: text within a budget and small pictures, for a language model")
]
Blobs = Annotated[
    Literal["inline", "reference"],
    Query(description="reference: values of 64 KiB and more are named in `blobs`, and are at /v1/blobs/{sha256}"),
]
Budget = Annotated[int, Query(ge=200, le=10_000_000, description="Characters of the text, in the model's view")]


@router.post(
    "/v1/run",
    summary="Run code in a kernel of its own",
    responses=_ANSWER | _ACCEPTED | problems(400, 401, 403, 406, 413, 422, 429, 503, 507),
)
async def run_once(
    request: Request,
    body: RunBody,
    key: Key = None,
    view: View = "full",
    budget: Budget = BUDGET,
    blobs: Blobs = "inline",
) -> Response:
    """Nothing of it is there for the next run."""
    return await _start(request, None, body, key, _Form(view, budget, blobs), "interrupt")


@router.post(
    "/v1/sessions/{session}/runs",
    summary="Run code in a session",
    responses=_ANSWER | _ACCEPTED | problems(400, 401, 403, 404, 406, 409, 413, 422, 429, 503, 507),
)
async def run_in_session(
    request: Request,
    session: str,
    body: RunBody,
    key: Key = None,
    if_there: IfThere = None,
    view: View = "full",
    budget: Budget = BUDGET,
    blobs: Blobs = "inline",
) -> Response:
    """The session is made by its first use, unless `If-Match: *` says that it was there. The answer is the result, or with `Accept: text/event-stream` or
    `application/x-ndjson` the events as they come. The same Idempotency-Key never runs twice: it gives the run that has it."""
    make = if_there is None
    return await _start(request, session, body, key, _Form(view, budget, blobs), "detach", make=make)


@dataclass(frozen=True)
class _Form:
    """In what form a run's result, or its events, are wanted."""

    view: Literal["full", "model"]
    budget: int
    blobs: Literal["inline", "reference"]

    @property
    def slim(self) -> bool:
        return self.blobs == "reference" and self.view != "model"


async def _start(
    request: Request,
    session: str | None,
    body: RunBody,
    key: str | None,
    form: _Form,
    on_disconnect: OnDisconnect,
    *,
    make: bool = True,
) -> Response:
    context = request.app.state.context
    hub: Hub = context.hub
    caller: Caller = request.state.caller
    encoding = chosen(request.headers.get("accept"))
    if encoding is None:
        raise Problem("not_acceptable", "there are application/json, text/event-stream and application/x-ndjson")
    asked = body.request("detach" if not body.wait else on_disconnect)
    if session is None and body.wait and encoding == "json":
        asked = replace(asked, asks=False)
    on_watch = None if not body.wait or encoding == "json" else hub.admission.watcher(caller.tenant)
    run = await hub.start(caller.tenant, session, asked, key, make=make)
    request.state.run = run.log.run
    if not body.wait:
        return _json(state_of(run), 202, run)
    if on_watch is not None and encoding != "json":
        return EventsAnswer(run, encoding, starter=True, slim=form.slim, on_watch=on_watch)
    if not await finished(run, request.receive, starter=True):
        return Response(status_code=499)  # to nobody
    return await _result(hub, run, form)


@router.get(
    "/v1/runs/{run}",
    summary="A run's result, or how far it is",
    responses=_ANSWER | problems(400, 401, 403, 404, 429, 507),
)
async def get_run(
    request: Request, run: str, view: View = "full", budget: Budget = BUDGET, blobs: Blobs = "inline"
) -> Response:
    """The result of a run that has ended (it has an `outputs`); else its state."""
    hub, found = await _find(request, run)
    if _status(found) is None:
        return _json(state_of(found), 200, found)
    return await _result(hub, found, _Form(view, budget, blobs))


@router.get(
    "/v1/runs/{run}/events",
    summary="A run's events, from any number on",
    responses=_ANSWER | _SEEN | problems(400, 401, 403, 404, 406, 429, 507),
)
async def get_events(
    request: Request,
    run: str,
    after: Annotated[int | None, Query(ge=0, le=2**31, description="Number of the last event that was seen")] = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
    blobs: Blobs = "inline",
) -> Response:
    """While it runs and long after. With `application/json` one array, which ends with the run."""
    hub, found = await _find(request, run)
    encoding = chosen(request.headers.get("accept"), otherwise="sse")
    if encoding is None:
        raise Problem("not_acceptable", "there are text/event-stream, application/x-ndjson and application/json")
    if after is None and last_event_id:
        if not last_event_id.isascii() or not last_event_id.isdigit():
            raise Problem("bad_request", "Last-Event-ID is the number of an event")
        after = int(last_event_id)
        if encoding == "sse" and found.log.ended and after >= found.log.last:
            # It has seen all; anything else than this, and an EventSource asks again (HTML, section 9.2.2).
            return Response(status_code=204)
    caller: Caller = request.state.caller
    on_watch = hub.admission.watcher(caller.tenant)
    return EventsAnswer(found, encoding, after=after or 0, slim=blobs == "reference", on_watch=on_watch)


@router.post(
    "/v1/runs/{run}/interrupt",
    summary="Interrupt a run",
    status_code=202,
    responses=_ACCEPTED | problems(401, 403, 404, 409, 429, 502, 507),
)
async def interrupt(request: Request, run: str) -> Response:
    """As Ctrl-C does; a run that waits for its turn leaves the line."""
    _, found = await _find(request, run)
    if isinstance(found, EndedRun) or not await found.interrupt():
        raise Problem("conflict", "the run has ended")
    return _json(state_of(found), 202, found)


@router.post(
    "/v1/runs/{run}/input",
    summary="Answer input()",
    status_code=202,
    responses=_ACCEPTED | problems(400, 401, 403, 404, 409, 429, 507),
)
async def answer_input(request: Request, run: str, body: InputBody) -> Response:
    _, found = await _find(request, run)
    if isinstance(found, EndedRun) or not found.answer(body.line):
        raise Problem("conflict", "the run does not ask for input")
    return _json(state_of(found), 202, found)


async def _find(request: Request, run: str) -> tuple[Hub, LiveRun | EndedRun]:
    context = request.app.state.context
    caller: Caller = request.state.caller
    request.state.run = run
    return context.hub, await context.hub.run(caller.tenant, run)


def _status(run: LiveRun | EndedRun) -> str | None:
    return run.row.status if isinstance(run, EndedRun) else run.status


def state_of(run: LiveRun | EndedRun) -> RunState:
    if isinstance(run, EndedRun):
        row = run.row
        return RunState(
            execution_id=row.id, session=row.session, status=row.status or "queued", created=row.created, last=row.last
        )
    return RunState(execution_id=run.id, session=run.session, status=run.state, created=run.created, last=run.log.last)


async def _result(hub: Hub, run: LiveRun | EndedRun, form: _Form) -> Response:
    headers = {"Location": f"/v1/runs/{run.log.run}"}
    if isinstance(run, LiveRun) and run.failure is not None:
        problem = problem_of(run.failure)
        problem.more["execution_id"] = run.id
        return as_response(problem)
    if isinstance(run, LiveRun):
        body = None if run.end is None else run.end.slim if form.slim and run.end.slim is not None else run.end.result
    else:
        body = await hub.store.ask(lambda database: database.result(run.row.id, slim=form.slim))
    if body is None:
        raise Problem("storage", "the result of this run was not kept")
    if form.view == "model":
        seen = await in_turn(lambda: model_view(json.loads(cast("bytes", body)), budget=form.budget))
        body = json.dumps(seen, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(body, headers=headers, media_type="application/json")


def _json(state: RunState, status: int, run: LiveRun | EndedRun) -> Response:
    headers = {"Location": f"/v1/runs/{run.log.run}"}
    return Response(state.model_dump_json(), status, headers, media_type="application/json")
