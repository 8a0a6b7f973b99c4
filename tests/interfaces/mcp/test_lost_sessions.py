"""The tools of one user on a service whose sessions are gone, or that does not take what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from cellrun import CellrunService
from cellrun.errors import SessionLost
from cellrun.service import tool_calls, tool_runs
from cellrun.service.describe import Place
from cellrun.service.local_tools import LocalTools
from cellrun.service.problems import Problem
from cellrun.service.tool_backend import Answer
from tests.remote.conftest import address_of, service
from tests.service.running import Service, answer, client

__all__ = ["service"]

PLACE = Place("connection", "")
LEFT = "import os; ('x' in globals(), os.path.exists('a.txt'))"


@pytest.fixture(params=[None, "base"], ids=["fresh", "named"])
async def tools(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[LocalTools]:
    tools = LocalTools(CellrunService(address_of(service)), timeout=60, session_id=request.param)
    yield tools
    await tools.aclose()


async def call(tools: LocalTools, name: str, **arguments: object) -> Answer:
    return await tool_calls.call(tools, PLACE, name, arguments)


async def run(tools: LocalTools, code: str) -> str:
    found = await call(tools, "run_code", code=code)
    assert not found.failed, found.text
    return found.text


async def delete_all(service: Service) -> None:
    """As an operator does, and the service itself with sessions that nobody has used for long."""
    async with client(service) as http:
        for one in (await answer(http, "GET", "/v1/sessions"))["sessions"]:
            await answer(http, "DELETE", f"/v1/sessions/{one['id']}", status=204)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("run_code", {"code": "x"}),
        ("restart", {}),
        ("list_files", {}),
        ("read_file", {"path": "a.txt"}),
        ("write_file", {"path": "b.txt", "content": "b"}),
    ],
)
async def test_a_session_that_is_gone_on_the_service_is_told_of_and_the_next_call_has_a_fresh_one(
    service: Service, tools: LocalTools, name: str, arguments: dict[str, object]
) -> None:
    assert await run(tools, "x = 1; open('a.txt', 'w').write('a')") == "1"
    await delete_all(service)
    failed = await call(tools, name, **arguments)
    assert failed.failed
    assert "there is no session" in failed.text
    assert failed.text.endswith("call again: the next call has a fresh session")
    told = await run(tools, LEFT)
    assert told.startswith("(False, False)\n[the kernel was restarted and its variables are gone: the service at ")
    assert told.endswith("; its files may be gone, too]")
    assert await run(tools, LEFT) == "(False, False)"


async def test_calls_that_come_together_to_a_session_that_is_gone_are_told_the_same(
    service: Service, tools: LocalTools
) -> None:
    await run(tools, "x = 1")
    await delete_all(service)
    failed = await asyncio.gather(*(call(tools, "run_code", code="x") for _ in range(3)))
    assert [one.failed for one in failed] == [True] * 3
    assert len({one.text for one in failed}) == 1
    assert "NameError" in await run(tools, "x")


async def test_what_became_of_a_session_is_told_by_the_first_run_that_could_begin(
    service: Service, tools: LocalTools
) -> None:
    await run(tools, "x = 1")
    await delete_all(service)
    assert (await call(tools, "list_files")).failed
    assert (await call(tools, "list_files")).text == "The folder is empty."
    await delete_all(service)
    assert (await call(tools, "run_code", code="1")).failed
    assert "[the kernel was restarted and its variables are gone: " in await run(tools, "1")


async def test_a_session_that_is_gone_is_closed_with_the_tools(service: Service) -> None:
    tools = LocalTools(CellrunService(address_of(service)), timeout=60)
    await tool_runs.run_code(tools, "", "1")
    kernel = tools._sessions[""]
    await delete_all(service)
    with pytest.raises(SessionLost, match="call again"):
        await tools.restart("")
    await tools.aclose()
    assert kernel.closed


async def test_code_that_a_service_does_not_take_is_told_as_what_is_wrong_with_it(
    tools: LocalTools, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Problem, match="does not take this") as refused:
        await tool_runs.run_code(tools, "", "'\ud800'")
    assert refused.value.code == "bad_request"
    assert await run(tools, "1 + 1") == "2"
    assert not caplog.records


async def test_what_nobody_thought_of_is_told_without_its_words_which_the_log_has(
    tools: LocalTools, caplog: pytest.LogCaptureFixture
) -> None:
    run = await tools.start("", "1", "soon")  # type: ignore[arg-type]  # no caller of ours does that
    assert await run.wait(None)
    with pytest.raises(Problem, match="cellrun has failed; its log says why") as failed:
        await run.result()
    assert failed.value.code == "internal"
    assert "TypeError" in caplog.text
    caplog.clear()
