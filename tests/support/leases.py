"""What a session on a kernel of ours holds, for tests that look beneath it."""

from __future__ import annotations

from cellrun import AsyncSession, Provider
from cellrun.kernel_session import KernelSession
from cellrun.providers.base import Lease


def lease_of(session: AsyncSession) -> Lease:
    backend = session._backend
    assert isinstance(backend, KernelSession)
    assert backend.lease is not None
    return backend.lease


def provider_of(session: AsyncSession) -> Provider:
    source = session._backend.source
    assert isinstance(source, Provider)
    return source
