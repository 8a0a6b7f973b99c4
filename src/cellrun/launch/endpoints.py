"""The five sockets of a kernel that is to come: bound here, handed over to it.

So a client can connect before the kernel is there, no port is taken by another in between, and whoever made
the sockets removes them, however the kernel ends.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

CHANNELS: Final = ("shell", "iopub", "stdin", "control", "hb")
_BACKLOG: Final = 100
# A kernel's sockets lie at <folder>/k-5: a unix socket's path holds 107 bytes.
_LONGEST_FOLDER: Final = 90


class Endpoints:
    """A private folder with a connection file in it, and five sockets that listen.

    `connection` is the content of that file (Connection files, jupyter_client). Raises OSError if there are no
    more descriptors to be had, or no room for the folder.
    """

    def __init__(self, transport: Literal["ipc", "tcp"] = "ipc") -> None:
        self.folder = socket_folder()
        self._sockets: list[socket.socket] = []
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
        """Of the listening sockets, in the order of `CHANNELS`."""
        return [listener.fileno() for listener in self._sockets]

    def close(self) -> None:
        """The sockets are the kernel's now."""
        for listener in self._sockets:
            listener.close()
        self._sockets = []

    def remove(self) -> None:
        """Closes the sockets, removes their files and the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def socket_folder() -> Path:
    """A folder that only we can enter, with a path short enough for unix sockets."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if not os.access(base, os.W_OK) or len(base.encode()) > _LONGEST_FOLDER - 20:
        base = "/tmp" if sys.platform != "win32" else tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="cellrun-", dir=base))
