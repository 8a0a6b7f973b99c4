"""`cellrun run`, `repl` and `doctor` on a service."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pexpect
import pytest

from tests.cli.test_command import cellrun
from tests.remote.conftest import address_of
from tests.service.running import Service
from tests.support.waiting import PROCESS


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a service, and a file with a key of it."""
    service = Service(tmp_path_factory.mktemp("keyed"))
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text(service.add_key("command") + "\n", "utf-8")
    yield address_of(service.start()), file
    service.end()


@pytest.mark.wide
def test_code_runs_there_with_its_exit_code_and_its_forms(keyed: tuple[str, Path], tmp_path: Path) -> None:
    on = ("--server", keyed[0], "--token-file", str(keyed[1]))
    done = cellrun("run", *on, "-c", "import sys; print('out'); print('err', file=sys.stderr); 6 * 7", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n42\n", "err\n", 0)
    assert cellrun("run", *on, "-c", "1/0", cwd=tmp_path).returncode == 1
    done = cellrun("run", *on, "-c", "import time; time.sleep(300)", "--timeout", "0.5", cwd=tmp_path)
    assert done.returncode == 124
    done = cellrun("run", *on, "--json", "-c", "input('who? ')", cwd=tmp_path, stdin="Ada\n")
    assert json.loads(done.stdout)["text"] == "'Ada'"
    done = cellrun("run", *on, "--save", "out.ipynb", "-c", "6 * 7", cwd=tmp_path)
    saved = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert saved.cells[0].outputs[0].data["text/plain"] == "42"


@pytest.mark.wide
def test_what_is_wrong_is_said(keyed: tuple[str, Path], tmp_path: Path) -> None:
    on = ("--server", keyed[0])
    for args, code, words in (
        (("run", *on, "-c", "1"), 4, "wants a key"),
        (("run", *on, "--kernel", "python3", "-c", "1"), 2, "takes no kernel"),
        (("run", "--server", "cellrun://127.0.0.1:9", "-c", "1"), 3, "cannot be reached"),
        (("serve", *on), 2, "must begin with http"),
        (("doctor", *on), 4, "wants a key"),
    ):
        done = cellrun(*args, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert words in done.stderr + done.stdout
    done = cellrun("run", *on, "-c", "1", cwd=tmp_path, env={"CELLRUN_PASSWORD": "x"})
    assert (done.returncode, "takes no password" in done.stderr) == (2, True)


@pytest.mark.wide
def test_the_doctor_looks_at_it(keyed: tuple[str, Path], tmp_path: Path) -> None:
    done = cellrun("doctor", "--server", keyed[0], "--token-file", str(keyed[1]), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "the service answers, and runs code" in done.stdout
    assert "containment: strong" in done.stdout or "containment: portable" in done.stdout


@pytest.mark.wide
def test_the_prompt_runs_code_there_and_knows_when_a_cell_is_whole(keyed: tuple[str, Path], tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "cellrun", "repl", "--server", keyed[0], "--token-file", str(keyed[1])],
        env={**os.environ, "HOME": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        cwd=str(tmp_path),
        timeout=PROCESS,
        encoding="utf-8",
        dimensions=(40, 120),
    )
    try:
        child.expect("is ready")
        child.expect(r"\[1\]")
        child.send("x = 20\r")
        child.expect(r"\[2\]")
        child.send("for i in range(2):\r")
        child.expect(r"  \.")
        child.send("print('li' + 'ne', i + x)\r")
        child.expect(r"  \.")
        child.send("\r")
        child.expect("line 20")
        child.expect("line 21")
        child.expect(r"\[3\]")
        child.send("import time; print('o' + 'n'); time.sleep(60)\r")
        child.expect("on\r")
        child.send("\x03")
        child.expect("KeyboardInterrupt")
    finally:
        child.close(force=True)
