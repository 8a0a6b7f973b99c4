"""Events and Results as JSON data: the only place where their spelling is written down.

An event is an object with `type` (its class name in snake case) and its fields. Bytes are base64 text
under a key of their own in an object: `{"base64": "…"}`. A Result's outputs are objects with `type`
"stdout", "stderr", "display", "execute_result", "page", "omission" or "error".
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal

from cellrun.errors import ProtocolError
from cellrun.events import Event
from cellrun.result import DisplayOutput, ErrorInfo, Omission, Output, PageOutput, Result, StreamOutput

_CLASSES: Final = typing.get_args(Event)
_NAME_OF: Final = {cls: re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower() for cls in _CLASSES}
_CLASS_OF: Final = {name: cls for cls, name in _NAME_OF.items()}
_FIELDS_OF: Final = {cls: tuple(f.name for f in dataclasses.fields(cls)) for cls in _CLASSES}
_HINTS_OF: Final = {cls: typing.get_type_hints(cls) for cls in _CLASSES}


def event_type(event: Event) -> str:
    """The `type` of an event on the wire: "stdout", "execute_result", …"""
    return _NAME_OF[type(event)]


def event_to_dict(event: Event) -> dict[str, Any]:
    """An event as JSON-ready data.

    >>> from cellrun.events import Stdout
    >>> event_to_dict(Stdout(seq=3, execution_id="e", text="hi"))
    {'type': 'stdout', 'seq': 3, 'execution_id': 'e', 'text': 'hi'}
    """
    cls = type(event)
    data: dict[str, Any] = {"type": _NAME_OF[cls]}
    for name in _FIELDS_OF[cls]:
        value = getattr(event, name)
        if isinstance(value, tuple):
            value = [_bytes_out(item) for item in value]
        data[name] = value
    return data


def event_from_dict(data: Mapping[str, Any]) -> Event:
    """The event that `event_to_dict` made this of. Unknown keys are ignored (a newer writer).

    Raises ProtocolError for an unknown type, a missing field or a value of the wrong kind.
    """
    if not isinstance(data, Mapping):
        raise ProtocolError(f"an event is a JSON object, not {type(data).__name__}")
    cls = _CLASS_OF.get(str(data.get("type")))
    if cls is None:
        raise ProtocolError(
            f"unknown event type {str(data.get('type'))[:40]!r}; known are {', '.join(sorted(_CLASS_OF))}"
        )
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name not in data:
            if field.default is dataclasses.MISSING:
                raise ProtocolError(f"the {data['type']} event lacks {field.name!r}")
            continue
        value = data[field.name]
        if isinstance(value, list):
            value = tuple(_bytes_in(item) for item in value)
        if not _fits(value, _HINTS_OF[cls][field.name]):
            raise ProtocolError(
                f"{field.name!r} of the {data['type']} event is of the wrong kind: {type(value).__name__}"
            )
        values[field.name] = value
    event: Event = cls(**values)
    return event


def event_to_json(event: Event) -> str:
    """One line of NDJSON, without its newline. Lone surrogates are escaped, so the line is UTF-8."""
    return data_to_json(event_to_dict(event))


def result_to_json(result: Result) -> str:
    """A Result as one line of JSON, spelled as events are."""
    return data_to_json(result_to_dict(result))


def data_to_json(data: Mapping[str, Any]) -> str:
    """What `event_to_dict` or `result_to_dict` made, as one line of JSON. Lone surrogates are escaped; NaN and the infinities are null."""
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str, allow_nan=False)
    except ValueError:  # NaN and the infinities, which JSON does not have
        text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), default=str)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def event_from_json(line: str | bytes) -> Event:
    """The event of one line of NDJSON. Raises ProtocolError where the line is none."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a line of JSON: {type(error).__name__}") from None
    return event_from_dict(data)


def output_to_dict(output: Output) -> dict[str, Any]:
    match output:
        case StreamOutput(name=name, text=text):
            return {"type": name, "text": text}
        case DisplayOutput():
            data: dict[str, Any] = {"type": output.kind, "data": output.data, "metadata": output.metadata}
            if output.kind == "execute_result":
                data["execution_count"] = output.execution_count
            if output.display_id is not None:
                data["display_id"] = output.display_id
            return data
        case PageOutput(data=page):
            return {"type": "page", "data": page}
        case Omission():
            return {"type": "omission", **dataclasses.asdict(output)}
        case ErrorInfo():
            return {"type": "error", **_error_to_dict(output)}


def _error_to_dict(error: ErrorInfo) -> dict[str, str]:
    return {"name": error.name, "value": error.value, "traceback": error.traceback}


def result_to_dict(result: Result) -> dict[str, Any]:
    """A Result as JSON-ready data, its rendered `text`, `stdout` and `stderr` included."""
    return {
        "execution_id": result.execution_id,
        "status": result.status,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "text": result.text,
        "outputs": [output_to_dict(output) for output in result.outputs],
        "error": None if result.error is None else _error_to_dict(result.error),
        "execution_count": result.execution_count,
        "duration": result.duration,
        "truncated": result.truncated,
        "files": None if result.files is None else list(result.files),
        "reason": result.reason,
        "restarted": result.restarted,
        "dropped": list(result.dropped),
        "payloads": [dict(payload) for payload in result.payloads],
        "stdout_size": result.stdout_size,
        "stderr_size": result.stderr_size,
    }


def _bytes_out(item: Any) -> Any:
    return {"base64": base64.b64encode(item).decode("ascii")} if isinstance(item, (bytes, memoryview)) else item


def _bytes_in(item: Any) -> Any:
    if isinstance(item, Mapping):
        try:
            return base64.b64decode(item["base64"], validate=True)
        except (KeyError, ValueError, TypeError):
            raise ProtocolError('bytes are spelled {"base64": "…"}') from None
    return item


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the field's type; as much of typing as the events use."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
