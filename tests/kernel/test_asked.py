"""What the metadata of a request asks the kernel for: in force for a cell, and gone after it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from cellrun.kernel.asked import Asked


@pytest.fixture
def shell() -> Any:
    return SimpleNamespace(display_formatter=DisplayFormatter())


def test_variables_are_put_back_whatever_the_cell_did(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD", "before")
    monkeypatch.delenv("NEW", raising=False)
    before, environ = dict(os.environ), os.environ
    with pytest.raises(KeyboardInterrupt), Asked().granted({"environment": {"OLD": "1", "NEW": "2"}}, shell):
        assert (os.environ["OLD"], os.environ["NEW"]) == ("1", "2")
        del os.environ["OLD"]
        monkeypatch.setattr(os, "environ", {})
        raise KeyboardInterrupt
    assert dict(environ) == before


@pytest.mark.parametrize(
    "wanted",
    [
        {"environment": {"": "a", "A=B": "a", "A\0": "a", "NUMBER": 1, "HALF": "\ud800", 3: "a"}},
        {"environment": ["A"], "formats": "e2b/chart"},
        {"environment": None, "formats": [None, {}, "e2b/other"]},
        {},
    ],
)
def test_what_is_no_such_thing_is_passed_over(shell: Any, wanted: Any) -> None:
    before, formats = dict(os.environ), [*shell.display_formatter.formatters]
    with Asked().granted(wanted, shell):
        assert dict(os.environ) == before
        assert [*shell.display_formatter.formatters] == formats


def test_formats_are_there_for_the_cell_alone_and_the_object_s_own_word_comes_first(shell: Any) -> None:
    class Own(Figure):
        def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
            return {"e2b/chart": {"type": "own"}}

    figure = Figure()
    figure.add_subplot().plot([1, 2])
    asked = Asked()
    for _ in range(2):
        with asked.granted({"formats": ["e2b/chart", "e2b/data"]}, shell):
            data, _ = shell.display_formatter.format(figure)
            assert data["e2b/chart"]["type"] == "line"
            assert "e2b/data" not in data
            assert shell.display_formatter.format(Own())[0]["e2b/chart"] == {"type": "own"}
            assert shell.display_formatter.format(1)[0].keys() == {"text/plain"}
        assert "e2b/chart" not in shell.display_formatter.format(figure)[0]


def test_a_folder_is_entered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Asked()
    asked.begin({"folder": "a/b"})
    assert Path.cwd() == tmp_path / "a" / "b"
    os.chdir(tmp_path)
    asked.begin({"folder": "a/b"})
    asked.begin({"folder": 3})
    asked.begin({})
    assert Path.cwd() == tmp_path
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            asked.begin({"folder": str(tmp_path / "missing")})
    (tmp_path / "missing").mkdir()
    asked.begin({"folder": str(tmp_path / "missing")})
    assert Path.cwd() == tmp_path / "missing"
