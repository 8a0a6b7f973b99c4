"""Kernels of a Jupyter server: Jupyter Server, Kernel Gateway, a JupyterHub user's server."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from cellrun.channels.client import KernelClient
from cellrun.channels.websocket import WebSocketChannel
from cellrun.errors import (
    AuthenticationError,
    CellrunError,
    ConnectionFailed,
    KernelStartError,
    SessionLost,
    public_url,
)
from cellrun.protocol.kernel import KernelState
from cellrun.protocol.ws_v1 import SUBPROTOCOL
from cellrun.providers.base import FileStore, Lease, Provider, finish, in_background
from cellrun.providers.contents import contents_of
from cellrun.providers.http import JupyterHttp, NotFound, Refused, parse_base_url
from cellrun.providers.prepare import prepare

_DELETE_TIMEOUTS: Final = (15.0, 5.0)  # the first time, later
_RESTART_WAIT: Final = 10.0
_DELETE_PAUSES: Final = (0.1, 0.5, 1.0)
_DELETE_PAUSES_WHEN_REFUSED: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
_RELEASE_WAIT: Final = 0.5
_LATE_ANSWER: Final = 5.0
_HANDSHAKE_CHECK: Final = 1.0
_HANDSHAKE_PATIENCE: Final = 15.0  # then another one is tried; twice as long for each
_REFILL_PAUSE: Final = 0.2
_PAUSES_AFTER_FAILURES: Final = (0.5, 1.0, 2.0, 5.0, 10.0)


class JupyterServer(Provider):
    """Starts a kernel on a Jupyter server per session, and deletes it at the end.

    url         base address, with its base path; a `?token=` in it is taken as the token
    token       sent in a header, never in a URL
    password    of the server's login form; give one of the two, or neither
    kernel      kernelspec; None: the server's default
    cwd         the kernel's folder, as a path of the server's contents; None: the server's root
    env         environment variables of the kernel (Python kernels)
    headers     sent with every request
    ca_file     certificate authority of your own (PEM); verify=False trusts any certificate
    warm        so many started kernels with open connections are kept ready
    reconnect   seconds for which a broken connection is tried again
    timeout     seconds for one HTTP request, three times that for the start of a kernel

    Proxies are taken from the environment. Raises ValueError for an address that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        password: str | None = None,
        kernel: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        verify: bool = True,
        warm: int = 0,
        reconnect: float = 3.5,
        timeout: float = 10.0,
    ) -> None:
        super().__init__()
        self._base, url_token = parse_base_url(url)
        self._credentials: dict[str, Any] = {
            "token": token or ("" if password else url_token),
            "password": password or "",
        }
        for name, value in (*self._credentials.items(), *(headers or {}).items()):
            if "\n" in value or "\r" in value:
                raise ValueError(f"the {name} holds a line break: was it read from a file with its last newline?")
        self._options: dict[str, Any] = {"headers": headers, "ca_file": ca_file, "verify": verify, "timeout": timeout}
        self._kernel = kernel
        self._cwd = (cwd or "").strip("/")
        self._env = dict(env or {})
        self._warm_wanted = warm
        self._patience = reconnect
        self._http_client: JupyterHttp | None = None
        self._files: FileStore | None = None
        self._leases: set[ServerLease] = set()
        self._warm: deque[ServerLease] = deque()
        self._refilling: asyncio.Task[None] | None = None
        self._warm_failure: CellrunError | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._leases)} kernels, {len(self._warm)} warm"
        return f"<JupyterServer {public_url(str(self._base))}, {state}>"

    @property
    def _http(self) -> JupyterHttp:
        if self._http_client is None:
            self._check_open()  # a start that goes on beside our closing may not open a new one
            self._http_client = JupyterHttp(self._base, **self._credentials, **self._options)
        return self._http_client

    async def acquire(self, timeout: float) -> ServerLease:
        self._check_open()
        lease = self._take_warm()
        if lease is not None:
            return lease
        lease = await self._start(timeout)
        self._refill()
        return lease

    async def ready(self, timeout: float = 60.0) -> None:
        """Until all `warm` kernels are there. Raises KernelStartError when the time is up first, or what
        keeps them from starting."""
        self._check_open()
        self._entered = True
        self._refill()
        if self._refilling is not None:
            try:
                await asyncio.wait_for(asyncio.shield(self._refilling), timeout)
            except TimeoutError:
                raise KernelStartError(f"{len(self._warm)} of {self._warm_wanted} kernels are warm") from None
            if self._warm_failure is not None and len(self._warm) < self._warm_wanted:
                raise self._warm_failure

    async def check(self) -> dict[str, Any]:
        """What the server says of itself: version, kernelspecs, and that the credentials hold. Raises
        as `acquire` does. For `doctor`."""
        self._check_open()
        _, api = await self._http.json("GET", "api")
        _, specs = await self._http.json("GET", "api/kernelspecs")
        return {
            "version": api.get("version") if isinstance(api, dict) else None,
            "default": specs.get("default") if isinstance(specs, dict) else None,
            "kernelspecs": sorted(specs.get("kernelspecs", {})) if isinstance(specs, dict) else [],
        }

    async def _start(self, timeout: float) -> ServerLease:
        lease = ServerLease(self)
        self._leases.add(lease)
        try:
            await lease.begin(timeout)
        except BaseException:
            # A server that has stopped answering holds up the caller's error no longer than this; the rest goes on
            # behind, and `aclose()` waits for it.
            await finish(lease.release(), _RELEASE_WAIT)
            raise
        return lease

    def _take_warm(self) -> ServerLease | None:
        while self._warm:
            lease = self._warm.popleft()
            # Not at once: the new kernel's start would take the processor from the call that it follows.
            self._refill(_REFILL_PAUSE)
            if lease.client.state is KernelState.READY:
                return lease
            in_background(lease.release())
        return None

    def _refill(self, pause: float = 0.0) -> None:
        if (
            self._warm_wanted > len(self._warm)
            and not self._closed
            and (self._refilling is None or self._refilling.done())
        ):
            self._refilling = asyncio.create_task(self._keep_warm(pause), name="cellrun warm kernels")

    async def _keep_warm(self, pause: float) -> None:
        failures = 0
        await asyncio.sleep(pause)
        while len(self._warm) < self._warm_wanted:
            try:
                self._warm.append(await self._start(60.0))
                failures = 0
            except CellrunError as error:
                self._warm_failure = error
                # The next acquire meets the same trouble and tells its caller.
                if failures == len(_PAUSES_AFTER_FAILURES):
                    return
                await asyncio.sleep(_PAUSES_AFTER_FAILURES[failures])
                failures += 1

    async def _close(self) -> None:
        # All of it is taken before the first wait: a session that comes meanwhile begins anew.
        http, self._http_client, self._files = self._http_client, None, None
        leases, self._leases = self._leases, set()
        refilling, self._refilling = self._refilling, None
        self._warm.clear()
        if refilling is not None:
            refilling.cancel()
        try:
            await asyncio.gather(*(lease.release() for lease in leases))
            if refilling is not None:
                await asyncio.gather(refilling, return_exceptions=True)
        finally:  # also when the loop ends, and cancels what is left on it
            if http is not None:
                await http.aclose()

    async def _file_store(self) -> FileStore:
        if self._files is None:
            self._files = await contents_of(self._http, self._cwd)
        return self._files


