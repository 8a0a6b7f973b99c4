"""The files of a session on a service."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from typing import Final
from urllib.parse import quote

from cellrun.errors import ConnectionFailed, ProtocolError
from cellrun.limits import MIB
from cellrun.providers.base import CHUNK, FileInfo, FileStore
from cellrun.providers.local_files import split_path
from cellrun.remote.http import IF_THERE, ServiceHttp
from cellrun.remote.problems import Refused

_PART: Final = 64 * MIB
_SILENCE: Final = 60.0
_NO_SESSION: Final = "there is no session"  # as the service begins to say it


class ServiceFiles(FileStore):
    """`session`: the path of its address, without a slash at its end."""

    def __init__(self, http: ServiceHttp, session: str) -> None:
        self._http = http
        self._session = session

    def _path(self, path: str) -> str:
        parts = split_path(path)
        if not parts:
            raise ValueError("a file needs a name")
        return "/".join([self._session, "files", *(quote(part, safe="") for part in parts)])

    async def write(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        address = self._path(path)
        failure: list[Exception] = []
        with _told(path):
            try:
                async with asyncio.timeout(_SILENCE) as limit:
                    answer = await self._http.open(
                        "PUT",
                        address,
                        data=_watched(chunks, limit, failure),
                        headers=IF_THERE,
                        unlimited=True,
                        timeout=_SILENCE,
                    )
                    answer.close()
            except TimeoutError:
                raise ConnectionFailed(f"the service did not take the file {path!r} for {_SILENCE:g} s") from None
            except Exception:
                if failure:  # the caller's own pieces: the HTTP library makes another error of theirs
                    raise failure[0] from None
                raise

    async def read(self, path: str, start: int = 0) -> AsyncIterator[bytes]:
        address = self._path(path)
        try:
            async with contextlib.aclosing(self._part(address, path, start, None)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except Refused as problem:
            if problem.code != "too_large":
                raise problem.error from None
        # More than the service puts into one answer. It may not change on the way: parts of two files are none.
        info = await self.stat(path)
        for begin in range(start, info.size or 0, _PART):
            async with contextlib.aclosing(self._part(address, path, begin, begin + _PART)) as pieces:
                async for piece in pieces:
                    yield piece
            if await self.stat(path) != info:
                raise OSError(f"{path!r} was changed while it was read: read it again")

    async def _part(self, address: str, path: str, begin: int, end: int | None) -> AsyncGenerator[bytes, None]:
        """From one byte up to another one. Raises Refused where it is too large for one answer."""
        headers = {"Accept": "application/octet-stream"}
        if begin or end is not None:
            headers["Range"] = f"bytes={begin}-{'' if end is None else end - 1}"
        try:
            with _told(path, passing=("too_large",)):
                answer = await self._http.again(
                    lambda: self._http.open("GET", address, headers=headers), self._http.patience
                )
        except _Beyond:
            return
        skip = begin if answer.status == 200 else 0
        try:
            async with contextlib.aclosing(self._http.pieces(answer, lambda: _SILENCE)) as pieces:
                async for piece in pieces:
                    for at in range(min(skip, len(piece)), len(piece), CHUNK):
                        yield piece[at : at + CHUNK]
                    skip = max(0, skip - len(piece))
        finally:
            answer.close()

    async def list(self, path: str = "") -> builtins.list[FileInfo]:
        parts = split_path(path)
        with _told(path):
            told = await self._http.json(
                "GET", f"{self._session}/files", params={"path": "/".join(parts)}, timeout=_SILENCE
            )
        try:
            found = [FileInfo(one["path"], one["size"], one["modified"], one["is_dir"]) for one in told["files"]]
        except (KeyError, TypeError):
            raise ProtocolError("what the service sent is no list of files") from None
        return sorted(found, key=lambda info: info.path)

    async def delete(self, path: str) -> None:
        if not split_path(path):
            raise ValueError("the session's folder itself cannot be deleted")
        with _told(path):
            await self._http.json("DELETE", self._path(path), patience=0)


class _Beyond(Exception):
    """Nothing of the file is there any more."""


async def _watched(
    chunks: AsyncIterable[bytes], limit: asyncio.Timeout, failure: builtins.list[Exception]
) -> AsyncGenerator[bytes, None]:
    """The pieces as they are taken. A piece that is not taken for long is the other side's doing; one that does not come is the caller's."""
    loop = asyncio.get_running_loop()
    try:
        limit.reschedule(None)
        async for chunk in chunks:
            limit.reschedule(loop.time() + _SILENCE)
            if chunk:
                yield chunk
            limit.reschedule(None)
    except Exception as error:
        failure.append(error)
        raise
    limit.reschedule(loop.time() + _SILENCE)


@contextlib.contextmanager
def _told(path: str, passing: tuple[str, ...] = ()) -> Iterator[None]:
    """The service's words about a path, as errors of files."""
    try:
        yield
    except Refused as problem:
        if problem.code in passing:
            raise
        if problem.code == "range_not_satisfiable":
            raise _Beyond from None
        if problem.code == "not_found" and not problem.detail.startswith(_NO_SESSION):
            raise FileNotFoundError(f"no such file in the session's folder: {path!r}") from None
        if problem.code == "conflict":
            said = problem.detail.lower()
            kinds = {
                "not a directory": NotADirectoryError,
                "a directory": IsADirectoryError,
                "folder": IsADirectoryError,
            }
            kind = next((kind for words, kind in kinds.items() if words in said), OSError)
            raise kind(f"{path!r} cannot be used so: {problem.detail}") from None
        raise problem.error from None
