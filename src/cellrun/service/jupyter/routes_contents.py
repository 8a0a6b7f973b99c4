"""Jupyter's contents: the root has a folder for each kernel of the tenant, named by the kernel's id; in it are that kernel's files."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cellrun.errors import CellrunError
from cellrun.providers.base import FileInfo, FileStore
from cellrun.service.jupyter.access import Refused, body_of, tenant_of
from cellrun.service.jupyter.kernel import ServedKernel
from cellrun.service.jupyter.kernels import Kernels
from cellrun.service.problems import Problem, problem_of

router: Final = APIRouter()
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_LARGEST: Final = 16 * 1024 * 1024  # of a file that is told as JSON; larger ones are at /files/


@router.get("/api/contents")
@router.get("/api/contents/{path:path}")
async def show(request: Request, path: str = "") -> Response:
    kernels, tenant = await tenant_of(request)
    if not path.strip("/"):
        folders = [
            _model(kernel.id, FileInfo("", None, kernel.active.timestamp(), True)) for kernel in kernels.all(tenant)
        ]
        root = _model("", FileInfo("", None, kernels.started, True)) | {"content": folders, "format": "json"}
        return JSONResponse(root)
    kernel, rest = _split(kernels, tenant, path)
    with _Files():
        files = await kernel.lease.open_files()
        info = FileInfo("", None, kernel.active.timestamp(), True) if not rest else await files.stat(rest)
        found = _model(_join(kernel, info.path), info)
        if request.query_params.get("content") == "0":
            return JSONResponse(found)
        if info.is_dir:
            inner = [_model(_join(kernel, one.path), one) for one in await files.list(rest)]
            return JSONResponse(found | {"content": inner, "format": "json"})
        data = await _read(files, rest)
        return JSONResponse(found | _content(data, rest, request.query_params.get("format")))


@router.put("/api/contents/{path:path}")
async def write(request: Request, path: str) -> Response:
    """A file of base64, text or a notebook; a directory. In parts (`chunk`) it is not taken."""
    kernels, tenant = await tenant_of(request)
    if "/" not in path.strip("/"):  # not 404, which clients take for a folder that is to be made
        raise Refused(
            Problem(
                "bad_request", "a file is in the folder of a kernel, KERNEL_ID/NAME: the root has those folders alone"
            )
        )
    kernel, rest = _split(kernels, tenant, path)
    body = await body_of(request)
    if body.get("chunk") is not None:
        raise Refused(Problem("unsupported", "files are taken whole, not in chunks"))
    if body.get("type") == "directory":
        raise Refused(Problem("unsupported", "folders are made with the files in them"))
    data = _data(body)
    with _Files():
        kernels.hub.upkeep.check_disk(tenant, len(data))
        files = await kernel.lease.open_files()
        try:
            await files.stat(rest)
            status = 200
        except FileNotFoundError:
            status = 201
        await files.write(rest, _once(data))
        kernels.hub.upkeep.wrote(tenant, len(data))
        info = await files.stat(rest)
    return JSONResponse(_model(_join(kernel, info.path), info), status)


@router.delete("/api/contents/{path:path}")
async def remove(request: Request, path: str) -> Response:
    kernels, tenant = await tenant_of(request)
    kernel, rest = _split(kernels, tenant, path)
    if not rest:
        raise Refused(Problem("bad_request", "the folder of a kernel goes with its kernel"))
    with _Files():
        await (await kernel.lease.open_files()).delete(rest)
    return Response(status_code=204)


@router.get("/files/{path:path}")
async def download(request: Request, path: str) -> Response:
    """The bytes of a file."""
    kernels, tenant = await tenant_of(request)
    kernel, rest = _split(kernels, tenant, path)
    with _Files():
        files = await kernel.lease.open_files()
        info = await files.stat(rest)
        if info.is_dir:
            raise IsADirectoryError(f"{rest!r} is a folder")
    # As bytes: what code has written must not be shown as a page of ours.
    headers = {"Content-Disposition": "attachment"}
    return StreamingResponse(files.read(rest), media_type="application/octet-stream", headers=headers)


class _Files:
    """What goes wrong with files, as an answer."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        match error:
            case FileNotFoundError() | NotADirectoryError():
                raise Refused(Problem("not_found", "there is no such file in the kernel's folder")) from None
            case IsADirectoryError() | PermissionError() | ValueError():
                raise Refused(
                    Problem("bad_request", error.strerror or str(error) if isinstance(error, OSError) else str(error))
                ) from None
            case OSError():
                raise Refused(Problem("bad_request", error.strerror or "this cannot be done")) from None
            case CellrunError():
                raise Refused(problem_of(error)) from None
            case Problem():
                raise Refused(error) from None
            case _:
                return


