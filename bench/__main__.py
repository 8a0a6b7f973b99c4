"""`python -m bench [--quick] [--only NAME]… [--json FILE]`: prints the table, writes it as JSON.

It measures and judges nothing: the exit code is 0 also where a target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import (
    rows_calls,
    rows_data,
    rows_fleet,
    rows_forked,
    rows_interfaces,
    rows_process,
    rows_service,
    rows_walls,
    servers,
)
from bench.measure import Bench, Measured, Row, measure
from bench.table import row_text, summary_text, write_json

ROWS: Final = (
    *rows_forked.ROWS,
    *rows_walls.ROWS,
    *rows_service.ROWS,
    *rows_interfaces.ROWS,
    *rows_fleet.ROWS,
    *rows_calls.ROWS,
    *rows_data.ROWS,
    *rows_process.ROWS,
)


def _arguments() -> argparse.Namespace:
    names = ", ".join(row.name for row in ROWS)
    parser = argparse.ArgumentParser(prog="python -m bench", description="Ratios between contenders that take turns.")
    parser.add_argument("--quick", action="store_true", help="few repetitions: about a minute, and rough")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"rows whose name begins so: {names}")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), metavar="FILE", help="%(default)s")
    arguments = parser.parse_args()
    for wanted in arguments.only or ():
        if not any(row.name.startswith(wanted) for row in ROWS):
            parser.error(f"there is no row named {wanted!r}; there are {names}")
    return arguments


def _isolate(folder: Path) -> None:
    """No settings of the user's, no proxies: every contender's processes inherit the same environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("JUPYTER_TOKEN", "JUPYTER_PORT")):
            del os.environ[name]
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        path = folder / name.lower()
        path.mkdir()
        os.environ[name] = str(path)


async def _run(rows: list[Row], folder: Path, done: list[Measured], *, quick: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with contextlib.AsyncExitStack() as stack:
        bench = Bench(folder, stack, quick=quick)
        for row in rows:
            done.append(await measure(row, bench))
            print(row_text(done[-1]), end="\n\n", flush=True)


def main() -> int:
    arguments = _arguments()
    chosen = [row for row in ROWS if not arguments.only or any(row.name.startswith(name) for name in arguments.only)]
    rows = [row for row in chosen if row.rounds[0 if arguments.quick else 1]]
    done: list[Measured] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        _isolate(Path(folder))
        try:
            asyncio.run(_run(rows, Path(folder), done, quick=arguments.quick))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
        finally:
            servers.end_all()
            if done:
                print(summary_text(done))
                write_json(arguments.json, done, quick=arguments.quick)
    print(f"\n{time.monotonic() - started:.0f} s; written to {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
