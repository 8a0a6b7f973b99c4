"""Who gives us a kernel: this machine, or a Jupyter server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellrun.providers.base import FileInfo, Lease, Provider

if TYPE_CHECKING:
    from cellrun.providers.jupyter_server import JupyterServer
    from cellrun.providers.local import LocalKernels

__all__ = ["FileInfo", "JupyterServer", "Lease", "LocalKernels", "Provider", "provider_for"]


def provider_for(given: Provider | str | None) -> Provider:
    """The provider that a caller named: an address is a Jupyter server, None this machine. Raises
    ValueError for a string that is no address, TypeError for anything else."""
    # Each brings libraries of its own (aiohttp; jupyter_client), of which a program needs one.
    if given is None:
        from cellrun.providers.local import LocalKernels

        # Of one session alone: there is no second kernel for which anything could be got ready.
        return LocalKernels(pool=0, preload=())
    if isinstance(given, str):
        from cellrun.providers.jupyter_server import JupyterServer

        return JupyterServer(given)
    if isinstance(given, Provider):
        return given
    raise TypeError(f"expected a provider, the address of a Jupyter server or None, not {type(given).__name__}")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    modules = {"JupyterServer": "cellrun.providers.jupyter_server", "LocalKernels": "cellrun.providers.local"}
    if name in modules:
        return getattr(import_module(modules[name]), name)
    raise AttributeError(f"module 'cellrun.providers' has no attribute {name!r}")
