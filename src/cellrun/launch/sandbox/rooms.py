"""The folders of contained sessions: one each, out of the others' reach, bounded, and gone without a trace.

Where we may mount (root, outside of a container that forbids it), each is a file system of its own in memory, which bounds its bytes
and files, and whose content counts as the session's memory. Elsewhere they are plain folders, and are watched (watch.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from cellrun.launch.sandbox import marks, system
from cellrun.launch.sandbox.policy import SandboxPolicy
from cellrun.launch.sandbox.walls import PARTS, Room

_PATIENCE: Final = 10.0
_PREFIX: Final = "cellrun-rooms-"
_LOCK: Final = ".lock"
_LONGEST: Final = 48  # of the 108 bytes of a socket's path (unix(7)), our own names take up to 60
# Above what systemd and container engines give out by default (systemd.io/UIDS-GIDS), below 2^31.
_FIRST_UID: Final = 1_900_000_000
_UIDS: Final = 200_000_000
_ALL_UIDS: Final = 4_294_967_295


class Rooms:
    """`own_uids`: whether each room belongs to a uid of its own, which needs root. Raises OSError if there can be no folder."""

    def __init__(self, policy: SandboxPolicy, *, own_uids: bool) -> None:
        self._policy = policy
        self._uids = itertools.count(int.from_bytes(os.urandom(4), "little")) if own_uids else None
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent()))
        self.folder.chmod(0o711)  # to pass through, not to look around
        self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        if os.fstat(self._lock).st_nlink == 0:  # swept up by another process in the moment before
            os.close(self._lock)
            raise FileNotFoundError(f"{self.folder} was removed while it was made")
        self.mounts = False
        if policy.disk is not None:
            with contextlib.suppress(OSError):
                system.mount_shared(str(self.folder))
                self.mounts = True

    def make(self) -> Room:
        """A new one. Raises OSError."""
        folder = self.folder / secrets.token_hex(8)
        uid = None if self._uids is None else _FIRST_UID + next(self._uids) % _UIDS
        # The room stays ours: a session that could rename its working folder could put a link in its place.
        mode = 0o700 if uid is None else 0o711
        folder.mkdir(mode)
        try:
            if self.mounts:
                size = f"size={self._policy.disk},nr_inodes={self._policy.files}"
                system.mount_memory(str(folder), f"{size},mode={mode:o}")
            for part in PARTS:
                (folder / part).mkdir(0o700)
                if uid is not None:
                    os.chown(folder / part, uid, uid)
        except BaseException:
            self.remove(str(folder))
            raise
        return Room(str(folder), marks.new_mark(), uid)

    def make_sockets(self, room: Room) -> Path:
        """A folder for the sockets of a kernel in this room, outside of it: once it is removed, nobody in the room can make it anew.
        Raises OSError."""
        folder = self.folder / f"s-{secrets.token_hex(4)}"
        folder.mkdir(0o700)
        if room.uid is not None:
            os.chown(folder, room.uid, room.uid)
        return folder

    def remove(self, folder: str) -> None:
        """The room with all that is in it, whatever a session has put there. Never raises."""
        _remove_room(folder)

    def close(self) -> None:
        """All rooms that are left. Never raises."""
        os.close(self._lock)
        _sweep(self.folder)


def sweep() -> None:
    """Removes rooms whose owner ended without doing so. Never raises."""
    for folder in parent().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it has an owner
                (folder / _LOCK).unlink()  # by which an owner who is still at its making notices
                _sweep(folder)
            finally:
                os.close(lock)


def _sweep(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name != _LOCK:
                _remove_room(str(folder / name))
    with contextlib.suppress(OSError):
        system.unmount(str(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _remove_room(folder: str) -> None:
    with contextlib.suppress(OSError):
        system.unmount(folder)
    with contextlib.suppress(OSError):
        remove_tree(folder)


def remove_tree(folder: str) -> None:
    """A folder and what is in it, however deep and however its permissions are set; no link is followed. Raises OSError, also where
    something makes new files for ten seconds."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    deadline = time.monotonic() + _PATIENCE
    try:
        number = 0
        while names := os.listdir(top):
            for name in names:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{folder} fills up again while it is removed")
                if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=top)
                    continue
                inner = open_folder(name, top)
                try:
                    for below in os.listdir(inner):
                        if not stat.S_ISDIR(os.stat(below, dir_fd=inner, follow_symlinks=False).st_mode):
                            os.unlink(below, dir_fd=inner)
                            continue
                        # A folder can only be moved by who may write to it.
                        os.close(open_folder(below, inner))
                        number += 1  # moved up, for the next round: so no path gets long
                        os.rename(below, f".cellrun-{number}-{secrets.token_hex(8)}", src_dir_fd=inner, dst_dir_fd=top)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)


def open_folder(name: str, within: int | None) -> int:
    """A descriptor of a folder, opened up if it was closed to us; a link is an error, also one that has just come. Raises OSError."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    place = os.open(name, os.O_PATH | flags, dir_fd=within)
    try:
        if os.fstat(place).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(".", os.O_RDONLY | flags, dir_fd=place)
    finally:
        os.close(place)


def parent() -> Path:
    """Where folders for others can be: one that everybody can pass through, with a path short enough for unix sockets below."""
    path = Path(tempfile.gettempdir()).resolve()
    passable = os.getuid() != 0 or all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))
    return path if passable and len(os.fsencode(path)) <= _LONGEST else Path("/tmp").resolve()


def uids_available() -> bool:
    """Whether uids of our own can be given to sessions: as root, unless this is a user namespace that has few."""
    if os.geteuid() != 0:
        return False
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            first, _, count = map(int, file.readline().split())
    except (OSError, ValueError):
        return False
    return first == 0 and count >= _ALL_UIDS
