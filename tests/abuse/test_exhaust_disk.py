"""Bytes and files of a session's folders are bounded, whatever they are hidden in, and are gone with it."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from tests.abuse.conftest import FORMS, Host
from tests.abuse.exhausting import MB, both, held, hold, opened

pytestmark = pytest.mark.soak

DISK: Final = ({"disk": 8 * MB}, {"disk": 24 * MB})
FILES: Final = ({"files": 500}, {"files": 25_000})

FILL: Final = """
import os
for number in range(12):
    with open(f"file-{number}", "wb") as file:
        file.write(os.urandom(2**20))
HOLD
print("held")
"""
ONE_FILE: Final = FILL.replace('f"file-{number}", "wb"', '"file", "ab"')
IN_ANOTHER_FOLDER: Final = "import os, tempfile\nos.chdir(tempfile.gettempdir())\n" + FILL
IN_HOME: Final = "import os\nos.chdir(os.path.expanduser('~'))\n" + FILL
HOLES_FILLED: Final = """
import os
for number in range(12):
    with open(f"file-{number}", "wb") as file:
        file.truncate(100 * 2**20)
        file.seek(50 * 2**20)
        file.write(os.urandom(2**20))
HOLD
print("held")
"""
DELETED: Final = """
import os
kept = []
for number in range(12):
    file = open(f"file-{number}", "wb")
    file.write(os.urandom(2**20))
    file.flush()
    os.unlink(file.name)
    kept.append(file)
HOLD
print("held")
"""
# Neither in a folder nor in a table of descriptors.
DELETED_AND_MAPPED: Final = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
for number in range(12):
    with open(f"file-{number}", "w+b") as file:
        file.write(os.urandom(2**20))
        file.flush()
        assert libc.mmap(None, ctypes.c_size_t(2**20), 1, 1, file.fileno(), ctypes.c_long(0)) not in (None, 2**64 - 1)
    os.unlink(file.name)
HOLD
print("held")
"""
DELETED_AND_ON_ITS_WAY: Final = """
import os, socket
here, there = socket.socketpair()
for number in range(12):
    with open(f"file-{number}", "wb") as file:
        file.write(os.urandom(2**20))
        file.flush()
        os.unlink(file.name)
        socket.send_fds(here, [b"x"], [file.fileno()])
HOLD
print("held")
"""
IN_A_CLOSED_FOLDER: Final = """
import os
os.mkdir("closed")
for number in range(12):
    with open(f"closed/file-{number}", "wb") as file:
        file.write(os.urandom(2**20))
    if not number:
        folder = os.open("closed", os.O_RDONLY | os.O_DIRECTORY)
        os.fchmod(folder, 0o300)
os.fchmod(folder, 0)
HOLD
print("held")
"""
ZIP_BOMB: Final = """
import io, zipfile
packed = io.BytesIO()
with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
    for number in range(12):
        archive.writestr(f"file-{number}", bytes(2**20))
assert len(packed.getvalue()) < 20_000
with zipfile.ZipFile(packed) as archive:
    archive.extractall("unpacked")
HOLD
print("held")
"""
SMALL_FILES: Final = """
for number in range(20_000):
    open(f"file-{number}", "w").close()
HOLD
print("held")
"""
FOLDERS: Final = """
import os
for number in range(2_000):
    os.mkdir(f"folder-{number}")
HOLD
print("held")
"""
LINKS: Final = """
import os
for number in range(2_000):
    os.symlink("nowhere", f"link-{number}")
HOLD
print("held")
"""
IN_DEEP_FOLDERS: Final = """
import os
for _ in range(400):
    os.mkdir("deeper")
    os.chdir("deeper")
for number in range(200):
    open(f"file-{number}", "w").close()
HOLD
print("held")
"""

