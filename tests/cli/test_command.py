"""The command, as its user runs it: a process, its two outputs, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from cellrun import fold
from cellrun.wire import event_from_json
from tests.support.servers import Server
from tests.support.waiting import HANG, PROCESS

pytestmark = pytest.mark.timeout(400)  # some run half a dozen commands


def cellrun(
    *args: str, stdin: str | None = None, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    home = Path(f"{cwd}-home")  # not the folder itself: code would not be let work there
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "cellrun", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PROCESS,
        cwd=cwd,
        env={**os.environ, "HOME": str(home), "NO_COLOR": "1", **(env or {})},
        check=False,
    )


def test_output_goes_where_it_belongs(tmp_path: Path) -> None:
    done = cellrun("run", "-c", "import sys; print('out'); print('err', file=sys.stderr); 6 * 7", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n42\n", "err\n", 0)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("run", "-c", "1/0"), 1),
        (("run", "-c", "import time; time.sleep(300)", "--timeout", "0.5"), 124),
        (("run", "-c", "import os; os._exit(1)"), 1),
        (("run", "-c", "import sys; sys.exit(0)"), 0),
        (("run", "-c", "import sys; sys.exit()"), 0),
        (("run", "-c", "import sys; sys.exit(7)"), 7),
        (("run", "-c", "import sys; sys.exit('a reason')"), 1),
        (("run",), 2),
        (("run", "-c", "1", "--save", "script.py"), 2),
        (("run", "missing.py"), 2),
        (("run", "-c", "1", "--json", "--ndjson"), 2),
        (("run", "-c", "1", "--images", "often"), 2),
        (("run", "-c", "1", "--save", "no/such/folder/x.ipynb"), 2),
        (("run", "-c", "1", "--server", "nonsense"), 2),
        (("run", "-c", "1", "--token-file", "missing", "--server", "http://127.0.0.1:9"), 2),
        (("run", "-c", "1", "--server", "http://127.0.0.1:9"), 3),
        (("run", "-c", "1", "--kernel", "nope"), 3),
        (("--version",), 0),
    ],
)
def test_exit_codes_tell_what_happened(args: tuple[str, ...], code: int, tmp_path: Path) -> None:
    done = cellrun(*args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback (most recent call last):\n  File" not in done.stderr


@pytest.mark.wide
def test_a_server_is_used_with_a_token_from_a_file(free_server: Server, token_server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{free_server.token}\n")
    args = ("run", "-c", "6 * 7", "--server", free_server.url)
    assert cellrun(*args, "--token-file", "token", cwd=tmp_path).stdout == "42\n"
    assert cellrun(*args, cwd=tmp_path, env={"CELLRUN_TOKEN": free_server.token}).stdout == "42\n"
    config = Path(f"{tmp_path}-home") / ".config" / "cellrun" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'server = "{free_server.url}"\ntoken = "{free_server.token}"\n')
    assert cellrun("run", "-c", "40 + 2", cwd=tmp_path).stdout == "42\n"
    wrong = cellrun("run", "-c", "1", "--server", token_server.url, cwd=tmp_path)
    assert wrong.returncode == 4
    assert "refused the token" in wrong.stderr
    assert free_server.token not in wrong.stderr


def test_a_variable_that_is_no_json_is_named_and_says_what_was_expected(tmp_path: Path) -> None:
    done = cellrun("run", "-c", "1", cwd=tmp_path, env={"CELLRUN_ALLOW": "abc"})
    assert done.returncode == 2
    assert "CELLRUN_ALLOW" in done.stderr
    assert "SandboxPolicy" in done.stderr
    assert "settings file" not in done.stderr


def test_settings_that_are_wrong_are_named_with_their_origin(tmp_path: Path) -> None:
    done = cellrun("run", "-c", "1", cwd=tmp_path, env={"CELLRUN_TIMEOUT": "soon"})
    assert done.returncode == 2
    assert "'timeout' is not valid" in done.stderr
    assert "CELLRUN_TIMEOUT" in done.stderr
    (tmp_path / "c.toml").write_text("colour = 1\n")
    done = cellrun("run", "-c", "1", cwd=tmp_path, env={"CELLRUN_CONFIG": str(tmp_path / "c.toml")})
    assert done.returncode == 2
    assert "colour" in done.stderr


@pytest.mark.wide
def test_a_notebook_in_another_language_is_not_run_as_python(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    notebook.metadata["kernelspec"] = {"name": "ir", "language": "R", "display_name": "R"}
    nbformat.write(notebook, tmp_path / "r.ipynb")
    done = cellrun("run", "r.ipynb", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--kernel" in done.stderr


@pytest.mark.wide
def test_output_that_cannot_be_written_is_one_line_and_not_the_codes_fault(tmp_path: Path) -> None:
    command = f"{sys.executable} -m cellrun run -c 'print(1)' > /dev/full"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=PROCESS, check=False
    )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.wide
def test_closed_outputs_are_passed_over(tmp_path: Path) -> None:
    command = f"{sys.executable} -m cellrun run -c 'print(1)' >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=PROCESS, check=False).returncode == 0


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For temporary files: what is long is not used for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: S103  # sessions with a uid of their own pass through
        yield Path(folder)


@pytest.mark.wide
def test_a_long_temporary_folder_is_no_reason_not_to_run(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    assert cellrun("run", "-c", "print(1)", cwd=tmp_path, env={"TMPDIR": str(folder)}).stdout == "1\n"


def test_a_command_that_is_told_to_end_leaves_nothing(tmp_path: Path, short_folder: Path) -> None:
    temporary = short_folder
    env = {**os.environ, "TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(temporary)}
    command = [sys.executable, "-m", "cellrun", "run", "-c", "print('on', flush=True); import time; time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PROCESS) == 128 + signal.SIGTERM
    assert os.listdir(temporary) == []


def test_the_prompt_says_what_to_do_without_a_terminal(tmp_path: Path) -> None:
    done = cellrun("repl", stdin="6 * 7\n", cwd=tmp_path)
    assert done.returncode == 2
    assert "cellrun run -" in done.stderr


def test_a_flag_that_has_one_value_is_given_once(tmp_path: Path) -> None:
    done = cellrun("run", "-c", "1", "--allow", "memory=2GB", "--allow", "memory=3GB", cwd=tmp_path)
    assert done.returncode == 2
    assert "once" in done.stderr


def test_a_script_runs_cell_by_cell_until_one_fails(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        "x = 1\nx\n# %% [markdown]\n# words\n# %%\nprint(x + 1)\n# %%\n1/0\n# %%\nprint('never')\n"
    )
    done = cellrun("run", "s.py", "--save", "out.ipynb", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("1\n2\n", 1)
    assert "ZeroDivisionError" in done.stderr
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert [cell.outputs[0].output_type for cell in notebook.cells] == ["execute_result", "stream", "error"]


@pytest.mark.wide
def test_a_notebook_is_run_and_saved_with_its_texts(tmp_path: Path) -> None:
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    notebook = new_notebook(cells=[new_markdown_cell("# title"), new_code_cell("print('hi')"), new_code_cell("2")])
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = cellrun("run", "in.ipynb", "--save", "out.ipynb", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("hi\n2\n", 0)
    saved = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert [cell.cell_type for cell in saved.cells] == ["markdown", "code", "code"]
    assert saved.cells[1].outputs[0].text == "hi\n"


@pytest.mark.wide
def test_standard_input_is_code_with_a_dash_and_input_without(tmp_path: Path) -> None:
    assert cellrun("run", "-", stdin="print('from stdin')", cwd=tmp_path).stdout == "from stdin\n"
    done = cellrun("run", "-c", "print(input('name? '))", stdin="Ada\n", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("Ada\n", "name? ")
    assert "EOFError" in cellrun("run", "-c", "input()", stdin="", cwd=tmp_path).stderr


def test_json_is_the_result_and_ndjson_the_events(tmp_path: Path) -> None:
    done = cellrun("run", "-c", "print('a'); 1", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert (result["status"], result["stdout"], result["text"]) == ("ok", "a\n", "a\n1")
    done = cellrun("run", "-c", "print('a'); 1/0", "--ndjson", cwd=tmp_path)
    events = [event_from_json(line) for line in done.stdout.splitlines()]
    assert fold(events).status == "error"
    assert done.returncode == 1
    (tmp_path / "s.py").write_text("print(1)\n# %%\nprint(2)\n")
    result = json.loads(cellrun("run", "s.py", "--json", cwd=tmp_path).stdout)
    assert (result["stdout"], result["stdout_size"], len(result["cells"])) == ("1\n2\n", 4, 2)


@pytest.mark.wide
def test_exit_ends_a_script(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("print('first')\nexit()\n# %%\nprint('never')\n")
    done = cellrun("run", "s.py", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("first\n", 0)


@pytest.mark.wide
def test_pictures_are_saved_and_named_and_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "plot.py").write_text("import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()\n")
    for number in (1, 2):
        done = cellrun("run", "plot.py", cwd=tmp_path)
        assert done.stderr == f"cellrun: picture saved as plot-{number}.png\n"
        assert (tmp_path / f"plot-{number}.png").read_bytes().startswith(b"\x89PNG")
    done = cellrun("run", "plot.py", "--images", "off", cwd=tmp_path)
    assert "<Figure" in done.stdout


def test_a_file_that_the_code_writes_is_in_the_folder_of_the_caller(tmp_path: Path) -> None:
    assert cellrun("run", "-c", "open('made.txt', 'w').write('x');", cwd=tmp_path).returncode == 0
    assert (tmp_path / "made.txt").read_text() == "x"


@pytest.mark.parametrize(("times", "code", "said"), [(1, 130, "interrupted"), (2, 130, "Ctrl-C again quits")])
def test_ctrl_c_interrupts_and_a_second_one_quits(times: int, code: int, said: str, tmp_path: Path) -> None:
    once = "time.sleep(300)"
    twice = "try:\n    print('on', flush=True); time.sleep(300)\nexcept KeyboardInterrupt:\n    print('tidy', flush=True); time.sleep(300)"
    code_text = f"import time; print('on', flush=True); {once}" if times == 1 else f"import time\n{twice}"
    command = [sys.executable, "-m", "cellrun", "run", "-c", code_text]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    if times == 2:
        assert process.stdout.readline() == "tidy\n"
        process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=PROCESS)
    assert time.monotonic() - started < HANG
    assert process.returncode == code
    assert said in stderr


@pytest.mark.wide
def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m cellrun run -c 'for i in range(200000): print(i)' | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=PROCESS, cwd=tmp_path, check=False
    )
    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr


@pytest.mark.wide
def test_contained_code_does_not_get_the_home_folder_to_work_in(tmp_path: Path) -> None:
    (tmp_path / ".secret").write_text("mine")
    code = "import os; print(os.path.exists('.secret'))"
    home = {"HOME": str(tmp_path)}
    for folder, what in ((tmp_path, "your home folder"), (tmp_path.parent, "your home folder")):
        done = cellrun("run", "-c", code, cwd=folder, env=home)
        assert (done.stdout, done.returncode) == ("False\n", 0)
        assert f"cellrun: {folder} has {what} in it" in done.stderr
    done = cellrun("run", "-c", code, cwd=Path(tempfile.gettempdir()))
    assert "has the folder for temporary files in it" in done.stderr
    done = cellrun("run", "-c", code, "--sandbox", "none", cwd=tmp_path, env=home)
    assert (done.stdout, done.stderr) == ("True\n", "")
    (tmp_path / "project").mkdir()
    code = "open('made', 'w').close(); import os; print(os.path.exists('../.secret') and open('../.secret').read())"
    done = cellrun("run", "-c", code, cwd=tmp_path / "project", env=home)
    assert "mine" not in done.stdout
    assert (tmp_path / "project" / "made").exists()


@pytest.mark.wide
def test_what_is_allowed_beyond_the_default_is_said_by_flag_variable_and_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("given")
    work = tmp_path / "work"
    work.mkdir()
    code = f"print(open({str(data / 'file')!r}).read())"
    assert cellrun("run", "-c", code, cwd=work).returncode == 1
    assert cellrun("run", "-c", code, "--allow", f"read_only={data}", cwd=work).stdout == "given\n"
    env = {"CELLRUN_ALLOW": json.dumps({"read_only": [str(data)], "memory": "300MB"})}
    assert cellrun("run", "-c", code, cwd=work, env=env).stdout == "given\n"
    settings = tmp_path / "settings.toml"
    settings.write_text(f"[allow]\nread_only = ['{data}']\n")
    assert cellrun("run", "-c", code, cwd=work, env={"CELLRUN_CONFIG": str(settings)}).stdout == "given\n"
    for wrong in ("memory=x", "memroy=1GB", "network"):
        done = cellrun("run", "-c", code, "--allow", wrong, cwd=work)
        assert done.returncode == 2, wrong
        assert "Traceback" not in done.stderr


@pytest.mark.wide
def test_doctor_says_what_is_there(free_server: Server, tmp_path: Path) -> None:
    done = cellrun("doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert "kernel 'python3' starts and runs code" in done.stdout
    for layer in (
        "strong form",
        "portable form",
        "Landlock",
        "seccomp",
        "bubblewrap",
        "a uid for each",
        "control groups",
    ):
        assert f"{layer}" in done.stdout
    assert "ok    containment: " in done.stdout
    assert "note  containment: none" in cellrun("doctor", "--sandbox", "none", cwd=tmp_path).stdout
    done = cellrun("doctor", "--server", free_server.url, cwd=tmp_path, env={"CELLRUN_TOKEN": free_server.token})
    assert done.returncode == 0
    assert "server answers: version" in done.stdout
    done = cellrun("doctor", "--server", free_server.url, cwd=tmp_path, env={"CELLRUN_TOKEN": "wrong"})
    assert done.returncode == 4
    assert "→" in done.stdout
    done = cellrun("doctor", "--kernel", "nope", cwd=tmp_path)
    assert done.returncode == 3
    assert "python -m ipykernel install" in done.stdout
