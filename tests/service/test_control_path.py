"""The way to health, lists, files and the interrupt is apart from the users' code: it is open while cells burn all processors. How quick
it is then is what `make bench` measures (service-control)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.service.running import Service, answer, begin, none_left, run, until, watch

SESSIONS = 6
# Five that never pause for each session: three processes and two threads.
BURN = """
import subprocess, sys, threading
others = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(3)]
def burn():
    while True: pass
threading.Thread(target=burn, daemon=True).start()
print('burns', flush=True)
burn()
"""


@pytest.mark.wide
async def test_all_but_code_is_answered_while_cells_burn_all_processors_and_each_can_be_interrupted(
    service: Service, http: aiohttp.ClientSession
) -> None:
    sessions = [f"burns-{number}" for number in range(SESSIONS)]
    await asyncio.gather(*(run(http, session, "1") for session in sessions))
    runs = [await begin(http, session, BURN) for session in sessions]
    for id in runs:
        await watch(http, id, upto=2)
    burning = _burners(service.family())
    assert len(burning) == 3 * SESSIONS
    for number in range(20):
        session = sessions[number % SESSIONS]
        file = f"/v1/sessions/{session}/files/of-now"
        assert (await answer(http, "GET", "/healthz"))["status"] == "ok"
        listed = await answer(http, "GET", "/v1/sessions")
        assert {told["state"] for told in listed["sessions"] if told["id"] in sessions} == {"running"}
        content = f"round {number}".encode()
        async with http.put(file, data=content) as response:
            assert response.status < 300
        async with http.get(file) as response:
            assert (response.status, await response.read()) == (200, content)
        files = await answer(http, "GET", f"/v1/sessions/{session}/files")
        assert "of-now" in {told["path"] for told in files["files"]}
    for id in runs:
        await answer(http, "POST", f"/v1/runs/{id}/interrupt", status=202)
    for id in runs:
        assert (await until(http, id, "interrupted"))["status"] == "interrupted"
    # What the code started burns on, until its session ends.
    for session in sessions:
        await answer(http, "DELETE", f"/v1/sessions/{session}", status=204)
    await none_left(burning)


def _burners(pids: set[int]) -> set[int]:
    """Those of them that the cells have started."""
    return {pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"-c\0while True: pass\0")}
