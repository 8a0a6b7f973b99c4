"""Jupyter servers of every kind, started on loopback for the tests and ended with them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellrun.launch.descendants import kill_family
from tests.support.waiting import HANG, PROCESS

MARK = "CELLRUN_TEST_SERVER"


@dataclass
class Server:
    """A running server: how to reach it, and what it knows of kernels."""

    url: str
    token: str = ""
    password: str = ""
    root: Path = field(default_factory=Path)
    process: subprocess.Popen[bytes] | None = None
    mark: str = ""
    ca_file: str | None = None

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def kernels(self) -> list[dict[str, Any]]:
        """The server's own list of kernels."""
        request = urllib.request.Request(f"{self.url}api/kernels", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=HANG) as response:
            found: list[dict[str, Any]] = json.load(response)
            return found

    def wait_until_empty(self, seconds: float = HANG) -> None:
        """Until it has no kernels. AssertionError if the tests have left some on it."""
        deadline = time.monotonic() + seconds
        while left := self.kernels():
            assert time.monotonic() < deadline, f"the tests have left kernels on the server: {left}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PROCESS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_answers(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = PROCESS) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/", maxsplit=1)[0])), timeout=1):
                pass
            if url.startswith("https"):
                return
            with urllib.request.urlopen(url, timeout=HANG):
                return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):  # it is there and wants credentials
                return
            time.sleep(0.05)
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server at {url} did not come up:\n{log.read_text('utf-8', 'replace')[-3000:]}")


@contextmanager
def running(command: Sequence[str], url: str, probe: str, **extra: Any) -> Iterator[Server]:
    """Runs a server's command until the block ends; then it and everything that it started is gone."""
    home = Path(tempfile.mkdtemp(prefix="server-"))
    root = home / "root"
    root.mkdir()
    mark = secrets.token_hex(8)
    log = home / "log"
    env = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and name != "PYTEST_CURRENT_TEST"
        },
        "HOME": str(home),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OPENBLAS_NUM_THREADS": "1",
        # Where Debian puts the modules of its configurable-http-proxy; a Node.js of another origin needs telling.
        "NODE_PATH": "/usr/share/nodejs:/usr/lib/nodejs",
        MARK: mark,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(root=root, home=home) for part in command],
            cwd=home,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_answers(url + probe, process, log)
        yield Server(url=url, root=root, process=process, mark=mark, **extra)
    finally:
        kill_family(process.pid, mark)
        process.wait(PROCESS)
        shutil.rmtree(home, ignore_errors=True)


def _python(module: str) -> list[str]:
    """Python's `-m`, two seconds quicker: so long takes jsonschema to compile a grammar of addresses (rfc3987_syntax) that nothing here
    needs. It does without where that is not there."""
    code = (
        "import runpy, sys; sys.modules['rfc3987_syntax'] = None; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", code]


def _jupyter(*options: str) -> list[str]:
    return [
        *_python("jupyter_server"),
        "--ServerApp.root_dir={root}",
        "--ServerApp.open_browser=False",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        *options,
    ]


@contextmanager
def jupyter_server(*options: str, base: str = "/", token: str | None = None) -> Iterator[Server]:
    """Jupyter Server with a token."""
    token = secrets.token_hex(16) if token is None else token
    port = free_port()
    command = _jupyter(
        f"--ServerApp.port={port}",
        f"--ServerApp.base_url={base}",
        f"--IdentityProvider.token={token}",
        *options,
    )
    with running(command, f"http://127.0.0.1:{port}{base}", "api", token=token) as server:
        yield server


@contextmanager
def password_server(password: str) -> Iterator[Server]:
    """Jupyter Server with its login form."""
    from jupyter_server.auth.security import passwd

    port = free_port()
    hashed = passwd(password, algorithm="sha1")
    command = _jupyter(
        f"--ServerApp.port={port}", "--IdentityProvider.token=", f"--PasswordIdentityProvider.hashed_password={hashed}"
    )
    with running(command, f"http://127.0.0.1:{port}/", "api", password=password) as server:
        yield server


