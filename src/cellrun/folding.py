"""`fold(events) -> Result`: what the events of one execution add up to.

Laws: cutting stream text into other pieces changes nothing; only the order of events counts, never
their timing. What the Result keeps is bounded by `Limits`; of each kind (stream text, displays) the
first and the last half stay, and an `Omission` stands where something was left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cellrun.events import (
    ClearOutput,
    Display,
    DisplayUpdate,
    ErrorOutput,
    Event,
    ExecuteResult,
    Finished,
    KernelRestarted,
    OutputDropped,
    Payload,
    Stderr,
    Stdout,
)
from cellrun.limits import Limits
from cellrun.mime import size_of
from cellrun.result import DisplayOutput, ErrorInfo, Omission, Output, PageOutput, Result, StreamOutput


def fold(events: Iterable[Event], limits: Limits | None = None) -> Result:
    """The Result of the events of one execution, in their order, the last being Finished.

    Raises ValueError if Finished is missing or something follows it.

    >>> from cellrun.events import Finished, Stdout
    >>> fold(
    ...     [
    ...         Stdout(seq=1, execution_id="a", text="hi"),
    ...         Finished(seq=2, execution_id="a", status="ok", execution_count=1, duration=0.1),
    ...     ]
    ... ).stdout
    'hi'
    """
    folder = Folder(limits)
    for event in events:
        folder.add(event)
    return folder.result()


def utf8_size(text: str) -> int:
    """Bytes of UTF-8; lone surrogates, which kernels can send, count three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def split_bytes(text: str, size: int) -> int:
    """The index of the first character that no longer fits into `size` bytes of UTF-8."""
    if text.isascii():
        return min(size, len(text))
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= size:
        return len(text)
    while size > 0 and data[size] & 0xC0 == 0x80:  # inside a character: back to its first byte
        size -= 1
    return len(data[:size].decode("utf-8", "surrogatepass"))


class _Text:
    """One stream output in the making: its pieces, not yet joined."""

    def __init__(self, name: str, in_head: bool) -> None:
        self.name = name
        self.in_head = in_head
        self.pieces: deque[str] = deque()


