"""A session's own folders: it cannot put something else in their place, nor make of its files what others would fall for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.abuse.conftest import Host, Inmate, Outside


def test_the_working_folder_cannot_be_swapped_for_a_link(inmate: Inmate, outside: Outside) -> None:
    work, room = inmate.facts["work"], inmate.facts["room"]
    for attack in (
        f"os.chdir('/'); os.rename({work!r}, {room + '/other'!r}); os.symlink({outside.folder!r}, {work!r})",
        f"os.chdir('/'); os.rmdir({work!r})",
        f"os.mkdir({room + '/more'!r})",
        f"os.symlink('/', {room + '/link'!r})",
    ):
        assert inmate.tries(attack) != "succeeded", attack
    names = inmate.host.do(do="list", name=inmate.name)["names"]
    assert "secret" not in names


def test_a_named_local_socket_is_out_of_reach(inmate: Inmate, free: Inmate, outside: Outside) -> None:
    attack = f"socket.socket(socket.AF_UNIX).connect({outside.socket_path!r})"
    assert free.tries(attack) == "succeeded"
    assert inmate.tries(attack) != "succeeded"


def test_a_datagram_to_a_named_local_socket_is_not_sent(inmate: Inmate, free: Inmate, outside: Outside) -> None:
    # The wrong kind of socket is as good as any: what answers has been reached.
    attack = (
        "try: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', PATH)\n"
        "except OSError as error: assert error.errno == errno.EPROTOTYPE"
    ).replace("PATH", repr(outside.socket_path))
    assert free.tries(attack) == "succeeded"
    assert inmate.tries(attack) != "succeeded"


@pytest.mark.parametrize("bits", [0o4755, 0o2755], ids=["of its user", "of its group"])
def test_no_program_that_runs_with_its_owners_rights_can_be_made(inmate: Inmate, free: Inmate, bits: int) -> None:
    for how in (
        f"open('made', 'w').close(); os.chmod('made', {bits}); assert os.stat('made').st_mode & 0o6000",
        f"f = os.open('made', os.O_CREAT | os.O_RDWR); os.fchmod(f, {bits}); assert os.fstat(f).st_mode & 0o6000",
        f"os.umask(0); os.close(os.open('by-open', os.O_CREAT | 1, {bits})); assert os.stat('by-open').st_mode & 0o6000",
        f"os.umask(0); os.mknod('by-mknod', {bits} | 0o100000); assert os.stat('by-mknod').st_mode & 0o6000",
    ):
        for name in ("made", "by-open", "by-mknod"):
            free.run(f"import os; os.path.exists({name!r}) and os.unlink({name!r})")
        assert free.tries(how) == "succeeded", how
        assert inmate.tries(how) != "succeeded", how


def test_what_imports_need_stays_unchanged_where_it_lies_in_the_working_folder(host: Host, tmp_path: Path) -> None:
    """As in most projects: an environment of Python in the folder where one works."""
    folder = Path("/tmp") / f"cellrun-project-{os.getpid()}-{host.user}"
    (folder / "given").mkdir(parents=True)
    (folder / "given" / "module.py").write_text("x = 1")
    for path in (folder, folder / "given", folder / "given" / "module.py"):
        os.chown(path, *([54_321] * 2 if host.user == "ordinary" and os.getuid() == 0 else [-1, -1]))
    try:
        session = host.open({"form": "strong", "read_only": [str(folder / "given")]}, cwd=str(folder))
        assert session.tries("open('mine', 'w').close()") == "succeeded"
        assert session.tries("open('given/module.py').read()") == "succeeded"
        assert session.tries("open('given/module.py', 'a').write('x = 2')") != "succeeded"
        assert session.tries("open('given/new.pth', 'w').close()") != "succeeded"
        session.close()
        refused = host.do(
            do="open", name="x", sandbox={"form": "portable", "read_only": [str(folder / "given")]}, cwd=str(folder)
        )
        assert "must not be changed and lies in" in refused["text"]
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
