"""The REST addresses of kernels, and those that say what this is."""

from __future__ import annotations

import asyncio
import html
import secrets
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from cellrun.errors import CellrunError
from cellrun.service.context import Context
from cellrun.service.jupyter.access import (
    LOGIN,
    PREFIX,
    XSRF,
    Refused,
    body_of,
    caller_of,
    is_xsrf,
    same_site,
    tenant_of,
)
from cellrun.service.jupyter.kernel import ServedKernel
from cellrun.service.jupyter.kernels import Kernels
from cellrun.service.problems import Problem, problem_of

router: Final = APIRouter()
_FORM: Final = 16 * 1024
_GONE: Final = "whoever wanted the kernel has gone"
_SPOKEN: Final = "2.21.0"  # the release of Jupyter Server whose addresses these are
_PAGE: Final = """<!DOCTYPE html><html lang="en"><title>Log in</title>
<form method="post" action="login"><input type="hidden" name="_xsrf" value="{xsrf}">
<label>Key <input type="password" name="password" autofocus></label><button>Log in</button><p>{said}</p></form></html>"""


@router.get("/api")
async def version() -> Response:
    """Without credentials, as Jupyter Server has it: clients look here whether one is there."""
    return JSONResponse({"version": _SPOKEN})


@router.get("/api/status")
async def status(request: Request) -> Response:
    kernels, tenant = await tenant_of(request)
    own = kernels.all(tenant)
    latest = max((kernel.active for kernel in own), default=datetime.fromtimestamp(kernels.started, UTC))
    told = {
        "started": _moment(datetime.fromtimestamp(kernels.started, UTC)),
        "last_activity": _moment(latest),
        "connections": sum(len(kernel.audience.connections) for kernel in own),
        "kernels": len(own),
    }
    return JSONResponse(told)


@router.get("/api/me")
async def me(request: Request) -> Response:
    _, tenant = await tenant_of(request)
    names = dict.fromkeys(("username", "name", "display_name"), tenant)
    identity = {**names, "initials": tenant[:2].upper(), "avatar_url": None, "color": None}
    return JSONResponse({"identity": identity, "permissions": {}})


@router.get("/api/kernelspecs")
async def kernelspecs(request: Request) -> Response:
    kernels, _ = await tenant_of(request)
    return JSONResponse({"default": kernels.kernelspec, "kernelspecs": {kernels.kernelspec: _spec(kernels)}})


@router.get("/api/kernelspecs/{name}")
async def kernelspec(request: Request, name: str) -> Response:
    kernels, _ = await tenant_of(request)
    if name != kernels.kernelspec:
        raise Refused(Problem("not_found", f"there is no kernelspec {name[:64]!r}"))
    return JSONResponse(_spec(kernels))


def _spec(kernels: Kernels) -> dict[str, Any]:
    language = getattr(kernels.hub.provider, "language", "") or "python"
    spec: dict[str, Any] = {
        "argv": [],
        "env": {},
        "display_name": f"{kernels.kernelspec} (cellrun)",
        "language": language,
        "interrupt_mode": "signal",
        "metadata": {},
    }
    return {"name": kernels.kernelspec, "spec": spec, "resources": {}}


# -- kernels -------------------------------------------------------------------------------------


@router.get("/api/kernels")
async def list_kernels(request: Request) -> Response:
    kernels, tenant = await tenant_of(request)
    return JSONResponse([model(kernel) for kernel in kernels.all(tenant)])


@router.post("/api/kernels")
async def start_kernel(request: Request) -> Response:
    """Leases one that is warm. `name` may name the kernelspec; `path` and `env` do nothing."""
    kernels, tenant = await tenant_of(request)
    body = await body_of(request)
    kernel = await started(request, kernels, tenant, body.get("name"))
    return JSONResponse(model(kernel), 201, {"Location": f"{PREFIX}/api/kernels/{kernel.id}"})


async def started(request: Request, kernels: Kernels, tenant: str, name: Any) -> ServedKernel:
    """A kernel for whoever still waits for it. Raises Refused."""
    if name is not None and not isinstance(name, str):
        raise Refused(Problem("bad_request", "`name` is the name of a kernelspec"))
    try:
        kernel = await kernels.start(tenant, name)
    except Problem as problem:
        raise Refused(problem) from None
    if await request.is_disconnected():  # nobody knows its name
        kernel.end(_GONE)
        raise Refused(Problem("conflict", _GONE))
    return kernel


