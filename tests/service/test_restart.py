"""The service dies or is told to end, and comes back: what a client had seen, and had not, is still true."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.service.running import (
    NDJSON,
    SSE,
    Service,
    answer,
    begin,
    client,
    is_whole,
    lines,
    none_left,
    printed,
    problem,
    run,
    server_sent,
    until,
    watch,
)
from tests.support.waiting import HANG, PROCESS, eventually, process_exists

ENDLESS = "i = 0\nwhile True: print(i, flush=True); i += 1"


async def _follow(http: aiohttp.ClientSession, run: str, seen: list[dict[str, Any]]) -> None:
    """Until the connection breaks."""
    with pytest.raises(aiohttp.ClientError):
        async with http.get(f"/v1/runs/{run}/events", headers=SSE) as response:
            async for event in server_sent(response):
                seen.append(event)  # noqa: PERF401 - what came before the break counts


async def test_after_a_kill_each_watcher_that_comes_back_gets_the_rest_once_and_then_the_end(
    own_service: Service,
) -> None:
    service = own_service.start()
    sessions = ("a", "b", "c")
    async with client(service) as http:
        earlier = await run(http, "a", "x = 1; print('before')")
        runs = {session: await begin(http, session, ENDLESS) for session in sessions}
        waits = await begin(http, "a", "print('never')")
        seen: dict[str, list[dict[str, Any]]] = {session: [] for session in sessions}
        watching = [asyncio.create_task(_follow(http, runs[session], seen[session])) for session in sessions]
        await eventually(lambda: all(len(events) > 20 for events in seen.values()))
        family = service.family()
        assert len(family) > 3
        service.kill()
        await asyncio.gather(*watching)
    await none_left(family)

    service.start()
    async with client(service) as http:
        for session in sessions:
            last = seen[session][-1]["seq"]
            whole = seen[session] + await watch(http, runs[session], after=last)
            assert is_whole(whole)
            numbers = [int(line) for line in printed(whole).split("\n")[:-1]]
            assert numbers == list(range(len(numbers)))
            end = whole[-1]
            assert (end["status"], end["execution_id"]) == ("kernel_died", runs[session])
            assert "the service ended while this ran" in end["reason"]
            assert await watch(http, runs[session]) == whole
            result = await answer(http, "GET", f"/v1/runs/{runs[session]}")
            assert (result["status"], result["stdout"]) == ("kernel_died", printed(whole))
        assert (await answer(http, "GET", f"/v1/runs/{waits}"))["status"] == "kernel_died"
        assert await answer(http, "GET", f"/v1/runs/{earlier['execution_id']}") == earlier

        async with http.post("/v1/sessions/a/runs", json={"code": "'x' in globals()"}, headers=NDJSON) as response:
            first, *_, text, _ = [event async for event in lines(response)]
        assert (first["type"], first["seq"]) == ("kernel_restarted", 1)
        assert "started anew" in first["reason"]
        assert text["data"]["text/plain"] == "False"
        assert (await run(http, "a", "1"))["restarted"] is None
        assert (await run(http, "of-its-own", "1"))["restarted"] is None


async def test_told_to_end_it_lets_a_cell_come_to_its_end_and_takes_no_new_ones(own_service: Service) -> None:
    service = own_service.start()
    async with client(service) as http:
        id = await begin(http, "s", "print('on', flush=True); input(); print('through')")
        async with http.get(f"/v1/runs/{id}/events", headers=SSE) as response:
            events = server_sent(response)
            seen = [await anext(events), await anext(events)]
            await until(http, id, "waiting_for_input")
            family = service.family()
            service.terminate()
            await eventually(lambda: "takes no new runs" in service.log_text())
            told, headers = await problem(http, "POST", "/v1/run", "draining", 503, json={"code": "1"})
            assert told["retryable"]
            assert int(headers["retry-after"]) >= 1
            await problem(http, "GET", "/readyz", "draining", 503)
            assert (await answer(http, "GET", "/healthz"))["status"] == "draining"
            await answer(http, "POST", f"/v1/runs/{id}/input", status=202, json={"line": ""})
            seen += [event async for event in events]
    assert is_whole(seen)
    assert printed(seen) == "on\nthrough\n"
    assert seen[-1]["status"] == "ok"
    await eventually(lambda: not process_exists(service.pid), PROCESS)
    assert service.wait(HANG) == 0
    await none_left(family)


@pytest.mark.wide
async def test_a_cell_that_takes_too_long_is_interrupted_and_the_next_service_knows_all_ends(
    own_service: Service,
) -> None:
    own_service.variables["CELLRUN_DRAIN_TIMEOUT"] = "0.3"
    service = own_service.start()
    request: Any = {"json": {"code": "import uuid; str(uuid.uuid4())"}, "headers": {"Idempotency-Key": "k"}}
    async with client(service) as http:
        deleted = await run(http, "deleted", "print('still read')")
        await answer(http, "DELETE", "/v1/sessions/deleted", status=204)
        once = await answer(http, "POST", "/v1/sessions/s/runs", **request)
        long = await begin(http, "s", "import time; print('on', flush=True); time.sleep(60)")
        await watch(http, long, upto=2)
        service.end()
    service.start()
    async with client(service) as http:
        result = await answer(http, "GET", f"/v1/runs/{long}")
        assert (result["status"], result["stdout"], result["reason"]) == ("interrupted", "on\n", "the service ended")
        assert is_whole(await watch(http, long))
        sessions = (await answer(http, "GET", "/v1/sessions"))["sessions"]
        assert [(found["id"], found["state"]) for found in sessions] == [("s", "new")]
        assert await answer(http, "GET", f"/v1/runs/{deleted['execution_id']}") == deleted
        # What has its key is not run again.
        assert await answer(http, "POST", "/v1/sessions/s/runs", **request) == once
        other = {**request, "json": {"code": "2"}}
        await problem(http, "POST", "/v1/sessions/s/runs", "key_reused", 422, **other)
        assert "started anew" in (await run(http, "s", "1"))["restarted"]


@pytest.mark.wide
async def test_a_second_signal_ends_it_at_once(own_service: Service) -> None:
    service = own_service.start()
    async with client(service) as http:
        id = await begin(http, "s", "import time; time.sleep(60)")
        await until(http, id, "running")
        service.terminate()
        await eventually(lambda: "takes no new runs" in service.log_text())
        service.terminate()
        await eventually(lambda: not process_exists(service.pid), PROCESS)
    assert service.wait(HANG) == 0
