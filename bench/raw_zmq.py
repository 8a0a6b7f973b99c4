"""The floor: a kernel over ipc, two zmq.asyncio sockets, and nothing that a message does not need."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zmq
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session

_DELIMITER: Final = b"<IDS|MSG>"
_START_TIMEOUT: Final = 60.0


@dataclass
class Answer:
    """What one execution gave. `first_text`: seconds from sending it to its first stream message."""

    texts: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    first_text: float | None = None
    status: str = ""


class RawKernel:
    """Executes, one after the other, and reads until idle and the reply are both there."""

    def __init__(self, info: dict[str, Any], context: zmq.asyncio.Context) -> None:
        key = info["key"]
        self._session = Session(key=key if isinstance(key, bytes) else str(key).encode())
        self._shell: Any = context.socket(zmq.DEALER)
        self._shell.setsockopt(zmq.IDENTITY, self._session.bsession)
        self._iopub: Any = context.socket(zmq.SUB)
        self._iopub.subscribe(b"")
        for socket, name in ((self._shell, "shell"), (self._iopub, "iopub")):
            socket.linger = 0
            socket.connect(f"ipc://{info['ip']}-{info[f'{name}_port']}")

    def close(self) -> None:
        self._shell.close(linger=0)
        self._iopub.close(linger=0)

    async def ready(self) -> None:
        """Until a probe was answered and IOPub, a slow joiner, has said something."""
        deadline = time.monotonic() + _START_TIMEOUT
        heard = {self._shell: False, self._iopub: False}
        while not all(heard.values()):
            if time.monotonic() > deadline:
                raise RuntimeError("the kernel did not start")
            await self._send("kernel_info_request", {})
            # Whatever else comes is an answer to an earlier probe: `execute` passes over it.
            for socket, already in list(heard.items()):
                if not already and await socket.poll(20):
                    await socket.recv_multipart()
                    heard[socket] = True

    async def execute(self, code: str) -> Answer:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        started = time.perf_counter()
        msg_id = await self._send("execute_request", content)
        answer = Answer()
        while True:
            header, parent, said = self._open(await self._iopub.recv_multipart())
            if parent.get("msg_id") != msg_id:
                continue
            kind = header["msg_type"]
            if kind == "stream":
                if answer.first_text is None:
                    answer.first_text = time.perf_counter() - started
                answer.texts.append(said["text"])
            elif kind in ("display_data", "execute_result"):
                answer.data.append(said["data"])
            elif kind == "status" and said["execution_state"] == "idle":
                break
        # The reply came meanwhile, or comes now: this socket keeps it for us.
        while True:
            _, parent, said = self._open(await self._shell.recv_multipart())
            if parent.get("msg_id") == msg_id:
                answer.status = said["status"]
                return answer

    async def _send(self, msg_type: str, content: dict[str, Any]) -> str:
        message = self._session.msg(msg_type, content)
        await self._shell.send_multipart(self._session.serialize(message))
        return str(message["header"]["msg_id"])

    def _open(self, frames: list[bytes]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        start = frames.index(_DELIMITER) + 1
        parts = frames[start + 1 : start + 5]
        if frames[start] != self._session.sign(parts):
            raise RuntimeError("a message is not signed with the kernel's key")
        header, parent, _, content = (json.loads(part) for part in parts)
        return header, parent, content


@contextlib.asynccontextmanager
async def raw_kernel(folder: Path, *, flush_interval: float | None = None) -> AsyncIterator[RawKernel]:
    """A ready kernel in `folder`, as ipykernel is by default, or with another flush interval."""
    folder.mkdir(parents=True)
    context = zmq.asyncio.Context()
    manager = AsyncKernelManager(
        kernel_name="python3",
        transport="ipc",
        ip=str(folder / "k"),
        connection_file=str(folder / "kernel.json"),
        context=context,
    )
    kernel: RawKernel | None = None
    try:
        await manager.start_kernel(
            cwd=str(folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        kernel = RawKernel(dict(manager.get_connection_info()), context)
        await kernel.ready()
        if flush_interval is not None:
            await kernel.execute(f"import sys; sys.stdout.flush_interval = {flush_interval!r}")
        yield kernel
    finally:
        if kernel is not None:
            kernel.close()
        pid = getattr(manager.provisioner, "pid", None)
        try:
            await asyncio.shield(manager.shutdown_kernel(now=True))
        except BaseException:
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
        finally:
            context.destroy(linger=0)
