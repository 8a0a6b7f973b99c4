"""The operations of the tool server. Each answers with what a model is to read; pictures are data URLs, each by itself, as Open WebUI wants
them to show them."""

from __future__ import annotations

import base64
from collections.abc import Awaitable
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cellrun.errors import CellrunError
from cellrun.service import tool_files, tool_runs
from cellrun.service.answers import until_gone
from cellrun.service.bodies import Text
from cellrun.service.context import Context
from cellrun.service.describe import Place, described, plain
from cellrun.service.headers import session_of
from cellrun.service.hub_tools import HubTools
from cellrun.service.identity import Caller
from cellrun.service.problem_response import as_response
from cellrun.service.problems import Problem, problem_of
from cellrun.service.tool_backend import Answer, Promises

_WAIT: Final = 240.0
"""Seconds that an operation waits: Open WebUI gives a call up after 300."""
_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_ABOUT: Final = (
    "Runs code in Jupyter kernels. The header X-Session-Id, or X-OpenWebUI-Chat-Id, names the chat: its variables and files stay "
    "for its later calls. Without one, code runs in a kernel of its own and nothing stays."
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunCodeBody(_Body):
    code: Text = Field(description="The code of one notebook cell.")
    timeout: float | None = Field(None, gt=0, description="Seconds after which the code is interrupted.")


class GetRunBody(_Body):
    run_id: str = Field(max_length=64, description="As run_code gave it.")
    offset: int | None = Field(None, ge=0, description="Give the text from this character on, where it was cut.")


class InterruptBody(_Body):
    run_id: str | None = Field(None, max_length=64, description="Left out: the newest run of this chat.")


class ListFilesBody(_Body):
    path: str = Field("", max_length=4_096, description="A folder below the working folder.")


class ReadFileBody(_Body):
    path: str = Field(max_length=4_096, description="Relative to the working folder.")
    offset: int = Field(0, ge=0, description="Byte to begin at.")
    encoding: Literal["auto", "base64"] = Field(
        "auto", description="auto: text, or a picture. base64: any bytes, 512 KiB a call."
    )


class WriteFileBody(_Body):
    path: str = Field(max_length=4_096, description="Relative to the working folder; folders on the way are made.")
    content: str
    encoding: Literal["text", "base64"] = "text"


class Shown(BaseModel):
    """What a model reads of a run."""

    text: str
    status: str | None = None
    run_id: str | None = None
    seconds: float | None = None
    files: list[str] | None = Field(None, description="Created or changed.")
    cut: int | None = Field(None, description="Characters of the text that were left out.")


class Bytes(BaseModel):
    """A part of a file."""

    base64: str
    offset: int = Field(description="Of the file, at which it begins.")
    bytes: int
    size: int | None = Field(None, description="Of the whole file.")


class Asked:
    """Whose call it is, and of which chat."""

    def __init__(self, backend: HubTools, session: str | None) -> None:
        self.backend = backend
        self.session = session


async def _asked(request: Request) -> Asked:
    context: Context = request.app.state.context
    caller: Caller = request.state.caller
    return Asked(HubTools(context.hub, caller.tenant), session_of(request.headers))


From = Annotated[Asked, Depends(_asked)]


async def _asked_in_chat(of: From) -> Asked:
    if of.session is None:
        raise Problem(
            "bad_request", "this call is of no chat, and has no files and no kernel: a header X-Session-Id names one"
        )
    return of


FromChat = Annotated[Asked, Depends(_asked_in_chat)]
_RUN: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "What it printed and showed; after it each picture as a data URL",
        "content": {
            "application/json": {
                "schema": {
                    "type": "array",
                    "items": {"anyOf": [{"$ref": "#/components/schemas/Shown"}, {"type": "string"}]},
                }
            }
        },
    }
}
_TEXT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Text", "content": {"application/json": {"schema": {"type": "string"}}}}
}
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Text; a picture as a data URL; or bytes in base64",
        "content": {
            "application/json": {"schema": {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Bytes"}]}}
        },
    }
}
_NOTHING_STAYS: Final = "[no chat was named, so this was a kernel of its own: nothing stays for later calls]"


