"""Top-level await, tasks, threads, processes, and what goes past sys.stdout."""

from __future__ import annotations

from tests.differential.cells.shape import cell, one, several, topic

AWAITING = topic(
    "awaiting",
    one("sleep", "import asyncio\nprint('before')\nawait asyncio.sleep(0.01)\nprint('after')"),
    one("a value", "async def f(): return 5\nawait f()"),
    one("in an assignment", "async def f(): return 5\nx = await f() + 1\nx"),
    one(
        "gather",
        "import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    print('f', n)\n    return n\nawait asyncio.gather(*map(f, range(4)))",
    ),
    one(
        "for, with, comprehension",
        "import contextlib\nasync def numbers():\n    for i in range(3): yield i\n@contextlib.asynccontextmanager\nasync def c():\n    print('in'); yield 7; print('out')\nasync for n in numbers(): print(n)\nasync with c() as v: print(v)\n[n async for n in numbers()]",
    ),
    one("an error awaited", "async def f():\n    print('before')\n    1 / 0\nawait f()"),
    one(
        "an error in a task",
        "import asyncio\nasync def f(): raise ValueError('in the task')\nawait asyncio.create_task(f())",
    ),
    one(
        "an error in a task group",
        "import asyncio\nasync def f(n): raise ValueError(n)\nasync with asyncio.TaskGroup() as group:\n    group.create_task(f(1))",
    ),
    one(
        "a timeout",
        "import asyncio\nasync with asyncio.timeout(0.01):\n    await asyncio.sleep(30)",
    ),
    one(
        "wait_for",
        "import asyncio\ntry:\n    await asyncio.wait_for(asyncio.sleep(30), 0.01)\nexcept TimeoutError as e:\n    print(type(e).__name__)",
    ),
    one(
        "the running loop",
        "import asyncio\nloop = asyncio.get_running_loop()\nloop.is_running(), loop.get_debug(), loop is asyncio.get_event_loop(), type(loop).__name__",
    ),
    one(
        "a loop is running without await",
        "import asyncio\nasyncio.get_running_loop().is_running(), asyncio.get_event_loop() is asyncio.get_running_loop()",
    ),
    one(
        "the current task",
        "import asyncio\nawait asyncio.sleep(0)\ntask = asyncio.current_task()\ntype(task).__name__, task.done(), task is not None",
    ),
    one(
        "asyncio.run is refused",
        "import asyncio\nasync def f(): return 1\ntry:\n    asyncio.run(f())\nexcept RuntimeError as e:\n    print(e)",
        order="apart",
    ),
    one(
        "asyncio.run in a thread",
        "import asyncio, threading\nasync def f(): print('in the thread')\nt = threading.Thread(target=lambda: asyncio.run(f()))\nt.start(); t.join()",
    ),
    several(
        "one loop for all cells",
        "import asyncio\nfirst = asyncio.get_running_loop()",
        "asyncio.get_running_loop() is first",
        "await asyncio.sleep(0)\nasyncio.get_running_loop() is first",
    ),
    several(
        "a task over cells",
        "import asyncio\nevent = asyncio.Event()\nasync def f():\n    await event.wait()\n    return 'done'\ntask = asyncio.create_task(f())",
        "task.done()",
        "event.set()\nawait task",
    ),
    # What a task prints belongs to the cell that began it.
    several(
        "a task that outlives its cell and prints",
        cell(
            "import asyncio\nevent = asyncio.Event()\nasync def f():\n    await event.wait()\n    print('from the task', flush=True)\ntask = asyncio.create_task(f())\nprint('the cell is over')"
        ),
        cell("event.set()\nawait task\nprint('the second is over')", late_until="from the task"),
    ),
    several(
        "a callback of the loop",
        cell(
            "import asyncio\ndone = asyncio.Event()\ndef call():\n    print('called', flush=True)\n    done.set()\nasyncio.get_running_loop().call_soon(call);"
        ),
        cell("await done.wait()", late_until="called"),
    ),
    several(
        "a task that fails unseen",
        cell("import asyncio\nasync def f(): raise ValueError('unseen')\ntask = asyncio.create_task(f())"),
        "await asyncio.sleep(0)\ntask.exception()",
    ),
    several(
        "a context variable",
        "import contextvars\nvar = contextvars.ContextVar('var', default='unset')\nvar.set('set')\nvar.get()",
        "var.get()",
        "import asyncio\nawait asyncio.sleep(0)\nvar.set('in an async cell')\nNone",
        "var.get()",
    ),
    one("await in a function is not for cells", "def f():\n    await g()"),
    one("await in a comprehension of a function", "async def g(x): return x\n[await g(x) for x in range(3)]"),
    one("await in a lambda", "f = lambda: await x"),
    one(
        "a subprocess awaited",
        "import asyncio\np = await asyncio.create_subprocess_exec('echo', 'hello', stdout=asyncio.subprocess.PIPE)\nout, _ = await p.communicate()\nout, p.returncode",
    ),
    one(
        "an executor awaited",
        "import asyncio\nawait asyncio.get_running_loop().run_in_executor(None, lambda: 6 * 7), await asyncio.to_thread(sum, [1, 2])",
    ),
    one(
        "a queue",
        "import asyncio\nq = asyncio.Queue()\nasync def put():\n    for i in range(3): await q.put(i)\nt = asyncio.create_task(put())\n[await q.get() for _ in range(3)]",
    ),
    several(
        "autoawait off",
        "%autoawait",
        "%autoawait False",
        "import asyncio\nawait asyncio.sleep(0)",
        "%autoawait asyncio",
        "await asyncio.sleep(0)\n'on'",
    ),
    one(
        "a display after an await",
        "import asyncio\nh = display('a', display_id='w')\nawait asyncio.sleep(0.01)\nh.update('b')\nprint('x')\n'r'",
    ),
    one(
        "a future that is set later",
        "import asyncio\nf = asyncio.get_running_loop().create_future()\nasyncio.get_running_loop().call_later(0.01, f.set_result, 'late')\nawait f",
    ),
)

