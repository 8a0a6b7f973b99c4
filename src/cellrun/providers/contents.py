"""The files of a kernel on a Jupyter server, over its Contents API."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from cellrun.errors import CellrunError, ProtocolError, Unsupported
from cellrun.providers.base import CHUNK, FileInfo, FileStore
from cellrun.providers.http import JupyterHttp, NotFound, Refused
from cellrun.providers.local_files import split_path

# jupyter_server takes a file in parts, "chunk" 1, 2, … and -1 for the last one, and its tornado limits a
# request's body; base64 makes four bytes of three.
_UPLOAD_PART: Final = 3 * CHUNK


class ContentsFiles(FileStore):
    """`folder`: the kernel's folder, as a path of the server's contents ("" is its root)."""

    def __init__(self, http: JupyterHttp, folder: str) -> None:
        self._http = http
        self._folder = split_path(folder)

    def _path(self, parts: list[str], base: str = "api/contents") -> str:
        return "/".join([base, *(quote(part, safe="") for part in [*self._folder, *parts])])

    async def write(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        parts = split_path(path)
        if not parts:
            raise ValueError("a file needs a name")
        await self._make_folders(parts[:-1])
        number = 0
        pending = bytearray()
        async for chunk in chunks:
            pending += chunk
            while len(pending) > _UPLOAD_PART:
                number += 1
                await self._put(path, bytes(pending[:_UPLOAD_PART]), number)
                del pending[:_UPLOAD_PART]
        await self._put(path, bytes(pending), -1 if number else None)

    async def _put(self, path: str, data: bytes, chunk: int | None) -> None:
        body: dict[str, Any] = {"type": "file", "format": "base64", "content": base64.b64encode(data).decode("ascii")}
        if chunk is not None:
            body["chunk"] = chunk
        with _translated(path):
            await self._http.json("PUT", self._path(split_path(path)), body=body, timeout=60)

    async def _make_folders(self, parts: list[str]) -> None:
        for depth in range(1, len(parts) + 1):
            url = self._path(parts[:depth])
            try:
                await self._http.json("GET", url, params={"content": "0"})
            except NotFound:
                with _translated("/".join(parts[:depth])):
                    await self._http.json("PUT", url, body={"type": "directory"})

    async def read(self, path: str, start: int = 0) -> AsyncIterator[bytes]:
        # Servers differ in whether they know ranges: what comes before is passed over here.
        async for chunk in self._read(path):
            if start < len(chunk):
                yield chunk[start:]
            start = max(0, start - len(chunk))

    async def _read(self, path: str) -> AsyncIterator[bytes]:
        parts = split_path(path)
        async with self._http.stream(self._path(parts, "files")) as response:
            if response.status == 200:
                async for chunk in response.content.iter_chunked(CHUNK):
                    yield chunk
                return
        # A server without /files/ (Kernel Gateway has neither), a folder, or no such file.
        model = await self._model(path, {"content": "1", "format": "base64", "type": "file"})
        try:
            yield base64.b64decode(model["content"])
        except (KeyError, TypeError, binascii.Error):
            raise ProtocolError(f"the server's answer holds no content of {path!r}") from None

    async def stat(self, path: str) -> FileInfo:
        return _info(split_path(path), await self._model(path, {"content": "0"}))

    async def list(self, path: str = "") -> list[FileInfo]:
        model = await self._model(path, {"content": "1"})
        if model.get("type") != "directory":
            raise NotADirectoryError(f"{path!r} is a file")
        prefix = split_path(path)
        infos = [_info([*prefix, str(item.get("name"))], item) for item in model.get("content") or ()]
        return sorted(infos, key=lambda info: info.path)

    async def delete(self, path: str) -> None:
        parts = split_path(path)
        if not parts:
            raise ValueError("the session's folder itself cannot be deleted")
        with _translated(path):
            await self._http.json("DELETE", self._path(parts))

    async def _model(self, path: str, params: dict[str, str]) -> dict[str, Any]:
        with _translated(path):
            _, model = await self._http.json("GET", self._path(split_path(path)), params=params, timeout=60)
        if not isinstance(model, dict):
            raise ProtocolError(f"the server's answer about {path!r} is no contents model: {json.dumps(model)[:50]}")
        return model


def _info(parts: list[str], model: dict[str, Any]) -> FileInfo:
    """Of a contents model."""
    try:
        modified = datetime.fromisoformat(str(model.get("last_modified"))).timestamp()
    except ValueError:
        modified = 0.0
    return FileInfo("/".join(parts), model.get("size"), modified, model.get("type") == "directory")


class _translated:  # noqa: N801 - reads as a verb where it is used
    """404 is FileNotFoundError to the caller, a refused write PermissionError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, NotFound):
            raise FileNotFoundError(f"no such file in the session's folder: {self._path!r}") from None
        if isinstance(error, Refused) and error.status == 400:
            raise PermissionError(f"the server does not allow this for {self._path!r}: {error}") from None


async def contents_of(http: JupyterHttp, folder: str) -> ContentsFiles:
    """The file store of a folder. Raises Unsupported where the server has no Contents API, or has one but
    not this folder (a kernel would silently start in the root instead)."""
    files = ContentsFiles(http, folder)
    missing = False
    try:
        await http.json("GET", files._path([]), params={"content": "0"})
    except NotFound:
        with contextlib.suppress(CellrunError):
            if folder:
                await http.json("GET", "api/contents", params={"content": "0"})
                missing = True
        if not missing:
            raise Unsupported("the server offers no files: it has no Contents API (Kernel Gateway has none)") from None
        raise Unsupported(f"the server has no folder {folder!r}: make it first, or leave cwd out") from None
    return files
