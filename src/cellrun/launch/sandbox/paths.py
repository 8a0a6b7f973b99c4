"""Where an interpreter and what it imports lie: what its kernels must be able to read."""

from __future__ import annotations

import functools
import json
import os
import site
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cellrun.launch.sandbox.enter import ROOT

_ASK: Final = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]))"
_PATIENCE: Final = 30.0


@functools.cache
def of_interpreter(python: str) -> tuple[str, ...]:
    """Absolute paths, links as they are. Raises OSError if it cannot be run."""
    try:
        done = subprocess.run(
            [python, "-c", _ASK], env=environment(), cwd="/", capture_output=True, timeout=_PATIENCE, check=True
        )
    except subprocess.SubprocessError as error:
        raise OSError(f"the interpreter {python} does not run: {error}") from None
    found = [path for path in json.loads(done.stdout) if path and os.path.exists(path)]
    return tuple(dict.fromkeys([*found, os.path.dirname(os.path.realpath(python)), str(ROOT)]))


def of_command(command: Sequence[str], resources: str) -> tuple[str, ...]:
    """Of a kernelspec's program: the file itself, the environment of Python that it belongs to, if it does, and the kernelspec's own
    folder. Not the folders around it: those of a user's programs hold more than programs."""
    program = command[0] if os.path.isabs(command[0]) else _found(command[0])
    if program is None:
        return (resources,)
    found = {resources}
    for path in (program, os.path.realpath(program)):
        found.add(path)
        place = os.path.dirname(os.path.dirname(path))
        if os.path.exists(os.path.join(place, "pyvenv.cfg")) or _is_python(place):
            found.add(place)
    return tuple(sorted(found))


def _is_python(place: str) -> bool:
    """Whether Python is installed there, or conda has made an environment."""
    lib = Path(place, "lib")
    return Path(place, "conda-meta").is_dir() or any((folder / "os.py").exists() for folder in lib.glob("python3.*"))


def harmless(paths: Iterable[str]) -> tuple[str, ...]:
    """Without those that would show the home folder, or everything, since a path of imports leads there."""
    home = Path.home().resolve()
    return tuple(path for path in paths if not home.is_relative_to(Path(path).resolve()))


def _found(name: str) -> str | None:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    return None


_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")


def environment(named: Sequence[str] = ()) -> dict[str, str]:
    """What is passed on of this process's variables: the language, the time zone, where programs are, and what is `named`."""
    variables: Mapping[str, str] = os.environ
    passed = {name: variables[name] for name in (*_KEPT, *named) if name in variables}
    passed.setdefault("LANG", "C.UTF-8")
    if site.ENABLE_USER_SITE:  # found by HOME, which is another one
        passed["PYTHONUSERBASE"] = site.getuserbase()
    return passed


def reachable(paths: Sequence[str], *, alone: bool = False) -> bool:
    """Whether a uid that is nobody's can read all of these paths, so far as they exist, and pass through to them; `alone`: if it is
    passed through to them in another way."""
    for path in paths:
        place = Path(os.path.realpath(path))
        if not place.exists():
            continue
        try:
            if not place.stat().st_mode & stat.S_IROTH:
                return False
            if not alone and not all(parent.stat().st_mode & stat.S_IXOTH for parent in place.parents):
                return False
        except OSError:
            return False
    return True
