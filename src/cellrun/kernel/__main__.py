"""`python -m cellrun.kernel -f CONNECTION_FILE`: this kernel as an ordinary process."""

from __future__ import annotations

import sys

# Put there for -m: a file in the working folder must not stand in for a module of ours. The shell puts it back.
if not sys.flags.safe_path:
    del sys.path[0]

from cellrun.kernel.application import LeanApplication, read_connection


def main() -> None:
    """Runs a kernel until it is shut down. Raises SystemExit with a text if it is not told where."""
    if len(sys.argv) != 3 or sys.argv[1] != "-f":
        raise SystemExit("usage: python -m cellrun.kernel -f CONNECTION_FILE")
    application = LeanApplication.instance()
    application.prepare()
    application.settle()
    application.attach(read_connection(sys.argv[2]), connection_file=sys.argv[2])
    application.init_poller()  # ends the kernel with the program that started it (JPY_PARENT_PID)
    if application.poller is not None:
        application.poller.start()
    application.serve()
    application.finish()


main()
