"""The value of a cell, display(), updates, clearing, comms."""

from __future__ import annotations

from typing import Final

from tests.differential.cells.shape import cell, one, several, topic

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

# The frames between a cell and the error that its message cannot be sent are the kernel's own affair.
SERIALISING: Final = (r"(?s)Traceback \(most recent call last\).*(?=Error)",)

RESULTS = topic(
    "results",
    several(
        "plain values",
        "42",
        "'text'",
        "b'bytes'",
        "1.5",
        "[1, 'two', 3.0]",
        "{'b': 1, 'a': {2, 1}}",
        "...",
        "NotImplemented",
        "1j",
        "()",
        "''",
    ),
    several("None shows nothing", "None", "x = 5", "(lambda: None)()"),
    several("a semicolon hides it", "5;", "5; # with a comment", "5 # ;", "';'", "_", "print('but not this');"),
    one("only the last expression", "1\n2\n3"),
    one("an expression inside of a block", "if True:\n    5\nfor i in range(3):\n    i"),
    one("an assignment expression", "(n := 10)"),
    one("several lines", "'one\\ntwo'"),
    one("nan and infinity", "[float('nan'), float('inf'), -float('inf')]"),
    one("a long list", "list(range(2_000))"),
    one("a wide dictionary", "{f'key{i}': 'v' * i for i in range(40)}"),
    one("a list that holds itself", "x = [1]\nx.append(x)\nx"),
    one("deep nesting", "x = []\nfor _ in range(60): x = [x]\nx"),
    one("a huge text", "'y' * 300_000"),
    one("a set is sorted", "{5, 3, 1, 4}, frozenset({'b', 'a'}) if False else frozenset({2, 1})"),
    one(
        "standard types",
        "import datetime, decimal, fractions, pathlib, collections, uuid\n[datetime.date(2026, 1, 2), decimal.Decimal('1.10'), fractions.Fraction(1, 3), pathlib.PurePosixPath('/a'), collections.OrderedDict(a=1), collections.Counter('aab'), collections.deque([1], 3), collections.defaultdict(int, a=1), uuid.UUID(int=5), range(3), slice(1, 2), b'x', bytearray(b'y'), memoryview(b'z').tolist()]",
    ),
    one(
        "functions, classes, modules",
        "import math\ndef f(a, b=1): pass\nclass C: pass\n[f, C, C(), math, print, len, lambda: 0, (i for i in ()), C.__init__, str.join]",
    ),
    one(
        "a dataclass and a named tuple",
        "import dataclasses, typing\n@dataclasses.dataclass\nclass P:\n    x: int\n    y: 'P | None' = None\nclass T(typing.NamedTuple):\n    a: int\n[P(1, P(2)), T(3)]",
    ),
    one(
        "an enumeration",
        "import enum\nclass Color(enum.Enum):\n    RED = 1\nclass F(enum.Flag):\n    A = 1\n    B = 2\n[Color.RED, F.A | F.B, Color]",
    ),
    one("an exception as a value", "[ValueError('x'), KeyError('k'), ExceptionGroup('g', [OSError(2, 'no')])]"),
    one("a type as a value", "int, list[int], int | None, type(None)"),
    one("lone surrogates as a value", r"'\ud800'"),
    several(
        "all types of a bundle",
        f"""
        class Rich:
            def _repr_html_(self): return '<b>html</b>'
            def _repr_markdown_(self): return '*markdown*'
            def _repr_svg_(self): return '<svg></svg>'
            def _repr_latex_(self): return '$x^2$'
            def _repr_json_(self): return {{'a': [1, None, 'ä']}}
            def _repr_javascript_(self): return 'alert(1)'
            def _repr_png_(self): return __import__('base64').b64decode('{PNG}')
            def _repr_jpeg_(self): return b'jpeg'
            def _repr_pdf_(self): return b'%PDF'
            def __repr__(self): return 'plain'
        Rich()
        """,
        "display(Rich())",
        "[Rich(), Rich()]",
    ),
    one("HTML alone", "class A:\n    def _repr_html_(self): return '<b>html</b>'\nA()"),
    one(
        "HTML with metadata",
        "class A:\n    def _repr_html_(self): return '<b>html</b>', {'isolated': True}\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "a PNG with metadata",
        f"import base64\nclass A:\n    def _repr_png_(self): return base64.b64decode('{PNG}'), {{'width': 3}}\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "a bundle of one's own",
        "class A:\n    def _repr_mimebundle_(self, include=None, exclude=None): return {'text/plain': 'p', 'application/x': {'a': 1}}\nA()",
    ),
    one(
        "a bundle with metadata",
        "class A:\n    def _repr_mimebundle_(self, **kw): return {'text/plain': 'p', 'image/png': b'abc'}, {'image/png': {'width': 1}}\nA()",
    ),
    one(
        "a bundle that is none",
        "class A:\n    def _repr_mimebundle_(self, **kw): return 5\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "a bundle that fails",
        "class A:\n    def _repr_mimebundle_(self, **kw): 1 / 0\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "a representation of None",
        "class A:\n    def _repr_html_(self): return None\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "a representation of the wrong type",
        "class A:\n    def _repr_html_(self): return 5\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "a representation that fails",
        "class A:\n    def _repr_html_(self): raise LookupError('no')\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "a representation that is not implemented",
        "class A:\n    def _repr_html_(self): raise NotImplementedError\n    def __repr__(self): return 'A'\nA()",
    ),
    one("repr that fails", "class A:\n    def __repr__(self): raise ValueError('no repr')\nprint('before')\nA()"),
    one("repr that prints", "class A:\n    def __repr__(self): print('printed'); return 'A'\nA()"),
    one("repr that is no text", "class A:\n    def __repr__(self): return 5\nA()"),
    one("repr of several lines in a list", "class A:\n    def __repr__(self): return 'a\\nb'\n[A(), A()]"),
    one("repr that is interrupted", "class A:\n    def __repr__(self): raise KeyboardInterrupt\nA()"),
    one("a display of its own", "class A:\n    def _ipython_display_(self): print('by itself')\nA()"),
    one("a display of its own that displays", "class A:\n    def _ipython_display_(self): display('inner')\nA()"),
    one(
        "a display of its own that fails",
        "class A:\n    def _ipython_display_(self): 1 / 0\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "pretty by itself",
        "class A:\n    def _repr_pretty_(self, p, cycle):\n        with p.group(2, 'A(', ')'):\n            p.text('x'); p.breakable(); p.pretty([1, 2])\n[A(), A()]",
    ),
    one(
        "an object that has every attribute",
        "class A:\n    def __getattr__(self, name): return lambda *a, **k: 'x'\n    def __repr__(self): return 'A'\nA()",
    ),
    one(
        "an object whose attributes fail",
        "class A:\n    def __getattr__(self, name): raise ValueError(name)\n    def __repr__(self): return 'A'\nA()",
    ),
    one("the class of a rich object", "class A:\n    def _repr_html_(self): return '<b>'\nA"),
    one(
        "JSON with values that JSON lacks",
        "from IPython.display import JSON\nJSON({'a': 1.5, 'b': [True, None]}, expanded=True)",
    ),
    one(
        "JSON with nan",
        "class A:\n    def _repr_json_(self): return {'a': float('nan')}\n    def __repr__(self): return 'A'\nA()",
        mask=(r"/\S+\.py:\d+", r"  \S+.*pack\(.*"),
    ),
    one(
        "JSON that cannot be one",
        "class A:\n    def _repr_json_(self): return {'a': object}\n    def __repr__(self): return 'A'\nA()",
        mask=SERIALISING,
    ),
    several("earlier results", "10", "_ + 1", "_, __, ___", "_ is Out[max(Out)]", "None", "_"),
    several(
        "numbered results",
        "'first'",
        "'second'",
        "_1, _2, Out[1], Out",
        "_i, _ii, _iii, _i1",
        "In",
        "_ih[-1], _oh[2], _dh is not None",
        *("del _", "_", "6", "_"),
        *("_ = 'mine'", "7", "_", "del _", "8", "_"),
        *("In = 5", "Out = 6", "1 + 1", "In, Out", "_"),
        fresh=True,
    ),
    several(
        "every expression shown",
        "%config InteractiveShell.ast_node_interactivity = 'all'",
        "1\n'two'\nx = 3\nx",
        "%config InteractiveShell.ast_node_interactivity = 'none'",
        "1\n2",
        "%config InteractiveShell.ast_node_interactivity = 'last_expr_or_assign'",
        "x = 5",
        "%config InteractiveShell.ast_node_interactivity = 'last_expr'",
    ),
    several(
        "the display hook called by hand",
        "import sys\nsys.displayhook(5)",
        "sys.displayhook(None)",
        "for i in range(3): sys.displayhook(i)",
        "_",
    ),
    several(
        "a display hook of one's own",
        "import sys\nold = sys.displayhook\nsys.displayhook = lambda value: print('mine', value)",
        "5",
        "sys.displayhook = old",
        "6",
    ),
    one(
        "the kind of the display hook",
        "import sys\nfrom ipykernel.displayhook import ZMQShellDisplayHook\nisinstance(sys.displayhook, ZMQShellDisplayHook), isinstance(get_ipython().displayhook, ZMQShellDisplayHook)",
    ),
    several(
        "float precision", "%precision 3", "3.14159265", "[1.23456, 2.0]", "%precision %.2e", "12345.678", "%precision"
    ),
    several("plain printing", "%pprint", "list(range(60))", "%pprint", "list(range(60))"),
    one(
        "numpy arrays",
        "import numpy as np\n[np.arange(12).reshape(3, 4), np.float64(1.5), np.array(['a']), np.nan, np.array([[1 + 2j]])]",
    ),
    one("a large numpy array", "import numpy as np\nnp.arange(100_000).reshape(100, 1000)"),
    one(
        "numpy print options",
        "import numpy as np\nwith np.printoptions(precision=2, suppress=True): print(np.array([1 / 3, 1e-9]))\nnp.array([1 / 3])",
    ),
    one(
        "standard display classes",
        "from IPython.display import HTML, Markdown, Latex, Math, SVG, Javascript, Pretty, Code\nfor x in (HTML('<i>'), Markdown('*m*'), Latex('$l$'), Math('x'), SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'), Javascript('1'), Pretty('p'), Code('x = 1', language='python')): display(x)\nHTML('<b>last</b>')",
    ),
)

