"""The service as its operator runs it: a process, its address, its signals, its log; and how a client reads it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from cellrun.service.database import Database
from cellrun.service.identity import new_key
from cellrun.service.store import FILE
from tests.support.waiting import HANG, PROCESS, eventually, process_exists

JSON = dict[str, Any]
TIME_LIMITS: Final = (0.5, 8.0, 30.0)
"""Of a cell that is to come to something before it is over: longer ones for a machine that has stood still for as long as the first."""


@dataclass
class Service:
    """`python -m cellrun serve`, on a port that is free, with a folder of its own. `folder` need not exist."""

    folder: Path
    flags: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    url: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "cellrun", *args, "--data", str(self.data)]

    @property
    def env(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        own = {"HOME": str(home), "CELLRUN_CONFIG": str(home / "none.toml"), "NO_COLOR": "1"}
        own |= {name: str(home / name) for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        usual = {
            "CELLRUN_QUOTA_REQUESTS": "100000",
            "CELLRUN_PRELOAD": "none",
        }  # which few tests need, and all would wait for
        return {**os.environ, **usual, **own, **self.variables}

    def start(self) -> Service:
        """Until it has said where it is."""
        command = self.command("serve", "--port", "0", *self.flags)
        env = self.env
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env, cwd=self.folder)
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PROCESS)
        self.url = self.process.stdout.readline().decode("ascii").strip() if ready else ""
        if not self.url.startswith("http://"):
            self.kill()
            raise AssertionError(f"the service did not come up:\n{self.log_text()[-3000:]}")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def end(self) -> None:
        """As `systemctl stop` does; and it must end well."""
        self.terminate()
        assert self.wait(PROCESS) == 0, self.log_text()[-3000:]

    def kill(self) -> None:
        """As an out-of-memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.wait(HANG)

    def end_if_alive(self) -> None:
        """Of a test that has failed."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def wait(self, seconds: float) -> int:
        assert self.process is not None
        code = self.process.wait(seconds)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def family(self) -> set[int]:
        """All processes that descend from it: forkserver, kernels, what kernels started."""
        found = {self.pid}
        while more := {pid for pid, parent in _parents().items() if parent in found} - found:
            found |= more
        return found - {self.pid}

    def log_text(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def log_lines(self) -> list[JSON]:
        return [json.loads(line) for line in self.log_text().splitlines() if line.startswith("{")]

    def keys(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The command `cellrun keys`."""
        command = [sys.executable, "-m", "cellrun", "keys", *args, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PROCESS, env=self.env, check=False)

    def add_key(self, tenant: str) -> str:
        """What the command does, without the second that a command takes."""
        key, row = new_key(tenant, f"of {tenant}")
        self.data.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(Database(self.data / FILE)) as database, database.transaction():
            database.add_key(row)
        return key


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        # A process may have ended since.
        with contextlib.suppress(OSError):
            if name.isdigit():
                stat = Path("/proc", name, "stat").read_bytes()
                found[int(name)] = int(stat.rpartition(b")")[2].split()[1])
    return found


@asynccontextmanager
async def client(service: Service, key: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the service; connections are not kept, so that none is closed under a request."""
    async with aiohttp.ClientSession(
        service.url,
        headers={} if key is None else {"Authorization": f"Bearer {key}"},
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=PROCESS),
        read_bufsize=2**22,
    ) as http:
        yield http


async def answer(http: aiohttp.ClientSession, method: str, path: str, *, status: int = 200, **request: Any) -> Any:
    """The JSON of an answer that has this status."""
    async with http.request(method, path, **request) as response:
        text = await response.text()
        assert response.status == status, (method, path, response.status, text[:1000])
        return json.loads(text) if text else None


async def problem(
    http: aiohttp.ClientSession, method: str, path: str, code: str, status: int, **request: Any
) -> tuple[JSON, dict[str, str]]:
    """The problem that an answer is, and its headers in lower case; it must have this code and this status."""
    async with http.request(method, path, **request) as response:
        told = await response.text()
        assert response.status == status, (method, path, response.status, told[:1000])
        assert response.content_type == "application/problem+json"
        body: JSON = json.loads(told)
        assert (body["code"], body["status"]) == (code, status), body
        assert body["type"] == f"urn:cellrun:problem:{code}"
        assert isinstance(body["title"], str)
        assert isinstance(body["detail"], str)
        assert isinstance(body["retryable"], bool)
        return body, {name.lower(): value for name, value in response.headers.items()}


async def run(http: aiohttp.ClientSession, session: str, code: str, **body: Any) -> JSON:
    """A Result."""
    found: JSON = await answer(http, "POST", f"/v1/sessions/{session}/runs", json={"code": code, **body})
    return found


async def begin(http: aiohttp.ClientSession, session: str, code: str, **body: Any) -> str:
    """A run that goes on without us; gives its id."""
    path = f"/v1/sessions/{session}/runs"
    state = await answer(http, "POST", path, status=202, json={"code": code, "wait": False, **body})
    return str(state["execution_id"])


async def until(http: aiohttp.ClientSession, run: str, *statuses: str, seconds: float = HANG) -> JSON:
    """The run's state or result, as soon as it has one of these statuses."""
    async with asyncio.timeout(seconds):
        while True:
            found: JSON = await answer(http, "GET", f"/v1/runs/{run}")
            if found["status"] in statuses:
                return found
            await asyncio.sleep(0.02)


async def lines(response: aiohttp.ClientResponse) -> AsyncIterator[JSON]:
    """The events of an answer in lines of JSON."""
    assert response.status == 200, await response.text()
    assert response.content_type == "application/x-ndjson"
    async for line in response.content:
        if line.strip():
            yield json.loads(line)


_SSE = re.compile(rb"(?:id: (\d+)\nevent: ([a-z_]+)\ndata: ([^\n]*)|: [^\n]*)\n\n")


async def server_sent(response: aiohttp.ClientResponse) -> AsyncIterator[JSON]:
    """The events of an answer in server-sent events; id and type must be those of the data."""
    assert response.status == 200, await response.text()
    assert response.content_type == "text/event-stream"
    rest = b""
    async for piece in response.content.iter_any():
        rest += piece
        while match := _SSE.match(rest):
            rest = rest[match.end() :]
            if match[1] is not None:
                event: JSON = json.loads(match[3])
                assert (event["seq"], event["type"]) == (int(match[1]), match[2].decode("ascii"))
                yield event
    assert rest == b""


NDJSON = {"Accept": "application/x-ndjson"}
SSE = {"Accept": "text/event-stream"}


async def watch(
    http: aiohttp.ClientSession, run: str, *, after: int | None = None, upto: int | None = None
) -> list[JSON]:
    """A run's events, by server-sent events: to the end, or until `upto` were seen; then the watcher goes away."""
    found: list[JSON] = []
    parameters = {} if after is None else {"after": str(after)}
    async with http.get(f"/v1/runs/{run}/events", headers=SSE, params=parameters) as response:
        async for event in server_sent(response):
            found.append(event)
            if upto is not None and len(found) >= upto:
                break
    return found


def is_whole(events: list[JSON], *, after: int = 0) -> bool:
    """Numbers without a hole, up to `finished` and only there."""
    numbers = [event["seq"] for event in events]
    ends = [event["type"] == "finished" for event in events]
    return numbers == list(range(after + 1, after + 1 + len(events))) and ends == [False] * (len(ends) - 1) + [True]


def printed(events: list[JSON]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "stdout")


async def none_left(pids: set[int]) -> None:
    await eventually(lambda: not any(process_exists(pid) for pid in pids))
