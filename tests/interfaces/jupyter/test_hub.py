"""What docs/howto/jupyterhub.md puts into the hub's configuration gives its users kernels of the service."""

from __future__ import annotations

import json
import re
import shlex
import sys
import urllib.request
from pathlib import Path
from typing import Final

import pytest

import cellrun
from tests.interfaces.jupyter.conftest import Served
from tests.support import servers
from tests.support.waiting import HANG

_HOWTO: Final = Path(__file__).parents[3] / "docs" / "howto" / "jupyterhub.md"


def _kernels(served: Served, key: str) -> int:
    request = urllib.request.Request(f"{served.url}api/kernels", headers={"Authorization": f"token {key}"})
    with urllib.request.urlopen(request, timeout=HANG) as answer:
        return len(json.load(answer))


@pytest.mark.wide
async def test_the_configuration_of_the_how_to_gives_a_user_kernels_of_the_service(
    served: Served, tmp_path: Path
) -> None:
    (block,) = re.findall(r"```py\n(.*?)```", _HOWTO.read_text("utf-8"), re.DOTALL)
    command = tmp_path / "cellrun"
    words = [sys.executable, "-m", "cellrun"]
    command.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@" --data {shlex.quote(str(served.service.data))}\n')
    command.chmod(0o755)
    config = block.replace("http://127.0.0.1:8080/jupyter/", served.url).replace('["cellrun"', f"[{str(command)!r}")
    with servers.hub_user_server(config) as server:
        before = _kernels(served, served.ada)
        async with cellrun.AsyncSession(cellrun.JupyterServer(server.url, token=server.token)) as session:
            result = await session.run("import os; print(6 * 7, os.environ.get('JUPYTERHUB_API_TOKEN'))")
            assert (result.ok, result.stdout) == (True, "42 None\n")
            assert _kernels(served, served.ada) == before + 1
            assert _kernels(served, served.bob) == 0
