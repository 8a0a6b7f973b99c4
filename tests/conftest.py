"""Servers are started once per worker; kernels by the tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import servers
from tests.support.servers import Server

# A proxy or a setting of whoever runs the tests is none of theirs.
for _name in list(os.environ):
    if _name.lower().endswith("_proxy") or (_name.startswith("CELLRUN_") and not _name.startswith("CELLRUN_SOAK_")):
        del os.environ[_name]
# Nor is that a shell has what it runs in the background pass over these signals, and all that comes from that.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# jsonschema compiles a grammar of addresses for two seconds when it is imported, and does without where there is none.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
# How long an example takes is the machine's matter: speed is measured by the bench.
hypothesis.settings.register_profile("cellrun", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("cellrun")


@pytest.fixture(scope="session")
def token_server() -> Iterator[Server]:
    """A stock Jupyter Server, default settings; characters in the token that break careless clients."""
    with servers.jupyter_server(token="a#b&c%20d+e") as server:
        yield server


@pytest.fixture(scope="session")
def free_server() -> Iterator[Server]:
    """Jupyter Server with a base path and its rate limits off."""
    with servers.jupyter_server("--ZMQChannelsWebsocketConnection.limit_rate=False", base="/some/base/") as server:
        yield server
        server.wait_until_empty()


@pytest.fixture(scope="session")
def password_server() -> Iterator[Server]:
    with servers.password_server("correct horse #&% battery") as server:
        yield server


@pytest.fixture(scope="session")
def open_server() -> Iterator[Server]:
    with servers.open_server() as server:
        yield server


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.tls_server(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="session")
def gateway() -> Iterator[Server]:
    with servers.kernel_gateway() as server:
        yield server


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Server]:
    with servers.hub_user_server() as server:
        yield server


@pytest.fixture(scope="session")
def bash_kernelspec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The kernelspec "bash", a kernel of another language, for local kernels."""
    import json
    import sys

    folder: Path = tmp_path_factory.mktemp("jupyter")
    spec = folder / "kernels" / "bash"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
    spec.joinpath("kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Bash", "language": "bash", "env": {"PS1": "$"}}), "utf-8"
    )
    crashing = folder / "kernels" / "crashing"
    crashing.mkdir()
    argv = [sys.executable, "-c", "import sys; sys.exit('cannot start: a reason')", "{connection_file}"]
    crashing.joinpath("kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Crashing", "language": "python"}), "utf-8"
    )
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder)
    yield "bash"
    if before is None:
        del os.environ["JUPYTER_PATH"]
    else:
        os.environ["JUPYTER_PATH"] = before
