"""The service under many clients that come, go, stall and stop: nothing lost, nothing doubled, nothing left."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.service.running import (
    JSON,
    SSE,
    Service,
    answer,
    begin,
    client,
    is_whole,
    none_left,
    printed,
    server_sent,
    watch,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

SESSIONS = 100
AT_ONCE = 32
SECONDS = float(os.environ.get("CELLRUN_SOAK_SERVICE_SECONDS", "60"))
# What IPython prints besides, where an interrupt strikes in the middle of a frame that it cannot show.
STRUCK = "Unexpected exception formatting exception. Falling back to standard exception\n"
CODE = "import time\nfor i in range({count}):\n    print({mark!r}, i)\n    if i % 50 == 0: time.sleep(0.01)"


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def reconnecting(http: aiohttp.ClientSession, run: str, chance: random.Random) -> list[JSON]:
    """All events, by watchers that go away and come back with their last number."""
    events: list[JSON] = []
    while not events or events[-1]["type"] != "finished":
        last = events[-1]["seq"] if events else None
        events += await watch(http, run, after=last, upto=chance.randint(1, 6))
    return events


async def stalling(http: aiohttp.ClientSession, run: str, chance: random.Random) -> list[JSON]:
    events = []
    async with http.get(f"/v1/runs/{run}/events", headers=SSE) as response:
        async for event in server_sent(response):
            events.append(event)
            if chance.random() < 0.1:
                await asyncio.sleep(0.2)  # what a reader that stalls does
    return events


async def test_many_clients_lose_nothing_and_leave_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """100 sessions, 32 runs at once; each is watched to its end by somebody, whatever its starter did."""
    chance = random.Random(100)
    variables = {"CELLRUN_QUOTA_RUNS": "1000", "CELLRUN_QUOTA_SESSIONS": "1000"}
    service = Service(tmp_path / "service", variables=variables)
    (tmp_path / "service").mkdir()
    service.start()
    request.addfinalizer(service.end_if_alive)
    counted: Counter[str] = Counter()
    deadline = time.monotonic() + SECONDS

    async def one(http: aiohttp.ClientSession, number: int) -> None:
        mark, count = f"run-{number}", chance.choice([1, 20, 500, 3_000])
        code = CODE.format(count=count, mark=mark)
        session = f"s-{number % SESSIONS}"
        whole = "".join(f"{mark} {i}\n" for i in range(count))
        kind = chance.choice(["read", "leave", "reconnect", "stall", "interrupt"])
        counted[kind] += 1
        if kind == "read":
            async with http.post(f"/v1/sessions/{session}/runs", json={"code": code}, headers=SSE) as response:
                events = [event async for event in server_sent(response)]
        elif kind == "leave":
            async with http.post(f"/v1/sessions/{session}/runs", json={"code": code}, headers=SSE) as response:
                run = response.headers["Location"].rpartition("/")[2]
            events = await watch(http, run)
        else:
            run = await begin(http, session, code)
            if kind == "interrupt":
                async with http.post(f"/v1/runs/{run}/interrupt") as response:
                    assert response.status in (202, 409)
            look: Any = {"reconnect": reconnecting, "stall": stalling}.get(kind)
            events = await (look(http, run, chance) if look else watch(http, run))
        assert is_whole(events), (kind, [event["seq"] for event in events])
        if kind == "interrupt" and events[-1]["status"] == "interrupted":
            assert whole.startswith(printed(events).removesuffix(STRUCK))
        else:
            assert events[-1]["status"] == "ok", events[-1]
            assert printed(events) == whole

    async with client(service) as http:
        number = 0
        base = 0
        peak = 0
        while time.monotonic() < deadline or number < SESSIONS:
            await asyncio.gather(*(one(http, number + offset) for offset in range(AT_ONCE)))
            number += AT_ONCE
            if number >= SESSIONS * 2 and not base:
                base = resident(service.pid)
            peak = resident(service.pid)
        assert len((await answer(http, "GET", "/v1/sessions"))["sessions"]) == SESSIONS
        assert base == 0 or peak - base < 96 * 2**20, f"{(peak - base) / 2**20:.0f} MiB"
    family = service.family()
    assert len(family) > SESSIONS
    service.end()
    await none_left(family)
    assert '"level": "error"' not in service.log_text()
    print(f"{number} runs in the service: {dict(counted)}")
