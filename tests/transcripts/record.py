"""Records what real kernels say: `python tests/transcripts/record.py` writes the *.ndjson beside it.

A line is a message (`direction`: "sent" by us or "received") or `{"gone": reason}`, the end of the process.
What differs between machines and runs (ids, dates, paths, addresses) is replaced.
"""

from __future__ import annotations

import asyncio
import base64
import getpass
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

from cellrun.channels.base import Gone
from cellrun.channels.zmq import ZmqChannel
from cellrun.launch.process import KernelProcess
from cellrun.protocol.message import ChannelName, Message, execute_content, request

HERE: Final = Path(__file__).parent
DATE: Final = "2026-01-01T00:00:00.000000Z"
LARGEST: Final = 60 * 1024

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


@dataclass(frozen=True)
class Cell:
    """`answer`: the line of input it gets. `interrupt_at`, `until`: this text in a stream is waited for."""

    name: str
    code: str
    answer: str | None = None
    interrupt_at: str | None = None
    until: str | None = None
    dies: bool = False


PYTHON: Final = (
    Cell("print", "print('hello')\nprint('world')"),
    Cell(
        "interleaved",
        "import sys\nfor i in range(3):\n    print('out', i, flush=True)\n    print('err', i, file=sys.stderr, flush=True)",
    ),
    Cell("result", "{'answer': 6 * 7}"),
    Cell(
        "display",
        "from IPython.display import display\n"
        "print('before')\n"
        "display({'text/plain': 'a picture', 'text/html': '<b>a picture</b>', 'application/json': {'a': [1, None]},\n"
        f"         'image/png': '{PNG}'}}, metadata={{'image/png': {{'width': 1}}}}, raw=True)\n"
        "print('after')",
    ),
    Cell(
        "display_update",
        "from IPython.display import display\n"
        "handle = display('first', display_id='progress')\nprint('between')\nhandle.update('second')",
    ),
    Cell("display_update_later", "handle.update('third')"),
    Cell(
        "clear_output",
        "from IPython.display import clear_output\n"
        "print('one')\nclear_output(wait=True)\nprint('two')\nclear_output()\nprint('three')\nclear_output(wait=True)",
    ),
    Cell("error", "print('before')\n1 / 0"),
    Cell("page", "len?"),
    Cell("input", "name = input('who? ')\nprint('hello', name)", answer="Ada"),
    Cell(
        "comm",
        "import comm\n"
        "c = comm.create_comm(target_name='example', comm_id='one', data={'state': 1}, buffers=[b'\\x00\\xff'])\n"
        "c.send({'n': 2}, buffers=[b'', bytes(range(256))])\nc.close()",
    ),
    Cell(
        "thread",
        "import threading, time\n"
        "def speak():\n    time.sleep(0.5)\n    print('from the thread', flush=True)\n"
        "threading.Thread(target=speak).start()\nprint('from the cell')",
        until="from the thread",
    ),
    Cell(
        "shown_traceback",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()\nprint('went on')",
    ),
    Cell("interrupt", "import time\nprint('working', flush=True)\ntime.sleep(60)", interrupt_at="working"),
    Cell("death", "import os, time\nprint('last words', flush=True)\ntime.sleep(0.5)\nos._exit(3)", dies=True),
)
BASH: Final = (
    Cell("echo", "echo hello; echo world"),
    Cell("failure", "echo before; false"),
)


