"""The kernel from a transcript, as users' tests have it."""

from __future__ import annotations

import pytest

from cellrun import ConnectionFailed
from cellrun.channels.base import Gone
from cellrun.channels.client import KernelClient
from cellrun.channels.scripted import ScriptedChannel, Step, execution, say
from cellrun.events import Event, Finished
from cellrun.folding import fold
from cellrun.protocol.execution import Execution
from tests.support.waiting import HANG


async def run(channel: ScriptedChannel) -> list[Event]:
    """The events of one execution by a client on this channel."""
    client = KernelClient(channel)
    await client.wait_ready(HANG)
    events: list[Event] = []
    await client.execute(Execution("e"), "1", events.extend, silent=False, store_history=True, allow_stdin=False)
    while not (events and isinstance(events[-1], Finished)):
        await client.ask("kernel_info_request", {}, timeout=HANG)
    await client.aclose()
    return events


async def test_a_script_is_played_to_the_request_that_it_waits_for() -> None:
    step = Step("execute_request", execution(say("iopub", "stream", name="stdout", text="hi")))
    channel = ScriptedChannel([step], language="other")
    result = fold(await run(channel))
    assert (result.status, result.stdout) == ("ok", "hi")
    assert "execute_request" in [message.msg_type for message in channel.sent]
    with pytest.raises(ConnectionFailed):
        await channel.send(channel.sent[0])


async def test_a_script_can_lose_the_kernel() -> None:
    channel = ScriptedChannel()
    client = KernelClient(channel)
    await client.wait_ready(HANG)
    told: list[str] = []
    client.on_gone = told.append
    channel.play([Gone("pulled the plug")])
    await client._reader
    assert told == ["pulled the plug"]
    await client.aclose()
