"""A program that goes behind the walls and then becomes another one, or tries to break out and tells.

`python -c START FD COMMAND…`: at the descriptor is JSON with `walls` and `room`, and either the `folder` to work in with `go`, a descriptor on which
comes the byte that starts the command, or `targets`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from cellrun.launch.sandbox.attacks import Targets, attempt
from cellrun.launch.sandbox.walls import Prepared, Room, Walls

_PACKAGE: Final = Path(__file__).parent
ROOT: Final = _PACKAGE.parent.parent
"""The folder of the package cellrun."""

# Packages above this one are named without being run: they would import what is not needed here, and cannot be had with -S.
START: Final = (
    "import sys, types\n"
    f"for name, path in (('cellrun', {str(ROOT)!r}), ('cellrun.launch', {str(_PACKAGE.parent)!r})):\n"
    "    sys.modules[name] = types.ModuleType(name)\n"
    "    sys.modules[name].__path__ = [path]\n"
    "from cellrun.launch.sandbox.enter import main\n"
    "main(int(sys.argv[1]), sys.argv[2:])\n"
)
FLAGS: Final = ("-I", "-S", "-c", START)


def main(descriptor: int, command: list[str]) -> None:
    """See the module."""
    with open(descriptor, "rb") as file:
        told: dict[str, Any] = json.load(file)
    room = Room(**told["room"])
    prepared = Prepared(Walls.from_json(told["walls"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    prepared.confine(room)
    prepared.close()
    if "targets" in told:
        succeeded = attempt(Targets(**told["targets"]), network=prepared.walls.network)
        sys.stdout.write(json.dumps({"succeeded": succeeded}))
        return
    os.chdir(told["folder"])
    if os.read(told["go"], 1) != b"g":  # until the host has put us into the control group
        sys.exit(1)
    os.close(told["go"])
    try:
        os.environ.pop("JPY_PARENT_PID", None)  # a number that means another process here, or none: ipykernel would end
        os.execvp(command[0], command)  # noqa: S606  # a command, as a list
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)
