"""The tools for files of a session's working folder."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Awaitable
from pathlib import PurePosixPath
from typing import Final, TypeVar

from cellrun.files import Files
from cellrun.limits import KIB, MIB
from cellrun.mime import Image
from cellrun.service.model_view import BUDGET, scaled
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import Answer, ToolBackend, named

_LISTED: Final = 200
_BASE64: Final = 512 * KIB
_PICTURE: Final = 16 * MIB
_PICTURES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}

_T = TypeVar("_T")


async def list_files(backend: ToolBackend, session: str | None, path: str) -> Answer:
    files = await backend.files(named(session))
    found = await _of(path, files.list(path.rstrip("/") if path.strip("/") else ""))
    lines = [f"{one.path}/" if one.is_dir else f"{one.path}\t{one.size} bytes" for one in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"[{len(found) - _LISTED} of {len(found)} left out: list a folder below]")
    return Answer(text="\n".join(lines) or "The folder is empty.")


async def read_file(
    backend: ToolBackend, session: str | None, path: str, *, offset: int = 0, encoding: str = "auto"
) -> Answer:
    """Text in parts of the budget; a picture as one; `encoding="base64"`: the bytes, half a MiB at a time."""
    files = await backend.files(named(session))
    size = (await _of(path, files.stat(path))).size or 0
    kind = _PICTURES.get(PurePosixPath(path).suffix.lower())
    if encoding == "auto" and kind is not None and size <= _PICTURE:
        data = await _of(path, files.read(path, limit=_PICTURE))
        small = await asyncio.to_thread(scaled, Image(kind, data))
        if small is not None:
            return Answer(text=f"{path}: a picture of {size} bytes", images=(small,))
    data = await _of(path, _part(files, path, offset, _BASE64 if encoding == "base64" else BUDGET))
    rest = size - offset - len(data)
    if encoding == "base64":
        told = {"offset": offset, "bytes": len(data), "size": size}
        return Answer(text=base64.b64encode(data).decode("ascii"), told=told)
    text, used = _as_text(data, begun=offset > 0, whole=rest <= 0)
    if text is None:
        wrong = "not text" if kind is None else "neither text nor a picture that can be shown"
        return Answer(
            text=f"{path} is {wrong}: {size} bytes. `encoding`: base64 gives the bytes; or look into it with code.",
            failed=True,
        )
    end = offset + used
    note = f"\n[bytes {offset} to {end} of {size}; the rest with offset={end}]" if end < size else ""
    return Answer(text=(text + note) or (f"[the file ends at byte {size}]" if offset else "The file is empty."))


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