THREADS = topic(
    "threads",
    one(
        "one that prints",
        "import threading\nt = threading.Thread(target=lambda: print('in the thread'))\nt.start(); t.join()\nprint('in the cell')",
    ),
    one(
        "one that displays",
        "import threading\nt = threading.Thread(target=lambda: display('in the thread'))\nt.start(); t.join()\ndisplay('in the cell')",
    ),
    one(
        "many that print",
        "import threading\nts = [threading.Thread(target=print, args=(f'thread {i}\\n',), kwargs={'end': ''}) for i in range(20)]\n[t.start() for t in ts]; [t.join() for t in ts];",
        order="lines",
    ),
    one(
        "on standard error",
        "import sys, threading\nt = threading.Thread(target=lambda: print('oops', file=sys.stderr))\nt.start(); t.join()",
    ),
    one(
        "a pool",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as pool:\n    print(list(pool.map(lambda x: x * x, range(6))))",
    ),
    one(
        "a pool that prints",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as pool:\n    list(pool.map(lambda x: print(f'{x}\\n', end=''), range(6)))",
        order="lines",
    ),
    one(
        "an error in one",
        "import threading\ndef f(): raise ValueError('in the thread')\nt = threading.Thread(target=f, name='worker')\nt.start(); t.join()\nprint('went on')",
        order="apart",
    ),
    one(
        "an error in a pool",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(1) as pool:\n    pool.submit(lambda: 1 / 0).result()",
    ),
    one(
        "the cell's own",
        "import threading\nt = threading.current_thread()\nt.name, t is threading.main_thread(), t.daemon, t.ident == threading.get_ident(), threading.get_native_id() == __import__('os').getpid()",
    ),
    several(
        "one that outlives its cell",
        cell(
            "import threading\ngo = threading.Event()\ndef f():\n    go.wait(20)\n    print('late', flush=True)\nt = threading.Thread(target=f)\nt.start()\nprint('over')"
        ),
        "go.set(); t.join()",
    ),
    one(
        "a timer",
        "import threading\nd = threading.Event()\nthreading.Timer(0.01, lambda: (print('tick'), d.set())).start()\nd.wait(10)",
    ),
    one(
        "one that reads input",
        "import threading\ndef f():\n    try: print('got', input('? '))\n    except BaseException as e: print(type(e).__name__, e)\nt = threading.Thread(target=f)\nt.start(); t.join()",
    ),
    one(
        "local data and locks",
        "import threading\nl = threading.local(); l.x = 1\nseen = []\nt = threading.Thread(target=lambda: seen.append(hasattr(l, 'x')))\nt.start(); t.join()\nseen, threading.Lock().locked()",
    ),
    one(
        "a signal cannot be set in one",
        "import signal, threading\ndef f():\n    try: signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n    except ValueError as e: print(e)\nt = threading.Thread(target=f)\nt.start(); t.join()",
    ),
    several(
        "events of the shell called by hand",
        "get_ipython().events.trigger('pre_execute')\nimport threading\nthreading.active_count() >= 1",
    ),
)

