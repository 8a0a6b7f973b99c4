"""Runs over HTTP: what comes back, in every encoding; what becomes of them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp
import pytest

from tests.service.running import (
    NDJSON,
    SSE,
    TIME_LIMITS,
    answer,
    begin,
    is_whole,
    lines,
    printed,
    problem,
    run,
    server_sent,
    until,
    watch,
)
from tests.support.waiting import HANG, PROCESS

Http = aiohttp.ClientSession


async def test_a_run_gives_the_whole_result(http: Http) -> None:
    async with http.post("/v1/run", json={"code": "print('a'); 6 * 7"}) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        result = await response.json()
        assert response.headers["Location"] == f"/v1/runs/{result['execution_id']}"
    assert (result["status"], result["stdout"], result["text"]) == ("ok", "a\n", "a\n42")
    assert await answer(http, "GET", f"/v1/runs/{result['execution_id']}") == result


async def test_events_come_as_server_sent_events_or_lines_numbered_from_one(http: Http) -> None:
    code = {"code": "print('a'); print('b'); 6 * 7"}
    async with http.post("/v1/run", json=code, headers=SSE) as response:
        assert response.headers["Cache-Control"] == "no-store"
        sse = [event async for event in server_sent(response)]
    async with http.post("/v1/run", json=code, headers=NDJSON) as response:
        ndjson = [event async for event in lines(response)]
    for events in (sse, ndjson):
        assert is_whole(events)
        assert printed(events) == "a\nb\n"
        assert (events[-1]["status"], events[-1]["execution_id"]) == ("ok", events[0]["execution_id"])


async def test_events_come_while_the_cell_runs(http: Http) -> None:
    async with http.post("/v1/sessions/live/runs", json={"code": "print('now'); input()"}, headers=SSE) as response:
        seen = []
        async for event in server_sent(response):
            seen.append(event["type"])
            if event["type"] == "input_request":  # it cannot have ended: it waits for us
                await answer(http, "POST", f"/v1/runs/{event['execution_id']}/input", status=202, json={"line": "x"})
    assert seen == ["started", "stdout", "input_request", "execute_result", "finished"]


async def test_a_session_keeps_its_variables_and_a_run_of_its_own_does_not(http: Http) -> None:
    assert (await run(http, "variables", "x = 1"))["execution_count"] == 1
    assert (await run(http, "variables", "x + 1"))["text"] == "2"
    lone = await answer(http, "POST", "/v1/run", json={"code": "x"})
    assert (lone["status"], lone["error"]["name"]) == ("error", "NameError")


async def test_a_run_that_is_not_waited_for_says_where_it_is(http: Http) -> None:
    body = {"code": "input()", "wait": False}
    async with http.post("/v1/sessions/later/runs", json=body) as response:
        assert response.status == 202
        state = await response.json()
        assert response.headers["Location"] == f"/v1/runs/{state['execution_id']}"
    assert (state["session"], state["status"]) == ("later", "queued")
    where = f"/v1/runs/{state['execution_id']}"
    assert (await until(http, state["execution_id"], "waiting_for_input"))["last"] >= 2
    await answer(http, "POST", f"{where}/input", status=202, json={"line": "a line"})
    result = await until(http, state["execution_id"], "ok")
    assert result["text"] == "'a line'"


async def test_events_can_be_read_from_any_number_while_it_runs_and_long_after(http: Http) -> None:
    code = "import time\nfor i in range(10): print(i, flush=True); time.sleep(0.01)\ninput()\nprint('end')"
    id = await begin(http, "again", code)
    await until(http, id, "waiting_for_input")
    seen = await watch(http, id, upto=6)
    reading = [asyncio.create_task(watch(http, id, after=after)) for after in (0, 3, 6)]
    await answer(http, "POST", f"/v1/runs/{id}/input", status=202, json={"line": ""})
    whole, *parts = [await task for task in reading]
    assert is_whole(whole)
    assert whole[:6] == seen
    assert parts == [whole[3:], whole[6:]]

    await until(http, id, "ok")
    assert await watch(http, id) == whole
    assert await watch(http, id, after=len(whole)) == []
    async with http.get(f"/v1/runs/{id}/events", headers={**SSE, "Last-Event-ID": "4"}) as response:
        assert [event async for event in server_sent(response)] == whole[4:]
    async with http.get(f"/v1/runs/{id}/events?after=2", headers={**NDJSON, "Last-Event-ID": "4"}) as response:
        assert [event async for event in lines(response)] == whole[2:]
    assert (
        await answer(http, "GET", f"/v1/runs/{id}/events?after=1", headers={"Accept": "application/json"}) == whole[1:]
    )


async def test_a_watcher_that_reconnects_again_and_again_sees_everything_once(http: Http) -> None:
    id = await begin(http, "reconnects", "for i in range(300): print(i, flush=True)\nimport time; time.sleep(0.3)\n42")
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["type"] != "finished":
        seen += await watch(http, id, after=len(seen), upto=7)
    assert is_whole(seen)
    assert printed(seen) == "".join(f"{i}\n" for i in range(300))


async def test_a_watcher_that_does_not_read_slows_neither_the_cell_nor_another_watcher(http: Http) -> None:
    # More than the buffers of both ends of a connection hold.
    id = await begin(http, "slow", "for i in range(240): print('x' * 99_999)\n'done'")
    async with http.get(f"/v1/runs/{id}/events", headers=NDJSON) as stalled:
        assert stalled.status == 200
        async with asyncio.timeout(PROCESS):
            async with http.get(f"/v1/runs/{id}/events", headers=NDJSON) as response:
                quick = [event async for event in lines(response)]
            ended = await until(http, id, "ok", "kernel_died", "timeout", seconds=PROCESS)
            assert ended["text"].endswith("'done'")
        assert is_whole(quick)
        assert len(printed(quick)) == 240 * 100_000
        assert [event async for event in lines(stalled)] == quick


async def test_the_same_key_never_runs_twice(http: Http) -> None:
    await run(http, "once", "ran = []")
    body: Any = {
        "json": {"code": "ran.append(1); import time; time.sleep(0.2); len(ran)"},
        "headers": {"Idempotency-Key": "k"},
    }
    path = "/v1/sessions/once/runs"
    first, second = await asyncio.gather(*(answer(http, "POST", path, **body) for _ in range(2)))
    third = await answer(http, "POST", path, **body)
    assert first == second == third
    async with http.post(path, json=body["json"], headers={**body["headers"], **SSE}) as response:
        events = [event async for event in server_sent(response)]
    assert is_whole(events)
    assert events[0]["execution_id"] == first["execution_id"]
    assert (await run(http, "once", "len(ran)"))["text"] == "1"


@pytest.mark.parametrize("change", [{"code": "2"}, {"timeout": 5}, {"stdin": ["a"]}, {"on_disconnect": "interrupt"}])
async def test_the_same_key_with_another_request_is_refused(http: Http, change: dict[str, Any]) -> None:
    path, headers = "/v1/sessions/reused/runs", {"Idempotency-Key": f"reused-{json.dumps(change)}"}
    await answer(http, "POST", path, json={"code": "1"}, headers=headers)
    await problem(http, "POST", path, "key_reused", 422, json={"code": "1", **change}, headers=headers)
    other = "/v1/sessions/reused-elsewhere/runs"
    await problem(http, "POST", other, "key_reused", 422, json={"code": "1"}, headers=headers)


async def test_a_retry_at_the_moment_of_the_end_still_sees_the_end(http: Http) -> None:
    for turn in range(40):
        request: Any = {"json": {"code": "1"}, "headers": {**NDJSON, "Idempotency-Key": f"moment-{turn}"}}
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(_whole(http, request))


async def _whole(http: Http, request: Any) -> None:
    async with http.post("/v1/sessions/moment/runs", **request) as response:
        assert is_whole([event async for event in lines(response)])


async def test_a_running_cell_and_one_that_waits_can_be_interrupted(http: Http) -> None:
    first = await begin(http, "interrupted", "import time; print('on', flush=True); time.sleep(600)")
    second = await begin(http, "interrupted", "ran = True")
    assert [event["type"] for event in await watch(http, first, upto=2)] == ["started", "stdout"]
    assert (await until(http, second, "queued"))["last"] == 1
    state = await answer(http, "POST", f"/v1/runs/{second}/interrupt", status=202)
    assert state["execution_id"] == second
    assert (await until(http, second, "interrupted"))["reason"] == "cancelled before it began"
    await answer(http, "POST", f"/v1/runs/{first}/interrupt", status=202)
    result = await until(http, first, "interrupted")
    assert (result["stdout"], result["error"]["name"]) == ("on\n", "KeyboardInterrupt")
    await problem(http, "POST", f"/v1/runs/{first}/interrupt", "conflict", 409)
    assert (await run(http, "interrupted", "'ran' in globals()"))["text"] == "False"


async def test_lines_for_input_can_be_given_before_and_then_nobody_is_asked(http: Http) -> None:
    result = await run(http, "lines", "[input(), input()]", stdin=["a", "b"])
    assert result["text"] == "['a', 'b']"
    assert (await run(http, "lines", "input()", stdin=[]))["error"]["name"] == "EOFError"
    id = result["execution_id"]
    await problem(http, "POST", f"/v1/runs/{id}/input", "conflict", 409, json={"line": "late"})


async def test_a_run_whose_starter_goes_away_is_interrupted_or_goes_on_as_was_asked(http: Http) -> None:
    ids = {}
    for choice in ("interrupt", "detach"):
        code = "import os, time; print('on', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.1)\n'through'"
        body = {"code": code, "on_disconnect": choice}
        async with http.post(f"/v1/sessions/leave-{choice}/runs", json=body, headers=SSE) as response:
            async for event in server_sent(response):
                if event["type"] == "stdout":
                    ids[choice] = event["execution_id"]
                    break
    stopped = await until(http, ids["interrupt"], "interrupted", "ok")
    assert (stopped["status"], stopped["reason"]) == ("interrupted", "the caller stopped it")
    assert (await answer(http, "GET", f"/v1/runs/{ids['detach']}"))["status"] == "running"
    await answer(http, "PUT", "/v1/sessions/leave-detach/files/go", status=204, data=b"")
    assert (await until(http, ids["detach"], "interrupted", "ok"))["text"].endswith("'through'")


async def test_a_run_that_somebody_else_watches_is_not_given_up_with_its_starter(http: Http) -> None:
    body = {"code": "print('on', flush=True); input()", "on_disconnect": "interrupt"}
    async with http.post("/v1/sessions/watched/runs", json=body, headers=SSE) as started:
        event = await anext(server_sent(started))
        watcher = await http.get(f"/v1/runs/{event['execution_id']}/events", headers=SSE)
        events = server_sent(watcher)
        seen = [await anext(events), await anext(events)]
    async with watcher:
        await until(http, event["execution_id"], "waiting_for_input")
        await answer(http, "POST", f"/v1/runs/{event['execution_id']}/input", status=202, json={"line": "x"})
        assert is_whole([*seen, *[event async for event in events]])
    assert (await until(http, event["execution_id"], "ok", "interrupted"))["status"] == "ok"


async def test_the_last_watcher_that_leaves_after_the_starter_ends_what_nobody_watches(http: Http) -> None:
    body = {"code": "print('on', flush=True); input()", "on_disconnect": "interrupt"}
    async with http.post("/v1/sessions/last/runs", json=body, headers=SSE) as started:
        event = await anext(server_sent(started))
        watcher = await http.get(f"/v1/runs/{event['execution_id']}/events", headers=SSE)
        await anext(server_sent(watcher))
    async with watcher:
        await until(http, event["execution_id"], "waiting_for_input")
    assert (await until(http, event["execution_id"], "interrupted"))["reason"] == "the caller stopped it"


async def test_an_event_source_that_has_seen_the_end_is_told_not_to_come_again(http: Http) -> None:
    done = (await run(http, "source", "1"))["execution_id"]
    last = (await watch(http, done))[-1]["seq"]
    for seen, status in ((last, 204), (last + 5, 204), (last - 1, 200)):
        headers = {**SSE, "Last-Event-ID": str(seen)}
        async with http.get(f"/v1/runs/{done}/events", headers=headers) as response:
            assert response.status == status
    # Who asks by number gets an answer of the type that was asked for, as for any other number.
    assert await watch(http, done, after=last) == []


async def test_a_waiting_client_that_gives_up_leaves_no_run_of_its_own_behind(http: Http) -> None:
    body = {"code": "while True: pass", "on_disconnect": "interrupt"}
    headers = {"Idempotency-Key": "given-up"}
    async with asyncio.timeout(HANG):
        while await _active(http):  # of the tests before
            pass
        waiting = asyncio.create_task(answer(http, "POST", "/v1/run", json=body, headers=headers))
        while not await _active(http):  # before it has begun there is nothing to be left behind
            pass
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    # The key finds it again. Not to wait for it is not to watch it: a watcher would keep it alive.
    state = await answer(http, "POST", "/v1/run", status=202, json={**body, "wait": False}, headers=headers)
    ended = await until(http, state["execution_id"], "interrupted")
    assert ended["reason"] == "the caller stopped it"


async def _active(http: Http) -> float:
    """Runs that go on, or wait."""
    async with http.get("/metrics") as response:
        return float(re.findall(r"^cellrun_runs_active (\S+)$", await response.text(), re.MULTILINE)[0])


async def test_a_time_limit_of_the_request_holds(http: Http) -> None:
    for limit in TIME_LIMITS:
        result = await run(http, "limited", "print('on')\nimport time; time.sleep(300)", timeout=limit)
        assert result["status"] == "timeout"
        assert f"{limit:g} s" in result["reason"]
        if result["stdout"]:
            break
    assert result["stdout"] == "on\n"
    told, _ = await problem(http, "POST", "/v1/run", "bad_request", 400, json={"code": "1", "timeout": 1e6})
    assert "3600 s at most" in told["detail"]
    await problem(http, "POST", "/v1/run", "bad_request", 400, json={"code": "1", "timeout": None})


async def test_a_kernel_that_dies_is_told_as_data_and_the_next_run_says_that_it_is_new(http: Http) -> None:
    code = "x = 1; print('last words', flush=True); input(); import os; os._exit(3)"
    id = await begin(http, "dies", code)
    await until(http, id, "waiting_for_input")
    await watch(http, id, upto=3)  # what it has printed has come, too
    await answer(http, "POST", f"/v1/runs/{id}/input", status=202, json={"line": ""})
    result = await until(http, id, "kernel_died")
    assert (result["status"], result["stdout"]) == ("kernel_died", "last words\n")
    assert "exited with code 3" in result["reason"]
    after = await run(http, "dies", "'x' in globals()")
    assert (after["text"], bool(after["restarted"])) == ("False", True)


async def test_a_language_model_gets_a_text_within_its_budget_and_where_the_rest_is(http: Http) -> None:
    request: Any = {"json": {"code": "print('a' * 5000)"}, "params": {"view": "model", "budget": "500"}}
    view = await answer(http, "POST", "/v1/sessions/model/runs", **request)
    assert len(view["text"]) < 700
    assert view["cut"] == 4500
    assert view["full"] == f"/v1/runs/{view['execution_id']}"
    assert (await answer(http, "GET", view["full"]))["stdout"] == "a" * 5000 + "\n"
    assert (await answer(http, "GET", view["full"], params={"view": "model", "budget": "500"})) == view