@contextmanager
def open_server() -> Iterator[Server]:
    """Jupyter Server without any authentication."""
    port = free_port()
    with running(
        _jupyter(f"--ServerApp.port={port}", "--IdentityProvider.token="), f"http://127.0.0.1:{port}/", "api"
    ) as s:
        yield s


@contextmanager
def tls_server(folder: Path) -> Iterator[Server]:
    """Jupyter Server behind a certificate of our own authority."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    port = free_port()
    token = secrets.token_hex(16)
    command = _jupyter(
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.certfile={folder / 'cert.pem'}",
        f"--ServerApp.keyfile={folder / 'key.pem'}",
    )
    with running(command, f"https://127.0.0.1:{port}/", "api", token=token, ca_file=str(folder / "ca.pem")) as server:
        yield server


@contextmanager
def kernel_gateway() -> Iterator[Server]:
    """Jupyter Kernel Gateway."""
    port = free_port()
    token = secrets.token_hex(16)
    command = [
        *_python("kernel_gateway"),
        "--KernelGatewayApp.ip=127.0.0.1",
        f"--KernelGatewayApp.port={port}",
        f"--KernelGatewayApp.auth_token={token}",
        "--JupyterWebsocketPersonality.list_kernels=True",
    ]
    with running(command, f"http://127.0.0.1:{port}/", "api", token=token) as server:
        yield server


_HUB_CONFIG = """
import os
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/hub-base/"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = ["configurable-http-proxy"]
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.cookie_secret_file = {home!r} + "/cookie"
c.JupyterHub.db_url = "sqlite:///" + {home!r} + "/hub.sqlite"
c.Authenticator.allow_all = True
c.Spawner.cmd = {single!r}
c.Spawner.args = ["--allow-root"]
c.Spawner.start_timeout = 100
c.Spawner.http_timeout = 100
c.SimpleLocalProcessSpawner.home_dir_template = {home!r} + "/{{username}}"
c.Spawner.environment = {{"{mark}": os.environ["{mark}"]}}
c.JupyterHub.services = [{{"name": "tests", "api_token": "{admin}"}}]
c.JupyterHub.load_roles = [{{
    "name": "tests", "services": ["tests"],
    "scopes": ["admin:users", "admin:servers", "tokens", "access:servers"],
}}]
"""


@contextmanager
def hub_user_server(more: str = "") -> Iterator[Server]:
    """The server of one user of a JupyterHub, reached through its proxy with a token of that user. `more`: of its configuration."""
    port, hub, api = free_port(), free_port(), free_port()
    admin = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="hub-") as home:
        config = Path(home) / "config.py"
        single = _python("jupyterhub.singleuser")
        text = _HUB_CONFIG.format(port=port, hub=hub, api=api, home=home, admin=admin, mark=MARK, single=single)
        config.write_text(text + more, "utf-8")
        base = f"http://127.0.0.1:{port}/hub-base/"
        command = [*_python("jupyterhub"), "-f", str(config)]
        with running(command, base, "hub/api") as server:
            call = _HubCalls(base, admin)
            call.post("users/ada")
            call.post("users/ada/server")
            call.wait_for_server("ada")
            server.token = call.post("users/ada/tokens", {"note": "tests", "scopes": ["access:servers!user=ada"]})[
                "token"
            ]
            server.url = f"{base}user/ada/"
            yield server


class _HubCalls:
    def __init__(self, base: str, token: str) -> None:
        self._base = f"{base}hub/api/"
        self._headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else b"" if method == "POST" else None
        request = urllib.request.Request(self._base + path, data=data, headers=self._headers, method=method)
        with urllib.request.urlopen(request, timeout=PROCESS) as response:
            text = response.read()
            return json.loads(text) if text else None

    def wait_for_server(self, user: str) -> None:
        deadline = time.monotonic() + PROCESS
        while time.monotonic() < deadline:
            if self._call("GET", f"users/{user}").get("servers", {}).get("", {}).get("ready"):
                return
            time.sleep(0.1)
        raise RuntimeError("the user's server did not start")
