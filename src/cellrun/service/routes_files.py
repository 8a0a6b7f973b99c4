"""The files of a session. They were written by code that nobody has read: they are given out as bytes to be saved, never as a page."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from cellrun.files import Files
from cellrun.service.bodies import FileList, FileState, problems
from cellrun.service.hub import Hub
from cellrun.service.identity import Caller
from cellrun.service.problems import Problem
from cellrun.service.routes_runs import IfThere

router: Final = APIRouter(tags=["files"])
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file", "content": {"application/octet-stream": {}}},
    206: {"description": "The part that was asked for", "content": {"application/octet-stream": {}}},
}
_PROBLEMS: Final = problems(400, 401, 403, 404, 409, 413, 429, 501, 502, 503, 507)


@router.get("/v1/sessions/{session}/files", summary="What is in a folder", responses=_PROBLEMS)
async def list_files(request: Request, session: str, path: Annotated[str, Query(max_length=4096)] = "") -> FileList:
    """`path`: the folder, from the session's own; left out: that."""
    _, files = await _files(request, session)
    with _told(path):
        found = await files.list(path)
    return FileList(files=[FileState(path=f.path, size=f.size, modified=f.modified, is_dir=f.is_dir) for f in found])


@router.put(
    "/v1/sessions/{session}/files/{path:path}",
    summary="Write a file",
    status_code=204,
    responses=_PROBLEMS,
    response_class=Response,
)
async def put_file(request: Request, session: str, path: str, if_there: IfThere = None) -> Response:
    """The body is the file, as it is. Folders on the way are made; a file that is there is replaced at once, when all has come."""
    hub, files = await _files(request, session, make=if_there is None)
    tenant, most = request.state.caller.tenant, hub.options.file
    told = int(request.headers.get("content-length", "0"))
    if told > most:
        raise _too_large(most)
    hub.upkeep.check_disk(tenant, told)

    async def pieces() -> AsyncIterator[bytes]:
        size = 0
        async for piece in request.stream():
            size += len(piece)
            if size > most:
                raise _too_large(most)
            if piece:
                hub.upkeep.wrote(tenant, len(piece))
                hub.upkeep.check_disk(tenant)
                yield piece

    with _told(path):
        await files.write(path, pieces())
    return Response(status_code=204)


@router.get(
    "/v1/sessions/{session}/files/{path:path}",
    summary="Read a file",
    response_class=Response,
    responses=_BYTES | _PROBLEMS | problems(416),
)
async def get_file(
    request: Request,
    session: str,
    path: str,
    range_: Annotated[str | None, Header(alias="Range", max_length=200)] = None,
) -> Response:
    hub, files = await _files(request, session)
    with _told(path):
        info = await files.stat(path)
        if info.is_dir or info.size is None:
            raise IsADirectoryError
        part = None if range_ is None else part_of(range_, info.size)
        begin, end = part or (0, info.size)
        if end - begin > hub.options.file:
            raise Problem(
                "too_large", f"an answer may have {hub.options.file} bytes: ask for parts of the file (Range)"
            )
        # The first piece comes before the answer begins: what is wrong with the file is found by then.
        pieces = _part(files.chunks(path, start=begin), end - begin)
        first = await anext(pieces, b"")
    name = quote(PurePosixPath(path).name, safe="", errors="replace")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Length": str(end - begin),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{info.size}"
    return StreamingResponse(
        _begun(first, pieces), 200 if part is None else 206, headers, media_type="application/octet-stream"
    )


async def _part(pieces: AsyncGenerator[bytes, None], size: int) -> AsyncGenerator[bytes, None]:
    """The first `size` bytes. Raises OSError where there are less: the file was cut meanwhile, and the answer must not look whole."""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            yield piece[:size]
            size -= len(piece)
            if size <= 0:
                return
    if size > 0:
        raise OSError("the file has become shorter while it was read")


async def _begun(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


@router.delete(
    "/v1/sessions/{session}/files/{path:path}",
    summary="Remove a file or an empty folder",
    status_code=204,
    responses=_PROBLEMS,
    response_class=Response,
)
async def delete_file(request: Request, session: str, path: str) -> Response:
    _, files = await _files(request, session)
    with _told(path):
        await files.delete(path)
    return Response(status_code=204)


def part_of(range_: str, size: int) -> tuple[int, int] | None:
    """What a Range header asks for (RFC 9110, section 14.2), from and up to; None where it is to be passed over: not one part of bytes.
    Raises Problem where there is nothing of it.

    >>> part_of("bytes=2-3", 10), part_of("bytes=-4", 10), part_of("bytes=8-99", 10), part_of("pages=1-2", 10)
    ((2, 4), (6, 10), (8, 10), None)
    """
    match = _RANGE.fullmatch(range_.strip())
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), size if not last else int(last) + 1
        if last and int(last) < int(first):
            return None
    if begin >= size or end <= begin:
        unsatisfied = {"Content-Range": f"bytes */{size}"}
        raise Problem("range_not_satisfiable", f"the file has {size} bytes", headers=unsatisfied)
    return begin, min(end, size)


async def _files(request: Request, session: str, *, make: bool = False) -> tuple[Hub, Files]:
    context = request.app.state.context
    hub: Hub = context.hub
    caller: Caller = request.state.caller
    held = await hub.session(caller.tenant, session) if make else hub.find(caller.tenant, session)
    if not held.alive:
        hub.upkeep.check_cpu(caller.tenant)
    return hub, hub.kernel_of(held).files


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """What goes wrong with a path, in our words."""
    try:
        yield
    except FileNotFoundError:
        raise Problem("not_found", f"there is no file {path[:200]!r}") from None
    except (IsADirectoryError, NotADirectoryError) as error:
        raise Problem(
            "conflict", f"{path[:200]!r}: {error.strerror or 'it is a folder, or goes through a file'}"
        ) from None
    except ValueError as error:
        raise Problem("bad_request", str(error)) from None
    except OSError as error:
        raise Problem("conflict", f"{path[:200]!r}: {error.strerror or 'it cannot be used'}") from None


def _too_large(most: int) -> Problem:
    return Problem("too_large", f"a file may have {most} bytes")
