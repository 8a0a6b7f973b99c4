"""`cellrun serve`: the settings as a service."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Final

from cellrun.cli.execute import provider_of
from cellrun.errors import Unsupported
from cellrun.launch.sandbox.policy import policy_from
from cellrun.providers import LocalKernels, Provider
from cellrun.settings import Settings, SettingsError

if TYPE_CHECKING:
    from cellrun.service.tokens import Issuer

_NEEDED: Final = ("fastapi", "uvicorn", "prometheus_client", "limits", "joserfc")


def need_service() -> None:
    """Raises Unsupported where the extra is not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Unsupported(f"the service needs {', '.join(missing)}: pip install 'cellrun[service]'")


async def run_service(settings: Settings) -> int:
    """Until a signal ends it. Raises ServeError, Unsupported, ValueError."""
    need_service()
    from cellrun import __version__
    from cellrun.service.interfaces import chosen
    from cellrun.service.logs import log_to_stderr
    from cellrun.service.options import Quotas, ServiceOptions
    from cellrun.service.serve import Address, serve
    from cellrun.service.tracing import tracing

    try:
        interfaces = chosen(settings.interfaces)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    options = ServiceOptions(
        interfaces=interfaces,
        timeout=300.0 if settings.timeout is None else settings.timeout,
        max_timeout=settings.max_timeout,
        idle_timeout=settings.idle_timeout,
        drain_timeout=settings.drain_timeout,
        keep_runs=settings.keep_days * 86_400,
        quotas=Quotas(
            sessions=settings.quota_sessions,
            kernels=settings.quota_kernels,
            runs=settings.quota_runs,
            watchers=settings.quota_watchers,
            cpu=settings.quota_cpu,
            disk=settings.quota_disk,
            requests=settings.quota_requests,
        ),
    )
    log_to_stderr(level=settings.log_level)
    provider = kernels_of(settings)
    address = Address(host=settings.host, port=settings.port)
    issuer = issuer_of(settings)
    traces = tracing(os.environ, version=__version__)
    await serve(
        provider,
        settings.data_folder,
        address,
        options,
        version=__version__,
        issuer=issuer,
        tracing=traces,
        on_ready=_say,
    )
    return 0


def issuer_of(settings: Settings) -> Issuer | None:
    """Raises SettingsError where only a part is said."""
    if settings.jwt_issuer is None and settings.jwt_audience is None and settings.jwt_keys is None:
        return None
    if settings.jwt_issuer is None or settings.jwt_audience is None or settings.jwt_keys is None:
        raise SettingsError("tokens want all of jwt_issuer, jwt_audience and jwt_keys: without one anybody's would do")
    from cellrun.service.tokens import Issuer

    return Issuer(
        issuer=settings.jwt_issuer, audience=settings.jwt_audience, keys=settings.jwt_keys, claim=settings.jwt_claim
    )


def kernels_of(settings: Settings) -> Provider:
    """As for other commands, but with kernels kept ready, and each session in a folder of its own."""
    if settings.server is not None:
        return provider_of(settings)
    policy = policy_from(settings.allow)
    return LocalKernels(
        kernel=settings.kernel or "python3",
        sandbox="none" if settings.sandbox == "none" else policy,
        max_kernels=settings.max_kernels,
        preload="auto" if settings.preload == "auto" else modules(settings.preload),
    )


def modules(names: str) -> list[str]:
    """Of a list with commas; `none`: no modules."""
    return [] if names == "none" else [name.strip() for name in names.split(",") if name.strip()]


def _say(url: str) -> None:
    print(url, flush=True)
    print(f"cellrun: serving at {url}, until Ctrl-C", file=sys.stderr)
