"""A run's events as the body of an answer: server-sent events or lines of JSON. Knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import replace
from typing import Final, Literal

from cellrun.event_log import Entry
from cellrun.limits import KIB

Encoding = Literal["json", "sse", "ndjson"]
MEDIA_TYPES: Final[dict[Encoding, str]] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "sse": "text/event-stream",
}
_LARGE: Final = 256 * KIB  # is not copied together with others: many may wait to have it sent
_PLACE: Final = b"{}"
KEEP_ALIVE: Final = 10.0
"""Seconds without an event after which something is sent, so that nobody between thinks the connection dead."""


def as_sse(entries: Sequence[Entry]) -> bytes:
    """`id:` the number, `event:` the type, `data:` the event (HTML, section 9.2). JSON has no line breaks, so one line is enough.

    >>> as_sse([Entry(3, "stdout", b'{"seq":3}')])
    b'id: 3\\nevent: stdout\\ndata: {"seq":3}\\n\\n'
    """
    return b"".join(
        b"id: %d\nevent: %s\ndata: %s\n\n" % (entry.seq, entry.type.encode("ascii"), entry.data) for entry in entries
    )


def as_ndjson(entries: Sequence[Entry]) -> bytes:
    """One event a line."""
    return b"".join(entry.data + b"\n" for entry in entries)


async def encoded(pieces: AsyncIterable[Sequence[Entry]], encoding: Encoding) -> AsyncGenerator[bytes, None]:
    """What is sent; for an empty piece a sign of life that readers pass over: a comment, or an empty line. JSON: one array."""
    if encoding == "json":
        before = b"["
        async for piece in pieces:
            for entry in piece:
                yield before + entry.data
                before = b","
            if not piece:
                yield b"\n"
        yield b"]" if before == b"," else b"[]"
        return
    encode, sign = (as_sse, b": keep-alive\n\n") if encoding == "sse" else (as_ndjson, b"\n")
    async for piece in pieces:
        if not piece:
            yield sign
        elif all(len(entry.data) < _LARGE for entry in piece):
            yield encode(piece)
        else:
            for entry in piece:
                before, after = encode([replace(entry, data=_PLACE)]).split(_PLACE)
                yield before
                yield entry.data
                yield after


def chosen(accept: str | None, *, otherwise: Encoding = "json") -> Encoding | None:
    """What an Accept header asks for (RFC 9110, section 12.5.1); `otherwise` where it leaves that open, None where we have nothing of it.

    >>> chosen("text/event-stream"), chosen("application/x-ndjson;q=0.5, text/html"), chosen(None), chosen("image/png")
    ('sse', 'ndjson', 'json', None)
    """
    if accept is None or not accept.strip():
        return otherwise
    ranges = []
    for part in accept.split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        ranges.append((name, _quality(parameters)))
    found: list[tuple[float, int, bool, Encoding]] = []
    for encoding, media_type in MEDIA_TYPES.items():
        # The most precise range that names a type decides on it.
        names = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        fitting = [(-names.index(name), quality) for name, quality in ranges if name in names]
        if fitting and (best := max(fitting))[1] > 0:
            found.append((best[1], best[0], encoding == otherwise, encoding))
    return max(found, key=lambda one: one[:3])[3] if found else None


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
