"""What docs/howto/e2b.md tells a user to run does what the page says, on the port that the SDK looks for."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from tests.service.running import Service
from tests.support.waiting import HANG, PROCESS

PAGE: Final = (Path(__file__).parents[3] / "docs" / "howto" / "e2b.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def _until_free(port: int) -> None:
    """The page's port is one of those that connections of other tests get: one of them may just have it."""
    deadline = time.monotonic() + HANG
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                assert time.monotonic() < deadline, f"port {port} is not free"
                time.sleep(0.05)
            else:
                return


@pytest.mark.wide
def test_the_page_s_program_runs_unchanged_in_the_sdk_s_debug_mode(tmp_path: Path) -> None:
    install, start = blocks("sh")
    assert "cellrun serve --port 49999\n" in install
    variables = dict(re.findall(r"^([A-Z0-9_]+)=(\S+) python program\.py$", start, re.MULTILINE))
    program, with_key = blocks("py")
    service = Service(tmp_path / "service", ("--port", "49999"), {"CELLRUN_INTERFACES": "e2b"})
    (tmp_path / "service").mkdir()
    for setting, code in (({}, program), ({"key": ""}, with_key)):
        if setting:
            setting["key"] = service.add_key("ada")
            code = f"key = {setting['key']!r}\n{code}print(sandbox.run_code('6 * 7').text)\n# → 42\n"
        _until_free(49999)
        try:
            service.start()
            ended = subprocess.run(
                [sys.executable, "-W", "error", "-c", code],
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                timeout=PROCESS,
                check=False,
            )
        finally:
            service.end()
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines() == re.findall(r"^# → (.*)$", code, re.MULTILINE)
