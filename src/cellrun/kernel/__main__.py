"""`python -m cellrun.kernel -f CONNECTION_FILE`: this kernel as an ordinary process."""

from __future__ import annotations

import sys

from cellrun.kernel.application import LeanApplication, read_connection


def main() -> None:
    """Runs a kernel until it is shut down. Raises SystemExit with a text if it is not told where."""
    if len(sys.argv) != 3 or sys.argv[1] != "-f":
        raise SystemExit("usage: python -m cellrun.kernel -f CONNECTION_FILE")
    application = LeanApplication.instance()
    application.prepare()
    application.settle()
    application.attach(read_connection(sys.argv[2]), connection_file=sys.argv[2])
    application.serve()
    application.close()


main()
