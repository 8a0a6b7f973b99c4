"""Runs real code in an embedded kernel: output as it comes, a picture saved to a file."""

import asyncio
import tempfile
import time
from pathlib import Path

import cellrun

STREAMED = """
import time
for step in range(1, 6):
    print(f"step {step} of 5", flush=True)
    time.sleep(0.2)
"""

PLOT = """
import numpy as np, matplotlib.pyplot as plt
x = np.linspace(0, 4 * np.pi, 400)
plt.figure(figsize=(6, 3))
plt.plot(x, np.sin(x) * np.exp(-x / 6))
plt.title("drawn in a Jupyter kernel")
plt.show()
"""


async def main() -> None:
    started = time.monotonic()
    async with cellrun.AsyncSession() as session:
        print(f"kernel ready after {time.monotonic() - started:.2f} s; containment: {session.containment}")

        async with session.stream(STREAMED) as stream:
            async for event in stream:
                if isinstance(event, cellrun.Stdout):
                    print(f"  {time.monotonic() - started:5.2f} s  {event.text}", end="")

        await session.run("total = sum(range(1_000_001))")
        result = await session.run("total")
        print(f"variables are kept: total = {result.text} (in {result.duration * 1000:.1f} ms)")

        result = (await session.run(PLOT, timeout=60)).raise_for_error()
        (image,) = result.images
        path = Path(tempfile.mkdtemp(prefix="cellrun-demo-")) / f"plot{image.suffix}"
        path.write_bytes(image.data)
        print(f"picture saved: {path} ({len(image.data)} bytes of {image.mime})")

        result = await session.run("import time; time.sleep(60)", timeout=0.5)
        print(
            f"a cell that sleeps too long: {result.status} ({result.reason}), and total is still {(await session.run('total')).text}"
        )


asyncio.run(main())