COMMANDS = topic(
    "commands",
    one("a command's terminal", "!test -t 1 && echo terminal || echo none"),
    one("a shell command", "!echo hello"),
    one("a shell command with both streams", "!echo out; echo err >&2", order="apart"),
    one("a shell command that fails", "!exit 3"),
    several("the exit code", "!exit 3", "_exit_code", "!true", "_exit_code"),
    one("a command that is missing", "!no_such_command_here", mask=(r"line \d+",)),
    several(
        "output in a variable",
        "lines = !printf 'a\\nb\\n'",
        "lines",
        "lines.s, lines.n, type(lines).__name__",
        "!!echo direct",
        "x = !echo $lines",
    ),
    several(
        "variables in a command",
        "name = 'wörld'\n!echo hello {name} $name $$HOME_NOT",
        "items = [1, 2]\n!echo {items[0] + 1}",
    ),
    one("no newline at the end", "!printf abc"),
    one("a lot of output", "!seq 3000"),
    one("a command in a loop", "for i in range(3):\n    !echo $i"),
    one("a command in the background", "!echo background &"),
)

# What a child or C code writes to a descriptor takes another way than what the kernel itself sends, and each descriptor
# its own: there is no order between the two streams and a result.
PROCESSES = topic(
    "processes",
    order="apart",
    sequences=(
        one("os.system", "import os\nos.system('echo from system')"),
        one("os.system that fails", "import os\nos.system('echo oops >&2; exit 2')", order="apart"),
        one("os.popen", "import os\nos.popen('echo piped').read()"),
        one("a subprocess", "import subprocess\nsubprocess.run(['echo', 'from a child'])"),
        one(
            "a subprocess captured",
            "import subprocess\nsubprocess.run(['sh', '-c', 'echo out; echo err >&2; exit 4'], capture_output=True, text=True)",
        ),
        one(
            "a subprocess on standard error",
            "import subprocess\nsubprocess.run('echo oops >&2', shell=True).returncode",
        ),
        one("a subprocess that is checked", "import subprocess\nsubprocess.run(['false'], check=True)"),
        one(
            "an interpreter as a child",
            "import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', 'import sys; print(sys.stdin.read() == \"\", sys.flags.isolated)'])",
        ),
        one(
            "a child's environment",
            "import subprocess\nsubprocess.run('echo $TERM $PAGER $CLICOLOR $GIT_PAGER $FORCE_COLOR $MPLBACKEND', shell=True)",
        ),
        one(
            "a pipe to a child",
            "import subprocess\np = subprocess.Popen(['tr', 'a-z', 'A-Z'], stdin=-1, stdout=-1, text=True)\np.communicate('shout')",
        ),
        one(
            "a child that is left behind",
            "import subprocess\np = subprocess.Popen(['sleep', '30'])\nprint(p.poll())\np.terminate(); p.wait()",
        ),
        one("a child's bytes that are no text", "import subprocess\nsubprocess.run(['printf', 'caf\\\\351 \\\\377'])"),
        one("a child's long output", "import subprocess\nsubprocess.run(['seq', '20000'])"),
        one("characters cut by the pipe", "import subprocess\nsubprocess.run(['printf', '%s', 'ä' * 3])"),
        # What goes through the descriptor takes another way than what is printed.
        one(
            "printed and by a child",
            "import subprocess\nprint('printed')\nsubprocess.run(['echo', 'by a child'])\nprint('printed again')",
            order="lines",
        ),
        one("os.write", "import os\nos.write(1, b'one\\n'), os.write(2, b'two\\n')"),
        one(
            "C's output",
            "import ctypes\nc = ctypes.CDLL(None)\nc.puts(b'from C')\nc.printf(b'%d\\n', 42)\nc.fflush(None)",
        ),
        one(
            "C's output without a flush",
            "import ctypes\nctypes.CDLL(None).puts(b'kept back')\nctypes.CDLL(None).fflush(None)",
        ),
        one(
            "open descriptors",
            "import os\nfor fd, text in ((1, 'out'), (2, 'err')):\n    with open(fd, 'w', closefd=False) as f: f.write(text + '\\n')",
        ),
        one(
            "fork",
            "import os\npid = os.fork()\nif not pid:\n    print('in the child', flush=True)\n    os._exit(3)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])",
        ),
        one(
            "fork without a flush",
            "import os\npid = os.fork()\nif not pid:\n    os.write(1, b'by the descriptor\\n')\n    os._exit(0)\nos.waitpid(pid, 0)[1]",
        ),
        one(
            "a process",
            "import multiprocessing as mp\nctx = mp.get_context('fork')\np = ctx.Process(target=lambda: print('in the process', flush=True))\np.start(); p.join()\np.exitcode",
        ),
        one(
            "a process that fails",
            "import multiprocessing as mp\ndef f(): raise ValueError('in the process')\np = mp.get_context('fork').Process(target=f, name='worker')\np.start(); p.join()\np.exitcode",
            order="apart",
        ),
        one(
            "a process that exits",
            "import multiprocessing as mp, sys\np = mp.get_context('fork').Process(target=lambda: sys.exit(4))\np.start(); p.join()\np.exitcode",
        ),
        one(
            "a pool",
            "import multiprocessing as mp\ndef square(x): return x * x\nwith mp.get_context('fork').Pool(2) as pool:\n    print(pool.map(square, range(8)))",
        ),
        one(
            "a pool that prints",
            "import multiprocessing as mp\ndef say(x): print(f'{x}\\n', end='', flush=True)\nwith mp.get_context('fork').Pool(2) as pool:\n    pool.map(say, range(6))\n    pool.close(); pool.join()",
            order="lines",
        ),
        one(
            "an error in a pool",
            "import multiprocessing as mp\ndef bad(x): raise KeyError(x)\nwith mp.get_context('fork').Pool(1) as pool:\n    pool.map(bad, [1])",
        ),
        one(
            "a process executor",
            "import multiprocessing as mp\nfrom concurrent.futures import ProcessPoolExecutor\ndef cube(x): return x ** 3\nwith ProcessPoolExecutor(2, mp_context=mp.get_context('fork')) as pool:\n    print(list(pool.map(cube, range(5))))",
        ),
        one(
            "queues and shared values",
            "import multiprocessing as mp\nctx = mp.get_context('fork')\nq, v = ctx.Queue(), ctx.Value('i', 0)\ndef f():\n    v.value = 5\n    q.put('sent')\np = ctx.Process(target=f)\np.start()\nprint(q.get(timeout=20)); p.join()\nprint(v.value)",
        ),
        one(
            "the way to start processes",
            "import multiprocessing as mp\nmp.get_start_method(), mp.current_process().name, mp.parent_process(), mp.active_children()",
        ),
        one(
            "a spawned process needs a module",
            "import multiprocessing as mp\np = mp.get_context('spawn').Process(target=print, args=('spawned',), kwargs={'flush': True})\np.start(); p.join()\np.exitcode",
        ),
    ),
)
