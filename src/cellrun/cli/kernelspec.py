"""`cellrun kernelspec install`: our kernel in the list of every Jupyter program on this machine."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager

from cellrun.launch.provisioner import NAME


def content(display_name: str, preload: list[str]) -> dict[str, Any]:
    """What the kernelspec says (Kernel specs, jupyter_client). The command is run where nothing
    can be forked. A program in whose environment cellrun is not installed says that there is no such kernel."""
    return {
        "argv": [sys.executable, "-P", "-m", "cellrun.kernel", "-f", "{connection_file}"],
        "display_name": display_name,
        "language": "python",
        "metadata": {"kernel_provisioner": {"provisioner_name": NAME, "config": {"preload": preload}}},
        "kernel_protocol_version": "5.5",
    }


def install(name: str, display_name: str, preload: list[str], *, user: bool, prefix: str | None) -> Path:
    """Writes it and gives its folder. Raises ValueError for a name that cannot be one, OSError where it cannot be written."""
    if not name.strip():
        raise ValueError("the name is empty: programs choose the kernelspec by it")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.json").write_text(json.dumps(content(display_name, preload), indent=1) + "\n", "utf-8")
        return Path(KernelSpecManager().install_kernel_spec(folder, kernel_name=name, user=user, prefix=prefix))