DISPLAYS = topic(
    "displays",
    one("several objects", "display(1, 'two', [3])"),
    one("nothing", "display()"),
    one("None", "display(None)"),
    one("between prints", "print('before')\ndisplay('shown')\nprint('after')\n'result'"),
    one("without a newline before", "print('a', end='')\ndisplay('b')\nprint('c', end='')"),
    one("a raw bundle", "display({'text/plain': 'p', 'x/y': [1, {'a': None}]}, raw=True, metadata={'x/y': {'k': 1}})"),
    one(
        "a raw bundle with binary data",
        f"import base64\ndisplay({{'image/png': base64.b64decode('{PNG}'), 'text/plain': 'p'}}, raw=True)",
    ),
    one("a raw bundle that is none", "display('text', raw=True)"),
    one(
        "some types only",
        "class A:\n    def _repr_html_(self): return '<b>'\n    def _repr_latex_(self): return '$'\n    def __repr__(self): return 'A'\ndisplay(A(), include=['text/html'])\ndisplay(A(), exclude=['text/html'])\ndisplay(A(), include=['none/such'])",
    ),
    one("metadata", "display('x', metadata={'text/plain': {'m': 1}, 'all': True})"),
    one("transient data", "display('x', transient={'mine': 1})"),
    one(
        "published directly",
        "from IPython.display import publish_display_data\npublish_display_data({'text/plain': 'direct'}, metadata={'a': 1})",
    ),
    one("a handle as a result", "display('x', display_id='here')"),
    one("a handle with an id of its own", "h = display('x', display_id=True)\nlen(h.display_id), type(h).__name__"),
    one(
        "a handle's update",
        "h = display('one', display_id=True)\nh.update('two')\nprint('between')\nh.update('three')\nh.display('again')",
    ),
    several(
        "an update from a later cell",
        "h = display('one', display_id='later')",
        "h.update('two')",
        "from IPython.display import update_display\nupdate_display('three', display_id='later')",
        "display('four', display_id='later')",
        "display('five', display_id='later', update=True)",
    ),
    one(
        "an update of what was never shown",
        "from IPython.display import update_display\nupdate_display('x', display_id='never')",
    ),
    one("an update without an id", "display('x', update=True)"),
    one("an id that is no text", "display('x', display_id=5)"),
    one(
        "cleared at once",
        "from IPython.display import clear_output\nprint('one')\ndisplay('two')\nclear_output()\nprint('three')",
    ),
    one(
        "cleared with the next output",
        "from IPython.display import clear_output\nprint('one')\nclear_output(wait=True)\nprint('two')\nclear_output(wait=True)",
    ),
    one(
        "a loop that clears",
        "from IPython.display import clear_output\nfor i in range(20):\n    clear_output(wait=True)\n    print('step', i)\n    display({'text/plain': str(i)}, raw=True)",
    ),
    one(
        "cleared on standard error",
        "import sys\nfrom IPython.display import clear_output\nprint('one', file=sys.stderr)\nclear_output()\nprint('two', file=sys.stderr)",
    ),
    one("a progress bar", "from IPython.display import ProgressBar\nfor i in ProgressBar(4): pass"),
    one(
        "an image", f"import base64\nfrom IPython.display import Image\nImage(data=base64.b64decode('{PNG}'), width=5)"
    ),
    one(
        "an image by its address",
        "from IPython.display import Image, IFrame, FileLink, YouTubeVideo\ndisplay(Image(url='http://example.org/a.png'), IFrame('http://example.org', 10, 20), FileLink('missing.txt'))",
    ),
    one("a sound", "from IPython.display import Audio\nAudio([0.0, 0.5, -0.5] * 10, rate=8000)"),
    one("from a function and a class body", "def f(): display('in f')\nclass C:\n    display('in C')\nf()"),
    one(
        "captured",
        "from IPython.utils.capture import capture_output\nwith capture_output() as c:\n    print('out'); display('shown')\n    import sys; print('err', file=sys.stderr)\nprint(repr(c.stdout), repr(c.stderr), len(c.outputs))\nc.show()",
    ),
    one(
        "a formatter that fails in display",
        "class A:\n    def _repr_html_(self): raise OSError('no')\n    def __repr__(self): return 'A'\ndisplay(A())\nprint('went on')",
    ),
    one("a large bundle", "display({'text/plain': 'p', 'text/html': '<p>' + 'h' * 2_000_000}, raw=True)"),
    one("a hundred displays", "for i in range(100): display(i)"),
    several(
        "a formatter of one's own",
        "class A: pass\nformatter = get_ipython().display_formatter.formatters['text/html']\nformatter.for_type(A, lambda a: '<i>A</i>')\nget_ipython().display_formatter.formatters['text/plain'].for_type(A, lambda a, p, c: p.text('plain A'))",
        "A()",
        "display(A())",
        "formatter.pop(A)\nget_ipython().display_formatter.formatters['text/plain'].pop(A)\nNone",
        "A()",
    ),
    several(
        "plain text only",
        "old = list(get_ipython().display_formatter.active_types)\nget_ipython().display_formatter.active_types = ['text/plain']\nfrom IPython.display import HTML\nHTML('<b>')",
        "get_ipython().display_formatter.active_types = old\nHTML('<b>')",
    ),
    one(
        "the kind of the publisher",
        "from ipykernel.zmqshell import ZMQDisplayPublisher\nisinstance(get_ipython().display_pub, ZMQDisplayPublisher)",
    ),
    several(
        "a hook of the publisher",
        "seen = []\ndef hook(message):\n    seen.append(message['header']['msg_type'])\n    return message if 'pass' in str(message['content']) else None\nget_ipython().display_pub.register_hook(hook)\ndisplay('pass')\ndisplay('stop')",
        "get_ipython().display_pub.unregister_hook(hook), seen",
    ),
)

