"""A cell of five minutes, by both transports and in both revisions, with a word of how it goes every few seconds."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from mcp.client import Client

from tests.interfaces.mcp.asking import REVISIONS, over_http, over_stdio, text
from tests.service.running import Service
from tests.support.waiting import HANG

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

CODE = "import time\nfor i in range(300): print('second', i, flush=True); time.sleep(1)\nprint('done')"


async def test_a_cell_of_five_minutes_is_answered_with_progress_all_along(tmp_path: Path) -> None:
    service = Service(tmp_path / "service", variables={"CELLRUN_INTERFACES": "mcp"}).start()

    async def ask(client: Client) -> tuple[str, list[str]]:
        seen: list[str] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            seen.append(message or "")

        arguments = {"code": CODE, "timeout": 500}
        return text(await client.call_tool("run_code", arguments, progress_callback=on_progress)), seen

    try:
        async with AsyncExitStack() as stack:
            clients = []
            for revision in REVISIONS:
                clients.append(await stack.enter_async_context(over_http(service.url, revision)))
                clients.append(await stack.enter_async_context(over_stdio(tmp_path / revision, revision)))
            found = await asyncio.gather(*(ask(client) for client in clients))
        for said, seen in found:
            assert said.startswith("second 0\n")
            assert said.endswith("second 299\ndone")
            # Each 3 s, or as soon after that as a busy machine comes to it.
            assert len(seen) > 60
            assert int(seen[-1].removeprefix("second ")) >= 299 - HANG
    finally:
        service.end()
