"""What people do in a session works behind the walls, in both forms and of both users."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.abuse.conftest import Host, Inmate
from tests.abuse.exhausting import opened

# Each ends with a line that says "done" if all of it went well.
WORK: Final = {
    "numpy and pandas, with files": """
        import numpy, pandas
        frame = pandas.DataFrame({"a": numpy.arange(1000), "b": numpy.random.default_rng(1).normal(size=1000)})
        frame.to_csv("frame.csv", index=False)
        assert pandas.read_csv("frame.csv").shape == (1000, 2)
        a = numpy.random.default_rng(2).normal(size=(300, 300))
        assert numpy.allclose(numpy.linalg.inv(a) @ a, numpy.eye(300), atol=1e-6)
        numpy.save("array.npy", a)
        assert numpy.load("array.npy", mmap_mode="r").shape == (300, 300)
    """,
    "a figure in a file, with a font": """
        import matplotlib.font_manager, matplotlib.pyplot as plt, os
        plt.plot([1, 2, 3]); plt.title("Grüße: α² → ∞")
        for kind in ("png", "pdf", "svg"):
            plt.savefig(f"figure.{kind}")
            assert os.path.getsize(f"figure.{kind}") > 1000
        plt.close()
        assert matplotlib.font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    """,
    "sqlite": """
        import sqlite3
        for place in (":memory:", "data.sqlite"):
            with sqlite3.connect(place) as db:
                db.execute("pragma journal_mode=wal")
                db.execute("create table t (n integer)")
                db.executemany("insert into t values (?)", [(n,) for n in range(1000)])
            assert db.execute("select sum(n) from t").fetchone() == (499500,)
            db.execute("vacuum")
            db.close()
    """,
    "multiprocessing, forked": """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        with context.Pool(3) as pool:
            assert pool.map(abs, range(-50, 0)) == list(range(50, 0, -1))
        def work(queue, lock, value, event):
            with lock:
                value.value += 1
            queue.put(value.value)
            event.set()
        queue, lock, value, event = context.Queue(), context.Lock(), context.Value("i", 6), context.Event()
        process = context.Process(target=work, args=(queue, lock, value, event))
        process.start()
        assert event.wait(10) and queue.get(timeout=10) == 7
        process.join(10)
        assert process.exitcode == 0
    """,
    "multiprocessing, spawned": """
        import multiprocessing
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
    """,
    "shared memory": """
        from multiprocessing import shared_memory
        block = shared_memory.SharedMemory(create=True, size=10_000)
        again = shared_memory.SharedMemory(block.name)
        block.buf[5] = 7
        assert again.buf[5] == 7
        again.close(); block.close(); block.unlink()
    """,
    "threads and executors": """
        import threading
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda n: n * n, range(100))) == 328350
        with ProcessPoolExecutor(2) as pool:
            assert list(pool.map(abs, [-1, -2])) == [1, 2]
        local = threading.Thread(target=lambda: None)
        local.start(); local.join(5)
    """,
    "asyncio": """
        import asyncio
        async def main():
            process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
            out, _ = await process.communicate(b"hello")
            assert (out, process.returncode) == (b"hello", 0)
        await asyncio.wait_for(main(), 10)
    """,
    "programs and pipes": """
        import subprocess, sys
        run = lambda *command, **more: subprocess.run(command, capture_output=True, text=True, check=True, **more).stdout
        assert "bin" in run("ls", "/usr")
        assert run(sys.executable, "-c", "print(6 * 7)") == "42\\n"
        assert run("bash", "-c", "printf 'b\\\\na\\\\n' | sort | head -1; cat <(echo x) <<< y") == "a\\nx\\n"
        assert run("env", "-i", "/bin/sh", "-c", "echo $((1 + 1))") == "2\\n"
        assert subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode == -15
        for tool in ("sed", "awk", "grep", "find", "tar"):
            run("sh", "-c", f"command -v {tool}")
    """,
    "files in every way": """
        import fcntl, mmap, os, pathlib, shutil, tempfile
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:
            file.write(b"x"); file.flush()
            shutil.copy(file.name, folder)
            pathlib.Path(folder, "sub").mkdir()
            shutil.copytree(folder, "copy", dirs_exist_ok=True)
        archive = shutil.make_archive("archive", "zip", "copy")
        shutil.unpack_archive(archive, "unpacked")
        shutil.make_archive("archive", "gztar", "copy")
        os.rename("copy", "moved"); os.symlink("moved", "link"); os.link("archive.zip", "hard")
        assert os.path.samefile("archive.zip", "hard") and os.path.realpath("link").endswith("/moved")
        with open("archive.zip", "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            mmap.mmap(file.fileno(), 0).close()
        shutil.rmtree("moved"); shutil.rmtree("unpacked")
        os.mkfifo("pipe"); os.unlink("pipe"); os.unlink("link")
        assert os.path.exists("/dev/null") and open("/dev/urandom", "rb").read(4)
    """,
    "a script": """
        import subprocess
        with open("script", "w") as file:
            file.write("echo it ran\\n")
        assert subprocess.run(["sh", "script"], capture_output=True).stdout == b"it ran\\n"
    """,
    "git": """
        import shutil, subprocess
        if shutil.which("git"):
            run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True, cwd="repository").stdout
            subprocess.run(["git", "init", "-q", "repository"], check=True)
            open("repository/file", "w").write("x")
            run("git", "config", "user.email", "a@example.org"); run("git", "config", "user.name", "A")
            run("git", "add", "file"); run("git", "commit", "-qm", "first")
            assert "first" in run("git", "log", "--oneline")
            subprocess.run(["git", "clone", "-q", "repository", "clone"], check=True)
    """,
    "archives by tar and zip": """
        import os, subprocess, tarfile, zipfile
        os.makedirs("things", exist_ok=True); open("things/a", "w").write("x" * 1000)
        subprocess.run(["tar", "czf", "things.tgz", "things"], check=True)
        os.makedirs("out", exist_ok=True)
        subprocess.run(["tar", "xzf", "things.tgz", "-C", "out"], check=True)
        assert open("out/things/a").read() == "x" * 1000
        with tarfile.open("things.tgz") as archive:
            archive.extractall("out2")
        with zipfile.ZipFile("things.zip", "w") as archive:
            archive.write("things/a")
    """,
    "language, time and who one is": """
        import datetime, getpass, grp, locale, os, pwd, socket, sys, time, zoneinfo
        locale.setlocale(locale.LC_ALL, "")
        assert sys.getfilesystemencoding() == "utf-8"
        assert datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset().seconds == 7200
        time.tzset()
        assert getpass.getuser() and os.path.expanduser("~") == os.environ["HOME"]
        assert os.access(os.path.expanduser("~"), os.W_OK) and socket.gethostname()
        assert pwd.getpwnam("root").pw_uid == 0 and grp.getgrgid(0).gr_name == "root"
    """,
    "certificates": """
        import hashlib, os, secrets, ssl, uuid
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        assert not os.path.isdir("/etc/ssl/certs") or os.listdir("/etc/ssl/certs")
        assert secrets.token_hex(4) and uuid.uuid1() and hashlib.sha256(b"x").hexdigest()
    """,
    "a virtual environment": """
        import subprocess, sys
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "venv"], check=True)
        assert subprocess.run(["venv/bin/python", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True).stdout.endswith("/venv\\n")
    """,
    "modules of one's own": """
        import importlib, pathlib
        pathlib.Path("own_module.py").write_text("answer = 42")
        importlib.invalidate_caches()
        import own_module
        assert own_module.answer == 42 and pathlib.Path("__pycache__").exists()
    """,
    "timers and signals": """
        import signal
        def stop(*_): raise TimeoutError
        before = signal.signal(signal.SIGALRM, stop)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            signal.pause()
        except TimeoutError:
            pass
        signal.signal(signal.SIGALRM, before)
    """,
}


# What can reach any file of the machine, or any socket, has no effect in the portable form, where all of them are in view.
NEEDS_SOCKETS: Final = {
    "a manager": """
        import multiprocessing
        with multiprocessing.get_context("fork").Manager() as manager:
            shared = manager.dict(a=1)
            shared["b"] = 2
            assert dict(shared) == {"a": 1, "b": 2}
    """,
    "a local server": """
        import asyncio
        async def serve(reader, writer):
            writer.write((await reader.readline()).upper())
            writer.close()
        async def main():
            async with await asyncio.start_unix_server(serve, "socket"):
                reader, writer = await asyncio.open_unix_connection("socket")
                writer.write(b"hello\\n")
                assert await reader.read() == b"HELLO\\n"
                writer.close()
        await asyncio.wait_for(main(), 10)
    """,
}
NEEDS_PERMISSIONS: Final = {
    "permissions and times": """
        import os, pathlib, stat
        pathlib.Path("own").write_text("x")
        os.chmod("own", 0o640)
        assert stat.S_IMODE(os.stat("own").st_mode) == 0o640
        os.utime("own", (1, 1))
        assert os.stat("own").st_mtime == 1
    """,
    "a script that is made executable": """
        import os, subprocess
        with open("program", "w") as file:
            file.write("#!/bin/sh\\necho it ran\\n")
        os.chmod("program", 0o755)
        assert subprocess.run(["./program"], capture_output=True).stdout == b"it ran\\n"
    """,
}


@pytest.mark.parametrize("row", WORK)
def test_it_works(inmate: Inmate, row: str) -> None:
    result = inmate.run(f"{textwrap.dedent(WORK[row])}\nprint('done')")
    assert result["status"] == "ok", result["error"] or result["reason"]
    assert result["stdout"].endswith("done\n"), result
    assert not result["stderr"], result["stderr"]


@pytest.mark.parametrize("row", [*NEEDS_SOCKETS, *NEEDS_PERMISSIONS])
def test_it_works_where_the_walls_can_tell_what_is_meant(inmate: Inmate, form: str, row: str) -> None:
    result = inmate.run(f"{textwrap.dedent({**NEEDS_SOCKETS, **NEEDS_PERMISSIONS}[row])}\nprint('done')")
    own_uid = "own uid" in inmate.facts["containment"]
    if form == "strong" or (own_uid and row in NEEDS_PERMISSIONS):
        assert result["status"] == "ok", result["error"] or result["reason"]
    else:
        assert result["status"] == "error", "it works there: so say where that is documented"


def test_a_figure_is_shown(inmate: Inmate) -> None:
    result = inmate.run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()")
    assert result["status"] == "ok"
    assert any("image/png" in output.get("data", {}) for output in result["outputs"]), result["outputs"]


@pytest.mark.parametrize(
    "code", ["!echo it ran", "%%bash\necho it ran | cat", "%%sh\necho it ran", "said = !echo it ran\nprint(said.n)"]
)
def test_commands_of_cells_work(inmate: Inmate, code: str) -> None:
    result = inmate.run(code)
    assert result["status"] == "ok"
    assert result["stdout"].strip() == "it ran", result


def test_what_a_forked_process_prints_is_seen(inmate: Inmate) -> None:
    code = (
        "import multiprocessing\nprocess = multiprocessing.get_context('fork').Process(target=print, args=('seen',))\n"
    )
    result = inmate.run(f"{code}process.start(); process.join()")
    assert "seen" in result["stdout"], result


def test_a_library_can_be_installed(host: Host, form: str) -> None:
    """From a file, by pip: nothing goes over the network."""
    with opened(host, {"form": form, "network": "full"}) as session:
        code = """
            import base64, hashlib, subprocess, sys, zipfile
            files = {
                "tiny/__init__.py": "answer = 42\\n",
                "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n",
                "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            }
            files["tiny-1.0.dist-info/RECORD"] = "".join(f"{name},,\\n" for name in [*files, "tiny-1.0.dist-info/RECORD"])
            with zipfile.ZipFile("tiny-1.0-py3-none-any.whl", "w") as wheel:
                for name, text in files.items():
                    wheel.writestr(name, text)
            command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check"]
            done = subprocess.run([*command, "--target", "libraries", "tiny-1.0-py3-none-any.whl"], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            sys.path.insert(0, "libraries")
            import tiny
            print(tiny.answer)
        """
        result = session.run(textwrap.dedent(code))
        assert result["stdout"] == "42\n", result["error"] or result


@pytest.fixture
def folder(host: Host) -> Iterator[Path]:
    """One of the host's user."""
    with tempfile.TemporaryDirectory(prefix="cellrun-abuse-work-", dir="/tmp") as name:
        place = Path(name, "place")
        place.mkdir()
        (place / "input").write_text("hello")
        if host.user == "ordinary" and os.getuid() == 0:
            from tests.abuse.conftest import ORDINARY

            for path in (Path(name), place, place / "input"):
                shutil.chown(path, ORDINARY, ORDINARY)
        else:
            Path(name).chmod(0o755)
        yield place


def test_a_folder_to_read_is_read_and_not_changed(host: Host, form: str, folder: Path) -> None:
    with opened(host, {"form": form, "read_only": [str(folder)]}) as session:
        assert session.run(f"print(open({str(folder / 'input')!r}).read())")["stdout"] == "hello\n"
        assert session.tries(f"open({str(folder / 'input')!r}, 'a')").startswith(("PermissionError", "OSError"))
        assert session.tries(f"open({str(folder / 'new')!r}, 'w')").startswith(("PermissionError", "OSError"))
        assert sorted(path.name for path in folder.iterdir()) == ["input"]


@pytest.mark.parametrize("how", ["read_write", "cwd"])
def test_a_folder_to_write_is_written(host: Host, form: str, folder: Path, how: str) -> None:
    policy = {"form": form, "read_write": [str(folder)]} if how == "read_write" else {"form": form}
    with opened(host, policy, cwd=str(folder) if how == "cwd" else None) as session:
        code = f"""
            import os, subprocess
            os.chdir({str(folder)!r})
            assert open("input").read() == "hello"
            open("output", "w").write("made")
            os.mkdir("sub"); os.rename("output", "sub/output"); os.chmod("sub/output", 0o640)
            subprocess.run(["cp", "sub/output", "copy"], check=True)
            print("done")
        """
        result = session.run(textwrap.dedent(code))
        assert result["stdout"] == "done\n", result["error"] or result
    assert (folder / "sub" / "output").read_text() == (folder / "copy").read_text() == "made"
    if form == "strong":
        assert (folder / "sub" / "output").stat().st_mode & 0o777 == 0o640
