"""Large values by their hash: what `blobs` of an event or of a Result's output names."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from cellrun.service.bodies import problems
from cellrun.service.hub import Hub
from cellrun.service.identity import Caller
from cellrun.service.problems import Problem

router: Final = APIRouter(tags=["runs"])
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The bytes", "content": {"application/octet-stream": {}}},
    304: {"description": "The caller has it"},
}
# What a browser may take for a picture; all else is bytes to be saved, whatever user code says that it is.
_PICTURES: Final = re.compile(r"image/(?:png|jpeg|gif|webp)")


@router.get(
    "/v1/blobs/{sha256}",
    summary="A large value",
    response_class=Response,
    responses=_BYTES | problems(400, 401, 403, 404, 429, 507),
)
async def get_blob(
    request: Request,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Hexadecimal")],
    type: Annotated[
        str | None,
        Query(max_length=100, description="Its MIME type: png, jpeg, gif and webp are answered as pictures"),
    ] = None,
) -> Response:
    """Kept for as long as a run of yours that shows it."""
    hub: Hub = request.app.state.context.hub
    caller: Caller = request.state.caller
    tag = f'"{sha256}"'
    data = await hub.store.ask(lambda database: database.blob(caller.tenant, bytes.fromhex(sha256)))
    if data is None:
        raise Problem("not_found", f"there is no blob {sha256}")
    # The bytes under this address never change; who may see them does.
    headers = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if type is not None and _PICTURES.fullmatch(type):
        return Response(data, headers=headers, media_type=type)
    headers["Content-Disposition"] = "attachment"
    return Response(data, headers=headers, media_type="application/octet-stream")
