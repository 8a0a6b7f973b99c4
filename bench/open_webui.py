"""The code interpreter of Open WebUI as it is on PyPI: one file of its wheel, unmodified.

What that file imports of the application, two modules, is given to it: the setting for
redirects, and a JSON codec, for which it has the standard library's.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any, Final

_FILE: Final = "open_webui/utils/code_interpreter.py"


def fetch(folder: Path) -> Any:
    """The module, of the newest release, through pip. Raises RuntimeError where the registry cannot be reached."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "open-webui"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    wheels = list(folder.glob("open_webui-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise RuntimeError(f"Open WebUI's wheel could not be fetched from the package registry: {done.stderr[-500:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        file = folder / "code_interpreter.py"
        file.write_bytes(wheel.read(_FILE))
    wheels[0].unlink()  # 100 MB
    env: Any = types.ModuleType("open_webui.env")
    env.AIOHTTP_CLIENT_ALLOW_REDIRECTS = False
    codec: Any = types.ModuleType("open_webui.utils.json_codec")
    codec.JSONCodec = json
    wanted = {"open_webui": types.ModuleType("open_webui"), "open_webui.utils": types.ModuleType("open_webui.utils")}
    wanted |= {module.__name__: module for module in (env, codec)}
    spec = importlib.util.spec_from_file_location("open_webui.utils.code_interpreter", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = {name: sys.modules.get(name) for name in wanted}
    sys.modules.update(wanted)
    try:
        spec.loader.exec_module(module)
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
    return module
