"""Standard output and standard error: what is printed, and what the two objects are."""

from __future__ import annotations

from tests.differential.cells.shape import Cell, cell, one, several, topic

PRINTS = topic(
    "prints",
    one("a line", "print('hello')"),
    one("no newline at the end", "print('a', end='')\nprint('b', end='')"),
    one("nothing but a newline", "print()"),
    one("flushed one by one", "for i in range(5):\n    print(i, flush=True)"),
    one("separators and characters beyond ASCII", "print('ä', '漢字', '🎉', 'e\\u0301', sep='|', end='¶\\n')"),
    one("control characters", r"print('a\x00b\x07\x08c\td\x0ce\x0bf\x1b[31mred\x1b[0m')"),
    one("carriage returns", r"for i in range(4): print(f'\r{i * 33} %', end='', flush=True)"),
    one("line ends of other systems", r"print('one\r\ntwo\rthree\n\n\nfour', end='\r\n')"),
    one("a line of a million characters", "print('x' * 1_000_000)"),
    one("a long line of wide characters", "print('漢🎉é' * 70_000)"),
    one("five thousand lines", "for i in range(5_000): print('line', i)"),
    one("two thousand flushed lines", "for i in range(2_000): print('line', i, flush=True)"),
    one("standard error", "import sys\nprint('oops', file=sys.stderr)\nsys.stderr.write('again\\n');"),
    one(
        "both streams in turn, flushed",
        """
        import sys
        for i in range(5):
            print('out', i, flush=True)
            print('err', i, file=sys.stderr, flush=True)
        """,
    ),
    # Each stream is flushed for itself, at times of its own.
    one(
        "both streams in turn, not flushed",
        """
        import sys
        for i in range(50):
            print('out', i)
            print('err', i, file=sys.stderr)
        """,
        order="apart",
    ),
    one("what write returns", "import sys\n[sys.stdout.write(text) for text in ('', 'abc', 'äöü', '🎉\\n')]"),
    one("the count of write as a result", "import sys\nsys.stdout.write('abc')"),
    one("writelines", "import sys\nsys.stdout.writelines(['a\\n', 'b\\n', 'c'])"),
    one("bytes cannot be written", "import sys\nsys.stdout.write(b'x')"),
    one("only strings can be written", "import sys\nprint('before')\nsys.stderr.write(None)"),
    one("print to a closed file", "import io\nf = io.StringIO()\nf.close()\nprint('x', file=f)"),
    one(
        "print of an object whose str prints", "class A:\n    def __str__(self): print('inner'); return 'A'\nprint(A())"
    ),
    one(
        "print of an object whose str fails",
        "class A:\n    def __str__(self): 1 / 0\nprint('before', end=' ')\nprint(A())",
    ),
    one("pprint", "import pprint\npprint.pprint({'a': list(range(40)), 'b': {'c': 'x' * 90}})"),
    one(
        "output, error stream, result",
        "import sys\nprint('o', flush=True)\nprint('e', file=sys.stderr, flush=True)\n'r'",
    ),
)

