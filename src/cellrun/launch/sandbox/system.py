"""System calls that Python has no function for (prctl(2), capset(2), mount(2))."""

from __future__ import annotations

import ctypes
import os
from typing import Final

libc: Final = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

PARENT_DEATH_SIGNAL: Final = 1
DUMPABLE: Final = 4
NAME: Final = 15
SECCOMP: Final = 22
_BOUNDING_DROP: Final = 24
SUBREAPER: Final = 36
NO_NEW_PRIVILEGES: Final = 38
_AMBIENT: Final = 47
_AMBIENT_CLEAR: Final = 4
_CAPABILITY_VERSION: Final = 0x20080522
_CAPABILITIES: Final = 64

_BIND, _DETACH, _NO_FOLLOW, _SHARED = 0x1000, 2, 8, 1 << 20
NO_SET_UID, NO_DEVICES = 2, 4


def prctl(option: int, value: int | bytes | ctypes.c_void_p, third: object = 0) -> None:
    """prctl(2). Raises OSError."""
    if libc.prctl(option, value, third, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def drop_capabilities() -> None:
    """Every one of this process's, and what a program it starts could get (capabilities(7)). Raises OSError."""
    for capability in range(_CAPABILITIES):
        libc.prctl(
            _BOUNDING_DROP, capability, 0, 0, 0
        )  # needs CAP_SETPCAP; where it is missing, no_new_privs stands for it
    libc.prctl(_AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def mount_memory(folder: str, options: str) -> None:
    """A tmpfs (tmpfs(5)) on this folder, without set-uid programs and devices. Raises OSError."""
    if libc.mount(b"cellrun", os.fsencode(folder), b"tmpfs", NO_SET_UID | NO_DEVICES, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)


def mount_shared(folder: str) -> None:
    """Makes a folder a mount of its own, so that mounts in it are seen in namespaces that have it. Raises OSError."""
    path = os.fsencode(folder)
    if libc.mount(path, path, None, _BIND, None) or libc.mount(None, path, None, _SHARED, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)


def unmount(folder: str) -> None:
    """Takes a mount away, at once for new users of it. Raises OSError."""
    if libc.umount2(os.fsencode(folder), _DETACH | _NO_FOLLOW):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
