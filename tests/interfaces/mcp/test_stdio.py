"""`cellrun mcp`, started by a client as a desktop application does."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError
from mcp.client import Client
from PIL import Image

from tests.interfaces.mcp.asking import (
    REVISIONS,
    call,
    environment,
    over_stdio,
    pictures,
    refused,
    run,
    stopped,
    text,
    told,
)
from tests.service.running import TIME_LIMITS, none_left
from tests.support.waiting import HANG, PROCESS, eventually

newest = pytest.mark.parametrize(
    "revision", [each if each == "2026-07-28" else pytest.param(each, marks=pytest.mark.wide) for each in REVISIONS]
)
"""The other one by `make soak`: it takes long."""


@newest
async def test_code_runs_in_a_session_that_stays_can_be_watched_and_cancelled(tmp_path: Path, revision: str) -> None:
    async with over_stdio(tmp_path, revision) as client:
        await _its_variables_stay(client)
        await _a_long_run_reports_its_last_line_and_can_be_come_back_to(client, tmp_path / "work")
        await _a_call_that_is_cancelled_interrupts_its_run(client, tmp_path / "work" / "begun")


async def _its_variables_stay(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == [
        "run_code", "get_run", "interrupt", "restart", "list_files", "read_file", "write_file"
    ]  # fmt: skip
    assert tools["run_code"].input_schema["required"] == ["code"]
    assert "Variables, imports and files stay" in (tools["run_code"].description or "")
    first = await call(client, "run_code", code="x = 41\nprint('\\x1b[31mred\\x1b[0m')")
    assert text(first) == "red"
    assert told(first).keys() == {"status", "run_id", "seconds"}
    assert await run(client, "x + 1") == "42"
    failed = await call(client, "run_code", code="1/0")
    assert "ZeroDivisionError" in text(failed)
    assert "\x1b" not in text(failed)
    assert told(failed)["status"] == "error"
    assert await run(client, "x = 'other'; x", session="second") == "'other'"
    assert await run(client, "x") == "41"
    assert "fresh" in text(await call(client, "restart"))
    assert "NameError" in await run(client, "x")
    assert "EOFError" in await run(client, "input()")
    assert "code: Field required" in await refused(client, "run_code")
    assert "kode: Extra inputs" in await refused(client, "run_code", code="1", kode="2")
    with pytest.raises(MCPError, match="there is no tool 'rm'"):
        await client.call_tool("rm", {})


async def test_a_flood_is_cut_and_can_be_read_on_and_a_plot_comes_as_a_picture(tmp_path: Path) -> None:
    async with over_stdio(tmp_path, "2026-07-28") as client:
        flood = await call(client, "run_code", code="for i in range(200_000): print(i)")
        assert len(text(flood)) < 20_400
        assert text(flood).startswith("0\n1\n2\n")
        assert text(flood).endswith("199999")
        assert told(flood)["cut"] > 1_000_000
        later = text(await call(client, "get_run", run_id=told(flood)["run_id"], offset=1_000_000))
        assert later.startswith("".join(f"{i}\n" for i in range(200_000))[1_000_000:1_010_000])
        assert "the rest with offset=1020000]" in later
        code = "import matplotlib.pyplot as plt\nplt.figure(figsize=(30, 30)); plt.plot([1, 3, 2]);"
        plot = await call(client, "run_code", code=code)
        (picture,) = pictures(plot)
        assert picture.mime_type == "image/png"
        data = base64.b64decode(picture.data)
        assert len(data) < 2**18
        assert max(Image.open(io.BytesIO(data)).size) == 1024
        assert len(text(plot)) < 100


async def test_half_a_surrogate_pair_is_spelled_out_and_ends_nothing(tmp_path: Path) -> None:
    async with over_stdio(tmp_path, "2025-11-25") as client:
        shown = await call(client, "run_code", code="print('a\\ud800b'); open(b'bad\\xff.txt', 'w').close()")
        assert "a\\ud800b" in text(shown)
        assert told(shown)["files"] == ["bad\\udcff.txt"]
        assert "bad\\udcff.txt" in text(await call(client, "list_files"))


async def test_an_interrupted_run_that_waits_leaves_the_line(tmp_path: Path) -> None:
    async with over_stdio(tmp_path, "2025-11-25") as client:
        await call(client, "run_code", code="import time")  # a kernel is there
        first = told(await call(client, "run_code", code="print('on'); time.sleep(600)", wait=0.1))["run_id"]
        while "on" not in text(await call(client, "get_run", run_id=first, wait=0.1)):
            pass
        second = told(await call(client, "run_code", code="print('ran')", wait=0.1))["run_id"]
        assert "goes on" not in text(await call(client, "interrupt", run_id=second))
        assert "ran" not in text(await call(client, "get_run", run_id=second))
        assert "KeyboardInterrupt" in text(await stopped(client, run_id=first))


async def test_files_go_in_and_out(tmp_path: Path) -> None:
    async with over_stdio(tmp_path, "2025-11-25") as client:
        content = base64.b64encode(bytes(range(256))).decode()
        await call(client, "write_file", path="in/data.bin", content=content, encoding="base64")
        made = await call(
            client, "run_code", code="open('out.txt', 'w').write(str(len(open('in/data.bin','rb').read())))"
        )
        assert told(made)["files"] == ["out.txt"]
        assert text(await call(client, "read_file", path="out.txt")) == "256"
        assert text(await call(client, "read_file", path="in/data.bin", encoding="base64")) == content
        assert "is not text" in await refused(client, "read_file", path="in/data.bin")
        assert text(await call(client, "list_files")).splitlines() == ["in/", "out.txt\t3 bytes"]
        assert (tmp_path / "work" / "out.txt").read_text() == "256"
        await call(client, "write_file", path="long.txt", content="a" + "é" * 15_000)
        first = text(await call(client, "read_file", path="long.txt"))
        assert first.endswith("[bytes 0 to 19999 of 30001; the rest with offset=19999]")
        rest = text(await call(client, "read_file", path="long.txt", offset=19_999))
        assert first.partition("\n")[0] + rest == "a" + "é" * 15_000
        assert text(await call(client, "read_file", path="long.txt", offset=40_000)) == "[the file ends at byte 30001]"
        within = text(await call(client, "read_file", path="long.txt", offset=20_000))  # between the two bytes of an é
        assert within == "é" * 5_000
        picture = io.BytesIO()
        Image.new("RGB", (2000, 10)).save(picture, "PNG")
        (tmp_path / "work" / "picture.png").write_bytes(picture.getvalue())
        assert len(pictures(await call(client, "read_file", path="picture.png"))) == 1
        (tmp_path / "work" / "cut.png").write_bytes(picture.getvalue()[:60])
        assert "neither text nor a picture that can be shown" in await refused(client, "read_file", path="cut.png")
        assert "there is no 'none'" in await refused(client, "read_file", path="none")
        assert "is a folder" in await refused(client, "read_file", path="in")
        assert "'../x'" in await refused(client, "write_file", path="../x", content="")
        for name in ("list_files", "read_file"):
            assert "must be relative" in await refused(client, name, path=str(tmp_path / "work"))
        assert not (tmp_path / "x").exists()


async def _a_long_run_reports_its_last_line_and_can_be_come_back_to(client: Client, work: Path) -> None:
    seen: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))
        if len(seen) > 1 and (message or "").startswith("step "):
            (work / "heard").touch()  # which the code waits for

    code = "import os, time\ni = 0\nwhile not os.path.exists('heard'): print('step', i, flush=True); i += 1; time.sleep(0.5)"
    result = await client.call_tool("run_code", {"code": code}, progress_callback=on_progress)
    run_id = (result.structured_content or {})["run_id"]
    (first, name), (second, _), *_ = seen
    assert re.fullmatch(rf"run {run_id}(: step \d+)?", name or "")  # as the kernel has printed by then, or not
    assert first > 2.9
    assert second - first > 2.9

    code = "print('begun')\nwhile not os.path.exists('go'): time.sleep(0.02)\ntime.sleep(0.5); print('done')"
    begun = await call(client, "run_code", code=code, wait=0.5)
    assert told(begun)["status"] == "running"
    async with asyncio.timeout(HANG):
        while "begun" not in text(begun):
            begun = await call(client, "get_run", wait=0.1)
    assert text(begun).startswith("begun\n[still running; get_run with run_id='")
    (work / "go").touch()
    assert text(await call(client, "get_run", run_id=told(begun)["run_id"])) == "begun\ndone"  # it waits, as that says
    assert text(await call(client, "get_run", wait=0)) == "begun\ndone"

    for limit in TIME_LIMITS:
        code = "print('part', flush=True)\nimport time; time.sleep(300)"
        limited = await call(client, "run_code", code=code, timeout=limit)
        assert told(limited)["status"] == "timeout"
        if "part" in text(limited):
            break
    assert text(limited).startswith("part\n")

    code = "print('on', flush=True)\nimport time; time.sleep(600)"
    await call(client, "run_code", code=code, wait=0)
    async with asyncio.timeout(HANG):
        while "on\n" not in text(await call(client, "get_run", wait=0.1)):
            pass
    assert "KeyboardInterrupt" in text(await stopped(client))
    assert "has ended" in text(await call(client, "interrupt"))
    assert "there is no run 'no'" in await refused(client, "get_run", run_id="no")


async def _a_call_that_is_cancelled_interrupts_its_run(client: Client, begun: Path) -> None:
    await run(client, "import time")
    calling = asyncio.create_task(client.call_tool("run_code", {"code": "open('begun', 'w')\ntime.sleep(50)"}))
    await eventually(begun.exists)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    ended = await call(client, "get_run")
    assert told(ended)["status"] == "interrupted"
    assert told(ended)["seconds"] < HANG
    assert await run(client, "'goes on'") == "'goes on'"


class Raw:
    """The process itself, spoken to by hand."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cellrun", "mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=environment(folder / "home"),
        )

    def ask(self, id: int, method: str, **params: Any) -> dict[str, Any]:
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert answer["id"] == id
        return answer

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def initialize(self) -> None:
        info = {"name": "test", "version": "1"}
        told = self.ask(1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        assert told["result"]["serverInfo"]["name"] == "cellrun"
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def children(self) -> set[int]:
        found, left = set(), [self.process.pid]
        while left:
            pid = left.pop()
            with suppress(OSError):  # it may have ended since
                for task in Path("/proc", str(pid), "task").iterdir():
                    left += [int(child) for child in (task / "children").read_text().split()]
                found.add(pid)
        return found - {self.process.pid}


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Raw]:
    raw = Raw(tmp_path)
    with raw.process:
        yield raw
        if raw.process.poll() is None:
            raw.process.kill()


