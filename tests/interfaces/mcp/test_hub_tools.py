"""The tools' runs in the service: what is seen of one that goes on, and what is loaded of one that has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cellrun.event_log import EventLog
from cellrun.service.held import EndedRun
from cellrun.service.hub_tools import HubRun
from cellrun.service.runs import LiveRun, RunRequest
from tests.service.test_hub import hub_of
from tests.support.waiting import PROCESS

LARGE = "{'image/png': 'iVBORw0K' * 250_000, 'text/plain': 'a figure'}"
STEPS = """
from IPython.display import display
import os, time
for step in range(4):
    print('step', step, flush=True)
    for _ in range(FIGURES):
        display(LARGE, raw=True)
while not os.path.exists('go'): time.sleep(0.01)
""".replace("LARGE", LARGE)


async def shown(log: EventLog, figures: int) -> None:
    async with asyncio.timeout(PROCESS):
        async for piece in log.follow(0):
            figures -= sum(entry.type == "display" for entry in piece)
            if not figures:
                return


@pytest.mark.parametrize("figures", [1, 5])
async def test_the_newest_line_is_told_however_large_the_events_around_it_are(tmp_path: Path, figures: int) -> None:
    async with hub_of(tmp_path) as hub:
        live = await hub.start("t", "a", RunRequest(code=STEPS.replace("FIGURES", str(figures)), timeout=PROCESS))
        assert isinstance(live, LiveRun)
        await shown(live.log, 4 * figures)
        run = HubRun(hub, live)
        assert await run.last_line() == "step 3"
        told = await run.result()
        assert told["status"] == "running"
        gap = "[… what comes here can be read when the run has ended …]"
        figure = ["a figure"]
        assert [line for line in told["text"].splitlines() if line] == [
            "step 0",
            *figure,
            gap,
            "step 3",
            *(figure * figures),
        ]
        await hub.kernel_of(hub.find("t", "a")).files.write("go", b"")
        async with asyncio.timeout(PROCESS):
            await run.wait(None)
        assert (await run.result())["text"].count("a figure") == 4 * figures


async def test_the_text_of_a_run_is_had_without_its_pictures(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        code = f"from IPython.display import display\nprint('on')\ndisplay({LARGE}, raw=True)"
        live = await hub.start("t", "a", RunRequest(code=code, timeout=PROCESS))
        assert isinstance(live, LiveRun)
        async with asyncio.timeout(PROCESS):
            await live.done.wait()
        kept = await hub.run("t", live.id)
        assert isinstance(kept, EndedRun)
        for run in (HubRun(hub, live), HubRun(hub, kept)):
            whole, slim = await run.result(), await run.result(text_only=True)
            assert slim["text"] == whole["text"] == "on\na figure"
            assert len(whole["outputs"][-1]["data"]["image/png"]) == 2_000_000
            assert "image/png" not in slim["outputs"][-1]["data"]
