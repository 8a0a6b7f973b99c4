"""Output without end: time and limits end it, what the host keeps is bounded, and other sessions are answered meanwhile."""

from __future__ import annotations

import time
from typing import Final

import pytest

from tests.abuse.conftest import FORMS, USERS, Host
from tests.abuse.exhausting import MB, answer, opened
from tests.support.waiting import HANG

# One path for all: nothing of it depends on the walls.
pytestmark = [
    pytest.mark.soak,
    pytest.mark.parametrize("host", USERS[:1], indirect=True),
    pytest.mark.parametrize("form", FORMS[:1], indirect=True),
]

KEPT: Final = {"text": 2 * MB}
# What a host of two sessions may need for a flood, however long it lasts: queues of events on their way, and copies of what is kept.
MOST: Final = 400 * MB

ENDLESS: Final = {
    "prints": "while True:\n    print('x' * 100)",
    "errors": "import sys\nwhile True:\n    sys.stderr.write('x' * 1000 + '\\n')",
    "logs": "import logging\nlogging.basicConfig()\nwhile True:\n    logging.getLogger().warning('x' * 1000)",
    "writes to its real descriptors": "import os\nwhile True:\n    os.write(1, b'x' * 65536)\n    os.write(2, b'x' * 65536)",
    "output of a program": "import subprocess\nsubprocess.run(['yes'])",
    "pictures": "from IPython.display import Image, display\nwhile True:\n    display(Image(b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100_000), format='png'))",
    "updates": "from IPython.display import display\nshown = display(0, display_id=True)\nwhile True:\n    shown.update('x' * 1000)",
    "clearing": "from IPython.display import clear_output\nwhile True:\n    clear_output()\n    print('x' * 100)",
}


def memory(session_host: int) -> int:
    """What a process has in memory."""
    with open(f"/proc/{session_host}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


@pytest.mark.parametrize("row", ENDLESS)
def test_a_flood_ends_in_time_and_fills_nothing(host: Host, form: str, row: str) -> None:
    with opened(host, {"form": form}, limits=KEPT) as flood, opened(host, {"form": form}) as other:
        before, most, slowest = memory(flood.facts["host"]), 0, 0.0
        started = time.monotonic()
        ending = flood.begin(ENDLESS[row], timeout=1.5)
        while not ending.done():
            asked = time.monotonic()
            assert other.run("1 + 1")["status"] == "ok"
            slowest = max(slowest, time.monotonic() - asked)
            most = max(most, memory(flood.facts["host"]) - before)
        result = answer(ending)
        assert result["status"] == "timeout", result
        assert time.monotonic() - started < 1.5 + 2 + HANG
        assert slowest < HANG
        assert most < MOST
        assert flood.run("1 + 1")["status"] == "ok"


def test_150_megabytes_in_one_print(host: Host, form: str) -> None:
    with opened(host, {"form": form}, limits=KEPT) as session, opened(host, {"form": form}) as other:
        before, most = memory(session.facts["host"]), 0
        ending = session.begin("print('x' * 150_000_000)")
        while not ending.done():
            assert other.run("1 + 1")["status"] == "ok"
            most = max(most, memory(session.facts["host"]) - before)
        result = answer(ending)
        assert result["status"] == "ok", result
        assert result["truncated"]
        assert result["stdout_size"] == 150_000_001
        assert most < 150 * MB + MOST


@pytest.mark.timeout(450)
def test_100_000_displays(host: Host, form: str) -> None:
    with opened(host, {"form": form}, limits=KEPT) as session:
        before = memory(session.facts["host"])
        code = "from IPython.display import display\nfor number in range(100_000):\n    display(number)"
        result = session.begin(code, timeout=300).result(350)
        assert result["status"] == "ok", result["reason"]
        assert result["truncated"]
        assert len(result["outputs"]) <= 10_001
        assert memory(session.facts["host"]) - before < MOST


def test_what_is_asked_for_fits(host: Host, form: str) -> None:
    """Otherwise the rows above would prove nothing."""
    with opened(host, {"form": form}, limits=KEPT) as session:
        result = session.run("print('x' * 1_000_000)")
        assert not result["truncated"]
        assert len(result["stdout"]) == 1_000_001