class Recorder:
    """One kernel and the lines recorded since the last `take`."""

    def __init__(self, process: KernelProcess, channel: ZmqChannel) -> None:
        self._process = process
        self._channel = channel
        self._lines: list[dict[str, Any]] = []
        self._heard: list[Message] = []
        self._number = 0

    async def send(self, channel: ChannelName, msg_type: str, content: dict[str, Any], parent: str = "") -> str:
        self._number += 1
        message = request(channel, msg_type, content, msg_id=f"request-{self._number}", session="client", date=DATE)
        if parent:
            message.parent_header = {"msg_id": parent, "session": "client"}
        self._note("sent", message)
        await self._channel.send(message)
        return message.msg_id

    async def until(self, enough: Callable[[list[Message]], bool]) -> None:
        """Reads on until what has come since the last `take` is enough."""
        async with asyncio.timeout(60):
            while not enough(self._heard):
                for item in await self._channel.receive():
                    if isinstance(item, Message):
                        self._heard.append(item)
                        self._note("received", item)
                    elif isinstance(item, Gone):
                        self._lines.append({"gone": item.reason})
                        return

    async def run(self, cell: Cell) -> None:
        parent = await self.send("shell", "execute_request", execute_content(cell.code, allow_stdin=True))
        if cell.answer is not None:
            await self.until(lambda heard: _has(heard, "input_request", parent))
            await self.send("stdin", "input_reply", {"status": "ok", "value": cell.answer}, parent)
        if (mark := cell.interrupt_at) is not None:
            await self.until(lambda heard: _said(heard, mark))
            await asyncio.sleep(0.5)  # out of print(), so that no path of a library is in the traceback
            await self._process.interrupt()
        await self.until(lambda heard: not cell.dies and _answered(heard, parent))
        if (late := cell.until) is not None:
            await self.until(lambda heard: _said(heard, late))

    async def start(self) -> None:
        """Two probes: what IOPub said of the first may have been missed, its subscription is younger."""
        first = await self.send("shell", "kernel_info_request", {})
        await self.until(lambda heard: _has(heard, "kernel_info_reply", first))
        second = await self.send("shell", "kernel_info_request", {})
        await self.until(lambda heard: _answered(heard, second))

    def take(self) -> str:
        lines, self._lines, self._heard = self._lines, [], []
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        return _anonymous(text)

    def _note(self, direction: str, message: Message) -> None:
        line = {
            "direction": direction,
            "channel": message.channel,
            "header": dict(message.header),
            "parent_header": dict(message.parent_header),
            "metadata": dict(message.metadata),
            "content": dict(message.content),
            "buffers": [base64.b64encode(buffer).decode("ascii") for buffer in message.buffers],
        }
        self._lines.append(line)


def _has(heard: list[Message], msg_type: str, parent: str) -> bool:
    return any(message.msg_type == msg_type and message.parent_id == parent for message in heard)


def _answered(heard: list[Message], parent: str) -> bool:
    own = [message for message in heard if message.parent_id == parent]
    return any(m.channel == "shell" for m in own) and any(m.content.get("execution_state") == "idle" for m in own)


def _said(heard: list[Message], text: str) -> bool:
    return any(text in str(message.content.get("text")) for message in heard if message.msg_type == "stream")


def _anonymous(text: str) -> str:
    for session, pid in sorted(set(re.findall(r'"msg_id": "([0-9a-f-]{30,})_(\d+)_\d+"', text))):
        text = text.replace(f"{session}_{pid}_", "kernel_1_").replace(session, "kernel")
    text = re.sub(r'"(date|started)": "[^"]*"', rf'"\1": "{DATE}"', text)
    text = re.sub(r'"username": "[^"]*"', '"username": "someone"', text)
    text = re.sub(r'"engine": "[^"]*"', '"engine": "kernel"', text)
    text = re.sub(r'"engine_uuid": "[^"]*"', '"engine_uuid": "kernel"', text)
    text = re.sub(r'"banner": "(?:[^"\\]|\\.)*"', '"banner": ""', text)
    text = re.sub(r"0x[0-9a-f]{6,}", "0x1", text)
    text = re.sub(r"/[^\s\"]*/ipykernel_\d+/\d+\.py", "/tmp/ipykernel_1/1.py", text)
    for secret in {sys.prefix, sys.base_prefix, os.getcwd(), str(Path.home()), platform.node(), tempfile.gettempdir()}:
        if len(secret) > 3 and re.search(rf"{re.escape(secret)}(?!/ipykernel_1/)", text):
            raise SystemExit(f"something of this machine is in the transcript: {secret}")
    if getpass.getuser() in re.findall(r"\w+", text):
        raise SystemExit("the user's name is in the transcript")
    return text


def _write(name: str, text: str) -> None:
    if len(text) > LARGEST:
        raise SystemExit(f"{name} is larger than {LARGEST} bytes")
    (HERE / f"{name}.ndjson").write_text(text, encoding="utf-8")


async def _record(kernel: str, prefix: str, cells: tuple[Cell, ...], context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        process = await KernelProcess.start(kernel, cwd=Path(folder), context=context)
        channel = ZmqChannel(process.connection, context)
        process.on_exit = channel.gone
        recorder = Recorder(process, channel)
        try:
            await recorder.start()
            _write(f"{prefix}_startup", recorder.take())
            for cell in cells:
                await recorder.run(cell)
                _write(f"{prefix}_{cell.name}", recorder.take())
        finally:
            await process.end()
            await channel.aclose()


async def main() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory() as data:
        spec = Path(data, "kernels", "bash")
        spec.mkdir(parents=True)
        argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Bash", "language": "bash"}))
        os.environ["JUPYTER_PATH"] = data
        await _record("python3", "python", PYTHON, context)
        await _record("bash", "bash", BASH, context)
    context.destroy(linger=0)


if __name__ == "__main__":
    asyncio.run(main())
