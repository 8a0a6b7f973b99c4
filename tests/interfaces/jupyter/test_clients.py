"""Clients from PyPI, unmodified, against the Jupyter address."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import cellrun
from tests.interfaces.jupyter.conftest import Served
from tests.support.servers import Server, free_port, running
from tests.support.waiting import PROCESS

_NOTEBOOK = """
import nbclient, nbformat, sys
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelManager

GatewayClient.instance(url=sys.argv[1], auth_token=sys.argv[2], auth_scheme="token")
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (
    "x = 6 * 7", "print(x)", "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()", "x")])
nbclient.NotebookClient(notebook, kernel_manager_class=GatewayKernelManager, timeout=90).execute()
nbformat.write(notebook, sys.argv[3])
"""
_KERNEL_CLIENT = """
import json, sys
from jupyter_kernel_client import JupyterKernelClient

with JupyterKernelClient(server_url=sys.argv[1], token=sys.argv[2]) as kernel:
    kernel.execute("x = 20")
    found = [kernel.execute("print('hi')\\nx + 22"), kernel.execute("1 / 0")]
    kernel.restart()
    found.append(kernel.execute("x"))
json.dump(found, open(sys.argv[3], "w"))
"""


async def _in_process(code: str, *args: str, folder: Path) -> None:
    """A program of its own: these clients block, have threads, and set up things for a whole process."""
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", code, *args),
        cwd=folder,
        env={**env, "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), PROCESS)
    assert process.returncode == 0, out.decode("utf-8", "replace")[-3000:]


@pytest.mark.wide
# Its WebSocket sends no credentials (jupyter_server 2.21, gateway/managers.py), so this one works without keys only.
async def test_nbclient_runs_a_notebook_through_the_gateway_client(local: str, tmp_path: Path) -> None:
    await _in_process(_NOTEBOOK, local, "none", str(tmp_path / "done.ipynb"), folder=tmp_path)
    notebook: Any = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    outputs = [cell["outputs"] for cell in notebook["cells"]]
    assert outputs[0] == []
    assert outputs[1][0]["text"] == "42\n"
    assert any("image/png" in output.get("data", {}) for output in outputs[2])
    assert outputs[3][0]["data"]["text/plain"] == "42"


async def test_jupyter_kernel_client_runs_code(served: Served, tmp_path: Path) -> None:
    await _in_process(_KERNEL_CLIENT, served.url.rstrip("/"), served.ada, str(tmp_path / "found.json"), folder=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    result, error, gone = found
    assert result["status"] == "ok"
    assert [output["output_type"] for output in result["outputs"]] == ["stream", "execute_result"]
    assert result["outputs"][1]["data"]["text/plain"] == "42"
    assert error["outputs"][0]["ename"] == "ZeroDivisionError"
    assert gone["outputs"][0]["ename"] == "NameError"


@pytest.fixture
def gateway_client(served: Served) -> Iterator[Server]:
    """A stock Jupyter server that has its kernels here."""
    port, token = free_port(), "t" * 20
    url = f"http://127.0.0.1:{port}/"
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"),
        *(f"--IdentityProvider.token={token}", "--ServerApp.root_dir={root}", f"--gateway-url={served.url}"),
        *(f"--GatewayClient.auth_token={served.ada}", "--GatewayClient.auth_scheme=token"),
    ]
    with running(command, url, "api", token=token) as server:
        yield server


async def test_a_jupyter_server_has_its_kernels_here(gateway_client: Server, served: Served) -> None:
    async with cellrun.AsyncSession(cellrun.JupyterServer(gateway_client.url, token=gateway_client.token)) as session:
        assert (await session.run("x = 41; print('é')")).stdout == "é\n"
        assert (await session.run("x + 1")).text.strip() == "42"
        request = urllib.request.Request(f"{served.url}api/kernels", headers={"Authorization": f"token {served.ada}"})
        kernels = json.load(await asyncio.to_thread(urllib.request.urlopen, request))
        assert len(kernels) == 1
        result = await session.run("import time; time.sleep(30)", timeout=0.5)
        assert result.status == "timeout"


async def test_cellruns_own_session_on_a_jupyter_server_works_here(served: Served) -> None:
    async with cellrun.AsyncSession(cellrun.JupyterServer(served.url, token=served.ada)) as session:
        assert (await session.run("x = 41; print('é')")).stdout == "é\n"
        assert (await session.run("x + 1")).text.strip() == "42"
        assert len((await session.run("print('y' * 3_000_000)")).stdout) > 100_000
        result = await session.run("import time; time.sleep(30)", timeout=0.5)
        assert result.status == "timeout"
        await session.restart()
        assert (await session.run("x")).status == "error"
