"""The pages about the service say what it is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cellrun.service.jupyter.kernels import JupyterMetrics
from cellrun.service.metrics import Metrics
from cellrun.service.problems import KINDS
from cellrun.settings import Settings
from tests.support.waiting import PROCESS

DOCS: Final = Path(__file__).parents[2] / "docs"
REFERENCE: Final = (DOCS / "reference" / "service.md").read_text("utf-8")
HOWTO: Final = (DOCS / "howto" / "service.md").read_text("utf-8")


def test_every_address_is_listed_and_no_other() -> None:
    from fastapi import FastAPI

    from cellrun.service import routes_blobs, routes_files, routes_operation, routes_runs, routes_sessions

    app = FastAPI()
    for routes in (routes_runs, routes_blobs, routes_sessions, routes_files, routes_operation):
        app.include_router(routes.router)
    there = {f"{method.upper()} {path}" for path, operations in app.openapi()["paths"].items() for method in operations}
    assert set(re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`]*)`", REFERENCE)) == there


def test_every_problem_is_listed_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", REFERENCE, re.MULTILINE))
    assert rows == {code: str(kind.status) for code, kind in KINDS.items()}


def test_every_metric_is_listed() -> None:
    metrics = Metrics()
    JupyterMetrics(metrics.registry).ended.labels("idle").inc()
    metrics.ended("kernel_died", "out of memory", 1.0)
    metrics.answered("GET", "/v1/sessions", 200, 0.001)
    names = set()
    for family in text_string_to_metric_families(metrics.text().decode()):
        if not family.name.endswith("_created"):  # the library's own, of each
            names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert set(re.findall(r"^\| `(cellrun_\w+)`", REFERENCE, re.MULTILINE)) == names


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((DOCS.parent / "deploy" / "grafana.json").read_text("utf-8"))
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    listed = set(re.findall(r"^\| `(cellrun_\w+)`", REFERENCE, re.MULTILINE))
    for name in re.findall(r"cellrun_\w+", asked):
        assert re.sub(r"_(bucket|count|sum)$", "", name) in listed, name


def test_the_container_is_told_what_there_is_to_be_told() -> None:
    """No engine runs where the tests do: what can be checked of its files without one."""
    files = "".join((DOCS.parent / "deploy" / name).read_text("utf-8") for name in ("Dockerfile", "compose.yaml"))
    variables = set(re.findall(r"CELLRUN_([A-Z_]+)", files))
    assert variables
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    for path in re.findall(r"^COPY (.*) /src/", files, re.MULTILINE):
        assert all((DOCS.parent / name).exists() for name in path.split())


@pytest.mark.timeout(400)
async def test_the_commands_of_the_how_to_do_what_it_says(tmp_path: Path) -> None:
    """All of a machine of one's own, in their order, on a port of our own and without a package being installed."""
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    environment = {**os.environ, "HOME": str(tmp_path), "CELLRUN_CONFIG": str(tmp_path / "none.toml")}
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cellrun", "serve", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=tmp_path,
        env=environment,
    )
    try:
        assert service.stdout is not None
        address = (await asyncio.wait_for(service.stdout.readline(), PROCESS)).decode().strip().removeprefix("http://")
        said = []
        run = ""
        for block in re.findall(r"```sh\n(.*?)```", HOWTO.partition("## Let others in")[0], re.DOTALL):
            for command in block.replace("\\\n", " ").splitlines():
                if command.startswith("curl"):
                    text = command.replace("localhost:8080", address).replace("RUN", run).replace("-o plot.png", "")
                    text = text.replace("SHA256", "0" * 64)
                    process = await asyncio.create_subprocess_exec(
                        "sh", "-c", text, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
                    )
                    out, _ = await asyncio.wait_for(process.communicate(), PROCESS)
                    assert process.returncode == 0, command
                    said.append(out.decode())
                    run = (re.findall(r'"execution_id":"(\w+)"', said[-1]) or [run])[-1]
        assert '"stdout":"42\\n"' in said[0]
        assert '"text":"42"' in said[2]
        assert said[3].count("event: stdout") >= 1
        assert "event: finished" in said[3]
        assert said[4] == ""  # of the run before: there are fewer events than that: nothing is left to be seen
        assert '"status":"ok"' in said[5]
        assert "not_found" in said[6]  # nothing large was shown here
        assert "data.csv" in said[8]
        assert "not_found" in said[9]  # nothing has drawn a plot here
    finally:
        service.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(service.wait(), PROCESS) == 0
