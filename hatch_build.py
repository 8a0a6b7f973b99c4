"""Builds the page of the service into the wheel. Where it cannot be built, without npm or without a network, the wheel is made
without it, and the page says so; with `CELLRUN_BUILD_PAGE=require` that is an error."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PATIENCE = 600  # seconds for npm, which waits long where there is no network


class PageHook(BuildHookInterface):
    """Nothing is done for an editable install: there `make page` builds it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises RuntimeError where the page cannot be built and `CELLRUN_BUILD_PAGE` is `require`."""
        if self.target_name != "wheel" or version == "editable":
            return
        source, made = Path(self.root, "web"), Path(self.root, "src/cellrun/service/assets/index.html")
        if made.exists() and made.stat().st_mtime >= newest(source):
            return
        npm = shutil.which("npm")
        if npm is None or not source.is_dir():
            why = "npm was not found" if npm is None else "web/ is not there"
            self._without(why)
            return
        for command in ([npm, "ci", "--no-audit", "--no-fund"], [npm, "run", "build"]):
            try:
                done = subprocess.run(
                    command,
                    cwd=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=_PATIENCE,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                self._without(f"`npm {' '.join(command[1:])}` in {source} failed: {error}")
                return
            if done.returncode != 0:
                said = done.stdout.decode("utf-8", "replace")[-4000:]
                self._without(f"`npm {' '.join(command[1:])}` in {source} failed:\n{said}")
                return

    def _without(self, why: str) -> None:
        if os.environ.get("CELLRUN_BUILD_PAGE") == "require":
            raise RuntimeError(f"the page of `cellrun serve` cannot be built: {why}")
        self.app.display_warning(f"the page of `cellrun serve` is not built, all else works: {why}")


def newest(folder: Path) -> float:
    """When a source of the page was last changed."""
    times = [0.0]
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "node_modules"]
        times += [os.path.getmtime(os.path.join(parent, name)) for name in names]
    return max(times)
