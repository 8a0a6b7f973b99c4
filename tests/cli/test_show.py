"""What the command makes of pictures and cells, without a kernel."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from cellrun import Image
from cellrun.cli.show import iterm, kitty, save, terminal_protocol
from cellrun.cli.sources import SourceError, read_source, split_cells

PNG = Image("image/png", b"\x89PNG" + bytes(range(256)) * 40)


@pytest.mark.parametrize(
    ("variables", "protocol"),
    [
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({"TERM": "xterm-256color"}, None),
    ],
)
def test_terminals_are_known_by_what_they_say_of_themselves(
    variables: dict[str, str], protocol: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert terminal_protocol() == protocol


def test_the_pictures_sequences_hold_the_whole_picture() -> None:
    assert base64.b64decode(iterm(PNG).split(":", 1)[1].rstrip("\x07")) == PNG.data
    parts = kitty(PNG).split("\x1b\\")[:-1]
    assert len(parts) > 2
    assert all(len(part.split(";", 1)[1]) <= 4096 for part in parts)
    assert [part.split(";")[0][-1] for part in parts] == ["1"] * (len(parts) - 1) + ["0"]
    assert base64.b64decode("".join(part.split(";", 1)[1] for part in parts)) == PNG.data


def test_a_picture_takes_the_first_free_name(tmp_path: Path) -> None:
    assert [save(PNG, tmp_path, "x").name for _ in range(2)] == ["x-1.png", "x-2.png"]
    hostile = Image("image/../../etc/passwd", b"x")
    assert save(hostile, tmp_path, "x").parent == tmp_path


def test_cells_are_split_at_their_markers() -> None:
    assert split_cells("") == ()
    assert split_cells("a = 1\n") == ("a = 1\n",)
    assert split_cells("#%%\na\n# %% [raw]\nno\n# %% title\nb") == ("#%%\na\n", "# %% title\nb")
    assert split_cells("x = '# %%'\n") == ("x = '# %%'\n",)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bad.ipynb").write_text("{}")
    for name, said in (("binary.py", "not text in UTF-8"), ("bad.ipynb", "not a notebook"), ("none", "No such file")):
        with pytest.raises(SourceError, match=said):
            read_source(str(tmp_path / name), None)