def make_tools(version: str) -> FastAPI:
    app = FastAPI(
        title="cellrun",
        version=version,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_operations(app)
    _add_answers_to_errors(app)
    document: list[dict[str, Any]] = []

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        """Asked for without a key, too: it says nothing of anybody."""
        if not document:
            context: Context = app.state.context
            document.append(_document(app, HubTools(context.hub, "").promises))
        return JSONResponse(document[0])

    return app


def _add_operations(app: FastAPI) -> None:
    @app.post("/run_code", operation_id="run_code", summary="Run code", responses=_RUN)
    async def run_code(request: Request, body: RunCodeBody, of: From) -> Response:
        work = tool_runs.run_code(of.backend, of.session, body.code, timeout=body.timeout, wait=_WAIT)
        return await _run(request, work, note="" if of.session is not None else _NOTHING_STAYS)

    @app.post("/get_run", operation_id="get_run", summary="Come back to a run", responses=_RUN)
    async def get_run(request: Request, body: GetRunBody, of: From) -> Response:
        work = tool_runs.get_run(of.backend, of.session, body.run_id, offset=body.offset, wait=_WAIT)
        return await _run(request, work)

    @app.post("/interrupt", operation_id="interrupt", summary="Interrupt a run", responses=_RUN)
    async def interrupt(request: Request, body: InterruptBody, of: From) -> Response:
        return await _run(request, tool_runs.interrupt(of.backend, of.session, body.run_id))

    @app.post("/restart", operation_id="restart", summary="Start a fresh kernel", responses=_TEXT)
    async def restart(of: FromChat) -> Response:
        return JSONResponse((await tool_runs.restart(of.backend, of.session)).text)

    @app.post("/list_files", operation_id="list_files", summary="List the chat's working folder", responses=_TEXT)
    async def list_files(body: ListFilesBody, of: FromChat) -> Response:
        return JSONResponse((await tool_files.list_files(of.backend, of.session, body.path)).text)

    @app.post("/read_file", operation_id="read_file", summary="Read a file", responses=_FILE)
    async def read_file(body: ReadFileBody, of: FromChat) -> Response:
        if body.encoding == "base64":
            part = await tool_files.read_part(of.backend, of.session, body.path, body.offset, tool_files.BASE64)
            told = Bytes(base64=part.base64, offset=part.offset, bytes=len(part.data), size=part.size)
            return JSONResponse(told.model_dump(exclude_none=True))
        answer = await tool_files.read_file(of.backend, of.session, body.path, offset=body.offset)
        return JSONResponse(_urls(answer)[0] if answer.images else answer.text)

    @app.post("/write_file", operation_id="write_file", summary="Create or replace a file", responses=_TEXT)
    async def write_file(body: WriteFileBody, of: FromChat) -> Response:
        answer = await tool_files.write_file(of.backend, of.session, body.path, body.content, encoding=body.encoding)
        return JSONResponse(answer.text)


async def _run(request: Request, work: Awaitable[Answer], note: str = "") -> Response:
    """A client that goes away ends its run. `note`: for the model, below the text."""
    found: list[Answer] = []

    async def working() -> None:
        found.append(await work)

    if not await until_gone(working(), request.receive):
        return Response(status_code=499)  # to nobody
    answer = found[0]
    shown: list[Any] = [{"text": "\n".join(filter(None, [answer.text, note])), **answer.told}]
    for number, url in enumerate(_urls(answer), start=1):
        # Never two in a row: Open WebUI takes them out of the list while it walks along it, and passes over what follows each.
        shown += [f"picture {number}:", url]
    return JSONResponse(shown)


def _urls(answer: Answer) -> list[str]:
    return [f"data:{image.mime};base64,{base64.b64encode(image.data).decode('ascii')}" for image in answer.images]


def _add_answers_to_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> Response:
        return as_response(error)

    @app.exception_handler(CellrunError)
    async def _plumbing(request: Request, error: CellrunError) -> Response:
        return as_response(problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5])
        return as_response(Problem("bad_request", "; ".join(wrong)))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "bad_request")
        return as_response(Problem(code, f"{request.method} {request.url.path}: {error.detail}"))

    @app.exception_handler(OSError)
    async def _storage(request: Request, error: OSError) -> Response:
        return as_response(Problem("storage", "the service cannot keep or read its data", retry_after=5))


def _document(app: FastAPI, promises: Promises) -> dict[str, Any]:
    """Without what models, and those who read it for them, do not need: titles, the form of bad requests."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=_ABOUT,
        routes=app.routes,
        servers=[{"url": "/tools"}],
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        del schemas[name]
    schemas["Shown"], schemas["Bytes"] = Shown.model_json_schema(), Bytes.model_json_schema()
    for schema in schemas.values():
        schema["properties"] = {name: plain(value) for name, value in schema["properties"].items()}
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    told = described(promises, Place("chat"))
    for path in document["paths"].values():
        for operation in path.values():
            operation["description"] = told[operation["operationId"]]
            operation["responses"].pop("422", None)
    return document
