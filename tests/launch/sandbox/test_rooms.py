"""The folders of sessions: made, bounded, removed whatever is in them, and swept up after an owner that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cellrun import SandboxPolicy
from cellrun.launch.sandbox import rooms


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cellrun-test-", dir="/tmp"))
    folder.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_room_is_closed_to_others_and_gone_afterwards(own_folder: Path) -> None:
    place = rooms.Rooms(SandboxPolicy(), own_uids=os.getuid() == 0)
    first, second = place.make(), place.make()
    assert first.folder != second.folder
    assert first.mark != second.mark
    assert os.stat(first.folder).st_mode & 0o066 == 0
    assert os.stat(first.folder).st_uid == os.getuid()  # or a session could put a link in the place of its folder
    assert os.stat(first.work).st_mode & 0o077 == 0
    assert sorted(os.listdir(first.folder)) == ["home", "tmp", "work"]
    if os.getuid() == 0:
        assert first.uid != second.uid
        assert os.stat(first.work).st_uid == first.uid
    place.remove(first.folder)
    assert not os.path.exists(first.folder)
    place.close()
    assert list(own_folder.iterdir()) == []
    own_folder.rmdir()


def test_what_a_session_leaves_is_removed_however_it_is_made(own_folder: Path) -> None:
    top = own_folder / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 100, dir_fd=here)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    kept = own_folder / "kept"
    kept.write_text("x")
    (top / "link").symlink_to(kept)
    os.mkfifo(top / "pipe")
    (top / "closed" / "inner").mkdir(parents=True)
    (top / "closed" / "inner" / "file").touch()
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0)
    (top / "bad\udcffname\n").touch()
    rooms.remove_tree(str(top))
    assert not top.exists()
    assert kept.read_text() == "x"
    kept.unlink()
    own_folder.rmdir()


def test_rooms_of_an_owner_that_was_killed_are_swept_up_and_those_of_a_living_one_are_not(own_folder: Path) -> None:
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from cellrun import SandboxPolicy\nfrom cellrun.launch.sandbox import rooms\n"
        "place = rooms.Rooms(SandboxPolicy(), own_uids=False)\n"
        "open(place.make().work + '/file', 'w').close()\nprint(place.folder, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(own_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        rooms.sweep()
        assert left.exists()
        owner.send_signal(signal.SIGKILL)
    rooms.sweep()
    assert not left.exists()
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        assert str(left) not in mounts.read()
    own_folder.rmdir()


def test_a_folder_for_sockets_lies_outside_the_room(own_folder: Path) -> None:
    place = rooms.Rooms(SandboxPolicy(), own_uids=False)
    room = place.make()
    sockets = place.make_sockets(room)
    assert not str(sockets).startswith(room.folder)
    assert sockets.stat().st_mode & 0o077 == 0
    place.close()
    own_folder.rmdir()
