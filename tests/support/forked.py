"""Forked kernels with a client, and kernelspecs of our kernel, for the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import zmq

from cellrun import Event, Finished, KernelStartError, Result, fold
from cellrun.channels.client import KernelClient
from cellrun.channels.zmq import ZmqChannel
from cellrun.cli import kernelspec
from cellrun.errors import CellrunError
from cellrun.launch.descendants import children
from cellrun.launch.forked import ForkedKernel
from cellrun.launch.forkserver import ForkServer
from cellrun.launch.process import KernelProcess
from cellrun.protocol.execution import Execution
from tests.support.waiting import HANG, PROCESS

FORKED = "cellrun"
STARTED = "cellrun-started"


@dataclass
class Running:
    """A cell that was sent: its events so far, and its end."""

    events: list[Event] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def sink(self, events: list[Event]) -> Awaitable[None] | None:
        self.events += events
        self.changed.set()
        if isinstance(events[-1], Finished):
            self.ended.set()
        return None

    @property
    def stdout(self) -> str:
        return "".join(str(getattr(event, "text", "")) for event in self.events if type(event).__name__ == "Stdout")

    async def shows(self, text: str, seconds: float = HANG) -> None:
        """Until the text stands in what the cell has printed. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while text not in self.stdout:
                self.changed.clear()
                await self.changed.wait()

    async def result(self, seconds: float = HANG) -> Result:
        async with asyncio.timeout(seconds):
            await self.ended.wait()
        return fold(self.events)


@dataclass
class OpenKernel:
    """A kernel, mostly a forked one, and a client that is connected to it."""

    kernel: ForkedKernel | KernelProcess
    client: KernelClient

    @property
    def pid(self) -> int:
        return self.kernel.pid

    @property
    def folder(self) -> Path:
        """Of its sockets."""
        assert isinstance(self.kernel, ForkedKernel)
        return self.kernel._endpoints.folder

    async def start_cell(self, code: str, *, silent: bool = False, running: Running | None = None) -> Running:
        running = Running() if running is None else running
        execution = Execution(self.client.new_id())
        await self.client.execute(
            execution, code, running.sink, silent=silent, store_history=not silent, allow_stdin=False
        )
        return running

    async def run(self, code: str, seconds: float = HANG) -> Result:
        return await (await self.start_cell(code)).result(seconds)

    async def value(self, code: str, seconds: float = HANG) -> Any:
        """What the cell prints last, as JSON. AssertionError with the traceback if it fails."""
        result = await self.run(f"import json as _json\n{code}", seconds)
        assert result.ok, result
        return json.loads(result.stdout.splitlines()[-1])

    async def ended(self, seconds: float = HANG) -> str:
        """How the process ended. AssertionError if it does not in this time."""
        assert await self.kernel.exited(seconds), f"the kernel {self.pid} has not ended"
        assert self.kernel.exit_reason is not None
        return self.kernel.exit_reason

    async def ask_to_end(self) -> None:
        with contextlib.suppress(CellrunError):
            await self.client.ask("shutdown_request", {"restart": False}, channel="control", timeout=HANG)

    async def close(self) -> None:
        """Ends the kernel."""
        await self.kernel.end()
        await self.client.aclose()


class Opener:
    """Opens kernels of one forkserver; closes what is left open."""

    def __init__(self, server: ForkServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.open: list[OpenKernel] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.max_sockets = 16_384

    async def __call__(
        self, *, env: Mapping[str, str] | None = None, transport: Literal["ipc", "tcp"] = "ipc", seconds: float = HANG
    ) -> OpenKernel:
        """A ready kernel. Raises KernelStartError."""
        kernel = await ForkedKernel.start(self.server, cwd=self.folder, env=env, transport=transport)
        return await self._connect(kernel, seconds)

    async def started(self, kernelspec_name: str) -> OpenKernel:
        """A kernel of this kernelspec in an interpreter of its own."""
        process = await KernelProcess.start(kernelspec_name, cwd=self.folder, context=self._context)
        return await self._connect(process, PROCESS)

    async def _connect(self, kernel: ForkedKernel | KernelProcess, seconds: float) -> OpenKernel:
        channel = ZmqChannel(kernel.connection, self._context)
        opened = OpenKernel(kernel, KernelClient(channel))
        kernel.on_exit = channel.gone
        try:
            if kernel.exit_reason is not None:
                channel.gone(kernel.exit_reason)
            await opened.client.wait_ready(seconds)
        except KernelStartError as error:
            said = kernel.stderr
            await opened.close()
            raise KernelStartError(f"{error} {said}") from None
        except BaseException:
            await opened.close()
            raise
        self.open.append(opened)
        return opened

    async def aclose(self) -> None:
        await asyncio.gather(*(kernel.close() for kernel in self.open))
        self._context.term()


@asynccontextmanager
async def forking(folder: Path, server: ForkServer | None = None) -> AsyncIterator[Opener]:
    """Kernels of this forkserver, or of a small one; all is gone when the block ends."""
    server = ForkServer(preload=[]) if server is None else server
    opener = Opener(server, folder)
    try:
        yield opener
    finally:
        await opener.aclose()
        await server.aclose()


# -- kernelspecs -------------------------------------------------------------------------------------


def write_kernelspec(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    spec = folder / "kernels" / name
    spec.mkdir(parents=True)
    spec.joinpath("kernel.json").write_text(json.dumps(content), "utf-8")


@contextmanager
def kernelspecs(folder: Path) -> Iterator[Path]:
    """Our kernel for Jupyter programs: `FORKED`, as `cellrun kernelspec install` writes it, and `STARTED`, the command alone.
    Gives the folder that JUPYTER_PATH names."""
    kernelspec.install(FORKED, "Python (cellrun)", ["auto"], user=False, prefix=str(folder))
    path = folder / "share" / "jupyter"
    started = kernelspec.content("Python (started)", ["auto"])
    del started["metadata"]
    write_kernelspec(path, STARTED, started)
    with pytest.MonkeyPatch.context() as patch:
        before = os.environ.get("JUPYTER_PATH")
        patch.setenv("JUPYTER_PATH", f"{path}{os.pathsep}{before}" if before else str(path))
        yield path


# -- processes ---------------------------------------------------------------------------------------


def links(pid: int) -> dict[int, str]:
    """What the descriptors of a process lead to (proc(5))."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def thread_names(pid: int) -> list[str]:
    return [
        Path(f"/proc/{pid}/task/{task}/comm").read_text().strip()
        for task in sorted(os.listdir(f"/proc/{pid}/task"), key=int)
    ]


def stat_fields(pid: int) -> list[str]:
    """Those after the name (proc(5), stat): the state is the first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def living(accept: Callable[[int], bool]) -> set[int]:
    """The processes that are there, zombies left out, and that this accepts."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if stat_fields(int(name))[0] not in "ZX" and accept(int(name)):
                    found.add(int(name))
    return found


TAG = "CELLRUN_TEST_TAG"


def tagged(tag: str) -> set[int]:
    """The processes whose environment held this at their start: of a forkserver that got it, all its kernels too."""
    wanted = f"{TAG}={tag}".encode()
    return living(lambda pid: wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def zombies_of(pid: int) -> set[int]:
    """Children that have ended and were not waited for."""
    found = set()
    for child in children(pid):
        with contextlib.suppress(OSError):
            if stat_fields(child)[0] == "Z":
                found.add(child)
    return found