class ServerLease(Lease):
    """One kernel of the server and the connection to it."""

    def __init__(self, provider: JupyterServer) -> None:
        self._provider = provider
        self._http = provider._http
        self._kernel_id = ""
        self._session_id = uuid.uuid4().hex
        self._creating: asyncio.Task[None] | None = None
        self._asked: asyncio.Task[Any] | None = None
        self._restarted = False

    @property
    def _path(self) -> str:
        return f"api/kernels/{quote(self._kernel_id, safe='')}"

    async def start(self, timeout: float) -> None:
        """A new kernel, its connection, and the preparation of it."""
        deadline = time.monotonic() + timeout
        provider = self._provider
        if provider._cwd:
            await self.open_files()
        await self._create(timeout)
        await self._connect(deadline)

    async def _create(self, timeout: float) -> None:
        """Not cancelled half-way, and not given up at once with the caller's time: a kernel whose id we never learned could
        not be deleted. What is still under way then, `_release` waits for."""
        # A server that starts many kernels at once takes its time for each.
        timeout = min(timeout, 3 * self._http.timeout)
        self._creating = asyncio.ensure_future(self._post(timeout + _LATE_ANSWER))
        self._creating.add_done_callback(lambda task: task.cancelled() or task.exception())
        with self._http.mapped("POST", "api/kernels", timeout):
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._creating)

    async def _post(self, timeout: float) -> None:
        provider = self._provider
        # Without a path the kernel starts in the folder that the server itself was started in, which
        # its Contents API does not show; "" is the root.
        body: dict[str, Any] = {"path": provider._cwd}
        if provider._kernel is not None:
            body["name"] = provider._kernel
        if provider._env:
            body["env"] = provider._env
        try:
            _, model = await self._http.json("POST", "api/kernels", body=body, timeout=timeout)
        except AuthenticationError:
            self._http.refresh_credentials()
            raise
        except ConnectionFailed as error:
            if isinstance(error, Refused) and error.status in (404, 500):
                await self._explain_missing_kernelspec(error)
            raise
        if not isinstance(model, dict) or not isinstance(model.get("id"), str):
            raise KernelStartError("the server answered without a kernel id: is this the address of a Jupyter server?")
        self._kernel_id = model["id"]

    async def _explain_missing_kernelspec(self, error: ConnectionFailed) -> None:
        """The server answers 500 to an unknown kernelspec and says nothing more."""
        wanted = self._provider._kernel
        try:
            _, specs = await self._http.json("GET", "api/kernelspecs")
            known = sorted(specs["kernelspecs"])
        except (CellrunError, KeyError, TypeError):
            return
        if wanted is not None and wanted not in known:
            raise KernelStartError(
                f"the server has no kernelspec named {wanted!r}; it has: {', '.join(known) or 'none'}"
            ) from None
        raise KernelStartError(f"the server could not start a kernel: {error}") from None

    async def _connect(self, deadline: float) -> None:
        provider = self._provider
        first = await self._first_connection(deadline)
        channel = WebSocketChannel(first, self._open, patience=provider._patience)
        self.client = KernelClient(channel, self._session_id)
        await self._make_ready(deadline)

    async def _make_ready(self, deadline: float) -> None:
        await self.client.wait_ready(deadline - time.monotonic())
        env, left = self._provider._env, max(0.1, deadline - time.monotonic())
        await prepare(self.client, timeout=left, env=env or None, keep_log=True)

    async def _first_connection(self, deadline: float) -> Any:
        """The server answers the handshake when the kernel does. A kernel that crashes at its start never
        does: so the kernel's own state is looked at meanwhile. The server asks it once who it is; where that was lost (by
        a kernel that did not get its ports, and was started again), it waits a minute: but for another connection it asks anew."""
        began, patience = time.monotonic(), _HANDSHAKE_PATIENCE
        handshake = asyncio.ensure_future(self._open(deadline - began))
        try:
            while True:
                done, _ = await asyncio.wait({handshake}, timeout=_HANDSHAKE_CHECK)
                if done:
                    return handshake.result()
                try:
                    await self._http.json("GET", self._path)
                except NotFound:
                    raise KernelStartError("the kernel died while it started; the server has given it up") from None
                except AuthenticationError:
                    pass  # Kernel Gateway does not tell about kernels
                now = time.monotonic()
                if not handshake.done() and now - began > patience and now < deadline:
                    handshake.cancel()
                    await asyncio.wait({handshake})
                    if not handshake.cancelled() and handshake.exception() is None:
                        return handshake.result()  # it came with the cancellation
                    began, patience = now, 2 * patience
                    handshake = asyncio.ensure_future(self._open(deadline - now))
        except NotFound:
            raise KernelStartError("the kernel died while it started; the server has given it up") from None
        finally:
            if not handshake.done():
                handshake.cancel()
                await asyncio.gather(handshake, return_exceptions=True)
            elif not handshake.cancelled() and handshake.exception() is None and not hasattr(self, "client"):
                self._unclaimed = handshake.result()

    _unclaimed: Any = None

    async def _open(self, timeout: float | None = None) -> Any:
        """One connection. NotFound (the kernel is no more) becomes an error that is not tried again."""
        try:
            return await self._http.websocket(
                f"{self._path}/channels",
                {"session_id": self._session_id},
                (SUBPROTOCOL,),
                timeout if timeout is not None else self._http.timeout,
            )
        except NotFound:
            if timeout is not None:
                raise
            raise SessionLost("the server no longer has this kernel") from None

    async def open_files(self) -> FileStore:
        return await self._provider._file_store()

    async def interrupt(self) -> None:
        await self._http.json("POST", f"{self._path}/interrupt", timeout=5.0)

    async def kill(self) -> None:
        """By a restart, which the server does whatever the kernel is doing, within seconds."""
        with contextlib.suppress(CellrunError):
            await self._ask_restart(10.0)
            self.client.renew()
            self._restarted = True

    async def _ask_restart(self, timeout: float) -> None:
        """Cancelled, the request goes on: `_release` waits for its answer, since a server that restarts a kernel cannot delete it."""
        self._asked = asyncio.ensure_future(self._http.json("POST", f"{self._path}/restart", timeout=timeout))
        self._asked.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._asked)

    async def restart(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if self.client.state is KernelState.RESTARTING or self._restarted:
            # The server does it by itself, or kill() has had it done.
            self._restarted = False
            with contextlib.suppress(KernelStartError, ConnectionFailed):
                await self._make_ready(time.monotonic() + 15.0)
                return
        if self.client.state is not KernelState.DEAD:
            try:
                await self._ask_restart(30.0)
                self.client.renew()
                await self._make_ready(deadline)
                return
            except NotFound:
                pass
        await self.client.aclose()
        await self._delete()
        self._session_id = uuid.uuid4().hex
        await self._create(deadline - time.monotonic())
        await self._connect(deadline)

    async def _release(self) -> None:
        if self._creating is not None:  # the kernel's id must be known before it can be deleted
            await asyncio.wait({self._creating})
        if hasattr(self, "client"):
            busy = self.client.executing
            if busy:
                # A busy kernel that is deleted keeps the server waiting for seconds.
                with contextlib.suppress(CellrunError):
                    await self.interrupt()
            await self.client.aclose()
        elif self._unclaimed is not None:
            await self._unclaimed.close()
        if self._asked is not None:
            await asyncio.wait({self._asked}, timeout=_RESTART_WAIT)
        await self._delete()
        self._provider._leases.discard(self)

    async def _delete(self) -> None:
        """The kernel goes from the server. Tried again where the connection was what failed, and for longer where the
        server refused: it answers 500 while it restarts this kernel. One that stays takes memory there until somebody finds it."""
        pauses: tuple[float, ...] = (0.0,)
        tried = 0
        while self._kernel_id and tried < len(pauses):
            await asyncio.sleep(pauses[tried])
            tried += 1
            try:
                await self._http.json("DELETE", self._path, timeout=_DELETE_TIMEOUTS[tried > 1])
                self._kernel_id = ""
            except NotFound:
                self._kernel_id = ""
            except Refused:
                pauses = (0.0, *_DELETE_PAUSES_WHEN_REFUSED)
            except ConnectionFailed:
                pauses = (0.0, *_DELETE_PAUSES)
            except CellrunError:
                return
