"""What a language model is given of a run: a text within a budget that says what was left out, and pictures that are small enough.

Pure but for decoding pictures, which is slow and takes memory: call it by `decoding.in_turn`.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cellrun.limits import KIB
from cellrun.mime import Image, image_of

BUDGET: Final = 20_000
"""Characters of the text, unless the caller says otherwise."""
_HEAD: Final = 0.6  # of the budget; errors stand at the end, so that is kept, too
_SIDE: Final = 1_024
_BYTES: Final = 256 * KIB
_LEAST: Final = 256
_PIXELS: Final = 16_000_000
_TOGETHER: Final = (
    600 * KIB
)  # with Base64 and the text below the million bytes that an answer may have for some clients
_PICTURES: Final = 4
_SCALABLE: Final = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
_SHOWN: Final = (
    "PNG",
    "JPEG",
    "GIF",
    "WEBP",
)  # that models take; one that is something else makes them refuse the whole conversation
_OF_PNG: Final = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
# Base64 says nothing to a model and is most of what a plot weighs.
# In one line, or in those of 76 characters that MIME has (RFC 2045, section 6.8): what stands below is not taken for more of it.
_DATA_URL: Final = re.compile(
    r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,(?:(?:[A-Za-z0-9+/]{76}\r?\n)+[A-Za-z0-9+/=]{1,76}|[A-Za-z0-9+/=]{64,})"
)


def model_view(
    result: Mapping[str, Any],
    *,
    budget: int = BUDGET,
    more: Callable[[int], str] | None = None,
    pictures: str | None = None,
) -> dict[str, Any]:
    """Of a Result as JSON data. `text`: the transcript; `images`: `{"mime", "base64"}`; `cut`: characters left out of the text;
    `images_left_out`: pictures that are not there; `full`: the address of the whole in our API. `more`: how to come by what follows so many
    characters of the text, `pictures`: by those that are left out; None: they are at that address.

    >>> model_view({"execution_id": "e", "status": "ok", "text": "a" * 50, "outputs": []}, budget=30)["text"]
    'aaaaaaaaaaaaaaaaaa\\n[… 20 of 50 characters left out; the whole is at /v1/runs/e …]\\naaaaaaaaaaaa'
    """
    full = f"/v1/runs/{result['execution_id']}"
    text, cut = shortened(text_of(result), budget, more or (lambda _: f"the whole is at {full}"))
    found = [image for output in result["outputs"] if (image := image_of(output.get("data") or {})) is not None]
    images = _last(found)
    notes = []
    if result.get("restarted"):
        notes.append(f"[the kernel was restarted and its variables are gone: {result['restarted']}]")
    if result["status"] not in ("ok", "error", "running"):
        notes.append(f"[{result['status']}: {result.get('reason') or 'no reason is known'}]")
    if len(images) < len(found):
        where = pictures or f"they are at {full}"
        notes.append(f"[{len(found) - len(images)} of {len(found)} pictures left out; {where}]")
    return {
        "execution_id": result["execution_id"],
        "status": result["status"],
        "text": "\n".join([text, *notes] if text else notes),
        "images": [{"mime": image.mime, "base64": base64.b64encode(image.data).decode("ascii")} for image in images],
        "cut": cut,
        "images_left_out": len(found) - len(images),
        "files": result.get("files"),
        "duration": result.get("duration"),
        "full": full,
    }


def text_of(result: Mapping[str, Any]) -> str:
    """Its transcript without what only programs read."""
    return _DATA_URL.sub("(data left out)", result["text"])


def shortened(text: str, budget: int, note: Callable[[int], str]) -> tuple[str, int]:
    """Head and tail of a text that is longer than the budget, cut at line breaks where there are some near, and how much is missing.
    `note`: what is said of the rest, in between; it is given the length of the head."""
    if len(text) <= budget:
        return text, 0
    head, tail = int(budget * _HEAD), budget - int(budget * _HEAD)
    first, last = text[:head], text[len(text) - tail :]
    if (at := first.rfind("\n")) > head * 0.8:
        first = first[:at]
    if 0 <= (at := last.find("\n")) < tail * 0.2:
        last = last[at + 1 :]
    cut = len(text) - len(first) - len(last)
    return f"{first}\n[… {cut} of {len(text)} characters left out; {note(len(first))} …]\n{last}", cut


def _last(found: Sequence[Image]) -> list[Image]:
    """The newest, for which there is room."""
    images: list[Image] = []
    room = _TOGETHER
    for image in reversed(found[-_PICTURES:]):
        small = scaled(image)
        if small is not None and len(small.data) <= room:
            images.insert(0, small)
            room -= len(small.data)
    return images


def scaled(image: Image) -> Image | None:
    """A picture of at most 1024 pixels a side and 256 KiB, in a format that models take, whatever it was called; None where it cannot be
    read to its end, or not be made so small."""
    from PIL import Image as Pillow

    try:
        with Pillow.open(io.BytesIO(image.data), formats=_SCALABLE) as picture:
            if picture.width * picture.height > _PIXELS:
                return None
            light = max(picture.size) <= _SIDE and len(image.data) <= _BYTES
            if light and picture.format in _SHOWN and picture.mode in _OF_PNG:
                picture.load()
                return Image(f"image/{picture.format.lower()}", image.data)
            picture.thumbnail((_SIDE, _SIDE))
            return _smallest(picture)
    except Exception:  # whatever a decoder makes of bytes that user code wrote
        return None


def _smallest(picture: Any) -> Image | None:
    """As many pixels as there is room for."""
    if picture.mode not in _OF_PNG:
        picture = picture.convert("RGB")
    small, side = picture, max(picture.size)
    while (image := _light(small)) is None and side > _LEAST:
        side = max(_LEAST, side * 3 // 4)
        small = picture.copy()
        small.thumbnail((side, side))
    return image


def _light(picture: Any) -> Image | None:
    attempts: Sequence[tuple[str, Mapping[str, Any]]] = (
        ("PNG", {"optimize": True}),
        ("JPEG", {"quality": 85}),
        ("JPEG", {"quality": 60}),
    )
    for format, parameters in attempts:
        buffer = io.BytesIO()
        shown = _on_white(picture) if format == "JPEG" else picture
        shown.save(buffer, format, **parameters)
        if buffer.tell() <= _BYTES:
            return Image(f"image/{format.lower()}", buffer.getvalue())
    return None


def _on_white(picture: Any) -> Any:
    """For a format without transparency: what lies under it would else be seen, and is mostly black."""
    from PIL import Image as Pillow

    if "A" not in picture.mode and "transparency" not in picture.info:
        return picture.convert("RGB")
    shown = picture.convert("RGBA")
    ground = Pillow.new("RGB", shown.size, "white")
    ground.paste(shown, mask=shown.getchannel("A"))
    return ground
