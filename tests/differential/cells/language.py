"""Python's own facilities, as they work in cells."""

from __future__ import annotations

from tests.differential.cells.shape import one, several, topic

LANGUAGE = topic(
    "language",
    several(
        "the source of a function",
        "def twice(x):\n    # with a comment\n    return 2 * x",
        "import inspect\nprint(inspect.getsource(twice))\ninspect.signature(twice), inspect.getsourcelines(twice)[1], inspect.getfile(twice), inspect.getmodule(twice).__name__",
    ),
    several(
        "the source of a class",
        "class K:\n    def m(self):\n        return 1",
        "import inspect\nprint(inspect.getsource(K.m))\nprint(inspect.getsource(K))",
    ),
    one(
        "the frame of a cell",
        "import inspect, sys\nf = inspect.currentframe()\nf.f_lineno, f.f_code.co_name, f.f_code.co_filename, f.f_globals is globals(), f.f_locals is globals(), f.f_back.f_code.co_name",
    ),
    one("the stack above a cell", "import traceback\n[frame.name for frame in traceback.extract_stack()][-3:]"),
    one(
        "lines of a traceback",
        "import sys, traceback\ndef f():\n    raise ValueError('x')\ntry:\n    f()\nexcept ValueError as e:\n    print([(x.lineno, x.name, x.line) for x in traceback.extract_tb(e.__traceback__)])",
    ),
    one(
        "pickle of a class of a cell",
        "import pickle\nclass Packed:\n    def __init__(self): self.v = [1]\np = pickle.loads(pickle.dumps(Packed()))\np.v, type(p) is Packed, Packed.__module__, pickle.dumps(Packed())",
    ),
    one(
        "pickle of a function of a cell",
        "import pickle\ndef f(): return 5\npickle.loads(pickle.dumps(f))(), f.__module__, f.__qualname__",
    ),
    one("copies", "import copy\ncopy.deepcopy({'a': [1]}), copy.copy([1])"),
    one(
        "decorators",
        "import functools\n@functools.lru_cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(60), fib.cache_info()",
    ),
    one(
        "match",
        "def f(x):\n    match x:\n        case {'a': [1, *rest]}: return rest\n        case int() | str() as y: return y\n        case _: return None\n[f({'a': [1, 2, 3]}), f(5), f(1.5)]",
    ),
    one("generators", "def g():\n    x = yield 1\n    yield x\ni = g()\nnext(i), i.send(5)"),
    one(
        "type aliases and annotations",
        "from typing import TypeAlias\nVector: TypeAlias = list[float]\nx: Vector = [1.0]\n__annotations__",
    ),
    several(
        "variables of the top level",
        "x: int = 1",
        "__annotations__",
        "globals()['y'] = 2\ny",
        "def f():\n    global z\n    z = 3\nf()\nz",
        "locals() is globals(), vars() is globals()",
        "del x\nx",
    ),
    one(
        "scopes",
        "n = 3\n[n * i for i in range(3)], (lambda: n)(), [m for m in [n]], eval('n + 1'), eval('n', {'n': 9})",
    ),
    several(
        "imports",
        "import collections.abc as abc, os.path\nfrom math import *\npi > 3, abc.Mapping.__name__",
        "import importlib, json\nimportlib.reload(json) is json",
    ),
    several(
        "a module of one's own",
        "from pathlib import Path\nPath('own_module.py').write_text('value = 1\\nprint(\"loading\", __name__)\\n')\nimport own_module\nown_module.value, own_module.__file__",
        "import sys\ndel sys.modules['own_module']",
        "import importlib\nPath('own_module.py').write_text('value = 222\\n')\nimport own_module\nown_module.value",
    ),
    one(
        "doctest",
        "import doctest\ndef f():\n    '''\n    >>> 1 + 1\n    2\n    >>> 1\n    5\n    '''\ndoctest.run_docstring_examples(f, globals(), name='f')",
    ),
    one(
        "doctest of the module",
        "import doctest\ndef f():\n    '''\n    >>> f()\n    7\n    '''\n    return 7\ndoctest.testmod(verbose=False)",
    ),
    one(
        "unittest",
        "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(1, 1)\n    def test_b(self): self.assertEqual(1, 2)\nr = unittest.main(argv=['x'], exit=False, defaultTest='T').result\nr.testsRun, len(r.failures)",
        order="apart",
        mask=(r"in [\d.]+s",),
    ),
    several(
        "logging",
        "import logging\nlogging.getLogger().handlers, logging.getLogger().level, logging.getLogger().disabled, logging.root.manager.disable",
        "logging.warning('to the root')\nlogging.info('not shown')",
        "logging.getLogger().handlers",
        "logger = logging.getLogger('mine')\nlogger.warning('%s and %d', 'text', 5)\nlogger.setLevel('DEBUG')\nlogger.debug('not shown either')",
        "logging.basicConfig(level='INFO', format='%(message)s', force=True)\nlogging.info('configured')",
        "logging.info('later')",
        "logging.getLogger().handlers",
        fresh=True,
    ),
    several(
        "a log to standard output",
        "import logging, sys\nlogger = logging.getLogger('out')\nhandler = logging.StreamHandler(sys.stdout)\nhandler.setFormatter(logging.Formatter('%(levelname)s %(funcName)s %(lineno)d %(threadName)s %(message)s'))\nlogger.addHandler(handler); logger.propagate = False\nlogger.error('first')",
        "logger.error('second')\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    logger.exception('with a traceback')",
    ),
    several(
        "loggers of libraries",
        "import logging\nsorted((name, logging.getLogger(name).level) for name in logging.root.manager.loggerDict if name in ('asyncio', 'traitlets', 'tornado', 'ipykernel'))",
        "logging.getLogger('asyncio').getEffectiveLevel(), logging.captureWarnings",
    ),
    several(
        "what is registered for the end",
        "import atexit\natexit.register(print, 'at the end')\nlen([1])",
        "atexit.unregister(print)",
    ),
    several(
        "weak references and cycles",
        "import gc, weakref\nclass A: pass\na = A(); r = weakref.ref(a)\ndel a\nr() is None",
        "a = A(); a.me = a; r = weakref.ref(a)\ndel a\ngc.collect(); r() is None",
        "A()\nNone",
        "x = A(); r = weakref.ref(x); x",
        "del x\nr() is None",
    ),
    one("files", "with open('f.txt', 'w') as f: f.write('ä\\n')\nopen('f.txt').read(), open('f.txt', 'rb').read()"),
    several(
        "files of a cell",
        "open('made.txt', 'w').write('x')",
        "open('made.txt', 'a').write('y')",
        "import os\nos.remove('made.txt')",
    ),
    one("locale's numbers", "f'{1234567.891:,.2f}', f'{255:#x}', '%08.3f' % 3.14159, f'{\"x\":>5}'"),
    one("big numbers", "2 ** 200, -7 // 2, round(2.5), 0.1 + 0.2, 10 ** 5000 > 0"),
    one("too big a number to show", "10 ** 5000"),
    one("sorting of texts", "sorted(['b', 'A', 'ä', 'a']), 'ß'.upper(), 'İ'.lower()"),
    one(
        "a breakpoint that is off",
        "import os\nos.environ['PYTHONBREAKPOINT'] = '0'\nbreakpoint()\ndel os.environ['PYTHONBREAKPOINT']\nprint('passed')",
    ),
    one(
        "tracing",
        "import sys\nseen = []\ndef f(): return 1\nsys.settrace(lambda frame, event, arg: seen.append(event) if frame.f_code.co_name == 'f' else None)\nf()\nsys.settrace(None)\nseen",
    ),
    one(
        "a module run by name",
        "import runpy\nwith open('as_main.py', 'w') as f: f.write('print(__name__)\\nx = 1\\n')\nrunpy.run_path('as_main.py', run_name='__main__')['x']",
    ),
    one(
        "subclasses of what prints",
        "import io, sys\nclass Tee(io.TextIOBase):\n    def __init__(self, inner): self.inner = inner; self.kept = []\n    def write(self, s): self.kept.append(s); return self.inner.write(s)\n    def flush(self): self.inner.flush()\nold = sys.stdout\nsys.stdout = t = Tee(old)\nprint('both'); display('shown')\nsys.stdout = old\nt.kept",
    ),
    one(
        "sqlite",
        "import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('create table t (a)')\nc.executemany('insert into t values (?)', [(1,), (2,)])\nc.execute('select sum(a) from t').fetchone()",
    ),
    one(
        "slots, metaclasses, descriptors",
        "class M(type):\n    def __call__(cls, *a): return ('made', cls.__name__, a)\nclass A(metaclass=M): pass\nA(1)",
    ),
)
