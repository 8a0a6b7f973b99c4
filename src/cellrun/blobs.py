"""Large values of MIME bundles, kept apart from the events and Results that show them: each once, under the SHA-256 of its bytes.

An object that has a `data` (an event that displays, an output of a Result) loses its large values there and has `blobs` in their
place: `{"image/png": {"sha256": "…", "size": 90211, "encoding": "base64"}}`. `encoding` says how the bytes become the value again:
"base64" (the value is their base64 text), "text" (they are its UTF-8) or "json" (they are JSON).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cellrun.limits import KIB

LARGE: Final = 64 * KIB
"""Bytes of JSON, about, from which a value is kept apart."""
_BINARY: Final = ("image/", "audio/", "video/", "application/pdf", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, and their SHA-256."""

    sha256: bytes
    data: bytes


def apart(object: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Blob, ...]] | None:
    """The object without its large values, and those; None where it has none.

    >>> slim, blobs = apart({"type": "display", "data": {"text/plain": "x", "text/html": "y" * 70_000}})
    >>> slim["data"], slim["blobs"]["text/html"]["size"], len(blobs[0].data)
    ({'text/plain': 'x'}, 70000, 70000)
    """
    data = object.get("data")
    if not isinstance(data, Mapping):
        return None
    kept: dict[str, Any] = {}
    told: dict[str, Any] = {}
    blobs = []
    for mime, value in data.items():
        found = _bytes_of(mime, value)
        if found is None:
            kept[mime] = value
            continue
        encoding, content = found
        blob = Blob(hashlib.sha256(content).digest(), content)
        blobs.append(blob)
        told[mime] = {"sha256": blob.sha256.hex(), "size": len(content), "encoding": encoding}
    return ({**object, "data": kept, "blobs": told}, tuple(blobs)) if blobs else None


def together(object: Mapping[str, Any], get: Callable[[bytes], bytes | None]) -> dict[str, Any]:
    """The object as it was before `apart`. `get`: the bytes with this SHA-256; where they are gone, so is the value.

    >>> whole = {"data": {"image/png": "aGVsbG8gd29ybGQh" * 5_000}}
    >>> slim, blobs = apart(whole)
    >>> together(slim, {blob.sha256: blob.data for blob in blobs}.get) == whole
    True
    """
    data = dict(object["data"])
    for mime, told in object["blobs"].items():
        content = get(bytes.fromhex(told["sha256"]))
        if content is not None:
            data[mime] = _value_of(told["encoding"], content)
    return {**{key: value for key, value in object.items() if key != "blobs"}, "data": data}


def _bytes_of(mime: str, value: Any) -> tuple[str, bytes] | None:
    """How a large value is kept; None for a small one."""
    if not isinstance(value, str):
        if not isinstance(value, (Mapping, list)):
            return None
        # As the wire spells it; what has no such spelling stays where it is.
        try:
            text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        except (ValueError, TypeError):
            return None
        return ("json", text.encode("ascii")) if len(text) >= LARGE else None
    if len(value) < LARGE:
        return None
    if mime.startswith(_BINARY) and not mime.endswith("+xml"):
        # Only where the bytes give back the text as it was: kernels may send base64 with line breaks.
        with contextlib.suppress(binascii.Error, ValueError):
            content = base64.b64decode(value, validate=True)
            if base64.b64encode(content).decode("ascii") == value:
                return "base64", content
    try:
        return "text", value.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which only JSON can hold
        return None


def _value_of(encoding: str, content: bytes) -> Any:
    if encoding == "base64":
        return base64.b64encode(content).decode("ascii")
    return content.decode("utf-8") if encoding == "text" else json.loads(content)
