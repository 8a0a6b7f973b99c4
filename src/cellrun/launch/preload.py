"""What a forkserver does before it forks, so that no kernel has to do it again.

Steps are short, and are taken one at a time between requests: a kernel that is wanted before all is loaded does not wait.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from cellrun.kernel.application import LeanApplication

AUTO: Final = "auto"
# Whatever of these is installed; in this order, since each needs those before it.
USUAL: Final = ("numpy", "numpy.random", "pandas", "matplotlib.pyplot")

# Parts of the standard library and of IPython that are imported at their first use, which is mostly in a cell. ASCII is what we read /proc as.
_LAZY: Final = (
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "concurrent.futures",
    "multiprocessing",
    "pexpect",
    "psutil",
    "jedi",
    "pygments.lexers.python",
    "pygments.formatters.terminal256",
    "stack_data",
    "IPython.core.magics.execution",
    "IPython.core.debugger",
    "IPython.utils._process_posix",
    "matplotlib_inline.backend_inline",
)
# What cells do: run through the whole kernel, with nobody listening.
_WARM_CELLS: Final = ("1 + 1", "print(1)", "1 / 0", "x = 1;", "len?", "%time 1", "def f():\n    return 1\nf()")
_FIGURE: Final = (
    "import matplotlib.pyplot as plt",
    "plt.figure()\nplt.plot([1, 2, 3], label='a')\nplt.title('b')\nplt.legend()\nplt.show()",
    "plt.close('all')",
)
_TABLE: Final = ("import pandas", "pandas.DataFrame({'a': [1, 2], 'b': ['c', 'd']})")
_TABLE_FIGURE: Final = (
    "import pandas",
    "pandas.DataFrame({'a': [1, 2]}).plot()",
    "import matplotlib.pyplot as plt\nplt.close('all')",
)
_ARRAY: Final = ("import numpy", "numpy.arange(3) * 1.5")

Step = tuple[str, Callable[[], None]]

# Threads that libraries start at import, and the variables that stop them. Kernels get the variables back as they were.
NO_THREADS: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


class CannotImport(Exception):
    """A module of the caller's own list is not there, or broken."""


def steps(application: LeanApplication, modules: Sequence[str] | str, without: Sequence[str]) -> Iterator[Step]:
    """The name and the work of each step. With a list of the caller's own, an import that fails raises CannotImport;
    of the usual ones, those in `without` are left out."""
    return (step for step in _steps(application, modules) if step[0] not in without)


def _steps(application: LeanApplication, modules: Sequence[str] | str) -> Iterator[Step]:
    auto = modules == AUTO
    for name in _LAZY:
        yield name, partial(_import_if_possible, name)
    yield "cells", partial(_run, application, _WARM_CELLS)
    chosen = list(USUAL if auto else modules)
    for name in chosen:
        yield name, partial(_import_as_a_cell, application, _import_if_possible if auto else _import, name)
    for needed, cells in (("numpy", _ARRAY), ("pandas", _TABLE), ("matplotlib.pyplot", _FIGURE)):
        if needed in chosen and _installed(needed):
            yield f"cells of {needed}", partial(_run, application, cells)
    if {"pandas", "matplotlib.pyplot"} <= set(chosen) and _installed("pandas") and _installed("matplotlib"):
        yield "figures of pandas", partial(_run, application, _TABLE_FIGURE)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name.partition(".")[0]) is not None


def _import_as_a_cell(application: LeanApplication, load: Callable[[str], None], name: str) -> None:
    """With the builtins that a cell sees: pandas looks for `get_ipython` to find out whether it is in a terminal."""
    with application.shell.builtin_trap:
        load(name)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        raise CannotImport(f"{name!r} of preload= cannot be imported: {type(error).__name__}: {error}") from None


def _import_if_possible(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # broken or not installed: then cells that want it will say so
        return


def _run(application: LeanApplication, cells: Sequence[str]) -> None:
    """Runs cells of ours, and takes back what they leave in the shell."""
    kernel = application.kernel
    shell = kernel.shell
    variables, hidden, environment = dict(shell.user_ns), dict(shell.user_ns_hidden), set(os.environ)
    for code in cells:
        drive(kernel.execute_request(application.iopub, [], _request(code)))
        kernel.session.release(application.iopub)
    shell.user_ns.clear()
    shell.user_ns.update(variables)
    shell.user_ns_hidden.clear()
    shell.user_ns_hidden.update(hidden)
    shell.user_ns["_oh"].clear()
    hook = shell.displayhook
    hook._ = hook.__ = hook.___ = ""
    shell.last_execution_result = None
    shell.last_execution_succeeded = True
    shell._last_traceback = None
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        if hasattr(sys, name):
            delattr(sys, name)
    for name in set(os.environ) - environment:
        del os.environ[name]
    kernel.set_parent([], {"header": {}, "content": {}, "metadata": {}, "parent_header": {}})


def drive(coroutine: Any) -> None:
    """Runs a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a cell of the preload waits for something")


def _request(code: str) -> dict[str, Any]:
    header = {"msg_id": "preload", "msg_type": "execute_request", "session": "", "username": "", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": False}
    return {
        "header": header,
        "msg_id": "preload",
        "msg_type": "execute_request",
        "parent_header": {},
        "metadata": {},
        "content": content,
    }
