"""What a cell finds around it: the shell, the interpreter, the process."""

from __future__ import annotations

from tests.differential.cells.shape import cell, one, several, topic

SHELL = topic(
    "shell",
    several(
        "names and settings at the start",
        "sorted(globals())",
        "sorted(get_ipython().user_ns), sorted(get_ipython().user_ns_hidden)",
        "import os\nos.path.basename(os.getcwd()).startswith('cellrun-work-'), os.listdir('.')",
        "import sys\nsys.path",
        "import warnings\n[(f[0], f[1] and f[1].pattern, f[2].__name__, f[3] and f[3].pattern, f[4]) for f in warnings.filters]",
        "import logging\nlogging.getLogger().handlers, logging.getLogger().level, logging.getLogger().disabled",
        fresh=True,
    ),
    several(
        "the module",
        "__name__, __doc__, __package__, __spec__, __loader__, '__file__' in globals()",
        "import sys\nsys.modules['__main__'].__dict__ is globals(), type(sys.modules['__main__']).__name__, type(__builtins__).__name__, __builtin__ is __builtins__",
        "import builtins\nsorted(set(dir(builtins)) - {'_', 'execfile', 'runfile'})",
    ),
    one(
        "its kind",
        "from ipykernel.zmqshell import ZMQInteractiveShell\nfrom IPython.core.interactiveshell import InteractiveShell\nip = get_ipython()\nisinstance(ip, ZMQInteractiveShell), InteractiveShell.initialized(), InteractiveShell.instance() is ip, ip.has_trait('kernel')",
    ),
    one("the name of its class", "type(get_ipython()).__name__"),
    one(
        "its kernel",
        "from ipykernel.ipkernel import IPythonKernel\nk = get_ipython().kernel\nisinstance(k, IPythonKernel), k.shell is get_ipython(), k.implementation, k.user_ns is get_ipython().user_ns",
    ),
    one(
        "what libraries ask for",
        "import sys\n'ipykernel' in sys.modules, 'IPKernelApp' in get_ipython().config, hasattr(get_ipython(), 'kernel'), 'google.colab' in sys.modules, hasattr(__builtins__, '__IPYTHON__')",
    ),
    one(
        "its settings",
        "ip = get_ipython()\n{name: getattr(ip, name) for name in ('ast_node_interactivity', 'autocall', 'autoindent', 'automagic', 'autoawait', 'cache_size', 'colors', 'debug', 'history_length', 'logstart', 'pdb', 'quiet', 'show_rewritten_input', 'wildcards_case_sensitive', 'xmode', 'loop_runner_map', 'separate_in', 'warn_venv', 'sphinxify_docstring', 'enable_html_pager', 'banner2')}",
    ),
    one(
        "its parts",
        "ip = get_ipython()\n{name: type(getattr(ip, name, None)).__name__ for name in ('compile', 'display_formatter', 'displayhook', 'display_pub', 'events', 'history_manager', 'input_transformer_manager', 'inspector', 'magics_manager', 'payload_manager', 'prefilter_manager', 'Completer', 'InteractiveTB', 'SyntaxTB', 'data_pub', 'display_trap', 'builtin_trap', 'extension_manager', 'alias_manager')}",
    ),
    several(
        "hooks around cells",
        "def note(name):\n    def hook(*args): print(name, [type(a).__name__ for a in args])\n    return hook\nhooks = {n: note(n) for n in ('pre_execute', 'pre_run_cell', 'post_execute', 'post_run_cell')}\nfor n, h in hooks.items(): get_ipython().events.register(n, h)",
        "5",
        "1 / 0",
        cell("x = 1", silent=True),
        "1 +",
        "for n, h in hooks.items(): get_ipython().events.unregister(n, h)",
        "6",
    ),
    several(
        "what hooks are told",
        "def before(info): print(repr(info.raw_cell), info.store_history, info.silent, info.shell_futures, info.cell_id)\ndef after(result): print(result.success, result.result, result.error_in_exec, result.execution_count)\nget_ipython().events.register('pre_run_cell', before)\nget_ipython().events.register('post_run_cell', after)",
        "5",
        "1 / 0",
        "get_ipython().events.unregister('pre_run_cell', before)\nget_ipython().events.unregister('post_run_cell', after)",
    ),
    several(
        "a hook that fails",
        "def bad(): 1 / 0\nget_ipython().events.register('pre_execute', bad)",
        "5",
        "get_ipython().events.unregister('pre_execute', bad)",
        "6",
    ),
    several(
        "a transformer of lines",
        "def shout(lines): return [line.replace('SAY', 'print') for line in lines]\nget_ipython().input_transformers_cleanup.append(shout)",
        "SAY('hello')",
        "get_ipython().input_transformers_cleanup.remove(shout)",
        "SAY('hello')",
    ),
    several(
        "a transformer of trees",
        "import ast\nclass Double(ast.NodeTransformer):\n    def visit_Constant(self, node):\n        return ast.copy_location(ast.Constant(node.value * 2), node) if isinstance(node.value, int) else node\nd = Double()\nget_ipython().ast_transformers.append(d)",
        "21",
        "get_ipython().ast_transformers.remove(d)",
        "21",
    ),
    several(
        "a transformer that fails",
        "import ast\nclass Bad(ast.NodeTransformer):\n    def visit_Constant(self, node): raise ValueError('bad')\nget_ipython().ast_transformers.append(Bad())",
        "1",
        "2",
    ),
    several(
        "code run by the shell",
        "r = get_ipython().run_cell('print(1); 2')\nr.success, r.result",
        "get_ipython().ev('1 + 1'), get_ipython().ex('z = 5'), z",
        "r = get_ipython().run_cell('1 / 0')\nr.success",
        "get_ipython().run_line_magic('precision', '')",
        "get_ipython().run_cell_magic('html', '', '<b>')",
        "get_ipython().getoutput('echo x')",
        "get_ipython().system('echo y')",
    ),
    several(
        "names pushed",
        "get_ipython().push({'pushed': 5})\npushed",
        "get_ipython().drop_by_id({'pushed': pushed})",
        "'pushed' in globals()",
    ),
    several(
        "shadowed builtins",
        "print = 1\nprint",
        "print('x')",
        "del print\nprint('back')",
        "list = dict\nlist(a=1)",
        "del list",
        "display = None",
        "5",
        "del display\ndisplay(1)",
    ),
    several(
        "get_ipython shadowed",
        "get_ipython = None",
        "5",
        "%precision",
        "del get_ipython",
        "get_ipython().execution_count > 0",
    ),
    several(
        "definitions anew",
        "def f(): return 'old'\ndef g(): return f()",
        "def f(): return 'new'",
        "g()",
        "class A:\n    x = 1\na = A()",
        "class A:\n    x = 2",
        "a.x, A.x, isinstance(a, A)",
    ),
    several(
        "futures go on",
        "from __future__ import annotations\ndef f(x: Missing): pass",
        "def g(x: AlsoMissing): pass\ng.__annotations__",
    ),
    one("the banner", "type(get_ipython().banner).__name__, get_ipython().banner[:7]"),
    one(
        "the profile",
        "import os\nip = get_ipython()\nip.profile, os.path.basename(ip.profile_dir.location), os.path.basename(ip.ipython_dir) != ''",
    ),
    one(
        "history's manager",
        "h = get_ipython().history_manager\nh.session_number >= 0, len(h.input_hist_raw) == len(In), list(h.get_range(raw=True))[-1][2][:20]",
    ),
    one(
        "the parent of a cell",
        "sorted(get_ipython().parent_header), get_ipython().get_parent()['header']['msg_type'], sorted(get_ipython().get_parent()['content'])",
    ),
    one("atexit of the shell", "import atexit\natexit.register(lambda: None).__name__"),
    one("meta information", "get_ipython().meta, get_ipython().db is not None"),
    one(
        "functions of IPython",
        "from IPython import get_ipython as g, version_info, __version__\ng() is get_ipython(), isinstance(__version__, str)",
    ),
    one("open", "open is __import__('io').open, open.__module__"),
    several("user expressions by hand", "x = [1, 2]\nget_ipython().user_expressions({'a': 'x', 'b': '1 / 0'})['a']"),
)

