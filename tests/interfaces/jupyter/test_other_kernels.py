"""Kernels of another language, which are started and not forked: at a gate that the test opens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.interfaces.jupyter.talk import http_of, printed, start, talking
from tests.service.running import Service
from tests.support.waiting import HANG, PROCESS

_WAITS: Final = """
import os, runpy, sys, time
while not os.path.exists({gate!r}): time.sleep(0.02)
sys.argv = ["bash_kernel", "-f", {connection!r}]
runpy.run_module("bash_kernel", run_name="__main__")
"""
_CELLS: Final = {
    "begins": 'command_not_found_handle() { echo "$*" >> asked; }',
    "shows": "echo svg",
    "tells": "touch asked; cat asked; echo end",
}


@dataclass
class Gated:
    """A service of bash, whose kernels start where `gate` is there."""

    url: str
    gate: Path


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    folder = tmp_path_factory.mktemp("gated")
    gate, spec = folder / "gate", folder / "kernels" / "gated"
    spec.mkdir(parents=True)
    code = _WAITS.format(gate=str(gate), connection="{connection_file}")
    content = {"argv": [sys.executable, "-c", code], "display_name": "Bash", "language": "bash", "env": {"PS1": "$"}}
    spec.joinpath("kernel.json").write_text(json.dumps(content), "utf-8")
    variables = {"CELLRUN_INTERFACES": "jupyter", "JUPYTER_PATH": str(folder)}
    service = Service(folder / "own", ("--kernel", "gated", "--sandbox", "none"), variables)
    service.folder.mkdir()
    service.start()
    yield Gated(f"{service.url}/jupyter/", gate)
    gate.touch()
    service.end()
    assert '"level": "error"' not in service.log_text()


async def _list(http: aiohttp.ClientSession, path: str) -> list[Any]:
    async with http.get(path) as answer:
        found: list[Any] = await answer.json()
        return found


async def _given_up(http: aiohttp.ClientSession, gate: Path, method: str, path: str, body: dict[str, Any]) -> None:
    """A request for one more kernel, whose client goes while it starts; until that kernel has gone."""
    gate.unlink(missing_ok=True)
    before = len(await _list(http, "api/kernels"))
    asked = asyncio.ensure_future(http.request(method, path, json=body))
    async with asyncio.timeout(HANG):
        while len(await _list(http, "api/kernels")) == before:
            assert not asked.done()
            await asyncio.sleep(0.01)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    gate.touch()
    async with asyncio.timeout(PROCESS):
        while len(await _list(http, "api/kernels")) > before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", ["api/kernels", "api/sessions"])
async def test_a_kernel_whose_client_goes_while_it_starts_is_not_kept(gated: Gated, path: str) -> None:
    async with http_of(gated.url) as http:
        await _given_up(http, gated.gate, "POST", path, {"path": "gone.ipynb", "type": "notebook"})
        assert await _list(http, "api/sessions") == []


async def test_a_session_whose_client_goes_while_it_is_given_another_kernel_keeps_its_own(gated: Gated) -> None:
    async with http_of(gated.url) as http:
        gated.gate.touch()
        async with http.post("api/sessions", json={"path": "n.ipynb", "type": "notebook", "name": "n"}) as answer:
            assert answer.status == 201, await answer.text()
            made = await answer.json()
        path = f"api/sessions/{made['id']}"
        await _given_up(http, gated.gate, "PATCH", path, {"kernel": {"name": "gated"}})
        assert [one["kernel"]["id"] for one in await _list(http, "api/sessions")] == [made["kernel"]["id"]]
        await http.delete(path)


async def test_a_kernel_that_is_not_python_runs_no_python_for_pictures(gated: Gated) -> None:
    gated.gate.touch()
    async with http_of(gated.url) as http:
        kernel = await start(http)
        async with talking(http, kernel) as talk:
            told = {name: printed(await talk.run(code)) for name, code in _CELLS.items()}
        assert told == {"begins": "", "shows": "svg\n", "tells": "end\n"}
        await http.delete(f"api/kernels/{kernel}")