STREAMS = topic(
    "stream objects",
    one(
        "attributes of standard output",
        """
        import sys
        names = ('encoding', 'errors', 'newlines', 'line_buffering', 'name', 'mode', 'closed', 'write_through')
        {name: getattr(sys.stdout, name, 'missing') for name in names}
        """,
    ),
    one(
        "attributes of standard error",
        """
        import sys
        names = ('encoding', 'errors', 'newlines', 'line_buffering', 'name', 'mode', 'closed', 'write_through')
        {name: getattr(sys.stderr, name, 'missing') for name in names}
        """,
    ),
    one(
        "methods without effect",
        """
        import sys
        for stream in (sys.stdout, sys.stderr):
            print(stream.isatty(), stream.writable(), stream.readable(), stream.seekable(), stream.flush())
        """,
    ),
    one(
        "the base classes",
        "import io, sys\n[isinstance(sys.stdout, c) for c in (io.TextIOBase, io.IOBase, io.TextIOWrapper)]",
    ),
    one(
        "names that it lacks",
        "import sys\nfrom ipykernel.iostream import OutStream\n[name for name in dir(OutStream) if not hasattr(sys.stdout, name)]",
    ),
    one(
        "the class is one of ipykernel",
        "import sys\nfrom ipykernel.iostream import OutStream\nisinstance(sys.stdout, OutStream)",
    ),
    one("no buffer below", "import sys\nhasattr(sys.stdout, 'buffer'), hasattr(sys.stdout, 'reconfigure')"),
    one("reading is refused", "import sys\nsys.stdout.read()"),
    one(
        "used as a context manager's target",
        "import contextlib, sys\nwith contextlib.redirect_stdout(sys.stderr):\n    print('to the other', flush=True)\nprint('back')",
    ),
    one(
        "redirected into a text",
        """
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            import sys
            print('kept'); print('too', file=sys.stderr)
            with contextlib.redirect_stdout(io.StringIO()) as inner:
                print('deeper')
        out.getvalue(), err.getvalue(), inner.getvalue()
        """,
    ),
    one(
        "replaced and put back",
        "import io, sys\nold, sys.stdout = sys.stdout, io.StringIO()\nprint('kept')\nnew, sys.stdout = sys.stdout, old\nprint('shown', new.getvalue())",
    ),
    several(
        "replaced over several cells",
        "import io, sys\nold = sys.stdout\nsys.stdout = io.StringIO()\nprint('kept')",
        "print('kept too')\n'a result all the same'",
        "1 / 0",
        "text, sys.stdout = sys.stdout.getvalue(), old\nprint(text)",
    ),
    one(
        "none at all",
        "import sys\nold, sys.stdout = sys.stdout, None\nprint('nowhere')\nsys.stdout = old\nprint('here')",
    ),
    one(
        "a write of one's own",
        "import sys\nwrite = sys.stdout.write\nsys.stdout.write = lambda text: write(text.upper())\nprint('loud')\ndel sys.stdout.write\nprint('quiet')",
    ),
    one(
        "the interpreter's own streams",
        """
        import sys
        print(sys.__stdout__ is sys.stdout, sys.__stdout__.encoding, sys.__stderr__.encoding, sys.__stdin__.encoding)
        """,
    ),
    one(
        "print to the interpreter's own output",
        "import sys\nprint('through the descriptor', file=sys.__stdout__, flush=True)",
    ),
    one(
        "print to the interpreter's own error stream",
        "import sys\nprint('through the descriptor', file=sys.__stderr__, flush=True)",
    ),
    one(
        "standard input is empty",
        "import sys\nsys.stdin.isatty(), sys.stdin.encoding, sys.stdin.fileno(), sys.stdin.read()",
    ),
    one("reading a line of standard input", "import sys\nsys.stdin.readline()"),
    several(
        "closed",
        "import sys\nsys.stdout.close()\nsys.stdout.closed",
        "print('x')",
        "1 + 1",
        "import sys\nprint('err', file=sys.stderr)",
        fresh=True,
    ),
    one(
        "a copy of the stream prints",
        "import sys\ns = sys.stdout\nprint('through a name', file=s)\nprint.__class__.__name__",
    ),
    one("the parent of output", "import sys\nsys.stdout.parent_header['msg_type'], sorted(sys.stdout.parent_header)"),
)

SOURCES = topic(
    "sources",
    several("nothing", Cell(code=""), "1"),
    several("blanks only", Cell(code="   \n\t\n  \n"), "1"),
    several("a comment only", "# nothing", "1"),
    several("a string only", "'''text'''", '"""a\nb"""'),
    several("magics only", "%precision\n%precision", "%pprint\n%pprint"),
    several("tabs", Cell(code="if True:\n\tx = 1\n\tprint(x)")),
    several("line ends of Windows", Cell(code="x = 1\r\nif x:\r\n    print('yes')\r\n'''a\r\nb'''\r\n")),
    several("old line ends of the Macintosh", Cell(code="x = 1\rprint(x)")),
    several("common indentation", Cell(code="    x = 1\n    print(x)\n    x")),
    several("blank lines before and after", Cell(code="\n\n\n1 / 0\n\n\n")),
    several("a zero byte", Cell(code="print(1)\x00")),
    several("a byte order mark", Cell(code="\ufeffprint(1)")),
    several("a form feed", Cell(code="x = 1\n\x0c\nprint(x)")),
    several("lone surrogates in the code", Cell(code="print(len('\ud800'))")),
    one("a magic cookie", "# -*- coding: latin-1 -*-\nprint('ä')"),
    several("a prompt in front", Cell(code=">>> x = 1\n>>> x + 1"), Cell(code="In [1]: x = 1\n   ...: x + 2")),
    several(
        "two hundred kilobytes", Cell(code="\n".join(f"v{i} = {i}  # a long comment" for i in range(7_000)) + "\nv6999")
    ),
    several("a very long line", Cell(code="sum([" + ",".join("1" for _ in range(15_000)) + "])")),
    one("continuation of lines", "x = 1 + \\\n    2 \\\n    + 3\nx"),
    several("an incomplete block", Cell(code="for i in range(3):"), Cell(code="if True:\n    print(1)\n  print(2)")),
    several("an expression within parentheses", "(\n    1 +\n    2\n)"),
    one("semicolons between", "a = 1; b = 2; a + b"),
    one("names beyond ASCII", "größe = 3\nℌ = 4\ngröße + H"),
    several("an empty cell is not counted", "1", Cell(code=""), Cell(code="  "), "2"),
    several(
        "silent", cell("print('shown')\n5", silent=True), cell("1 / 0", silent=True), cell("x = 3", silent=True), "x"
    ),
    several(
        "without history",
        cell("'not kept'", store_history=False),
        cell("1 / 0", store_history=False),
        "_",
        "len(In), len(Out)",
    ),
    several(
        "numbers of cells",
        "1",
        "2",
        cell("3", store_history=False),
        "4",
        cell("5", silent=True),
        "1 / 0",
        "get_ipython().execution_count",
    ),
)
