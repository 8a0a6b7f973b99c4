"""The files of a session, as its user sees them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Final

from cellrun.errors import LimitExceeded
from cellrun.limits import MIB
from cellrun.providers.base import CHUNK, FileInfo, FileStore

READ_LIMIT: Final = 256 * MIB
"""Bytes that `read` holds at most, unless it is told otherwise."""


class Files:
    """Files in the session's working folder. Paths are relative to it, with `/`, and stay beneath it.

    Every call raises ValueError for a path that leads out, FileNotFoundError, IsADirectoryError,
    NotADirectoryError, PermissionError or another OSError as the system or the server has it (a link: OSError;
    a folder that is read, on a server: PermissionError), Unsupported where the provider has no files, and the errors of
    starting a kernel, since the folder comes with it.
    """

    def __init__(self, open_store: Callable[[], Awaitable[FileStore]]) -> None:
        self._open_store = open_store

    async def write(self, path: str, data: bytes | str | AsyncIterable[bytes]) -> None:
        """Creates or replaces a file, folders on the way included. Text is written as UTF-8; an async
        iterable is written piece by piece and never held whole."""
        store = await self._open_store()
        if isinstance(data, str):
            data = data.encode("utf-8")
        await store.write(path, _pieces(data) if isinstance(data, (bytes, bytearray, memoryview)) else data)

    async def read(self, path: str, *, limit: int | None = READ_LIMIT) -> bytes:
        """The whole file. Raises LimitExceeded for one of more than `limit` bytes (None: no limit), of which no more than that is
        held: it could be a sparse file without end."""
        chunks, size = [], 0
        async with contextlib.aclosing(self.chunks(path)) as pieces:
            async for chunk in pieces:
                size += len(chunk)
                if limit is not None and size > limit:
                    raise LimitExceeded(
                        f"the file {path!r} has more than {limit / MIB:g} MiB: read it by chunks(), or with another limit="
                    )
                chunks.append(chunk)
        return b"".join(chunks)

    async def chunks(self, path: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The file from the byte `start` on, in pieces of at most 1 MiB."""
        store = await self._open_store()
        async for chunk in store.read(path, start):
            yield chunk

    async def stat(self, path: str) -> FileInfo:
        """Of one file or folder."""
        return await (await self._open_store()).stat(path)

    async def list(self, path: str = "") -> list[FileInfo]:
        """What is directly in the folder, by name."""
        return await (await self._open_store()).list(path)

    async def delete(self, path: str) -> None:
        """Removes a file, or a folder (locally only an empty one)."""
        await (await self._open_store()).delete(path)


async def _pieces(data: bytes | bytearray | memoryview) -> AsyncIterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), CHUNK):
        yield bytes(view[start : start + CHUNK])
