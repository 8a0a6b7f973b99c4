"""For those who run it: alive, ready, measured, logged, described, ended."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cellrun import __version__
from tests.service.running import SSE, Service, answer, begin, client, is_whole, run, server_sent, until
from tests.support.waiting import HANG, PROCESS, eventually

Http = aiohttp.ClientSession


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def _metrics(http: Http) -> Samples:
    async with http.get("/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        families = text_string_to_metric_families(await response.text())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


async def test_it_says_that_it_is_alive_and_what_holds_its_kernels(http: Http) -> None:
    await run(http, "first", "1")
    alive = await answer(http, "GET", "/healthz")
    assert (alive["status"], alive["version"]) == ("ok", __version__)
    assert alive["containment"] == (await answer(http, "GET", "/v1/sessions/first"))["containment"]
    assert alive["containment"].partition(":")[0] in {"strong", "light", "none"}
    assert await answer(http, "GET", "/readyz") == {"status": "ready"}


async def test_what_happens_is_counted(http: Http) -> None:
    before = await _metrics(http)
    await run(http, "counted", "print('x' * 999)")
    await run(http, "counted", "1/0")
    died = await run(http, "counted", "import os; os._exit(3)")
    await run(http, "counted", "import time; time.sleep(30)", timeout=0.2)
    live = await begin(http, "counted", "input()")
    async with http.get(f"/v1/runs/{live}/events", headers=SSE) as response:
        events = server_sent(response)
        seen = [await anext(events)]
        during = await _metrics(http)
        await until(http, live, "waiting_for_input")
        await answer(http, "POST", f"/v1/runs/{live}/input", status=202, json={"line": ""})
        assert is_whole(seen + [event async for event in events])
    async with asyncio.timeout(HANG):  # the run and its watcher are counted out just after the last event has been sent
        while (after := await _metrics(http))["cellrun_runs_active", ()] or after["cellrun_watchers", ()]:
            pass

    def grown(name: str, **labels: str) -> float:
        which = (name, tuple(sorted(labels.items())))
        return after.get(which, 0.0) - before.get(which, 0.0)

    assert grown("cellrun_runs_total", status="ok") == 2
    assert grown("cellrun_runs_total", status="error") == 1
    assert grown("cellrun_runs_total", status="kernel_died") == 1
    assert grown("cellrun_runs_total", status="timeout") == 1
    assert grown("cellrun_run_seconds_count") == 5
    assert grown("cellrun_code_errors_total") >= 1
    assert grown("cellrun_output_bytes_total") >= 1_000
    for gauge in ("cellrun_runs_active", "cellrun_watchers"):
        assert (before[gauge, ()], during[gauge, ()], after[gauge, ()]) == (0, 1, 0)
    route = {"method": "POST", "route": "/v1/sessions/{session}/runs"}
    assert grown("cellrun_http_seconds_count", **route, status="200") == 4
    assert grown("cellrun_kernel_deaths_total", cause="exit") == 1, died["reason"]


async def test_output_is_counted_in_bytes(http: Http) -> None:
    before = await _metrics(http)
    await run(http, "bytes", "print('é' * 500)")
    grown = (await _metrics(http))["cellrun_output_bytes_total", ()] - before["cellrun_output_bytes_total", ()]
    assert grown == 1_001


async def test_no_id_and_no_address_that_was_made_up_is_in_the_metrics(http: Http) -> None:
    id = (await run(http, "session-of-somebody", "1"))["execution_id"]
    for path in (f"/v1/runs/{id}", "/v1/made-up-by-a-scanner", "/v1/sessions/made-up-session"):
        async with http.get(path) as response:
            await response.read()
    async with http.request("PROPFIND", "/healthz") as response:
        assert response.status == 405
    async with http.get("/metrics") as response:
        told = await response.text()
    for word in (id, "session-of-somebody", "made-up", "local"):
        assert word not in told


async def test_each_request_is_a_line_of_json_with_the_run_and_the_tenant(service: Service, http: Http) -> None:
    id = (await run(http, "logged", "print('what the code says stays out of the log')"))["execution_id"]
    await eventually(lambda: id in service.log_text())
    line = next(line for line in service.log_lines() if line.get("run") == id)
    assert (line["tenant"], line["method"], line["status"]) == ("local", "POST", 200)
    assert (line["level"], line["path"]) == ("info", "/v1/sessions/logged/runs")
    assert line["seconds"] >= 0
    assert datetime.fromisoformat(line["time"]).utcoffset() is not None
    assert "stays out of the log" not in service.log_text()
    ours = [line for line in service.log_text().splitlines() if not line.startswith("{")]
    assert all(line.startswith("cellrun: ") for line in ours)


async def test_nothing_that_a_request_says_makes_a_line_of_its_own_in_the_log(service: Service, http: Http) -> None:
    async with http.get("/v1/runs/a%0a%7B%22level%22:%22forged%22%7D") as response:
        assert response.status == 400
    await eventually(lambda: "forged" in service.log_text())
    assert not [line for line in service.log_lines() if line.get("level") == "forged"]


async def test_the_service_describes_itself(http: Http) -> None:
    document = await answer(http, "GET", "/openapi.json")
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["version"] == __version__
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert {"200", "202", "204"} & set(operation["responses"]), where
            for reference in re.findall(r"#/components/schemas/(\w+)", str(operation)):
                assert reference in schemas, where
            for name in re.findall(r"\{(\w+)\}", path):
                assert name in {parameter["name"] for parameter in operation["parameters"]}, where


async def test_problems_are_described_as_what_they_are(http: Http) -> None:
    document = await answer(http, "GET", "/openapi.json")
    wrong = [
        (method, path, status, sorted(response["content"]))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status, response in operation["responses"].items()
        if status[0] in "45" and set(response["content"]) != {"application/problem+json"}
    ]
    assert wrong == []


@pytest.mark.wide
async def test_a_watcher_that_does_not_read_is_cut_off_at_the_end_and_that_is_no_failure(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    async with client(service) as http:
        id = await begin(http, "s", "for _ in range(200_000): print('x' * 200)")
        _, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]), limit=1_024)
        writer.write(f"GET /v1/runs/{id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await until(http, id, "ok", seconds=PROCESS)
    await asyncio.to_thread(service.end)
    writer.close()
    told = [line for line in service.log_lines() if line["level"] not in ("info", "warning")]
    assert told == []
    assert any("cut off" in line["message"] for line in service.log_lines())
