"""A program that has sessions and does with them what it is told: one JSON object a line in, one out.

It runs as the uid that a test wants, so that one test process can see containment as root and as an ordinary user.

    {"do": "open", "name", "sandbox": "none" | {policy}…}   → {"pid", "work", "room", "sockets", "containment", "forkserver"}
    {"do": "run", "name", "code", "timeout"}                → the result's dict, with "reason" and "restarted"
    {"do": "time", "name", "code", "times"}                 → {"seconds": [...]}
    {"do": "read" | "list" | "write", "name", "path"…}      → {"data": text} | {"names"} | {} | {"error": name, "text"}
    {"do": "close", "name"}                                 → {}
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from cellrun import AsyncSession, CellrunError, Limits, LocalKernels, SandboxPolicy
from cellrun.launch.forked import ForkedKernel
from cellrun.providers.local_lease import LocalLease
from tests.support.leases import lease_of
from tests.support.waiting import HANG, PROCESS


class Host:
    """Providers by policy, sessions by name."""

    def __init__(self) -> None:
        self._providers: dict[str, LocalKernels] = {}
        self._sessions: dict[str, AsyncSession] = {}

    async def do(self, order: dict[str, Any]) -> dict[str, Any]:
        try:
            handler = getattr(self, f"_{order.pop('do')}")
            answer: dict[str, Any] = await handler(**order)
        except (CellrunError, OSError, ValueError) as error:
            return {"error": type(error).__name__, "text": str(error)}
        return answer

    async def _open(
        self,
        name: str,
        sandbox: str | dict[str, Any],
        kernel: str = "python3",
        cwd: str | None = None,
        limits: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        key = json.dumps([sandbox, kernel, cwd], sort_keys=True)
        if key not in self._providers:
            policy = sandbox if isinstance(sandbox, str) else SandboxPolicy(**sandbox)
            self._providers[key] = LocalKernels(sandbox=policy, kernel=kernel, cwd=cwd, pool=0, preload=())  # type: ignore[arg-type]
        provider = await self._providers[key].__aenter__()
        bounds = Limits(**{"timeout": 60, "grace": 1.0, **(limits or {})})
        session = self._sessions[name] = await AsyncSession(provider, limits=bounds).start()
        lease = lease_of(session)
        assert isinstance(lease, LocalLease)
        process = lease._process
        return {
            "pid": lease.pid,
            "host": os.getpid(),
            "work": str(lease.folder),
            "room": lease._enclosure.room.folder if lease._enclosure is not None else str(lease.folder),
            "connection": process.connection if process is not None else {},
            "containment": session.containment,
            "forkserver": process._child.parent.pid if isinstance(process, ForkedKernel) and process._child else 0,
        }

    async def _run(self, name: str, code: str, timeout: float | None = 30) -> dict[str, Any]:
        result = await self._sessions[name].run(code, timeout=timeout)
        return {**result.to_dict(), "reason": result.reason, "restarted": result.restarted}

    async def _time(self, name: str, code: str, times: int) -> dict[str, Any]:
        taken = []
        for _ in range(times):
            started = time.monotonic()
            await self._sessions[name].run(code, timeout=PROCESS)
            taken.append(time.monotonic() - started)
        return {"seconds": taken}

    async def _read(self, name: str, path: str) -> dict[str, Any]:
        data = await asyncio.wait_for(self._sessions[name].files.read(path), HANG)
        return {"data": data[:1000].decode("latin-1"), "size": len(data)}

    async def _write(self, name: str, path: str, text: str) -> dict[str, Any]:
        await self._sessions[name].files.write(path, text)
        return {}

    async def _list(self, name: str, path: str = "") -> dict[str, Any]:
        return {"names": [info.path for info in await self._sessions[name].files.list(path)]}

    async def _close(self, name: str) -> dict[str, Any]:
        if name in self._sessions:  # closing twice is fine
            await self._sessions.pop(name).aclose()
        return {}

    async def aclose(self) -> None:
        for session in self._sessions.values():
            await session.aclose()
        for provider in self._providers.values():
            await provider.aclose()


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    host = Host()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(number: int, order: dict[str, Any]) -> None:
        said = await host.do(order)
        print(json.dumps({"number": number, "answer": said}), flush=True)

    while line := await reader.readline():
        asked = json.loads(line)
        task = asyncio.create_task(answer(asked["number"], asked["order"]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await host.aclose()


if __name__ == "__main__":
    asyncio.run(main())
