"""The tools for files of a session's working folder."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, TypeVar

from cellrun.files import Files
from cellrun.limits import KIB, MIB
from cellrun.mime import Image
from cellrun.service.decoding import in_turn
from cellrun.service.model_view import BUDGET, scaled
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import Answer, ToolBackend, named

_LISTED: Final = 200
BASE64: Final = 512 * KIB
_PICTURE: Final = 16 * MIB
_PICTURES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}

_T = TypeVar("_T")


async def list_files(backend: ToolBackend, session: str | None, path: str) -> Answer:
    files = await backend.files(named(session))
    found = await _of(path, files.list(path.rstrip("/") if path.strip("/") else ""))
    lines = [f"{one.path}/" if one.is_dir else f"{one.path}\t{one.size} bytes" for one in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"[{len(found) - _LISTED} of {len(found)} left out: list a folder below]")
    return Answer(text="\n".join(lines) or "The folder is empty.")


@dataclass(frozen=True)
class Part:
    """Of a file, from the byte `offset` on. `size`: of all of it; None: a server need not say. `last`: whether nothing follows."""

    data: bytes
    offset: int
    size: int | None
    last: bool

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")

    def note(self, used: int) -> str:
        """What is said where more follows the first `used` bytes of it."""
        end = self.offset + used
        return f"[bytes {self.offset} to {end}{'' if self.size is None else f' of {self.size}'}; the rest with offset={end}]"


async def read_part(backend: ToolBackend, session: str | None, path: str, offset: int, most: int) -> Part:
    files = await backend.files(named(session))
    size = (await _of(path, files.stat(path))).size
    data = await _of(path, _part(files, path, offset, most))
    return Part(data, offset, size, len(data) < most if size is None else offset + len(data) >= size)


async def read_file(
    backend: ToolBackend, session: str | None, path: str, *, offset: int = 0, encoding: str = "auto"
) -> Answer:
    """Text in parts of the budget; a picture as one; `encoding="base64"`: the bytes, half a MiB at a time."""
    if encoding == "base64":
        part = await read_part(backend, session, path, offset, BASE64)
        told = {"offset": offset, "bytes": len(part.data), "size": part.size}
        text = part.base64 if part.last else f"{part.base64}\n{part.note(len(part.data))}"
        return Answer(
            text=text or _nothing(part), told={key: value for key, value in told.items() if value is not None}
        )
    kind = _PICTURES.get(PurePosixPath(path).suffix.lower())
    if kind is not None and (small := await _picture(backend, session, path, kind)) is not None:
        return Answer(text=f"{path}: a picture", images=(small,))
    part = await read_part(backend, session, path, offset, BUDGET)
    content, used = _as_text(part.data, begun=offset > 0, whole=part.last)
    if content is None:
        wrong = "not text" if kind is None else "neither text nor a picture that can be shown"
        size = "" if part.size is None else f": {part.size} bytes"
        return Answer(
            text=f"{path} is {wrong}{size}. `encoding`: base64 gives the bytes; or look into it with code.", failed=True
        )
    if part.last and used == len(part.data):
        return Answer(text=content or _nothing(part))
    return Answer(text=f"{content}\n{part.note(used)}")


async def _picture(backend: ToolBackend, session: str | None, path: str, kind: str) -> Image | None:
    files = await backend.files(named(session))
    if ((await _of(path, files.stat(path))).size or 0) > _PICTURE:
        return None
    return await in_turn(scaled, Image(kind, await _of(path, files.read(path, limit=_PICTURE))))


def _nothing(part: Part) -> str:
    if not part.offset:
        return "The file is empty."
    return f"[the file ends at byte {part.offset if part.size is None else part.size}]"


async def write_file(
    backend: ToolBackend, session: str | None, path: str, content: str, *, encoding: str = "text"
) -> Answer:
    try:
        data = base64.b64decode(content, validate=True) if encoding == "base64" else content.encode("utf-8")
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Problem(
            "bad_request", f"the content is not {'base64' if encoding == 'base64' else 'text'}: {error}"
        ) from None
    await backend.check_write(len(data))
    files = await backend.files(named(session))
    await _of(path, files.write(path, data))
    return Answer(text=f"{path}: {len(data)} bytes written.", told={"bytes": len(data)})


async def _of(path: str, work: Awaitable[_T]) -> _T:
    """Errors of the system as problems that say what of the path is wrong."""
    try:
        return await work
    except FileNotFoundError:
        raise Problem("not_found", f"there is no {path!r}") from None
    except IsADirectoryError:
        raise Problem("bad_request", f"{path!r} is a folder") from None
    except NotADirectoryError:
        raise Problem("bad_request", f"{path!r} is no folder, or leads through a file") from None
    except ValueError as error:  # it says which path
        raise Problem("bad_request", str(error)) from None
    except OSError as error:
        raise Problem("bad_request", f"{path!r}: {error.strerror or error}") from None


async def _part(files: Files, path: str, offset: int, most: int) -> bytes:
    found = b""
    async with contextlib.aclosing(files.chunks(path, start=offset)) as pieces:
        async for piece in pieces:
            found += piece
            if len(found) >= most:
                break
    return found[:most]


def _as_text(data: bytes, *, begun: bool, whole: bool) -> tuple[str | None, int]:
    """The text, and how many bytes of the data it is: a part may begin (`begun`: of a file) and end within a character. None: this is no
    text."""
    first = 0
    while begun and first < min(3, len(data)) and data[first] & 0xC0 == 0x80:
        first += 1
    for less in range(1 if whole else 4):
        try:
            text = data[first : len(data) - less].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return (None, 0) if "\0" in text else (text, len(data) - less)
    return None, 0
