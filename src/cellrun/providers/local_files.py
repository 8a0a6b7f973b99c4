"""The files of a local kernel's folder. The kernel may be hostile: it can plant links and pipes there.

So a path is walked one folder at a time from an open descriptor, no link is followed, and only regular
files are read. A write goes to a new file that then takes the name.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import itertools
import os
import stat
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from cellrun.providers.base import CHUNK, FileInfo, FileStore

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SNAPSHOT_ENTRIES: Final = 1000
_COUNTED_ENTRIES: Final = 100_000
_DEEPEST: Final = 64
_BLOCK: Final = 512  # stat(2), st_blocks


def _entries(folder: int, prefix: str, inner: builtins.list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Of one folder; the names of folders in it are added to `inner`."""
    with os.scandir(folder) as scan:
        for entry in scan:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    inner.append(entry.name)
                yield prefix + entry.name, status


def split_path(path: str) -> list[str]:
    """The parts of a relative path. None for the folder itself. Raises
    ValueError for one that is absolute or leads out.

    >>> split_path("a/./b.txt")
    ['a', 'b.txt']
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"the path must be relative and stay in the session's folder, not {path!r}")
    return parts


class LocalFiles(FileStore):
    """`folder` is the session's working folder, `owner` the uid whose files are to be in it, if it is not ours; `contained`: whether it is a room's."""

    def __init__(self, folder: Path, *, owner: int | None = None, contained: bool = False) -> None:
        self._folder = folder
        self._owner = owner
        self._contained = contained

    async def write(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        parts = split_path(path)
        if not parts:
            raise ValueError("a file needs a name")
        # Opening is not left to a thread: cancelled there, nobody would have the descriptor to close.
        folder = self._open_folder(parts[:-1], create=True)
        temporary = f".cellrun-{uuid.uuid4().hex}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(temporary, flags, 0o644, dir_fd=folder)
            try:
                try:
                    if self._owner is not None:
                        os.fchown(file, self._owner, self._owner)
                    async for chunk in chunks:
                        await asyncio.to_thread(_write_all, file, chunk)
                finally:
                    os.close(file)
                os.rename(temporary, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
        finally:
            os.close(folder)

    async def read(self, path: str, start: int = 0) -> AsyncIterator[bytes]:
        file = self._open_regular(path)
        try:
            os.lseek(file, start, os.SEEK_SET)
            while chunk := await asyncio.to_thread(os.read, file, CHUNK):
                yield chunk
        finally:
            os.close(file)

    async def stat(self, path: str) -> FileInfo:
        parts = split_path(path)
        folder = self._open_folder(parts[:-1])
        try:
            status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False) if parts else os.fstat(folder)
        finally:
            os.close(folder)
        is_dir = stat.S_ISDIR(status.st_mode)
        if not is_dir and not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{path!r} is not a regular file")
        return FileInfo("/".join(parts), None if is_dir else status.st_size, status.st_mtime, is_dir)

    async def list(self, path: str = "") -> list[FileInfo]:
        return await asyncio.to_thread(self._list, path)

    async def delete(self, path: str) -> None:
        parts = split_path(path)
        if not parts:
            raise ValueError("the session's folder itself cannot be deleted")
        folder = self._open_folder(parts[:-1])
        try:
            try:
                os.unlink(parts[-1], dir_fd=folder)
            except IsADirectoryError:
                os.rmdir(parts[-1], dir_fd=folder)
        finally:
            os.close(folder)

    def snapshot(self) -> dict[str, tuple[int, int]] | None:
        found: dict[str, tuple[int, int]] = {}
        for entries, (name, status) in enumerate(self._walk(), 1):
            if entries > _SNAPSHOT_ENTRIES or name.count("/") >= _DEEPEST:
                return None
            if stat.S_ISREG(status.st_mode):
                found[name] = (status.st_size, status.st_mtime_ns)
        return found

    def disk_bytes(self) -> int:
        """What its files take; of more than a hundred thousand, those; without what lies deeper than 64 folders."""
        found = itertools.islice(self._walk(), _COUNTED_ENTRIES)
        return sum(status.st_blocks * _BLOCK for _, status in found)

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """All that is beneath the folder, each with its path, but for what lies deeper than `_DEEPEST` folders: from descriptor to descriptor,
        so that the time it takes grows with the entries and not with their depth. What goes away meanwhile is passed over."""
        open_: builtins.list[
            tuple[int, str, builtins.list[str]]
        ] = []  # descriptor, path, folders that are still to be entered
        try:
            with contextlib.suppress(OSError):
                open_.append((self._open_folder([]), "", []))
                yield from _entries(*open_[-1])
            while open_:
                folder, prefix, inner = open_[-1]
                if not inner or len(open_) > _DEEPEST:
                    os.close(folder)
                    open_.pop()
                    continue
                name = inner.pop()
                with contextlib.suppress(OSError):
                    open_.append((os.open(name, _FOLDER_FLAGS, dir_fd=folder), f"{prefix}{name}/", []))
                    yield from _entries(*open_[-1])
        finally:
            for folder, _, _ in open_:
                os.close(folder)

    def _open_folder(self, parts: builtins.list[str], *, create: bool = False) -> int:
        # The folder's own name is its caller's, who may have put a link there; in a room nobody has.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if self._contained else 0)
        folder = os.open(self._folder, flags)
        for part in parts:
            try:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=folder)
                        if self._owner is not None:
                            os.chown(part, self._owner, self._owner, dir_fd=folder, follow_symlinks=False)
                inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def _open_regular(self, path: str) -> int:
        parts = split_path(path)
        if not parts:
            raise IsADirectoryError(f"{path!r} is a folder")
        folder = self._open_folder(parts[:-1])
        try:
            # Not blocking, since opening a pipe would wait for its writer.
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        mode = os.fstat(file).st_mode
        if stat.S_ISREG(mode):
            return file
        os.close(file)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{path!r} is a folder")
        raise PermissionError(f"{path!r} is not a regular file")

    def _list(self, path: str) -> builtins.list[FileInfo]:
        parts = split_path(path)
        folder = self._open_folder(parts)
        infos: list[FileInfo] = []
        try:
            for name in sorted(os.listdir(folder)):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    is_dir = stat.S_ISDIR(status.st_mode)
                    if is_dir or stat.S_ISREG(status.st_mode):
                        full = "/".join([*parts, name])
                        infos.append(FileInfo(full, None if is_dir else status.st_size, status.st_mtime, is_dir))
        finally:
            os.close(folder)
        return infos


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
