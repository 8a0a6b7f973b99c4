"""What a model is told is what the kernels do, and no more than it needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cellrun.providers import JupyterServer, LocalKernels
from cellrun.remote.service import CellrunService
from cellrun.service.describe import Place, described
from cellrun.service.tool_backend import Promises, last_line_of, promises_of
from cellrun.service.tool_calls import tools

CHAT, CONNECTION, NONE = Place("chat", "c"), Place("connection", "mcp:1"), Place("none")


def told(promises: Promises, place: Place = CHAT) -> str:
    return described(promises, place)["run_code"]


def test_only_what_holds_is_promised(tmp_path: Path) -> None:
    contained = promises_of(LocalKernels(), timeout=300, longest=3600, idle=90)
    assert "Run Python code" in told(contained)
    assert "no network" in told(contained)
    assert "Not used for 90 seconds, the kernel ends, and variables and files with it." in told(contained)
    assert "It may take 5 minutes, or `timeout`, up to 60 minutes." in told(contained)
    assert "session's" in described(contained, CHAT)["list_files"]
    loose = promises_of(LocalKernels(sandbox="none", kernel="ir", cwd=tmp_path), timeout=None)
    for wrong in ("Python", "network", "Not used", "may take"):
        assert wrong not in told(loose)
    assert "session's" not in described(loose, CHAT)["list_files"]
    folder_of_all = promises_of(LocalKernels(sandbox="none", cwd=tmp_path), timeout=None, idle=90)
    assert "the kernel ends, and variables with it." in told(folder_of_all)
    for provider in (JupyterServer("http://127.0.0.1:8888/"), CellrunService("cellrun://localhost")):
        elsewhere = told(promises_of(provider, timeout=None))
        assert "network" not in elsewhere
        assert elsewhere.startswith("Run code in a Jupyter kernel")


def test_the_session_is_asked_for_where_nothing_else_names_it() -> None:
    promises = Promises(timeout=300)
    for place, named, required in ((CHAT, False, False), (CONNECTION, True, False), (NONE, True, True)):
        for tool in tools(promises, place):
            assert ("session" in tool.schema["properties"]) == named
            of_files = tool.name not in ("run_code", "get_run", "interrupt")
            assert ("session" in tool.schema["required"]) == (required and of_files)
    assert "nothing stays" in told(promises, NONE)
    assert "nothing stays" not in told(promises, CONNECTION)


@pytest.mark.parametrize("place", [CHAT, CONNECTION, NONE], ids=lambda place: place.kind)
def test_all_of_it_is_short(place: Place) -> None:
    listed = [asdict(tool) for tool in tools(Promises(timeout=300), place)]
    assert len(json.dumps(listed)) < 5_000
    assert not any("title" in value for tool in listed for value in tool["schema"]["properties"].values())


def test_a_name_within_a_chat_cannot_be_that_of_another_chat() -> None:
    assert CHAT.named(None) == CHAT.named("") == "c"
    assert CHAT.named("main") == "c:main"
    assert CONNECTION.named("main") == NONE.named("main") == "main"
    assert NONE.named(None) is None


def test_the_last_line_is_what_a_terminal_would_show_last() -> None:
    assert last_line_of("one\n\x1b[32mtwo\x1b[0m\n\n") == "two"
    assert last_line_of("10%\r50%\r") == "50%"
    assert last_line_of("\n \n") == ""
    assert last_line_of("x" * 10_000) == "x" * 200
