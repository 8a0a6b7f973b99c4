"""The tools' names and arguments, and calls of them: what MCP and the frameworks of agents spell in their own ways."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellrun.errors import CellrunError
from cellrun.service import tool_files, tool_runs
from cellrun.service.bodies import Text
from cellrun.service.describe import Place, described, plain
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import Answer, Promises, Tell, ToolBackend, sentence

_log: Final = logging.getLogger("cellrun.service.tools")
_NAME: Final = 100


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _InSession(_Arguments):
    session: str | None = Field(
        None, max_length=_NAME, description="Name of the session; the same name finds it again."
    )


class RunCode(_InSession):
    code: Text = Field(description="The code of one notebook cell.")
    timeout: float | None = Field(None, gt=0, description="Seconds after which the code is interrupted.")
    wait: float | None = Field(
        None,
        ge=0,
        description="Seconds to wait; then the answer has the output so far and a run_id, and the code runs on. Name it where calls "
        "that take long are given up: that interrupts the code.",
    )


class GetRun(_InSession):
    run_id: str | None = Field(None, max_length=64, description="Left out: the newest run of this session.")
    wait: float | None = Field(
        None, ge=0, le=3_600, description="Seconds to wait for its end; 0: give what there is so far."
    )
    offset: int | None = Field(None, ge=0, description="Give the text from this character on, where it was cut.")


class Interrupt(_InSession):
    run_id: str | None = Field(None, max_length=64, description="Left out: the newest run of this session.")


class Restart(_InSession):
    pass


class ListFiles(_InSession):
    path: str = Field("", max_length=4_096, description="A folder below the working folder.")


class ReadFile(_InSession):
    path: str = Field(max_length=4_096, description="Relative to the working folder.")
    offset: int = Field(0, ge=0, description="Byte to begin at.")
    encoding: Literal["auto", "base64"] = Field(
        "auto", description="auto: text, or a picture. base64: any bytes, 512 KiB a call."
    )


class WriteFile(_InSession):
    path: str = Field(max_length=4_096, description="Relative to the working folder; folders on the way are made.")
    content: str
    encoding: Literal["text", "base64"] = "text"


ARGUMENTS: Final[dict[str, type[_InSession]]] = {
    "run_code": RunCode,
    "get_run": GetRun,
    "interrupt": Interrupt,
    "restart": Restart,
    "list_files": ListFiles,
    "read_file": ReadFile,
    "write_file": WriteFile,
}
READS: Final = ("get_run", "list_files", "read_file")
_OF_FILES: Final = ("restart", "list_files", "read_file", "write_file")


@dataclass(frozen=True)
class Tool:
    """What a model is told of one. `schema`: a JSON Schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any]


def tools(promises: Promises, place: Place) -> list[Tool]:
    told = described(promises, place)
    return [Tool(name, told[name], _schema(name, model, promises, place)) for name, model in ARGUMENTS.items()]


async def call(
    backend: ToolBackend,
    place: Place,
    name: str,
    arguments: Mapping[str, Any],
    *,
    wait: float | None = None,
    tell: Tell | None = None,
) -> Answer:
    """Whatever is wrong with it is told in the answer. `wait`: seconds after which a run that names none is answered although it goes on.
    Cancelled, it interrupts the run that it began. Raises KeyError where there is no such tool."""
    model = ARGUMENTS[name]
    try:
        return await _carry_out(backend, place, name, model.model_validate(arguments), wait, tell)
    except ValidationError as error:
        return Answer(text=_what_is_wrong(error), failed=True)
    except (Problem, CellrunError) as error:
        return Answer(text=sentence(error), failed=True)
    except OSError as error:
        _log.error("%s: %s", name, error)
        return Answer(text="the service cannot keep or read its data; its log says why", failed=True)


async def _carry_out(
    backend: ToolBackend, place: Place, name: str, arguments: Any, wait: float | None, tell: Tell | None
) -> Answer:
    session = place.named(arguments.session)
    match name:
        case "run_code":
            wait = wait if arguments.wait is None else arguments.wait
            return await tool_runs.run_code(
                backend, session, arguments.code, timeout=arguments.timeout, wait=wait, tell=tell
            )
        case "get_run":
            wait = wait if arguments.wait is None else arguments.wait
            return await tool_runs.get_run(
                backend, session, arguments.run_id, offset=arguments.offset, wait=wait, tell=tell
            )
        case "interrupt":
            return await tool_runs.interrupt(backend, session, arguments.run_id)
        case "restart":
            return await tool_runs.restart(backend, session)
        case "list_files":
            return await tool_files.list_files(backend, session, arguments.path)
        case "read_file":
            return await tool_files.read_file(
                backend, session, arguments.path, offset=arguments.offset, encoding=arguments.encoding
            )
        case _:
            return await tool_files.write_file(
                backend, session, arguments.path, arguments.content, encoding=arguments.encoding
            )


def _what_is_wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5])


def _schema(name: str, model: type[BaseModel], promises: Promises, place: Place) -> dict[str, Any]:
    schema = model.model_json_schema()
    properties: dict[str, Any] = {key: plain(value) for key, value in schema["properties"].items()}
    required = list(schema.get("required", []))
    if place.kind == "chat":
        del properties["session"]
    elif place.kind == "none" and name in _OF_FILES:
        required.append("session")
    if name == "run_code" and promises.longest is not None:
        properties["timeout"]["maximum"] = promises.longest
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
