"""The sessions that connections have by themselves end with them, however they end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cellrun.service.mcp.http import Connections
from cellrun.service.problems import Problem
from cellrun.service.runs import RunRequest
from tests.service.test_hub import hub_of


async def test_a_connection_that_was_not_used_has_no_session_any_more(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        connections = Connections(hub)
        for id in ("a" * 32, "b" * 32):
            with connections.used("ann", id):
                await (await hub.start("ann", f"mcp:{id}", RunRequest(code="1"))).done.wait()  # type: ignore[union-attr]
        await hub.session("ann", "chat")
        now = time.monotonic()
        await connections.sweep(now + 1_800)
        assert len(hub.sessions("ann")) == 3
        with connections.used("ann", "b" * 32):
            await connections.sweep(now + 1_900)
            assert {held.row.id for held in hub.sessions("ann")} == {f"mcp:{'b' * 32}", "chat"}
        await connections.end("bob", "b" * 32)
        assert len(hub.sessions("ann")) == 2
        await connections.end("ann", "b" * 32)
        assert [held.row.id for held in hub.sessions("ann")] == ["chat"]


async def test_one_tenant_cannot_take_the_connections_of_all(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        connections = Connections(hub)
        for number in range(1_000):
            connections.check_room("ann")
            connections.opened("ann", f"{number:032x}")
        with pytest.raises(Problem, match="1000 MCP connections at once are the limit"):
            connections.check_room("ann")
        connections.check_room("bob")
        await connections.end("ann", f"{0:032x}")
        connections.check_room("ann")
        connections.opened("ann", "f" * 32)
        await connections.sweep(time.monotonic() + 2_000)
        connections.check_room("ann")


async def test_a_service_that_is_started_anew_knows_no_earlier_connections(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        for id in (f"mcp:{'a' * 32}", "mcp:of-a-user", "chat"):
            await hub.session("ann", id)
    async with hub_of(tmp_path) as hub:
        await Connections(hub).forget_earlier()
        assert {held.row.id for held in hub.sessions("ann")} == {"mcp:of-a-user", "chat"}
