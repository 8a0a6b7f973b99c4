"""Small cells that show the differences that are meant: what our kernel does otherwise, each thing by itself."""

from __future__ import annotations

from tests.differential.cells.shape import one, several, topic

DIFFERENT = topic(
    "different",
    one("lone surrogates that are printed", r"import sys; sys.stdout.write('before \ud800 and \udc80 after\nnext\n');"),
    one("lone surrogates that are displayed", r"display({'text/plain': 'a \ud800 b'}, raw=True); print('went on')"),
    one("lone surrogates in an error", r"raise ValueError('a \ud800 b')"),
    one(
        "undecodable bytes",
        r"import sys; sys.stdout.write(b'caf\xe9'.decode('utf-8', 'surrogateescape') + '\nnext\n');",
    ),
    one("the descriptors of the streams", "import sys\nsys.stdout.fileno(), sys.stderr.fileno()"),
    one(
        "a child that is given a stream",
        "import subprocess, sys\nsubprocess.run(['echo', 'where'], stdout=sys.stdout);",
    ),
    several(
        "a write of one's own over cells",
        "import sys\nwrite = sys.stdout.write\nsys.stdout.write = lambda text: write(text[::-1])",
        "print('abc')",
        "del sys.stdout.write\nprint('abc')",
    ),
    one(
        "a hook of the stream",
        "import sys\nseen = []\ndef hook(message):\n    seen.append(message['msg_type'])\n    return message\n"
        "sys.stdout.register_hook(hook)\nprint('x', flush=True)\nsys.stdout.unregister_hook(hook)\nprint('y', flush=True)\nseen",
    ),
    one("the number in the name of a cell's file", "(lambda: 0).__code__.co_filename[-15:].rpartition('/')[2][:-3]"),
    several("a warning of the compiler", "x = 1 is 1", "assert (1, 'x')"),
    several("a call without parentheses", "%autocall 1", "len 'abc'", "%autocall 0"),
    one("the application", "from traitlets.config import Application\ntype(Application.instance()).__name__"),
    one("what can be configured", "%config"),
    one("the configuration of the shell", "get_ipython().config", mask=(r"'connection_file': '[^']*'",)),
    one("subshells", "%subshell"),
    one("a breakpoint", "x = 5\nbreakpoint()\nprint('went on')", stdin=("c",)),
    one(
        "debuggers that are loaded",
        "import sys\n'debugpy' in sys.modules, 'pydevd' in sys.modules, hasattr(__builtins__, 'execfile')",
    ),
    one(
        "libraries that are loaded",
        "import sys\n[name in sys.modules for name in ('numpy', 'pandas', 'matplotlib.pyplot', 'jedi')]",
        fresh=True,
    ),
    one("objects that the collector leaves alone", "import gc\ngc.get_freeze_count() > 0"),
    one(
        "variables for debuggers and parents",
        "import os\n[name in os.environ for name in ('JPY_PARENT_PID', 'PYDEVD_USE_FRAME_EVAL')]",
    ),
    one("the name of the process", "open('/proc/self/comm').read()[:5]"),
    one("the backend", "import matplotlib.pyplot as plt\nplt.isinteractive()", fresh=True),
    one(
        "a figure without pyplot",
        "from matplotlib.figure import Figure\nfig = Figure(figsize=(1, 1))\nfig.subplots().plot([1, 2])\nfig",
        fresh=True,
    ),
    one("the threads", "import threading\nsorted(thread.name for thread in threading.enumerate())", fresh=True),
    one("the frames below a cell", "import inspect\nlen(inspect.stack())"),
    one(
        "the file of the kernel's code",
        "import inspect\ninspect.getfile(type(get_ipython().kernel)).rpartition('site-packages')[2]",
    ),
    one("the hash of a text", "hash('a text')"),
)
