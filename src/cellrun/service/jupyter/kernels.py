"""All kernels that were leased at the Jupyter address, of all tenants; and its sessions, which are names for kernels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from cellrun.errors import CellrunError
from cellrun.providers import LocalKernels
from cellrun.service.hub import Hub
from cellrun.service.jupyter.kernel import ServedKernel
from cellrun.service.jupyter.lifetime import Use, cause_to_end
from cellrun.service.problems import Problem, problem_of

_LOOK: Final = 1.0
_SESSIONS: Final = 1_000
_SLOW: Final = 2
_log: Final = logging.getLogger("cellrun.service")


@dataclass
class NamedKernel:
    """A Jupyter session: a path and a name for a kernel."""

    id: str
    tenant: str
    path: str
    name: str
    type: str
    kernel: ServedKernel


class JupyterMetrics:
    """Those of the Jupyter address, in the service's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.kernels = Gauge("cellrun_jupyter_kernels", "Kernels leased at the Jupyter address", registry=registry)
        self.connections = Gauge("cellrun_jupyter_connections", "WebSockets to kernels", registry=registry)
        self.ended = Counter(
            "cellrun_jupyter_kernels_ended", "Kernels that ended unasked", ["cause"], registry=registry
        )


class Kernels:
    """Of one service. `aclose()` ends them all."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.started = time.time()
        self.sessions: dict[str, NamedKernel] = {}
        self._kernels: dict[str, ServedKernel] = {}
        self.metrics = JupyterMetrics(hub.metrics.registry)
        self.slow = asyncio.Semaphore(_SLOW)
        """For messages that take long to encode: a picture takes a hundred times its bytes."""
        self._watching = asyncio.create_task(self._watch(), name="cellrun jupyter kernels")

    @property
    def kernelspec(self) -> str:
        """The name of the one there is."""
        provider = self.hub.provider
        name = provider.kernel if isinstance(provider, LocalKernels) else "python3"
        return "python3" if name == "ipykernel" else name

    def all(self, tenant: str) -> list[ServedKernel]:
        return [kernel for kernel in self._kernels.values() if kernel.tenant == tenant]

    def find(self, tenant: str, id: str) -> ServedKernel:
        """Raises Problem where the tenant has no such kernel."""
        kernel = self._kernels.get(id)
        if kernel is None or kernel.tenant != tenant:
            raise Problem("not_found", f"there is no kernel {id[:64]!r}")
        return kernel

    async def start(self, tenant: str, name: str | None) -> ServedKernel:
        """A kernel that is ready. Raises Problem."""
        hub = self.hub
        if name and name != self.kernelspec:
            raise Problem("bad_request", f"there is no kernelspec {name[:64]!r}: there is {self.kernelspec!r}")
        hub.admission.refuse_while_draining()
        hub.upkeep.check(tenant)
        hub.admission.check_kernels(tenant)
        most = hub.options.quotas.sessions
        if most is not None and len(self.all(tenant)) >= most:
            raise Problem("quota_exceeded", f"{most} kernels are the limit: delete one", retry_after=5)
        id = str(uuid.uuid4())
        kernel = ServedKernel(
            id=id,
            tenant=tenant,
            name=self.kernelspec,
            provider=hub.provider,
            longest=hub.options.max_timeout,
            forget=self._forget,
            last_look=lambda kernel: hub.upkeep.last_look(tenant, id, kernel),
        )
        self._kernels[id] = hub.leased[tenant, id] = kernel  # it counts before anything is waited for
        self.metrics.kernels.inc()
        try:
            await kernel.start()
        except CellrunError as error:
            raise problem_of(error) from None
        return kernel

    def _forget(self, kernel: ServedKernel) -> None:
        if self._kernels.pop(kernel.id, None) is None:
            return
        self.hub.leased.pop((kernel.tenant, kernel.id), None)
        self.metrics.kernels.dec()
        for id in [id for id, session in self.sessions.items() if session.kernel is kernel]:
            del self.sessions[id]

    # -- sessions --------------------------------------------------------------------------------

    def named(self, tenant: str) -> list[NamedKernel]:
        return [session for session in self.sessions.values() if session.tenant == tenant]

    def find_named(self, tenant: str, id: str) -> NamedKernel:
        """Raises Problem."""
        session = self.sessions.get(id)
        if session is None or session.tenant != tenant:
            raise Problem("not_found", f"there is no session {id[:64]!r}")
        return session

    def check_sessions(self, tenant: str) -> None:
        """Whether there is one more for this tenant. Raises Problem."""
        if len(self.named(tenant)) >= _SESSIONS:
            raise Problem("quota_exceeded", f"{_SESSIONS} sessions are the limit: delete one", retry_after=60)

    def name(self, tenant: str, kernel: ServedKernel, path: str, name: str, type: str) -> NamedKernel:
        """Raises Problem."""
        self.check_sessions(tenant)
        id = str(uuid.uuid4())
        session = self.sessions[id] = NamedKernel(id, tenant, path, name, type, kernel)
        return session

    # -- time ------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            # At once: one whose interrupt takes long keeps none of the others waiting.
            await asyncio.gather(*(self._look_after(kernel) for kernel in list(self._kernels.values())))

    async def _look_after(self, kernel: ServedKernel) -> None:
        now = time.monotonic()
        try:
            await kernel.look(now)
        except CellrunError as error:  # it has just gone
            _log.info("kernel %s cannot be looked after: %s", kernel.id, error)
        except Exception:  # the others are looked after all the same
            _log.exception("kernel %s cannot be looked after", kernel.id)
        cause = self._over(kernel, now)
        if cause is not None:
            _log.info("kernel %s ends: %s", kernel.id, cause, extra={"tenant": kernel.tenant})
            self.metrics.ended.labels(cause).inc()
            kernel.end(f"the kernel ended: {cause}")

    def _over(self, kernel: ServedKernel, now: float) -> str | None:
        """Why a kernel is to end."""
        if kernel.state in ("starting", "restarting"):
            return None
        use = Use(
            connected=bool(kernel.audience.connections),
            expected=kernel.audience.expected,
            executing=kernel.executing,
            left=kernel.audience.left,
            used=kernel.used,
        )
        return cause_to_end(use, now, self.hub.options.idle_timeout)

    async def aclose(self) -> None:
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        ends = [kernel.end("the service ends") for kernel in list(self._kernels.values())]
        if ends:
            await asyncio.wait(ends, timeout=10)