ROWS: Final[dict[str, tuple[str, tuple[dict[str, Any], dict[str, Any]]]]] = {
    "in one file": (ONE_FILE, DISK),
    "in the temporary folder": (IN_ANOTHER_FOLDER, DISK),
    "in the home folder": (IN_HOME, DISK),
    "in the holes of files": (HOLES_FILLED, DISK),
    "in deleted files": (DELETED, DISK),
    "in deleted files that are mapped": (DELETED_AND_MAPPED, DISK),
    "in deleted files on their way through a socket": (DELETED_AND_ON_ITS_WAY, DISK),
    "in a closed folder": (IN_A_CLOSED_FOLDER, DISK),
    "by a zip bomb": (ZIP_BOMB, DISK),
    "by folders": (FOLDERS, FILES),
    "by links": (LINKS, FILES),
}


NOT_WATCHED = ("in deleted files that are mapped", "in deleted files on their way through a socket")


@pytest.mark.parametrize("row", ROWS)
def test_the_disk_is_not_filled(host: Host, row: str) -> None:
    code, (smaller, larger) = ROWS[row]
    if host.user == "ordinary" and row in NOT_WATCHED:
        small, _ = both(host, "portable", code, smaller, larger)
        assert held(small), small  # not promised: where folders are watched, nobody sees these
        return
    # In the portable form permissions cannot be changed, where sessions share a uid.
    _check(host, "strong" if row == "in a closed folder" else "portable", code, smaller, larger)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("code", "limits"), [(FILL, DISK), (SMALL_FILES, FILES)], ids=["many files", "small files"])
def test_the_disk_is_not_filled_in_either_form(
    host: Host, form: str, code: str, limits: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    _check(host, form, code, *limits)


def _check(host: Host, form: str, code: str, smaller: dict[str, Any], larger: dict[str, Any]) -> None:
    small, large = both(host, form, code, smaller, larger)
    assert held(large), large
    assert not held(small), small
    if host.user == "root":
        # The system refuses it, and the session lives on.
        assert small["status"] == "error"
        assert "No space left on device" in small["error"]["value"]
    else:
        assert small["status"] == "kernel_died"
        assert any(cause in small["reason"] for cause in ("too much on disk, limit 8 MB", "too many files, limit 500"))


def test_folders_may_be_deep_but_are_counted_and_removed(host: Host) -> None:
    """Where folders are watched, how deep they may be is bounded too: a look must come to an end."""
    small, large = both(host, "portable", IN_DEEP_FOLDERS, *FILES)
    assert not held(small), small
    if host.user == "root":
        assert held(large), large
    else:
        assert "folders nested too deep" in large["reason"]


def test_holes_take_nothing(host: Host) -> None:
    with opened(host, {"form": "portable", "disk": 8 * MB}) as session:
        code = "for number in range(5):\n    with open(f'file-{number}', 'wb') as file:\n        file.truncate(200 * 2**20)\n"
        result = session.run(f"{code}{hold(host)}\nprint('held')")
        assert held(result), result
        places = [os.path.join(session.facts["work"], f"file-{number}") for number in range(5)]
        assert sum(os.stat(place).st_blocks * 512 for place in places) < MB


@pytest.mark.parametrize("how", ["file.truncate(2 * 2**20)", "file.write(bytes(2 * 2**20)); file.flush()"])
def test_a_file_grows_only_so_far(host: Host, how: str) -> None:
    code = f"with open('file', 'wb') as file:\n    {how}\nprint('held')"
    small, large = both(host, "portable", code, {"file_size": MB}, {"file_size": 3 * MB})
    assert held(large), large
    assert small["status"] == "error"
    assert "File too large" in small["error"]["value"]


def test_a_full_session_can_be_tidied_up(host: Host) -> None:
    """The system refuses one more file, not the work with those that are there."""
    with opened(host, {"form": "portable", "disk": 8 * MB}) as session:
        session.run(FILL.replace("HOLD", "pass"))
        code = "import glob, os\nfor name in glob.glob('file-*'): os.unlink(name)\nopen('new', 'wb').write(bytes(2**20))\nprint('held')"
        result = session.run(code)
        assert held(result), result