async def test_the_handshake_waits_for_no_kernel_and_the_end_of_input_ends_the_kernels(raw: Raw) -> None:
    raw.initialize()
    assert raw.children() == set()
    # What is printed past Python's own streams must not reach the protocol.
    code = "import os; os.write(1, b'to descriptor one'); print('hi')"
    answer = raw.ask(2, "tools/call", name="run_code", arguments={"code": code})
    assert "hi" in answer["result"]["content"][0]["text"]
    started = raw.children()
    assert started
    raw.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "run_code", "arguments": {"code": "while True: pass"}}})  # fmt: skip
    assert raw.process.stdin is not None
    raw.process.stdin.close()
    assert await asyncio.to_thread(raw.process.wait, PROCESS) == 0
    assert raw.process.stdout is not None
    assert [line for line in raw.process.stdout if "jsonrpc" not in json.loads(line)] == []
    await none_left(started)


async def test_a_signal_ends_it_while_its_input_is_open(raw: Raw) -> None:
    raw.initialize()
    raw.ask(2, "tools/call", name="run_code", arguments={"code": "1 + 1"})
    raw.ask(3, "tools/call", name="run_code", arguments={"code": "import time; time.sleep(60)", "wait": 0.3})
    await _ends_by_a_signal(raw)


@pytest.mark.wide
async def test_a_signal_ends_it_while_its_first_kernel_is_being_started(raw: Raw) -> None:
    raw.initialize()
    raw.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "run_code", "arguments": {"code": "1 + 1"}}})  # fmt: skip
    await eventually(raw.children)
    await _ends_by_a_signal(raw)


async def _ends_by_a_signal(raw: Raw) -> None:
    started = raw.children()
    assert started
    began = time.monotonic()
    os.kill(raw.process.pid, signal.SIGTERM)
    assert await asyncio.to_thread(raw.process.wait, PROCESS) == 128 + signal.SIGTERM
    assert time.monotonic() - began < HANG
    await none_left(started)
