"""Events as the lines of JSON that the SDK reads. Knows nothing of HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cellrun.events import (
    Display,
    DisplayUpdate,
    ErrorOutput,
    Event,
    ExecuteResult,
    Finished,
    KernelRestarted,
    OutputDropped,
    Payload,
    Started,
    Stderr,
    Stdout,
)
from cellrun.kernel_session import RESTARTED

_KEYS: Final = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
    "e2b/chart": "chart",
}
_UPDATED: Final = 64
KEEP_ALIVE: Final = b'{"type":"keepalive"}\n'
"""The SDK passes over types that it does not know; an empty line it does not read."""

Line = dict[str, Any]


class Lines:
    """Of one run. An error is told at its end, once: by then it is known whether it was the time limit, or the kernel's death."""

    def __init__(self) -> None:
        self._counted = False
        self._error: ErrorOutput | None = None
        self._updated: dict[str, Mapping[str, Any]] = {}

    def of(self, event: Event, now: int) -> Iterator[Line]:
        """`now`: nanoseconds since the epoch."""
        match event:
            case Started(execution_count=int(count)) if not self._counted:
                self._counted = True
                yield {"type": "number_of_executions", "execution_count": count}
            case Stdout(text=text):
                yield {"type": "stdout", "text": text, "timestamp": now}
            case Stderr(text=text):
                yield {"type": "stderr", "text": text, "timestamp": now}
            case ExecuteResult(data=data):
                yield _result(data, main=True)
            case Display(data=data):
                yield _result(data, main=False)
            case DisplayUpdate(data=data, display_id=str(name)):
                # What it was in between is seen by nobody: a line cannot be taken back.
                self._updated.pop(name, None)
                self._updated[name] = data
                if len(self._updated) > _UPDATED:
                    yield _result(self._updated.pop(next(iter(self._updated))), main=False)
            case Payload(source="page", content={"data": Mapping() as data}):
                yield _result(data, main=False)
            case KernelRestarted(reason=reason) if reason != RESTARTED:
                yield _notice(f"a new kernel was started, and earlier variables are gone: {reason}", now)
            case OutputDropped(detail=detail):
                yield _notice(f"output was lost: {detail}", now)
            case ErrorOutput():
                self._error = event
            case Finished():
                yield from self._end(event)

    def _end(self, finished: Finished) -> Iterator[Line]:
        for data in self._updated.values():
            yield _result(data, main=False)
        if not self._counted and finished.execution_count is not None:
            yield {"type": "number_of_executions", "execution_count": finished.execution_count}
        error = self._error
        name, value = ("", "") if error is None else (error.name, error.value)
        if finished.status == "kernel_died":
            name, value = "KernelDied", finished.reason or "the kernel died"
        elif finished.status == "timeout":
            name, value = "TimeoutError", finished.reason or "the time limit was reached"
        elif finished.status == "interrupted":
            name, value = name or "KeyboardInterrupt", value or finished.reason or ""
        if name or finished.status != "ok":
            traceback = "" if error is None else error.traceback
            yield {"type": "error", "name": name or "Error", "value": value, "traceback": traceback}
        yield {"type": "end_of_execution"}


def _notice(text: str, now: int) -> Line:
    return {"type": "stderr", "text": f"[{text}]\n", "timestamp": now}


def _result(data: Mapping[str, Any], *, main: bool) -> Line:
    line: Line = {"type": "result", "is_main_result": main}
    extra: dict[str, Any] = {}
    for mime, value in data.items():
        if mime in _KEYS:
            line[_KEYS[mime]] = value
        else:
            extra[mime] = value
    text = line.get("text")
    if isinstance(text, str) and len(text) > 1 and text[0] == text[-1] == "'":
        line["text"] = text[1:-1]  # as E2B's own sandboxes: the text of a string is the string
    if extra:
        line["extra"] = extra
    return line


def as_bytes(line: Line) -> bytes:
    """With its end, and nothing else in it that ends a line: the SDK's HTTP library splits at U+2028 and U+0085, too."""
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
