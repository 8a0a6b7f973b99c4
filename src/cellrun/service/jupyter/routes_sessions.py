"""Jupyter's sessions: a path and a name for a kernel. They are not the service's sessions, and end with their kernel."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from cellrun.service.jupyter.access import PREFIX, Refused, body_of, tenant_of
from cellrun.service.jupyter.kernel import ServedKernel
from cellrun.service.jupyter.kernels import Kernels, NamedKernel
from cellrun.service.jupyter.routes import model, started
from cellrun.service.problems import Problem

router: Final = APIRouter()
_LONGEST: Final = 1_000


@router.get("/api/sessions")
async def list_sessions(request: Request) -> Response:
    kernels, tenant = await tenant_of(request)
    return JSONResponse([_model(session) for session in kernels.named(tenant)])


@router.post("/api/sessions")
async def make_session(request: Request) -> Response:
    """One with the same path is there already: that one."""
    kernels, tenant = await tenant_of(request)
    body = await body_of(request)
    path, type, name = _text(body, "path"), _text(body, "type"), _text(body, "name", "")
    there = _of_path(kernels, tenant, path)
    if there is not None:
        return JSONResponse(_model(there), 201)
    try:
        kernels.check_sessions(tenant)
        kernel = await _kernel(request, kernels, tenant, body)
        there = _of_path(kernels, tenant, path)
        if there is not None:  # made meanwhile
            _end_unnamed(kernels, tenant, kernel)
            return JSONResponse(_model(there), 201)
        session = kernels.name(tenant, kernel, path, name, type)
    except Problem as problem:
        raise Refused(problem) from None
    return JSONResponse(_model(session), 201, {"Location": f"{PREFIX}/api/sessions/{session.id}"})


@router.get("/api/sessions/{id}")
async def show_session(request: Request, id: str) -> Response:
    _, session = await _session(request, id)
    return JSONResponse(_model(session))


@router.patch("/api/sessions/{id}")
async def change_session(request: Request, id: str) -> Response:
    """`path`, `name`, `type`, and another kernel; the old kernel ends if no session has it."""
    kernels, session = await _session(request, id)
    body = await body_of(request)
    path = _text(body, "path", session.path)
    name = _text(body, "name", session.name)
    type = _text(body, "type", session.type)
    old = session.kernel
    wanted = body.get("kernel") or {}
    if (isinstance(wanted, dict) and wanted.get("id") not in (None, old.id)) or (
        isinstance(wanted, dict) and wanted.get("name") and not wanted.get("id")
    ):
        kernel = await _kernel(request, kernels, session.tenant, body)
        if session.id not in kernels.sessions:  # deleted meanwhile
            _end_unnamed(kernels, session.tenant, kernel)
            raise Refused(Problem("not_found", f"there is no session {id[:64]!r}"))
        session.kernel = kernel
    session.path, session.name, session.type = path, name, type
    _end_unnamed(kernels, session.tenant, old)
    return JSONResponse(_model(session))


@router.delete("/api/sessions/{id}")
async def end_session(request: Request, id: str) -> Response:
    kernels, session = await _session(request, id)
    kernels.sessions.pop(session.id, None)
    _end_unnamed(kernels, session.tenant, session.kernel)
    return Response(status_code=204)


async def _session(request: Request, id: str) -> tuple[Kernels, NamedKernel]:
    kernels, tenant = await tenant_of(request)
    try:
        return kernels, kernels.find_named(tenant, id)
    except Problem as problem:
        raise Refused(problem) from None


async def _kernel(request: Request, kernels: Kernels, tenant: str, body: dict[str, Any]) -> ServedKernel:
    wanted = body.get("kernel") or {}
    if not isinstance(wanted, dict):
        raise Refused(Problem("bad_request", "`kernel` is an object with a `name` or an `id`"))
    if wanted.get("id"):
        try:
            return kernels.find(tenant, str(wanted["id"]))
        except Problem as problem:
            raise Refused(problem) from None
    return await started(request, kernels, tenant, wanted.get("name"))


def _of_path(kernels: Kernels, tenant: str, path: str) -> NamedKernel | None:
    return next((session for session in kernels.named(tenant) if session.path == path), None)


def _end_unnamed(kernels: Kernels, tenant: str, kernel: ServedKernel) -> None:
    """Ends a kernel that no session has."""
    if not any(one.kernel is kernel for one in kernels.named(tenant)):
        kernel.end()


def _text(body: dict[str, Any], name: str, otherwise: str | None = None) -> str:
    value = otherwise if body.get(name) is None else body[name]
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise Refused(Problem("bad_request", f"`{name}` must be a text of at most {_LONGEST} characters"))
    return value


def _model(session: NamedKernel) -> dict[str, Any]:
    return {
        "id": session.id,
        "path": session.path,
        "name": session.name,
        "type": session.type,
        "kernel": model(session.kernel),
        "notebook": {"path": session.path, "name": session.name},
    }
