"""What events and results have in common from run to run: ids, addresses, process ids and folders replaced."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cellrun.events import Event, Started, Stderr, Stdout
from cellrun.folding import fold
from cellrun.terminal import strip_ansi
from cellrun.wire import event_to_dict, result_to_dict
from tests.differential.cells.shape import Order

LONGEST: Final = 3_000

_NOT_COMPARED: Final = {"seq", "execution_id", "duration", "stdout_size", "stderr_size"}
_IDS: Final = re.compile(r"\b(?:[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}|(?=[a-f]*[0-9])[0-9a-f]{16})\b")
_REPLACED: Final = (
    (re.compile(r"0x[0-9a-f]{6,}"), "0x…"),
    # The name of a cell's file; also its end alone, as it stands in the message of a SyntaxError.
    (re.compile(r"/ipykernel_\d+/\d+\.py"), "/ipykernel_N/M.py"),
    (re.compile(r"\b\d{5,}\.py\b"), "M.py"),
    (re.compile(rf"{re.escape(tempfile.gettempdir())}/cellrun-work-\w+"), "<folder>"),
)
# A frame of the kernel's own code: its header, then numbered lines. Which code calls a cell is not compared.
_KERNELS_FILE: Final = re.compile(r"File .*/(?:ipykernel|cellrun/kernel)/[\w/]+\.py")
_LINE_OF_FRAME: Final = re.compile(r"\s*(?:-+>\s*)?\d+(?:\s|$)|\s{4,}\S|\(\.\.\.\)$")


class Normaliser:
    """Of one sequence: an id is named by the order in which it comes up."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def text(self, text: str, masks: Iterable[re.Pattern[str]] = ()) -> str:
        for pattern, replacement in _REPLACED:
            text = pattern.sub(replacement, text)
        text = _IDS.sub(self._name, text)
        text = without_kernel_frames(text)
        for mask in masks:
            text = mask.sub("…", text)
        return text

    def _name(self, found: re.Match[str]) -> str:
        return self._names.setdefault(found.group(), f"<id {len(self._names) + 1}>")

    def value(self, value: Any, masks: Iterable[re.Pattern[str]] = ()) -> Any:
        """JSON data with all its texts replaced, long ones shortened, and pictures by their size."""
        if isinstance(value, str):
            return shortened(self.text(value, masks))
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): picture(item) if key == "image/png" else self.value(item, masks)
                for key, item in value.items()
                if key not in _NOT_COMPARED
            }
        return [self.value(item, masks) for item in value] if isinstance(value, (list, tuple)) else value

    def events(self, events: list[Event], masks: Iterable[re.Pattern[str]]) -> list[dict[str, Any]]:
        return [self.value(event_to_dict(event), masks) for event in events]

    def result(self, events: list[Event], masks: Iterable[re.Pattern[str]]) -> dict[str, Any]:
        data = result_to_dict(fold(events))
        del data["text"]  # made of the rest
        normal: dict[str, Any] = self.value(data, masks)
        return normal


def picture(value: Any) -> str:
    """A PNG by its size and its bytes."""
    if not isinstance(value, str):
        return f"no picture: {type(value).__name__}"
    data = base64.b64decode(value)
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return f"<PNG of {width} x {height}, {hashlib.sha256(data).hexdigest()[:12]}>"


def shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{text[: LONGEST // 3]}[… {len(text)} characters in all, {digest} …]{text[-LONGEST // 3 :]}"


def without_kernel_frames(text: str) -> str:
    """A traceback in which the frames of the kernel's own files are one line each."""
    if "File " not in text:
        return text
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        plain = strip_ansi(line)
        if _KERNELS_FILE.search(plain):
            inside = True
            lines.append("File <of the kernel>")
        elif not inside or not _LINE_OF_FRAME.match(plain):
            inside = False
            lines.append(line)
    return "\n".join(lines)


def arranged(events: list[Event], order: Order) -> list[Event]:
    """The events with stream texts joined. Where the order says less than "exact", the streams come first, each whole."""
    if order == "exact":
        return _joined(events)
    streams = [event for event in events if isinstance(event, (Stdout, Stderr))]
    others = [event for event in events if not isinstance(event, (Stdout, Stderr))]
    whole = _joined(sorted(streams, key=lambda event: type(event).__name__, reverse=True))
    if order == "lines":
        whole = [
            _with_text(event, "".join(sorted(event.text.splitlines(keepends=True))))
            for event in whole
            if isinstance(event, (Stdout, Stderr))
        ]
    begun = [event for event in others if isinstance(event, Started)]
    return [*begun, *whole, *(event for event in others if not isinstance(event, Started))]


def _joined(events: Iterable[Event]) -> list[Event]:
    """Where a stream's text is cut into events has no meaning."""
    joined: list[Event] = []
    pieces: list[str] = []

    def close() -> None:
        if len(pieces) > 1:
            last = joined[-1]
            assert isinstance(last, (Stdout, Stderr))
            joined[-1] = _with_text(last, "".join(pieces))
        pieces.clear()

    for event in events:
        if not (pieces and type(joined[-1]) is type(event)):
            close()
            joined.append(event)
        if isinstance(event, (Stdout, Stderr)):
            pieces.append(event.text)
    close()
    return joined


def _with_text(event: Stdout | Stderr, text: str) -> Event:
    return type(event)(seq=event.seq, execution_id=event.execution_id, text=text)
