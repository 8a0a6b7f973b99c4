"""Who gives us a kernel: this machine, or a Jupyter server."""

from __future__ import annotations

from cellrun.providers.base import FileInfo, Lease, Provider
from cellrun.providers.jupyter_server import JupyterServer
from cellrun.providers.local import LocalKernels

__all__ = ["FileInfo", "JupyterServer", "Lease", "LocalKernels", "Provider", "provider_for"]


def provider_for(given: Provider | str | None) -> Provider:
    """The provider that a caller named: an address is a Jupyter server, None this machine. Raises
    ValueError for a string that is no address, TypeError for anything else."""
    if given is None:
        return LocalKernels()
    if isinstance(given, str):
        return JupyterServer(given)
    if isinstance(given, Provider):
        return given
    raise TypeError(f"expected a provider, the address of a Jupyter server or None, not {type(given).__name__}")
