"""The self-test: what a contained process tries, and must fail at, before containment is believed.

It is no list of everything that is denied (that is tests/abuse): one attempt for each wall, so that a wall which does not stand
on this machine, for whatever reason, is noticed.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cellrun.launch.sandbox.system import libc

_PTRACE_SEIZE: Final = 0x4206  # does not stop it
_NEW_USER_NAMESPACE: Final = 0x10000000
_MEMORY_OF_SYSTEM_V: Final = 0o1666


@dataclass(frozen=True)
class Targets:
    """What the owner has put up, outside, for the contained process to reach for.

    secret    a file that anybody may read
    folder    a folder that anybody may write to
    port      of 127.0.0.1, where something listens
    abstract  the name of an abstract socket that listens
    stream    the path of a local socket that listens
    datagram  the path of one that takes datagrams
    pid       the owner's
    """

    secret: str
    folder: str
    port: int
    abstract: str
    stream: str
    datagram: str
    pid: int


def attempt(targets: Targets, *, network: bool) -> list[str]:
    """Tries everything; the names of what succeeded, empty if the walls stand."""
    attacks: dict[str, Callable[[], Any]] = {
        "read a file outside": lambda: _read(targets.secret),
        "list a folder outside": lambda: os.listdir(targets.folder),
        "write a file outside": lambda: os.close(os.open(f"{targets.folder}/written", os.O_WRONLY | os.O_CREAT)),
        "connect to an abstract socket": lambda: _connect(socket.AF_UNIX, f"\0{targets.abstract}"),
        "signal its owner": lambda: _signal(targets.pid),
        "read its parent's memory": lambda: os.close(os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)),
        "read its parent's environment": lambda: _read(f"/proc/{os.getppid()}/environ"),
        "make shared memory of System V": lambda: _must(libc.shmget(0, 4096, _MEMORY_OF_SYSTEM_V)),
        "watch a process": lambda: _must(libc.ptrace(_PTRACE_SEIZE, ctypes.c_long(os.getppid()), None, None)),
        "become root": _become_root,
    }
    if not network:
        attacks["connect to a port of this machine"] = lambda: _connect(socket.AF_INET, ("127.0.0.1", targets.port))
        # The filter cannot tell these from the network's, where that is allowed.
        attacks["connect to a socket by its path"] = lambda: _connect(socket.AF_UNIX, targets.stream)
        attacks["send a datagram to a socket by its path"] = lambda: _send(targets.datagram)
        attacks["send to the network"] = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        attacks["ask for the network's interfaces"] = lambda: socket.socket(16, socket.SOCK_RAW).close()
    # Last: in a namespace of its own a process has lost what the others need.
    attacks["make a namespace"] = lambda: _must(libc.unshare(_NEW_USER_NAMESPACE))
    return [name for name, attack in attacks.items() if _succeeds(attack)]


def _succeeds(attack: Callable[[], Any]) -> bool:
    try:
        attack()
    except OSError:
        return False
    return True


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _connect(family: int, address: Any) -> None:
    with socket.socket(family) as client:
        client.settimeout(1.0)
        client.connect(address)


def _send(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", path)


def _signal(pid: int) -> None:
    os.kill(pid, 0)


def _become_root() -> None:
    if os.getuid() == 0:  # where it is root by name: it must have none of root's powers
        os.mknod(f"{os.environ.get('TMPDIR', '/tmp')}/device", 0o20666, os.makedev(1, 3))
    else:
        os.setuid(0)


def _must(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
