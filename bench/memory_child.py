"""`python -m bench.memory_child KERNEL BYTES LINES PAUSE`: streams from a local kernel, says how this process grew."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import sys
from pathlib import Path
from typing import Final

import cellrun
from bench.rows_data import lines_code

_STATUS: Final = Path("/proc/self/status")


def _memory(name: str) -> int:
    """VmRSS (resident now) or VmHWM (the most so far) in bytes. Where there is no proc, the most so far."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """What importing took at its worst is not growth (Linux: proc, clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


async def _stream(session: cellrun.AsyncSession, code: str, pause: float = 0.0) -> int:
    """The bytes that arrived. With a pause after the first of them, the rest is left where it is."""
    arrived = 0
    async with session.stream(code) as stream:
        async for event in stream:
            if isinstance(event, cellrun.Stdout):
                arrived += len(event.text)
                if pause:
                    await asyncio.sleep(pause)
                    break
    return arrived


async def _main(kernel: str, size: int, lines: int, pause: float) -> None:
    async with cellrun.LocalKernels(kernel=kernel, pool=0) as provider, cellrun.AsyncSession(provider) as session:
        await _stream(session, lines_code(100_000))
        gc.collect()
        _forget_peak()
        before = _memory("VmRSS")
        arrived = await _stream(session, lines_code(size, lines), pause)
        report = {"size": arrived, "growth": _memory("VmHWM") - before}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
