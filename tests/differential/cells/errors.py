"""Exceptions, warnings, interrupts."""

from __future__ import annotations

from tests.differential.cells.shape import Cell, cell, one, several, topic

ERRORS = topic(
    "errors",
    several("an exception, and the next cell", "print('before')\n1 / 0\nprint('never')", "'went on'"),
    one("without a message", "raise ValueError"),
    one("with a message of several lines", "raise ValueError('one\\ntwo\\n\\nthree')"),
    one("with a message beyond ASCII", "raise ValueError('größer als 漢字 🎉')"),
    one("with control characters in the message", r"raise ValueError('a\x1b[31m\x00\rb')"),
    one("with a message of a hundred kilobytes", "raise ValueError('long ' * 20_000)"),
    one("with arguments", "raise OSError(2, 'No such file', 'name.txt')"),
    several(
        "of the built-in kinds",
        "{}['key']",
        "[][5]",
        "int('x')",
        "None.x",
        "len(5)",
        "open('no/such/file')",
        "import no_such_module",
        "from math import no_such_name",
        "1 + 'a'",
        "next(iter(()))",
        "undefined_name",
        "assert 1 == 2",
        "assert 1 == 2, 'they differ'",
        "b'\\xff'.decode()",
        "raise MemoryError",
        "raise StopIteration(5)",
        "raise NotImplementedError",
    ),
    several(
        "with suggestions",
        "import math\nmath.sqr",
        "number = 5\nnumbr",
        "class A:\n    colour = 1\nA().color",
        "prnt('x')",
        "from collections import Orderdict",
    ),
    one(
        "a class of one's own",
        "class MyError(Exception):\n    def __init__(self, code): self.code = code; super().__init__(f'code {code}')\nraise MyError(7)",
    ),
    one("str of it fails", "class Bad(Exception):\n    def __str__(self): raise RuntimeError('no str')\nraise Bad"),
    one(
        "repr of it fails",
        "class Bad(Exception):\n    def __repr__(self): raise RuntimeError('no repr')\nraise Bad('x')",
    ),
    one(
        "a class with a module of its own",
        "class E(Exception): pass\nE.__module__ = 'else.where'\nE.__qualname__ = 'Outer.E'\nraise E('x')",
    ),
    one("a cause", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('outer') from e"),
    one("a context", "try:\n    {}['k']\nexcept KeyError:\n    [][1]"),
    one("a suppressed context", "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('alone') from None"),
    one(
        "three deep",
        "def a():\n    try: 1 / 0\n    except Exception as e: raise KeyError('b') from e\ndef b():\n    try: a()\n    except Exception: raise OSError('c')\ntry: b()\nexcept OSError as e: raise RuntimeError('d') from e",
    ),
    one(
        "a circle of contexts",
        "a = ValueError('a'); b = ValueError('b')\na.__context__ = b; b.__context__ = a\nraise a",
    ),
    one("notes", "e = ValueError('x')\ne.add_note('a note')\ne.add_note('another\\nof two lines')\nraise e"),
    one("a group", "raise ExceptionGroup('several', [ValueError('a'), TypeError('b')])"),
    one(
        "a group in a group",
        "def f():\n    try: 1 / 0\n    except ZeroDivisionError as e: return e\nraise ExceptionGroup('outer', [f(), ExceptionGroup('inner', [KeyError('k'), f()])])",
    ),
    one("a base exception", "class B(BaseException): pass\nraise B('base')"),
    several("SystemExit", "raise SystemExit", "raise SystemExit(3)", "import sys\nsys.exit('bye')", "'still here'"),
    several(
        "KeyboardInterrupt is raised", "raise KeyboardInterrupt", "raise KeyboardInterrupt('text')", "'still here'"
    ),
    several("others that end", "raise GeneratorExit", "import asyncio\nraise asyncio.CancelledError", "'still here'"),
    one(
        "too deep a recursion",
        "import sys\nlimit = sys.getrecursionlimit()\nsys.setrecursionlimit(200)\ndef f(n): return f(n + 1)\ntry: f(0)\nfinally: sys.setrecursionlimit(limit)",
        mask=(r"(?s)Cell.*Cell",),
    ),
    one(
        "a long traceback",
        "def f(n):\n    if n: return g(n - 1)\n    raise ValueError('deep')\ndef g(n): return f(n)\nf(30)",
    ),
    one("long lines in the traceback", f"x = [{', '.join(['1'] * 300)}]; 1 / 0"),
    one(
        "many lines of context",
        "def f():\n" + "".join(f"    v{i} = {i}\n" for i in range(30)) + "    1 / 0\n\n\n\n\nf()",
    ),
    several(
        "in a function of an earlier cell",
        "def broken(x):\n    y = x * 2\n    return y / 0",
        "\n\nbroken(5)",
        "def broken(x):\n    raise KeyError(x)",
        "broken(6)",
    ),
    one("in a lambda, a comprehension, a generator", "f = lambda: [1 / x for x in (y - 1 for y in (2, 1))]\nf()"),
    one("in a class body", "class C:\n    x = 1\n    y = x / 0"),
    one("in a decorator", "def deco(f): raise TypeError('deco')\n@deco\ndef f():\n    pass"),
    one(
        "in a property and a with",
        "import contextlib\n@contextlib.contextmanager\ndef c():\n    yield\n    raise ValueError('at exit')\nwith c():\n    pass",
    ),
    one("in a finally", "try:\n    1 / 0\nfinally:\n    print('tidied')"),
    one("in exec and eval", "exec('x = 1\\ny = x / 0')"),
    one("in code with a name", "code = compile('def f():\\n    1 / 0\\nf()', 'somewhere.py', 'exec')\nexec(code)"),
    one("in a callback of C code", "sorted([3, 1], key=lambda x: 1 / 0)"),
    several(
        "in a module of a file",
        "from pathlib import Path\nPath('broken_module.py').write_text('def f():\\n    return 1 / 0\\n')\nimport sys; sys.path.insert(0, '')",
        "import broken_module\nbroken_module.f()",
        "sys.path.remove('')\ndel sys.modules['broken_module']",
    ),
    one("in the standard library", "import json\njson.loads('{')"),
    one("in numpy", "import numpy as np\nnp.zeros(3) + np.zeros(4)"),
    several(
        "of the syntax",
        "1 +",
        "def f(:\n    pass",
        "(1, 2",
        "x = 5 5",
        "'open",
        "f'{'",
        "return 5",
        "break",
        "for i in range(3) print(i)",
        "1 = x",
        "class",
        "print 'x'",
        "x = (1,\n     2\ny = 3",
        "lambda: (yield)",
        "nonlocal x",
        "a b c",
        "await",
        "def f():\n    x = 1\n    global x",
        "\\",
        "0777",
        "if x = 1: pass",
    ),
    several(
        "of the indentation",
        "if True:\nx = 1",
        "def f():\n    x = 1\n      y = 2",
        "x = 1\n  y = 2",
        Cell(code="if True:\n        x = 1\n\ty = 2"),
    ),
    several(
        "of the syntax at run time",
        "eval('1 +')",
        "exec('def f(:')",
        "compile('x = ', 'name.py', 'exec')",
        "import ast\nast.literal_eval('f()')",
    ),
    one(
        "of the syntax in a file",
        "from pathlib import Path\nPath('bad_syntax.py').write_text('def f(:\\n')\nimport sys; sys.path.insert(0, '')\ntry:\n    import bad_syntax\nfinally:\n    sys.path.remove('')",
    ),
    several(
        "what is kept of the last one",
        "1 / 0",
        "import sys\nsys.last_type, sys.last_value, sys.last_traceback.tb_lineno, sys.exc_info()",
    ),
    several("raised again", "try:\n    {}['k']\nexcept KeyError as e:\n    kept = e", "raise kept"),
    one(
        "printed by the cell",
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n    print(traceback.format_exc().count('Traceback'))",
    ),
    several(
        "shown by the shell",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()\nprint('went on')",
        "try:\n    exec('1 +')\nexcept SyntaxError:\n    get_ipython().showsyntaxerror()",
    ),
    several("the last one shown again", "1 / 0", "%tb", "%tb Plain"),
    several(
        "the modes",
        "%xmode Plain",
        "1 / 0",
        "%xmode Minimal",
        "1 / 0",
        "%xmode Verbose",
        "def f(a): return a / 0\nf(5)",
        "%xmode Docs",
        "1 / 0",
        "%xmode Context",
        "%xmode",
        "1 / 0",
    ),
    several(
        "a handler of one's own",
        "def handle(self, kind, value, tb, tb_offset=None):\n    print('handled', kind.__name__)\n    return ['a', 'b']\nget_ipython().set_custom_exc((KeyError,), handle)",
        "{}['k']",
        "1 / 0",
        "get_ipython().set_custom_exc((), None)",
        "{}['k']",
    ),
    several(
        "the hook of the interpreter is not used",
        "import sys\nold = sys.excepthook\nsys.excepthook = lambda *a: print('hook')",
        "1 / 0",
        "sys.excepthook = old",
    ),
    several(
        "a traceback of one's own",
        "class E(Exception):\n    def _render_traceback_(self): return ['custom', 'lines']\nraise E('x')",
        "'next'",
    ),
    one(
        "in a destructor",
        "class A:\n    def __del__(self): raise ValueError('in del')\na = A()\ndel a\nprint('went on', flush=True)",
        order="apart",
    ),
    one(
        "colours off",
        "%colors NoColor\ntry:\n    get_ipython().InteractiveTB.text\nexcept AttributeError: pass\n%colors Linux",
    ),
    several("a failing cell ends the line of statements", "x = 1\nundefined\nx = 2", "x"),
    one(
        "an object that cannot be shown in the traceback",
        "class A:\n    def __repr__(self): 1 / 0\ndef f(a): raise ValueError('x')\nf(A())",
    ),
    several(
        "variables that cannot be shown in verbose mode",
        "%xmode Verbose",
        "class A:\n    def __repr__(self): 1 / 0\ndef f(a): raise ValueError('x')\nf(A())",
        "%xmode Context",
    ),
)

WARNINGS = topic(
    "warnings",
    one("of the user", "import warnings\nwarnings.warn('take care')\nprint('went on')", order="apart"),
    one("twice at one place", "import warnings\nfor _ in range(3): warnings.warn('once only')"),
    one("from a function", "import warnings\ndef f(): warnings.warn('from above', stacklevel=2)\nf()"),
    one(
        "of kinds",
        "import warnings\nfor kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning, BytesWarning, UnicodeWarning, RuntimeWarning): warnings.warn(kind.__name__, kind)",
    ),
    several("of an escape", r"'\d'", r"print('\d')"),
    one(
        "as errors",
        "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')\n    warnings.warn('an error now')",
    ),
    one(
        "recorded",
        "import warnings\nwith warnings.catch_warnings(record=True) as seen:\n    warnings.simplefilter('always')\n    warnings.warn('one'); warnings.warn('two')\n[str(w.message) for w in seen]",
    ),
    one(
        "the filters",
        "import warnings\n[(f[0], f[1] and f[1].pattern, f[2].__name__, f[3] and f[3].pattern, f[4]) for f in warnings.filters]",
    ),
    one(
        "shown in a way of one's own",
        "import warnings\nold = warnings.showwarning\nwarnings.showwarning = lambda *a, **k: print('shown', a[0])\nwarnings.warn('mine')\nwarnings.showwarning = old",
    ),
    one("of numpy", "import numpy as np\nnp.array([1.0]) / np.array([0.0])"),
    one(
        "a coroutine that nobody awaits",
        "import gc\nasync def f(): pass\nc = f()\ndel c\ngc.collect();",
    ),
    one(
        "an unclosed file",
        "import warnings\nwarnings.simplefilter('always', ResourceWarning)\nf = open('w.txt', 'w')\ndel f\nwarnings.filters.pop(0)\nwarnings._filters_mutated()",
    ),
)

# A traceback shows where the interrupt struck: within sleep(), not within print(), since what is printed
# is flushed a little later and by another thread.
INTERRUPTS = topic(
    "interrupts",
    several(
        "a sleeping cell", cell("import time\nx = 'kept'\nprint('begun')\ntime.sleep(60)", interrupt_at="begun"), "x"
    ),
    several(
        "a cell that handles it",
        cell(
            "import time\ntry:\n    print('begun')\n    time.sleep(60)\nexcept KeyboardInterrupt as e:\n    print('tidied', repr(e))",
            interrupt_at="begun",
        ),
        "1",
    ),
    several(
        "a cell with a finally",
        cell(
            "import time\ntry:\n    print('begun')\n    time.sleep(60)\nfinally:\n    print('tidied')",
            interrupt_at="begun",
        ),
        "1",
    ),
    several(
        "a cell that awaits",
        cell("import asyncio\nprint('begun')\nawait asyncio.sleep(60)", interrupt_at="begun"),
        "import asyncio\nawait asyncio.sleep(0)\n'fine'",
    ),
    several(
        "a cell that gathers",
        cell(
            "import asyncio\nprint('begun')\nawait asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))",
            interrupt_at="begun",
        ),
        "'fine'",
    ),
    several(
        "a function called by a cell",
        cell(
            "import time\ndef f(n):\n    if n: return f(n - 1)\n    print('begun')\n    time.sleep(60)\nf(3)",
            interrupt_at="begun",
        ),
        "'fine'",
    ),
    several("a busy loop", cell("print('begun')\nwhile True: pass", interrupt_at="begun"), "'fine'"),
    several("a shell command", cell("!echo begun; exec sleep 60", interrupt_at="begun"), "'fine'"),
    several(
        "a subprocess",
        # By the program: before it runs, the interrupt would strike in its being started.
        cell("import subprocess\nsubprocess.run(['sh', '-c', 'echo begun; exec sleep 60'])", interrupt_at="begun"),
        "'fine'",
    ),
    several(
        "a thread that is joined",
        cell(
            "import threading, time\nstop = threading.Event()\nt = threading.Thread(target=stop.wait, daemon=True)\nt.start()\nprint('begun')\nt.join()",
            interrupt_at="begun",
        ),
        "stop.set()\nt.join()",
    ),
    several(
        "a handler of one's own",
        cell(
            "import signal, time\nold = signal.signal(signal.SIGINT, lambda *a: print('mine'))\nprint('begun')\nsignal.sigtimedwait([signal.SIGUSR1], 0.5)\nsignal.signal(signal.SIGINT, old)",
            mask=(r"<.*>",),
        ),
        cell(
            "import os\ndef handler(*a): print('mine')\nsignal.signal(signal.SIGINT, handler)\nos.kill(os.getpid(), signal.SIGINT)\nprint('went on')",
            mask=(r"<.*>",),
        ),
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nNone",
    ),
    several(
        "raised by the cell's own signal",
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('never')",
        "signal.raise_signal(signal.SIGINT)\nprint('never')",
        "'fine'",
    ),
    several(
        "ignored",
        cell(
            "import os, signal\nold = signal.signal(signal.SIGINT, signal.SIG_IGN)\nos.kill(os.getpid(), signal.SIGINT)\nprint('ignored')"
        ),
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nNone",
        "1",
    ),
    several(
        "by a timer",
        "import signal, time\nclass Late(Exception): pass\ndef handler(*a): raise Late('alarm')\nold = signal.signal(signal.SIGALRM, handler)\nsignal.setitimer(signal.ITIMER_REAL, 0.5)\ntime.sleep(30)",
        "signal.signal(signal.SIGALRM, old) is handler",
    ),
    several(
        "with output under way",
        cell("import time\nfor i in range(100): print(i)\nprint('begun')\ntime.sleep(60)", interrupt_at="begun"),
        "'fine'",
    ),
)
