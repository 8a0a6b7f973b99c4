"""What `import cellrun` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cellrun
from tests.support.waiting import PROCESS


def test_exactly_these_names_are_exported() -> None:
    events = """ClearOutput Comm Display DisplayUpdate ErrorOutput Event ExecuteResult Finished InputRequest
        KernelRestarted OutputDropped Payload Queued Started Stderr Stdout"""
    errors = """AuthenticationError CellrunError ConnectionFailed ExecutionFailed KernelStartError LimitExceeded
        ProtocolError SessionLost Unsupported"""
    results = "DisplayOutput ErrorInfo Image Omission PageOutput Result StreamOutput"
    doors = """AsyncSession AsyncStream CellrunService FileInfo JupyterCodeExecuter JupyterServer Limits LocalKernels Provider
        SandboxPolicy Session Stream execute_code_jupyter fold run"""
    assert sorted(cellrun.__all__) == sorted(f"{events} {errors} {results} {doors}".split())
    for name in cellrun.__all__:
        assert getattr(cellrun, name) is not None
    assert callable(cellrun.run)
    assert callable(cellrun.fold)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = cellrun.nope


def test_importing_it_imports_no_heavy_library() -> None:
    heavy = ("aiohttp", "zmq", "jupyter_client", "nbformat", "typer", "rich", "pydantic", "IPython", "prompt_toolkit")
    program = f"import sys, cellrun; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PROCESS, check=True)
    assert done.stdout.strip() == "[]"


def test_a_local_session_needs_no_http_library_and_a_remote_one_no_launcher() -> None:
    for first, unwanted in (("AsyncSession()", "aiohttp"), ("JupyterServer('http://h/')", "jupyter_client")):
        program = f"import sys, cellrun; cellrun.{first}; print({unwanted!r} in sys.modules)"
        command = [sys.executable, "-W", "ignore", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS, check=True)
        assert done.stdout.strip() == "False", first


def test_a_provider_is_an_address_a_provider_or_nothing() -> None:
    from cellrun.providers import provider_for

    with pytest.raises(TypeError, match="not int"):
        provider_for(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must begin with http"):
        provider_for("not an address")