COMMS = topic(
    "comms",
    one(
        "opened, used, closed",
        "import comm\nc = comm.create_comm(target_name='t', data={'a': 1}, metadata={'m': 2})\nc.send({'n': 2}, metadata={'x': 1})\nc.close({'bye': True})",
    ),
    one(
        "with an id of one's own",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='mine')\nc.close()\nc.comm_id",
    ),
    one(
        "with binary data",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='b', data={}, buffers=[b'\\x00\\xff'])\nc.send({'n': 2}, buffers=[b'', bytes(range(256)), memoryview(b'abc')])\nc.close()",
    ),
    one(
        "of ipykernel's class",
        "from ipykernel.comm import Comm\nc = Comm(target_name='t', data={'a': 1})\nc.send('text')\nc.close()",
    ),
    one(
        "closed when forgotten",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='gone')\ndel c\nimport gc\ngc.collect();",
    ),
    one(
        "nothing after the end",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='e')\nc.close()\nc.close()\nc.send({'late': 1})",
    ),
    one(
        "what cannot be sent",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='f')\ntry:\n    c.send({'a': object()})\nexcept Exception as e:\n    print(type(e).__name__)\nc.close()",
    ),
    one(
        "the manager knows it",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='k')\nm = comm.get_comm_manager()\nprint('k' in m.comms, m is get_ipython().kernel.comm_manager)\nc.close()\nprint('k' in m.comms)",
    ),
    one(
        "a target",
        "import comm\nm = comm.get_comm_manager()\nm.register_target('mine', lambda c, msg: None)\nprint('mine' in m.targets)\nm.unregister_target('mine', None)\nprint('mine' in m.targets)",
    ),
    several(
        "used from a later cell",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='l')",
        "c.send({'later': 1})\nprint('x')",
        "c.close()",
    ),
    one(
        "in the middle of output",
        "import comm\nprint('before', flush=True)\nc = comm.create_comm(target_name='t', comm_id='o')\nprint('after', flush=True)\nc.close()",
    ),
    one(
        "messages of other types",
        "import comm\nc = comm.create_comm(target_name='t', comm_id='m')\nc.publish_msg('comm_msg', data={'raw': 1})\nc.close()",
    ),
    several(
        "a callback is set",
        cell(
            "import comm\nc = comm.create_comm(target_name='t', comm_id='cb')\nc.on_msg(print); c.on_close(print)\nc.handle_msg({'content': {'data': 1}})"
        ),
        "c.close()",
    ),
)
