"""MIME bundles: which representation to read, which one is a picture."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Final

# In the order of preference where a bundle holds several pictures of the same thing.
IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/svg+xml", "image/bmp")

# `<module.Name at 0x7f…>`, `<IPython.core.display.HTML object>`: a default repr says what the object is and nothing of what it shows.
_OPAQUE_REPR: Final = re.compile(
    r"\s*<(?:[^<>\n]|<locals>)*(?: at 0x[0-9a-fA-F]+| object(?: at 0x[0-9a-fA-F]+)?)>\s*\Z"
)


_UNENDED: Final = 1_000  # characters of HTML


@dataclass(frozen=True)
class Image:
    """One picture: its MIME type and its bytes (SVG is encoded as UTF-8)."""

    mime: str
    data: bytes

    def __repr__(self) -> str:
        return f"Image({self.mime!r}, {len(self.data)} bytes)"

    @property
    def suffix(self) -> str:
        """The usual file suffix, with the dot."""
        known = {"image/jpeg": ".jpg", "image/svg+xml": ".svg"}
        subtype = self.mime.partition("/")[2]
        return known.get(self.mime) or ("." + subtype if re.fullmatch(r"[a-z0-9+-]{1,20}", subtype) else ".bin")


def joined(value: Any) -> str:
    """The text of a bundle's value: notebooks may hold a list of lines where the protocol has a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return json.dumps(value, ensure_ascii=False)


def image_of(data: Mapping[str, Any]) -> Image | None:
    """The best picture in a bundle, or None. Base64 that does not decode is passed over."""
    types = [mime for mime in IMAGE_TYPES if mime in data]
    types += [mime for mime in data if mime.startswith("image/") and mime not in types]
    for mime in types:
        value = data[mime]
        if not isinstance(value, (str, list)) or not (text := joined(value)) or (value != text and "[" in text[:1]):
            continue
        if mime == "image/svg+xml":
            return Image(mime, text.encode("utf-8", "replace"))
        try:
            return Image(mime, base64.b64decode(text.encode("ascii"), validate=False))
        except (binascii.Error, UnicodeEncodeError):
            continue
    return None


def image_url(data: Mapping[str, Any]) -> str | None:
    """The best picture as a `data:` URL on one line, or None. Kernels send base64 with line breaks."""
    if isinstance(data.get("image/png"), (str, list)):
        return "data:image/png;base64," + "".join(joined(data["image/png"]).split())
    image = image_of(data)
    if image is None:
        return None
    return f"data:{image.mime};base64," + base64.b64encode(image.data).decode("ascii")


def is_opaque(text: str) -> bool:
    """True where a `text/plain` is only an object's default repr."""
    return _OPAQUE_REPR.match(text) is not None


class _TextOfHTML(HTMLParser):
    _BREAKS = frozenset(("br", "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "pre"))
    _CELLS = frozenset(("td", "th"))
    _HIDDEN = frozenset(("script", "style", "head", "template"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._HIDDEN:
            self._hidden += 1
        elif tag in self._BREAKS:
            self._pre += tag == "pre"
            self.parts.append("\n")
        elif tag in self._CELLS:
            self.parts.append("\t")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in self._BREAKS:
            self._pre = max(0, self._pre - (tag == "pre"))
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            # Blanks of preformatted text are kept from the strip() of text_of_html.
            self.parts.append(data.replace(" ", "\xa0") if self._pre else re.sub(r"\s+", " ", data))


def text_of_html(html: str) -> str:
    """The readable text of an HTML fragment: tags, scripts and styles left out.

    >>> text_of_html("<table><tr><th>a</th><td>1</td></tr></table>")
    'a\\t1'
    """
    parser = _TextOfHTML()
    with contextlib.suppress(AssertionError):  # html.parser raises it for marked sections it does not know
        parser.feed(html)
        # `close` reads what was never ended again from each of its beginnings (CVE-2025-6069).
        if len(parser.rawdata) <= _UNENDED:
            parser.close()
        else:
            parser.handle_data(parser.rawdata)
    lines = (line.strip(" ").removeprefix("\t").rstrip() for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line).replace("\xa0", " ")


def readable(data: Mapping[str, Any]) -> str:
    """The most readable text of a bundle: `text/plain` unless it is missing, blank or a default repr;
    then Markdown, LaTeX, the text of HTML, JSON; at last the names of the types that are there."""
    plain = joined(data["text/plain"]) if "text/plain" in data else ""
    if plain.strip() and not is_opaque(plain):
        return plain
    for mime in ("text/markdown", "text/latex"):
        if mime in data and joined(data[mime]).strip():
            return joined(data[mime])
    if "text/html" in data and (text := text_of_html(joined(data["text/html"]))):
        return text
    if "application/json" in data:
        return joined(data["application/json"])
    if plain.strip():
        return plain
    return f"<{', '.join(data)}>" if data else ""


def size_of(data: Mapping[str, Any]) -> int:
    """About how many bytes a bundle takes: what limits count."""
    total = 0
    for value in data.values():
        if isinstance(value, (str, bytes, memoryview)):
            total += len(value)
        else:
            total += len(json.dumps(value, ensure_ascii=False, default=str))
    return total
