"""Landlock: which files, ports, sockets and processes this process and all that it starts can touch from now on.

Three system calls without a wrapper in libc (landlock(7)). It needs no privilege, works in a container, and is never taken back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

from cellrun.launch.sandbox.system import NO_NEW_PRIVILEGES, libc, prctl

NEEDED: Final = 6
"""The version of Landlock that has what is needed: signals and abstract sockets are scoped since Linux 6.12."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on all architectures
_VERSION: Final = 1
_PATH_BENEATH: Final = 1

(
    EXECUTE,
    WRITE_FILE,
    READ_FILE,
    READ_DIR,
    REMOVE_DIR,
    REMOVE_FILE,
    MAKE_CHAR,
    MAKE_DIR,
    MAKE_REG,
    MAKE_SOCK,
    MAKE_FIFO,
    MAKE_BLOCK,
    MAKE_SYM,
    REFER,
    TRUNCATE,
    IOCTL_DEV,
) = (1 << bit for bit in range(16))
_ALL: Final = (1 << 16) - 1
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_TCP: Final = 0b11  # bind and connect
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

READ: Final = EXECUTE | READ_FILE | READ_DIR
CHANGE: Final = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
OWN: Final = CHANGE | MAKE_SOCK | MAKE_FIFO | MAKE_SYM
DEVICE: Final = READ_FILE | WRITE_FILE
TERMINAL: Final = READ_FILE | WRITE_FILE | READ_DIR | IOCTL_DEV
# Names are random, so that without READ_DIR nobody finds another's.
SHARED_MEMORY: Final = READ_FILE | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE


def version() -> int:
    """Of the running kernel; 0 where there is none, or it is switched off."""
    try:
        return _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0


def restrict(rules: Iterable[tuple[str | int, int]], *, tcp: bool) -> None:
    """Only what the rules name is left: pairs of a path, or of a descriptor that was opened for one, and the rights to what is
    beneath it. Paths that do not exist are left out. `tcp`: whether TCP stays. Signals and abstract
    sockets reach only processes that come from this one. Raises OSError; then nothing has changed."""
    attributes = struct.pack("QQQ", _ALL, 0 if tcp else _TCP, _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
    ruleset = _call(
        _CREATE, ctypes.create_string_buffer(attributes), ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    try:
        for path, rights in rules:
            with _opened(path) as (descriptor, is_folder):
                if descriptor < 0:
                    continue
                rule = struct.pack("=Qi", rights if is_folder else rights & _OF_FILES, descriptor)
                _call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
        prctl(NO_NEW_PRIVILEGES, 1)
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


@contextlib.contextmanager
def _opened(path: str | int) -> Iterator[tuple[int, bool]]:
    if isinstance(path, int):
        yield path, stat.S_ISDIR(os.fstat(path).st_mode)
        return
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not there, or not for us: then it is not reached either
        yield -1, False
        return
    try:
        yield descriptor, stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: Any) -> int:
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return result