def _split(kernels: Kernels, tenant: str, path: str) -> tuple[ServedKernel, str]:
    """The kernel whose folder a path is in, and the path in it. Raises Refused."""
    id, _, rest = path.strip("/").partition("/")
    try:
        return kernels.find(tenant, id), rest
    except Problem:
        raise Refused(
            Problem("not_found", f"there is no folder {id[:64]!r}: the root has one for each kernel, named by its id")
        ) from None


def _join(kernel: ServedKernel, path: str) -> str:
    return f"{kernel.id}/{path}" if path else kernel.id


def _model(path: str, info: FileInfo) -> dict[str, Any]:
    path = path.encode("utf-8", "replace").decode("utf-8")  # a name that is no UTF-8 has no spelling in JSON
    seconds = min(max(info.modified, 0), _LATEST)
    moment = datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    name = path.rpartition("/")[2]
    kind = "directory" if info.is_dir else "notebook" if name.endswith(".ipynb") else "file"
    return {
        "name": name,
        "path": path,
        "type": kind,
        "created": moment,
        "last_modified": moment,
        "writable": True,
        "size": info.size,
        "mimetype": None if kind != "file" else mimetypes.guess_type(name)[0],
        "content": None,
        "format": None,
    }


async def _read(files: FileStore, path: str) -> bytes:
    data = bytearray()
    async for chunk in files.read(path):
        data += chunk
        if len(data) > _LARGEST:
            raise Problem("too_large", f"{path!r} has more than {_LARGEST} bytes: read it at /files/")
    return bytes(data)


def _content(data: bytes, path: str, wanted: str | None) -> dict[str, Any]:
    if path.endswith(".ipynb") and wanted is None:
        try:
            return {"content": json.loads(data, parse_constant=_no_number), "format": "json"}
        except (ValueError, RecursionError):
            raise Problem("bad_request", f"{path!r} is no notebook; with `?format=text` its text is told") from None
    if wanted != "base64":
        try:
            return {"content": data.decode("utf-8"), "format": "text"}
        except UnicodeDecodeError:
            if wanted == "text":
                raise Problem("bad_request", f"{path!r} is not UTF-8") from None
    return {"content": base64.b64encode(data).decode("ascii"), "format": "base64"}


def _data(body: dict[str, Any]) -> bytes:
    """Raises Refused."""
    content, form = body.get("content"), body.get("format")
    if body.get("type") == "notebook" or form == "json":
        if not isinstance(content, dict):
            raise Refused(Problem("bad_request", "`content` must be a notebook, which is a JSON object"))
        try:
            return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
        except ValueError:
            raise Refused(Problem("bad_request", "`content` has a number that JSON has not: NaN or Infinity")) from None
        except RecursionError:
            raise Refused(Problem("bad_request", "`content` is nested too deeply")) from None
    if not isinstance(content, str):
        raise Refused(Problem("bad_request", "`content` must be a text, with `format` text or base64"))
    if form == "base64":
        try:
            return base64.b64decode(content, validate=False)
        except ValueError:  # binascii.Error, and what is not ASCII
            raise Refused(Problem("bad_request", "`content` is not base64")) from None
    return content.encode("utf-8", "backslashreplace")


def _no_number(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
