"""The five sockets of a kernel that is to come: bound here, handed over to it.

So a client can connect before the kernel is there, no port is taken by another in between, and whoever made
the sockets removes them, however the kernel ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

CHANNELS: Final = ("shell", "iopub", "stdin", "control", "hb")
_BACKLOG: Final = 100
# A kernel's sockets lie at <folder>/k-5: a unix socket's path holds 107 bytes.
_LONGEST_FOLDER: Final = 90
_LOG: Final = 16 * 1024


class Endpoints:
    """A private folder with a connection file in it, and five sockets that listen.

    `connection` is the content of that file (Connection files, jupyter_client). Raises OSError if there are no
    more descriptors to be had, or no room for the folder.
    """

    def __init__(self, transport: Literal["ipc", "tcp"] = "ipc") -> None:
        self.folder = socket_folder()
        self._sockets: list[socket.socket] = []
        self._told: int | None = None
        self._lifeline = self._held = -1
        self._log: SmallLog | None = None
        try:
            ports = {f"{name}_port": self._listen(transport, number) for number, name in enumerate(CHANNELS, 1)}
            self.connection: dict[str, Any] = {
                "transport": transport,
                "ip": str(self.folder / "k") if transport == "ipc" else "127.0.0.1",
                **ports,
                "key": secrets.token_hex(32),
                "signature_scheme": "hmac-sha256",
                "kernel_name": "",
            }
            self.connection_file = self.folder / "kernel.json"
            self.connection_file.touch(mode=0o600)
            self.connection_file.write_text(json.dumps(self.connection), "utf-8")
            self._told = connection_in_memory(self.connection)
            self._lifeline, self._held = os.pipe()
            self._log = SmallLog()
        except BaseException:
            self.remove()
            raise

    def _listen(self, transport: str, number: int) -> int:
        if transport == "ipc":
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sockets.append(listener)
            listener.bind(str(self.folder / f"k-{number}"))
        else:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._sockets.append(listener)
            listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        return number if transport == "ipc" else int(listener.getsockname()[1])

    @property
    def descriptors(self) -> list[int]:
        """What a kernel is given (see `become_kernel`): of the connection, of a log, of a pipe that ends with us, and
        of the sockets in the order of `CHANNELS`."""
        assert self._told is not None
        assert self._log is not None
        return [self._told, self._log.descriptor, self._lifeline, *(listener.fileno() for listener in self._sockets)]

    def close(self) -> None:
        """The sockets are the kernel's now."""
        for listener in self._sockets:
            listener.close()
        self._sockets = []
        if self._told is not None:
            os.close(self._told)
            self._told = None
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def seal(self) -> None:
        """Takes the sockets' names away: nobody can connect any more who has not. (Linux lets other sessions of the same uid connect to a
        socket whose path they know, and IOPub asks nobody for a key.)"""
        for path in self.folder.iterdir():
            path.unlink()
        # Of whoever is killed later nothing is left.
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @property
    def log(self) -> str:
        """What the process itself said first, not the cells: up to 16 KiB."""
        return "" if self._log is None else self._log.read()

    def remove(self) -> None:
        """Closes the sockets, removes their files and the folder."""
        self.close()
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        shutil.rmtree(self.folder, ignore_errors=True)


def connection_in_memory(connection: Mapping[str, Any]) -> int:
    """A descriptor of a file in memory with the content of a connection file. Raises OSError."""
    file = os.memfd_create("connection", os.MFD_CLOEXEC)
    os.write(file, json.dumps(connection).encode())
    return file


class SmallLog:
    """A file in memory that cannot grow (memfd_create(2), seals): a process that writes there without end fills nothing.
    Raises OSError."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(self.descriptor, _LOG)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)

    def read(self) -> str:
        return os.pread(self.descriptor, _LOG, 0).rstrip(b"\0").decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self.descriptor)


def socket_folder() -> Path:
    """A folder that only we can enter, with a path short enough for unix sockets."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if not os.access(base, os.W_OK) or len(base.encode()) > _LONGEST_FOLDER - 20:
        base = "/tmp" if sys.platform != "win32" else tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="cellrun-", dir=base))
