"""For those who run the service: is it alive, is it ready, what does it do. And for those who open it in a browser."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from cellrun.service.bodies import problems
from cellrun.service.problems import Problem

router: Final = APIRouter(tags=["operation"])
_TEXT: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "Samples", "content": {"text/plain": {}}}}


@router.get("/healthz", summary="Is the process alive")
async def healthz(request: Request) -> dict[str, Any]:
    """`containment`: the walls that kernels of this service have; null until the first one was started, or unknown."""
    hub = request.app.state.context.hub
    return {
        "status": "draining" if hub.draining else "ok",
        "version": request.app.version,
        "containment": hub.containment,
    }


@router.get("/readyz", summary="Does it take new runs", responses=problems(503))
async def readyz(request: Request) -> dict[str, str]:
    if request.app.state.context.hub.draining:
        raise Problem("draining", "the service ends", retry_after=5)
    return {"status": "ready"}


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses=_TEXT | problems(401, 403, 429),
)
async def metrics(request: Request) -> Response:
    context = request.app.state.context
    context.hub.observe()
    return Response(context.hub.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
