"""`cellrun doctor`: what was found, what is missing, what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from jupyter_client.kernelspec import KernelSpecManager

from cellrun.cli.execute import provider_of, target_of
from cellrun.errors import AuthenticationError, CellrunError, public_url
from cellrun.launch.forkserver import AVAILABLE
from cellrun.launch.process import STOCK, is_own_python
from cellrun.launch.sandbox.layers import layers
from cellrun.launch.sandbox.sandbox import FORMS, why_not
from cellrun.providers import JupyterServer, Provider
from cellrun.remote.service import CellrunService
from cellrun.session import AsyncSession
from cellrun.settings import Settings

Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` says what to do where the verdict is not "ok"."""

    verdict: Verdict
    what: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<5} {self.what}"
        return f"{line}\n      → {self.advice}" if self.advice else line


async def doctor(settings: Settings) -> int:
    """Prints the findings; 0 if code can be run, 3 if not, 4 if only the credentials are wrong."""
    code = 0
    for finding in machine():
        print(finding)
        if finding.verdict == "fail":
            code = 3
    checks = server(settings) if settings.server is not None else local(settings)
    async for finding, exit_code in checks:
        print(finding, flush=True)
        code = code or exit_code
    return code


def machine() -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("cellrun", "ipykernel", "jupyter_client", "pyzmq", "aiohttp"):
        try:
            yield Finding("ok", f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Finding("fail", f"{package} is not installed", f"pip install {package}")
    for package, use in (("matplotlib", "pictures of plots"), ("pandas", "data frames")):
        try:
            yield Finding("ok", f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Finding("note", f"{package} is not installed: no {use} in local kernels", f"pip install {package}")
    folder = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if not os.access(folder, os.W_OK):
        yield Finding("note", f"{folder} cannot be written to", "sockets go to /tmp instead")
    free = shutil.disk_usage(tempfile.gettempdir()).free // 2**20
    if free < 100:
        yield Finding("fail", f"{free} MiB free in {tempfile.gettempdir()}", "free some space, or set TMPDIR")
    if sys.platform != "linux":
        yield Finding(
            "note",
            "not Linux: kernels are started, not forked; their death is noticed by polling, their children by group alone",
        )
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            yield Finding("note", f"{name} is set: {public_url(value)}", "servers are reached through it; see no_proxy")


async def local(settings: Settings) -> AsyncIterator[tuple[Finding, int]]:
    specs = KernelSpecManager().find_kernel_specs()
    wanted = settings.kernel or "python3"
    yield Finding("ok", f"kernelspecs: {', '.join(sorted(specs)) or 'none'}"), 0
    if wanted not in specs and wanted != STOCK:
        yield Finding("fail", f"there is no kernelspec {wanted!r}", "python -m ipykernel install --user"), 3
        return
    if AVAILABLE and is_own_python(wanted):
        yield Finding("ok", f"kernels of {wanted!r} are forked"), 0
    for finding in walls():
        yield finding, 0
    started = time.monotonic()
    try:
        async with provider_of(settings) as provider, AsyncSession(provider) as session:
            result = await session.run("print('hello')" if session.language == "python" else "", timeout=30)
            took = time.monotonic() - started
            if result.ok:
                yield Finding("ok", f"kernel {wanted!r} starts and runs code ({took:.1f} s)"), 0
            else:
                yield Finding("fail", f"kernel {wanted!r} runs no code: {result.status}: {result.reason}"), 3
            if session.containment == "none":
                yield Finding("note", "containment: none", "code runs with your own rights; say `--sandbox auto`"), 0
            else:
                yield Finding("ok", f"containment: {session.containment}"), 0
    except CellrunError as error:
        yield Finding("fail", f"kernel {wanted!r} does not start: {error}", "try it: jupyter console"), 3
    except ValueError as error:
        yield Finding("fail", str(error)), 3


def walls() -> Iterator[Finding]:
    """Layer by layer, what can contain code on this machine."""
    for form in FORMS:
        why = why_not(form)
        if why:
            yield Finding("note", f"{form} form of containment: does not hold: {why}")
        else:
            yield Finding("ok", f"{form} form of containment: holds, a contained process tried to break out and failed")
    for layer in layers():
        yield Finding(
            "ok" if layer.holds else "note", f"{layer.name}: {layer.what}", "" if layer.holds else layer.instead
        )


async def server(settings: Settings) -> AsyncIterator[tuple[Finding, int]]:
    try:
        provider = target_of(settings)
    except ValueError as error:
        yield Finding("fail", str(error)), 3
        return
    if not isinstance(provider, JupyterServer):
        async with provider:
            async for finding in service(provider):
                yield finding
        return
    async with provider:
        try:
            found = await provider.check()
            yield Finding("ok", f"server answers: version {found['version'] or 'not told'}"), 0
            yield Finding("ok", f"kernelspecs: {', '.join(found['kernelspecs'])} (default: {found['default']})"), 0
            started = time.monotonic()
            async with AsyncSession(provider) as session:
                result = await session.run("", timeout=30)
                took = time.monotonic() - started
                if result.ok:
                    yield Finding("ok", f"a kernel starts and runs code ({took:.1f} s)"), 0
                else:
                    yield Finding("fail", f"a kernel runs no code: {result.status}: {result.reason}"), 3
        except AuthenticationError as error:
            yield Finding("fail", str(error), "`jupyter server list` on that machine shows the token"), 4
        except CellrunError as error:
            yield Finding("fail", str(error), "check the address; is the server running?"), 3


async def service(target: Provider | CellrunService) -> AsyncIterator[tuple[Finding, int]]:
    started = time.monotonic()
    try:
        async with AsyncSession(target) as session:
            result = await session.run("", timeout=30)
            took = time.monotonic() - started
            if result.ok:
                yield Finding("ok", f"the service answers, and runs code ({took:.1f} s)"), 0
            else:
                yield Finding("fail", f"the service runs no code: {result.status}: {result.reason}"), 3
            yield Finding("ok", f"containment: {session.containment or 'the service does not know'}"), 0
    except AuthenticationError as error:
        yield Finding("fail", str(error), "put the key into a file, and name it by --token-file"), 4
    except CellrunError as error:
        yield Finding("fail", str(error), "check the address; is the service running?"), 3
