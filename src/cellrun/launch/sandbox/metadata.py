"""Permissions and times of files, changed by descriptor.

Where sessions share a uid, the system calls that do so by path have no effect: they would reach every file of that uid. A file that can be
opened is one that Landlock lets the session reach, so `os.chmod` and `os.utime` of a kernel open it first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def by_descriptor() -> None:
    """From now on, in this process."""
    os.chmod = _opening(os.chmod)
    os.utime = _opening(os.utime)


def _opening(change: Callable[..., None]) -> Callable[..., None]:
    def changed(
        path: Any, *arguments: Any, dir_fd: int | None = None, follow_symlinks: bool = True, **named: Any
    ) -> None:
        if isinstance(path, int):
            change(path, *arguments, **named)
            return
        flags = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_symlinks else os.O_NOFOLLOW)
        try:
            file = os.open(path, os.O_RDONLY | flags, dir_fd=dir_fd)
        except PermissionError:  # may be written, but not read
            file = os.open(path, os.O_WRONLY | flags, dir_fd=dir_fd)
        try:
            change(file, *arguments, **named)
        finally:
            os.close(file)

    changed.__name__, changed.__doc__ = change.__name__, change.__doc__
    for able in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):  # where shutil looks
        if change in able:
            able.add(changed)
    return changed
