"""`cellrun mcp`: the tools of MCP on standard input and output."""

from __future__ import annotations

import importlib.util

from cellrun.cli.execute import target_of
from cellrun.errors import Unsupported
from cellrun.settings import Settings

_NEEDED = ("mcp", "starlette", "PIL")


async def run_mcp(settings: Settings) -> int:
    """Until standard input ends, or a signal comes. Raises Unsupported, ValueError."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Unsupported(f"an MCP server needs {', '.join(missing)}: pip install 'cellrun[mcp]'")
    from cellrun import __version__
    from cellrun.service.mcp.stdio import serve_stdio

    timeout = 300.0 if settings.timeout is None else settings.timeout
    await serve_stdio(target_of(settings), timeout=timeout, version=__version__)
    return 0