async def kernel_of(request: Request, id: str) -> ServedKernel:
    """Raises Refused."""
    kernels, tenant = await tenant_of(request)
    try:
        return kernels.find(tenant, id)
    except Problem as problem:
        raise Refused(problem) from None


@router.get("/api/kernels/{id}")
async def show_kernel(request: Request, id: str) -> Response:
    return JSONResponse(model(await kernel_of(request, id)))


@router.delete("/api/kernels/{id}")
async def end_kernel(request: Request, id: str) -> Response:
    """At once; its process and its folder are removed behind."""
    (await kernel_of(request, id)).end()
    return Response(status_code=204)


@router.post("/api/kernels/{id}/interrupt")
async def interrupt_kernel(request: Request, id: str) -> Response:
    kernel = await kernel_of(request, id)
    try:
        await kernel.interrupt()
    except CellrunError as error:
        raise Refused(problem_of(error)) from None
    return Response(status_code=204)


@router.post("/api/kernels/{id}/restart")
async def restart_kernel(request: Request, id: str) -> Response:
    kernel = await kernel_of(request, id)
    try:
        await asyncio.shield(asyncio.ensure_future(kernel.restart()))
    except CellrunError as error:
        raise Refused(problem_of(error)) from None
    return JSONResponse(model(kernel))


def model(kernel: ServedKernel) -> dict[str, Any]:
    """A kernel as Jupyter tells it."""
    return {
        "id": kernel.id,
        "name": kernel.name,
        "last_activity": _moment(kernel.active),
        "execution_state": kernel.state,
        "connections": len(kernel.audience.connections),
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


# -- logging in ----------------------------------------------------------------------------------


@router.get("/login")
async def login_form(request: Request) -> Response:
    return _form(request, "")


@router.post("/login")
async def log_in(request: Request) -> Response:
    """`password` is a key of the service. Answers 302 with a cookie, or 401."""
    fields = await _fields(request)
    sent = fields.get(XSRF, [""])[0] or request.headers.get("x-xsrftoken", "")
    origin = request.headers.get("origin")
    if origin is not None:
        if not same_site(origin, request.headers.get("host", "")):
            raise Refused(Problem("forbidden_host", "no page of another site may log in here"))
        if not is_xsrf(request, sent):
            raise Refused(Problem("forbidden_host", "'_xsrf' argument missing from POST"))
    context: Context = request.app.state.context
    key = fields.get("password", [""])[0]
    try:
        await context.caller_of(key)
    except Problem as problem:
        if problem.code != "unauthenticated":
            raise Refused(problem) from None
        return _form(request, "This key is not known here.", 401)
    answer = RedirectResponse(f"{PREFIX}/api", 302)
    if not context.local:
        name = request.app.state.jupyter_logins.add(key)
        _set_cookie(request, answer, LOGIN, name, httponly=True)
    return answer


async def _fields(request: Request) -> dict[str, list[str]]:
    """Of a form that anybody may send. Raises Refused."""
    sent = bytearray()
    async for piece in request.stream():
        sent += piece
        if len(sent) > _FORM:
            raise Refused(Problem("too_large", f"this form has {_FORM} bytes at most"))
    try:
        return parse_qs(sent.decode("utf-8", "replace"), max_num_fields=16)
    except ValueError:
        raise Refused(Problem("bad_request", "this form has `password` and `_xsrf`")) from None


@router.api_route("/logout", methods=["GET", "POST"])
async def log_out(request: Request) -> Response:
    await caller_of(request)
    if (name := request.cookies.get(LOGIN)) is not None:
        request.app.state.jupyter_logins.forget(name)
    answer = RedirectResponse(f"{PREFIX}/login", 302)
    answer.delete_cookie(LOGIN, path=f"{PREFIX}/")
    return answer


def _form(request: Request, said: str, status: int = 200) -> Response:
    xsrf = request.cookies.get(XSRF, "")
    if not 20 <= len(xsrf) <= 100 or not xsrf.isascii() or not xsrf.replace("-", "").replace("_", "").isalnum():
        xsrf = secrets.token_urlsafe(24)
    answer = HTMLResponse(_PAGE.format(xsrf=html.escape(xsrf), said=said), status)
    answer.headers["Content-Security-Policy"] = "default-src 'none'; form-action 'self'; frame-ancestors 'none'"
    _set_cookie(request, answer, XSRF, xsrf, httponly=False)
    return answer


def _set_cookie(request: Request, answer: Response, name: str, value: str, *, httponly: bool) -> None:
    secure = request.url.scheme == "https"
    answer.set_cookie(name, value, path=f"{PREFIX}/", secure=secure, httponly=httponly, samesite="strict")
