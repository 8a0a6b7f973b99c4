"""Requests that are not what they should be, and answers of the type that was asked for."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import pytest

from tests.service.running import Service, answer, begin, problem, run, until

Http = aiohttp.ClientSession

BAD: list[Any] = [
    {"json": {}},
    {"json": []},
    {"json": {"code": 1}},
    {"json": {"code": None}},
    {"json": {"code": "1", "timeout": -1}},
    {"json": {"code": "1", "timeout": "soon"}},
    {"json": {"code": "1", "unknown": 1}},
    {"json": {"code": "1", "stdin": "a"}},
    {"json": {"code": "1", "on_disconnect": "explode"}},
    {"data": b"{", "headers": {"Content-Type": "application/json"}},
    {"data": b'{"code": "1", "timeout": NaN}', "headers": {"Content-Type": "application/json"}},
    {"data": b"\xff", "headers": {"Content-Type": "application/json"}},
    {"data": b"[" * 100_000, "headers": {"Content-Type": "application/json"}},
    {"json": {"code": "1"}, "headers": {"Idempotency-Key": ""}},
    {"json": {"code": "1"}, "params": {"view": "other"}},
    {"json": {"code": "1"}, "params": {"view": "model", "budget": "1"}},
]


@pytest.mark.parametrize("request_", BAD)
async def test_a_bad_request_is_told_as_a_problem(http: Http, request_: Any) -> None:
    told, _ = await problem(http, "POST", "/v1/run", "bad_request", 400, **request_)
    assert not told["retryable"]


async def test_a_body_that_is_not_said_to_be_json_is_told_how_to_say_so(http: Http) -> None:
    for headers in ({"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/plain"}):
        told, _ = await problem(http, "POST", "/v1/run", "bad_request", 400, data=b'{"code": "1"}', headers=headers)
        assert "Content-Type: application/json" in told["detail"]


async def test_input_that_nobody_can_be_asked_for_has_an_end(http: Http) -> None:
    """Whoever waits for the result as JSON learns of the run when it has ended."""
    result = await answer(http, "POST", "/v1/run", json={"code": "input('who? ')", "timeout": 20})
    assert (result["status"], result["error"]["name"]) == ("error", "EOFError")
    result = await answer(http, "POST", "/v1/run", json={"code": "input()", "stdin": ["Ada"]})
    assert result["text"] == "'Ada'"


async def test_text_that_no_utf8_can_hold_is_refused_and_harms_nobody_else(http: Http) -> None:
    # JSON can spell half of a surrogate pair; neither the database nor the kernel can take it.
    bystander = await begin(
        http, "bystander", "import time\nfor i in range(400): print(i, flush=True); time.sleep(0.002)"
    )
    headers = {"Content-Type": "application/json"}
    for _ in range(20):
        await problem(http, "POST", "/v1/run", "bad_request", 400, data=b'{"code": "\'\\ud800\'"}', headers=headers)
    result = await until(http, bystander, "ok", "kernel_died")
    assert (result["status"], result["reason"]) == ("ok", None)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("application/json", "application/json"), ("*/*", "application/json"), ("text/*", "text/event-stream")],
)
async def test_the_answer_is_of_the_type_that_was_asked_for(http: Http, accept: str, content_type: str) -> None:
    async with http.post("/v1/run", json={"code": "1"}, headers={"Accept": accept}) as response:
        assert (response.status, response.content_type) == (200, content_type)
        await response.read()


async def test_a_type_that_there_is_none_of_is_refused_before_anything_runs(http: Http) -> None:
    image = {"Accept": "image/png"}
    path = "/v1/sessions/unacceptable/runs"
    await problem(http, "POST", path, "not_acceptable", 406, json={"code": "1"}, headers=image)
    await problem(http, "GET", "/v1/sessions/unacceptable", "not_found", 404)
    id = (await run(http, "acceptable", "1"))["execution_id"]
    await problem(http, "GET", f"/v1/runs/{id}/events", "not_acceptable", 406, headers=image)


@pytest.mark.parametrize("id", ["0" * 32, "nonsense", "..%2f", "é" * 300])
async def test_a_run_that_is_not_there_is_a_problem(http: Http, id: str) -> None:
    await problem(http, "GET", f"/v1/runs/{id}", "not_found", 404)
    if "/" not in id and "%2f" not in id:
        await problem(http, "GET", f"/v1/runs/{id}/events", "not_found", 404)
        await problem(http, "POST", f"/v1/runs/{id}/interrupt", "not_found", 404)
        await problem(http, "POST", f"/v1/runs/{id}/input", "not_found", 404, json={"line": ""})


async def test_an_address_or_method_that_there_is_not_is_a_problem_as_well(http: Http) -> None:
    await problem(http, "GET", "/v1/nothing", "not_found", 404)
    await problem(http, "GET", "/v1/run", "method_not_allowed", 405)


@pytest.mark.parametrize("session", ["ordinary", "files"])
async def test_a_body_that_is_too_large_is_refused(http: Http, session: str) -> None:
    body = io.BytesIO(json.dumps({"code": "#" * (17 * 2**20)}).encode())
    request: Any = {"data": body, "headers": {"Content-Type": "application/json"}}
    await problem(http, "POST", f"/v1/sessions/{session}/runs", "too_large", 413, **request)


# -- without keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": "["},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost"},
        {"Origin": "http://["},
    ],
)
async def test_without_keys_another_name_or_another_sites_page_is_refused_everywhere(
    http: Http, headers: dict[str, str]
) -> None:
    for method, path in (("POST", "/v1/run"), ("GET", "/healthz"), ("GET", "/openapi.json"), ("GET", "/v1/nothing")):
        await problem(http, method, path, "forbidden_host", 403, headers=headers, json={"code": "1"})


async def test_without_keys_its_own_page_and_every_name_of_loopback_are_served(service: Service, http: Http) -> None:
    port = service.url.rpartition(":")[2]
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        await answer(http, "GET", "/v1/sessions", headers={"Host": name, "Origin": f"http://{name}"})