PROCESS = topic(
    "process",
    one("arguments", "import os, sys\nlen(sys.argv), os.path.basename(sys.argv[0]), sys.argv[1:2]"),
    one("the path", "import sys\nsys.path"),
    one(
        "the environment",
        "import os\n{name: os.environ.get(name) for name in ('TERM', 'CLICOLOR', 'CLICOLOR_FORCE', 'FORCE_COLOR', 'PAGER', 'GIT_PAGER', 'MPLBACKEND', 'LINES', 'COLUMNS', 'PYTHONUNBUFFERED')}",
    ),
    one(
        "names of the environment",
        "import os\nsorted(set(os.environ) - {'JPY_PARENT_PID', 'PYDEVD_USE_FRAME_EVAL', 'PYTEST_CURRENT_TEST'})",
    ),
    one(
        "signal handlers",
        "import signal\nkind = lambda h: h if isinstance(h, (int, type(None))) else getattr(h, '__name__', repr(h))\n{s.name: kind(signal.getsignal(s)) for s in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGQUIT, signal.SIGTSTP)}",
    ),
    one(
        "the handler of interrupts",
        "import signal\nsignal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.get_wakeup_fd if False else signal.getsignal(signal.SIGINT).__name__",
    ),
    one("blocked signals", "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, ())"),
    one(
        "the garbage collector",
        "import gc\ngc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks",
    ),
    one(
        "limits of the interpreter",
        "import sys\nsys.getrecursionlimit(), sys.getswitchinterval(), sys.flags.dev_mode, sys.dont_write_bytecode, sys.flags.hash_randomization, sys.get_int_max_str_digits(), sys.flags.utf8_mode",
    ),
    one("the flags", "import sys\nsys.flags"),
    one(
        "X options and warnings options",
        "import sys\nsys._xoptions, sys.warnoptions, sys.orig_argv[:1] == [sys.executable]",
    ),
    one(
        "the executable",
        "import sys\nsys.executable, sys.prefix, sys.base_prefix, sys.platform, sys.implementation.name, sys.version",
    ),
    one(
        "encodings",
        "import locale, sys\nsys.getdefaultencoding(), sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), locale.getpreferredencoding(), locale.getlocale(), sys.stdin.encoding",
    ),
    one(
        "hooks of the interpreter",
        "import sys, threading\nprint(sys.gettrace(), sys.getprofile(), sys.unraisablehook is sys.__unraisablehook__, threading.excepthook is threading.__excepthook__, threading.gettrace(), sys.get_asyncgen_hooks().firstiter is not None)",
    ),
    one(
        "the hook of exceptions",
        "import sys\nsys.excepthook is sys.__excepthook__, getattr(sys.excepthook, '__name__', type(sys.excepthook).__name__)",
    ),
    one(
        "finders of modules",
        "import sys\n[getattr(f, '__name__', type(f).__name__) for f in sys.meta_path], [getattr(f, '__name__', type(f).__name__) for f in sys.path_hooks]",
    ),
    one(
        "umask, nice, groups",
        "import os\no = os.umask(0); os.umask(o)\no, os.getpriority(os.PRIO_PROCESS, 0), os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid()",
    ),
    one(
        "limits of the process",
        "import resource\n[(n, resource.getrlimit(getattr(resource, n))) for n in ('RLIMIT_NOFILE', 'RLIMIT_CORE', 'RLIMIT_STACK', 'RLIMIT_AS')]",
    ),
    one(
        "descriptors 0, 1, 2",
        "import os, stat\n[stat.S_IFMT(os.fstat(fd).st_mode) for fd in (0, 1, 2)], [os.get_inheritable(fd) for fd in (0, 1, 2)], [os.get_blocking(fd) for fd in (0, 1, 2)]",
    ),
    one(
        "descriptors that children inherit",
        "import subprocess\nsubprocess.run(['sh', '-c', 'ls /proc/self/fd | wc -l'], capture_output=True, text=True, close_fds=False).stdout",
    ),
    one(
        "its program and its parent",
        "import os, sys\nos.path.basename(os.readlink('/proc/self/exe')) == os.path.basename(os.path.realpath(sys.executable)), os.getppid() > 1",
    ),
    one("memory of the stack", "import threading, faulthandler\nthreading.stack_size(), faulthandler.is_enabled()"),
    several(
        "temporary files",
        "import tempfile, os\ntempfile.gettempdir()",
        "with tempfile.NamedTemporaryFile('w+') as f:\n    f.write('x'); f.seek(0)\n    print(f.read(), os.path.exists(f.name))\nos.path.exists(f.name)",
        "a, b = tempfile.mkdtemp(), tempfile.mkdtemp()\nos.rmdir(a); os.rmdir(b)\na != b",
    ),
    one("sockets", "import socket\na, b = socket.socketpair()\na.send(b'x'); b.recv(1), socket.getdefaulttimeout()"),
    one(
        "the clock",
        "import time, datetime\ntime.tzname, datetime.datetime.now().astimezone().tzinfo is not None, time.perf_counter() > 0",
    ),
    one(
        "capabilities of asyncio",
        "import asyncio\ntype(asyncio.get_event_loop_policy()).__name__, asyncio.get_child_watcher.__name__ if hasattr(asyncio, 'get_child_watcher') else None",
    ),
    one(
        "random numbers by seed",
        "import random\nrandom.seed(1)\n[random.random(), random.randint(0, 100), random.sample(range(50), 5)]",
    ),
    one(
        "random numbers of numpy by seed",
        "import numpy as np\nnp.random.seed(1)\nnp.random.rand(3), np.random.default_rng(5).integers(0, 100, 4)",
    ),
    one("hashes of numbers", "hash(5), hash(1.5), hash((1, 2)), hash(None) == hash(None), hash(frozenset({1, 2}))"),
    one(
        "the name of a cell's file",
        "import linecache\ndef f(): pass\nname = f.__code__.co_filename\nname, f.__code__.co_firstlineno, linecache.getlines(name)",
    ),
)
