"""cellrun: run code in Jupyter kernels and get everything back, as it happens.

>>> import cellrun
>>> cellrun.run("import math; math.tau").text
'6.283185307179586'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellrun.errors import (
    AuthenticationError,
    CellrunError,
    ConnectionFailed,
    ExecutionFailed,
    KernelStartError,
    LimitExceeded,
    ProtocolError,
    SessionLost,
    Unsupported,
)
from cellrun.events import (
    ClearOutput,
    Comm,
    Display,
    DisplayUpdate,
    ErrorOutput,
    Event,
    ExecuteResult,
    Finished,
    InputRequest,
    KernelRestarted,
    OutputDropped,
    Payload,
    Queued,
    Started,
    Stderr,
    Stdout,
)
from cellrun.folding import fold
from cellrun.limits import Limits
from cellrun.mime import Image
from cellrun.result import (
    DisplayOutput,
    ErrorInfo,
    Omission,
    PageOutput,
    Result,
    StreamOutput,
)

if TYPE_CHECKING:
    from cellrun.compat import JupyterCodeExecuter, execute_code_jupyter
    from cellrun.launch.sandbox.policy import SandboxPolicy
    from cellrun.providers import FileInfo, JupyterServer, LocalKernels, Provider
    from cellrun.remote.service import CellrunService
    from cellrun.session import AsyncSession
    from cellrun.stream import AsyncStream
    from cellrun.sync import Session, Stream, run

__version__ = "0.1.0"

# Loaded on first use: they bring aiohttp, jupyter_client and pydantic with them.
_LAZY = {
    "AsyncSession": "cellrun.session",
    "AsyncStream": "cellrun.stream",
    "CellrunService": "cellrun.remote.service",
    "FileInfo": "cellrun.providers",
    "JupyterCodeExecuter": "cellrun.compat",
    "JupyterServer": "cellrun.providers",
    "LocalKernels": "cellrun.providers",
    "Provider": "cellrun.providers",
    "SandboxPolicy": "cellrun.launch.sandbox.policy",
    "Session": "cellrun.sync",
    "Stream": "cellrun.sync",
    "execute_code_jupyter": "cellrun.compat",
    "run": "cellrun.sync",
}

__all__ = [
    "AsyncSession",
    "AsyncStream",
    "AuthenticationError",
    "CellrunError",
    "CellrunService",
    "ClearOutput",
    "Comm",
    "ConnectionFailed",
    "Display",
    "DisplayOutput",
    "DisplayUpdate",
    "ErrorInfo",
    "ErrorOutput",
    "Event",
    "ExecuteResult",
    "ExecutionFailed",
    "FileInfo",
    "Finished",
    "Image",
    "InputRequest",
    "JupyterCodeExecuter",
    "JupyterServer",
    "KernelRestarted",
    "KernelStartError",
    "LimitExceeded",
    "Limits",
    "LocalKernels",
    "Omission",
    "OutputDropped",
    "PageOutput",
    "Payload",
    "ProtocolError",
    "Provider",
    "Queued",
    "Result",
    "SandboxPolicy",
    "Session",
    "SessionLost",
    "Started",
    "Stderr",
    "Stdout",
    "Stream",
    "StreamOutput",
    "Unsupported",
    "execute_code_jupyter",
    "fold",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'cellrun' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