class _Shelf:
    """The numbered places of one kind of output, with what the first half and the last half hold."""

    def __init__(self, size: int, count: int) -> None:
        self.half_size = size // 2
        self.half_count = max(1, count // 2)
        self.head_size = self.head_count = self.tail_size = 0
        self.head_full = False
        self.head: list[int] = []  # of displays; texts know themselves which half they are in
        self.tail: deque[int] = deque()


class Folder:
    """The incremental form of `fold`: `add` each event, then `result()`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._error: ErrorInfo | None = None
        self._finished: Finished | None = None
        self._dropped: list[str] = []
        self._restarted: str | None = None
        self._payloads: list[Mapping[str, Any]] = []
        self._clear_waits = False
        self._clear()

    def _clear(self) -> None:
        self._places: dict[int, _Text | DisplayOutput | PageOutput | ErrorInfo] = {}
        self._next = 0
        self._open: _Text | None = None
        self._text = _Shelf(self._limits.text, self._limits.outputs)
        self._displays = _Shelf(self._limits.displays, self._limits.outputs)
        self._by_display_id: dict[str, list[int]] = {}
        self._sizes = {"stdout": 0, "stderr": 0}
        self._omitted = {"stdout": 0, "stderr": 0, "displays": 0}

    def add(self, event: Event) -> None:
        if self._finished is not None:
            raise ValueError(f"an event came after Finished: {type(event).__name__}")
        match event:
            case Stdout(text=text):
                self._stream("stdout", text)
            case Stderr(text=text):
                self._stream("stderr", text)
            case Display() | ExecuteResult():
                self._display(event)
            case DisplayUpdate():
                self._update(event)
            case ClearOutput(wait=wait):
                if wait:
                    self._clear_waits = True
                else:
                    self._clear_waits = False
                    self._clear()
            case ErrorOutput():
                self._error = ErrorInfo(event.name, event.value, event.traceback)
                self._shelve(self._place(self._error))
            case Payload(source=source, content=content):
                self._payloads.append({"source": source, **content})
                if source == "page" and isinstance(content.get("data"), Mapping):
                    self._shelve(self._place(PageOutput(content["data"])))
            case OutputDropped():
                self._dropped.append(f"{event.reason}: {event.detail}")
            case KernelRestarted(reason=reason):
                self._restarted = reason
            case Finished():
                self._finished = event
            case _:
                pass

    def result(self) -> Result:
        end = self._finished
        if end is None:
            raise ValueError("the events stop before Finished: the execution has not ended")
        return Result(
            execution_id=end.execution_id,
            status=end.status,
            outputs=tuple(self._outputs()),
            error=None if end.status == "ok" else self._error,
            execution_count=end.execution_count,
            duration=end.duration,
            reason=end.reason,
            truncated=any(self._omitted.values()),
            stdout_size=self._sizes["stdout"],
            stderr_size=self._sizes["stderr"],
            dropped=tuple(self._dropped),
            restarted=self._restarted,
            files=end.files,
            payloads=tuple(self._payloads),
        )

    def _outputs(self) -> Iterable[Output]:
        notes: dict[int, Omission] = {}
        end = self._next
        if self._omitted["displays"]:
            notes[self._displays.tail[0] if self._displays.tail else end] = Omission(displays=self._omitted["displays"])
        if self._omitted["stdout"] or self._omitted["stderr"]:
            at = self._text.tail[0] if self._text.tail else end
            notes[at] = Omission(self._omitted["stdout"], self._omitted["stderr"])
        text = ("", "")  # the stream and the text not yet given out: the two halves may touch
        for number, place in self._places.items():
            if text[1] and (number in notes or not isinstance(place, _Text) or place.name != text[0]):
                yield StreamOutput(*text)
                text = ("", "")
            if number in notes:
                yield notes[number]
            if isinstance(place, _Text):
                text = (place.name, text[1] + "".join(place.pieces))
            else:
                yield place
        if text[1]:
            yield StreamOutput(*text)
        if end in notes:
            yield notes[end]

    def _place(self, place: _Text | DisplayOutput | PageOutput | ErrorInfo) -> int:
        if self._clear_waits:
            self._clear_waits = False
            self._clear()
        number = self._next
        self._next += 1
        self._places[number] = place
        self._open = place if isinstance(place, _Text) else None
        return number

    def _stream(self, name: str, text: str) -> None:
        if not text:
            return
        if self._clear_waits:
            self._clear_waits = False
            self._clear()
        self._sizes[name] += utf8_size(text)
        shelf = self._text
        if not shelf.head_full:
            kept = split_bytes(text, shelf.half_size - shelf.head_size)
            if kept:
                text = self._into_head(name, text, kept)
            if text:
                shelf.head_full = True
        if text:
            self._into_tail(name, text)

    def _into_head(self, name: str, text: str, kept: int) -> str:
        """Appends to the first half; gives back the rest, all of it where no further output fits."""
        shelf = self._text
        item = self._open
        if item is None or item.name != name:
            if shelf.head_count >= shelf.half_count:
                return text
            item = _Text(name, in_head=True)
            self._place(item)
            shelf.head_count += 1
        item.pieces.append(text[:kept])
        shelf.head_size += utf8_size(text[:kept])
        return text[kept:]

    def _into_tail(self, name: str, text: str) -> None:
        shelf = self._text
        item = self._open
        if item is None or item.name != name or item.in_head:
            item = _Text(name, in_head=False)
            shelf.tail.append(self._place(item))
        item.pieces.append(text)
        shelf.tail_size += utf8_size(text)
        while shelf.tail_size > shelf.half_size or len(shelf.tail) > shelf.half_count:
            self._shorten_tail()

    def _shorten_tail(self) -> None:
        """Takes one piece, or the part of it that is too much, off the tail's beginning."""
        shelf = self._text
        first = self._places[shelf.tail[0]]
        assert isinstance(first, _Text)
        piece = first.pieces.popleft()
        size = utf8_size(piece)
        too_much = shelf.tail_size - shelf.half_size
        if len(shelf.tail) <= shelf.half_count and size > too_much:
            # The cut may not leave more than the half: up to the next character's beginning.
            cut = split_bytes(piece, too_much)
            if utf8_size(piece[:cut]) < too_much:
                cut += 1
            size = utf8_size(piece[:cut])
            if cut < len(piece):
                first.pieces.appendleft(piece[cut:])
        shelf.tail_size -= size
        self._omitted[first.name] += size
        if not first.pieces:
            del self._places[shelf.tail.popleft()]
            if self._open is first:
                self._open = None

    def _display(self, event: Display | ExecuteResult | DisplayUpdate) -> None:
        output = DisplayOutput(
            event.data,
            event.metadata,
            "execute_result" if isinstance(event, ExecuteResult) else "display",
            event.execution_count if isinstance(event, ExecuteResult) else None,
            event.display_id,
            isinstance(event, DisplayUpdate),
        )
        number = self._place(output)
        if event.display_id is not None:
            self._by_display_id.setdefault(event.display_id, []).append(number)
        self._shelve(number)

    def _shelve(self, number: int) -> None:
        """Displays, pages and errors share one shelf, and what is left out of it counts as displays."""
        shelf, size = self._displays, self._size(number)
        if not shelf.head_full and shelf.head_size + size <= shelf.half_size and shelf.head_count < shelf.half_count:
            shelf.head_size += size
            shelf.head_count += 1
            shelf.head.append(number)
            return
        shelf.head_full = True
        shelf.tail.append(number)
        shelf.tail_size += size
        self._trim_displays()

    def _size(self, number: int) -> int:
        match self._places[number]:
            case DisplayOutput(data=data) | PageOutput(data=data):
                return size_of(data)
            case ErrorInfo(value=value, traceback_ansi=traceback):
                return len(value) + len(traceback)
            case _Text():
                raise AssertionError("texts have a shelf of their own")

    def _trim_displays(self) -> None:
        """The newest display always stays: one picture larger than the half is better than none."""
        shelf = self._displays
        while len(shelf.tail) > 1 and (shelf.tail_size > shelf.half_size or len(shelf.tail) > shelf.half_count):
            number = shelf.tail.popleft()
            shelf.tail_size -= self._size(number)
            del self._places[number]
            self._omitted["displays"] += 1

    def _update(self, event: DisplayUpdate) -> None:
        known = None if event.display_id is None else self._by_display_id.get(event.display_id)
        if known is None:
            self._display(event)
            return
        places = [number for number in known if number in self._places]
        shelf = self._displays
        in_tail = set(shelf.tail)
        for number in places:
            old = self._places[number]
            assert isinstance(old, DisplayOutput)
            self._places[number] = replace(old, data=event.data, metadata=event.metadata)
            growth = size_of(event.data) - size_of(old.data)
            if number in in_tail:
                shelf.tail_size += growth
            else:
                shelf.head_size += growth
        while shelf.head_size > shelf.half_size and (shelf.tail or len(shelf.head) > 1):
            moved = shelf.head.pop()
            shelf.head_size -= self._size(moved)
            shelf.head_count -= 1
            shelf.head_full = True
            shelf.tail.appendleft(moved)
            shelf.tail_size += self._size(moved)
        self._trim_displays()
