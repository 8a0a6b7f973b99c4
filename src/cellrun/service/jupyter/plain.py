"""What a client without the v1 subprotocol is given: JSON of at most a million bytes a frame, and something that it can show.

Such clients read frames of a megabyte, PNG and `text/plain`. So a stream is split, a picture made smaller, a text cut with a notice;
HTML or SVG alone gets a text beside it. Pure but for decoding pictures, which is slow: large messages in a thread.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cellrun.mime import Image, image_of, is_opaque, joined, readable, text_of_html
from cellrun.protocol.message import Message
from cellrun.service.jupyter.pictures import as_png
from cellrun.service.jupyter.replay import says

LARGEST: Final = 1_000_000
"""Bytes of a frame."""
_TEXT: Final = 200_000  # characters of a text that is cut
_SHARE: Final = 250_000  # bytes that one text or traceback of several may take
_PICTURE: Final = 600_000  # bytes of base64
_SHOWS: Final = ("display_data", "execute_result", "update_display_data")
_PICTURES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")
_FIGURE: Final = "application/vnd.plotly.v1+json"
_SVG: Final = "image/svg+xml"
_WORDS: Final = 1_000  # characters of the text in an SVG that are told
_MUTE: Final = "<SVG object>"  # a default repr, which `readable` gives where nothing else is to be read


def encode(message: Message) -> str | bytes:
    """As jupyter_server does without a subprotocol: `msg_id` and `msg_type` stand beside the header, too; bytes where there are
    buffers ("WebSocket kernel wire protocols", default)."""
    text = _json(
        {
            "header": message.header,
            "msg_id": message.msg_id,
            "msg_type": message.msg_type,
            "parent_header": message.parent_header,
            "metadata": message.metadata,
            "content": message.content,
            "buffers": [],
            "channel": message.channel,
        }
    )
    if not message.buffers:
        return text
    parts = [memoryview(text.encode("ascii"))] + [memoryview(buffer).cast("B") for buffer in message.buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return b"".join([struct.pack(f">{len(parts) + 1}I", len(parts), *offsets), *parts])


def frames(message: Message, *, buffers: bool = True) -> list[str | bytes]:
    """The frames of a message, mostly one; none where it can be of no use. `buffers`: whether the client reads binary frames."""
    if message.buffers and not buffers:
        return []
    if message.msg_type in _SHOWS:
        message = _with_text(_with_png(message))
    frame = encode(message)
    if len(frame) <= LARGEST:
        return [frame]
    if len(_json(message.metadata)) > _SHARE // 5:
        message = replace(message, metadata={})
    content, kind = message.content, message.msg_type
    if kind == "stream" and isinstance(content.get("text"), str):
        return [encode(replace(message, content={**content, "text": piece})) for piece in split(content["text"])]
    if message.buffers and kind not in _SHOWS:  # which a client could not miss
        return [encode(_notice(message, len(frame)))]
    frame = encode(_smaller(message))
    return [frame] if len(frame) <= LARGEST else [encode(_notice(message, len(frame)))]


def split(text: str) -> list[str]:
    """Pieces, each small enough for a frame.

    >>> [len(piece) for piece in split("x" * 2_000_000)]
    [666667, 666667, 666666]
    """
    escaped = len(_json(text))
    if escaped <= LARGEST * 0.9:
        return [text]
    count = int(escaped // (LARGEST * 0.9)) + 1
    step = -(-len(text) // count)
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    # What has to be escaped may stand all in one place.
    return [small for piece in pieces for small in (split(piece) if len(piece) < len(text) else [piece])]


def shorter(text: str, most: int = _SHARE) -> str:
    """Head and tail of a text, with a notice between them, that take no more than `most` bytes of JSON.

    >>> shorter("a" * 20, 10_000)
    'aaaaaaaaaaaaaaaaaaaa'
    """
    if len(_json(text)) <= most:
        return text
    keep = _TEXT
    while True:
        keep = min(keep, len(text)) // 2
        head, tail = text[: keep * 3 // 5], text[len(text) - keep * 2 // 5 :]
        cut = f"{head}\n[… {len(text) - len(head) - len(tail)} of {len(text)} characters left out …]\n{tail}"
        if len(_json(cut)) <= most or keep < 100:
            return cut


def is_slow(message: Message) -> bool:
    """Whether a picture has to be decoded for it, however small it is."""
    data = message.content.get("data")
    return (
        message.msg_type in _SHOWS
        and isinstance(data, dict)
        and "image/png" not in data
        and not data.keys().isdisjoint(_PICTURES)
    )


def picture_of(data: Mapping[str, Any]) -> Image | None:
    return image_of({mime: data[mime] for mime in _PICTURES if mime in data})


def _with_png(message: Message) -> Message:
    """With a PNG beside a JPEG and the like."""
    data = message.content.get("data")
    if not is_slow(message) or not isinstance(data, dict) or (picture := picture_of(data)) is None:
        return message
    made = as_png(picture)
    return (
        message if made is None else replace(message, content={**message.content, "data": {**data, "image/png": made}})
    )


def _with_text(message: Message) -> Message:
    """With a `text/plain` that says something, where there is no picture."""
    data = message.content.get("data")
    if not isinstance(data, dict) or not data or "image/png" in data:
        return message
    plain = data.get("text/plain")
    said = joined(plain) if plain is not None else ""
    if said.strip() and not is_opaque(said) and _FIGURE not in data:
        return message
    if _FIGURE in data:
        text = _of_figure(data[_FIGURE])
    elif _SVG in data:
        text = readable({**data, "text/plain": _MUTE})
        text = _of_svg(data[_SVG]) if text == _MUTE else text
    else:
        text = readable(data)
    return replace(message, content={**message.content, "data": {**data, "text/plain": text}})


def _of_figure(figure: Any) -> str:
    """What a plotly figure shows, in words."""
    traces = figure.get("data") if isinstance(figure, Mapping) else None
    listed = traces if isinstance(traces, list) else []
    kinds = [str(trace.get("type", "scatter")) for trace in listed if isinstance(trace, Mapping)]
    layout = figure.get("layout") if isinstance(figure, Mapping) else None
    title = layout.get("title") if isinstance(layout, Mapping) else None
    name = title.get("text") if isinstance(title, Mapping) else title
    called = f" {str(name)[:200]!r}" if name else ""
    return f"plotly figure{called}: {', '.join(kinds[:20]) or 'empty'}"


def _of_svg(svg: Any) -> str:
    """That it is one, and the words in it. Whether cairosvg is there is not known here."""
    words = " ".join(text_of_html(joined(svg).replace("><", "> <")).split())
    said = f"; the text in it: {words[:_WORDS]}{'…' if len(words) > _WORDS else ''}" if words else ""
    return f"an SVG picture; for clients that show none cairosvg in the kernel can make a PNG of it{said}"


def _smaller(message: Message) -> Message:
    content = dict(message.content)
    if message.msg_type in _SHOWS and isinstance(content.get("data"), dict):
        content["data"] = _smaller_bundle(content["data"])
        if len(_json(content.get("metadata"))) > _SHARE:
            content["metadata"] = {}
        return replace(message, content=content, buffers=())
    for name in ("code", "evalue", "ename", "prompt"):
        if isinstance(content.get(name), str):
            content[name] = shorter(content[name])
    if isinstance(content.get("traceback"), list):
        content["traceback"] = [shorter("\n".join(map(str, content["traceback"])))]
    if "payload" in content:
        content["payload"] = []
    if len(_json(content.get("user_expressions"))) > _SHARE:
        content["user_expressions"] = {}
    return replace(message, content=content, buffers=())


def _smaller_bundle(data: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    notes: list[str] = []
    picture = picture_of(data)
    small = None if picture is None else as_png(picture, _PICTURE)
    if small is not None:
        kept["image/png"] = small
    elif picture is not None:
        notes.append(f"[a picture of {len(picture.data)} bytes left out]")
    if "text/plain" in data:
        kept["text/plain"] = shorter(joined(data["text/plain"]))
    room = LARGEST * 0.9 - len(_json(kept))
    for mime, value in sorted(data.items(), key=lambda item: len(_json(item[1]))):
        if mime in kept or mime in _PICTURES:
            continue
        size = len(_json(value))
        if size < room:
            kept[mime] = value
            room -= size
        else:
            notes.append(f"[{mime} of {size} bytes left out]")
    if notes:
        kept["text/plain"] = "\n".join([*([kept["text/plain"]] if "text/plain" in kept else []), *notes])
    return kept


def _notice(message: Message, size: int) -> Message:
    """In place of one that cannot be made smaller."""
    text = f"a {message.msg_type} message of {size} bytes was left out: frames have {LARGEST} at most"
    if message.channel == "iopub":
        return says("stream", {"name": "stderr", "text": f"\n[cellrun: {text}]\n"}, message.parent_header)
    content = {"status": "error", "ename": "TooLarge", "evalue": text, "traceback": []}
    return replace(message, content=content, buffers=())


def _json(value: Any) -> str:
    # ASCII, because a text frame must be UTF-8 and what code prints may hold lone surrogates.
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
