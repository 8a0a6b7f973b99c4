"""What is written in one turn of the loop is sent in one piece; nothing is held longer, lost or put in another order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cellrun.service.gathering import _MOST, GatheringTransport
from tests.support.waiting import HANG


class Below(asyncio.Transport):
    """A transport that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def get_write_buffer_size(self) -> int:
        return 0


class Turn:
    """The end of a turn of the loop, when the test says so."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def soon(self, callback: Callable[[], None]) -> None:
        self._due.append(callback)

    def ends(self) -> None:
        due, self._due = self._due, []
        for callback in due:
            callback()


def made() -> tuple[Below, Turn, GatheringTransport]:
    below, turn = Below(), Turn()
    return below, turn, GatheringTransport(below, turn.soon)


def test_head_and_body_of_one_turn_are_one_piece_and_the_next_turn_is_another() -> None:
    below, turn, transport = made()
    transport.write(b"head ")
    transport.write(b"body")
    assert below.sent == []
    assert transport.get_write_buffer_size() == 9
    turn.ends()
    transport.write(b"more")
    turn.ends()
    turn.ends()
    assert below.sent == [b"head body", b"more"]


def test_what_is_large_does_not_wait_nor_does_what_came_before_it() -> None:
    below, turn, transport = made()
    large = b"x" * _MOST
    transport.write(large)
    assert below.sent == [large]
    transport.write(b"small")
    transport.write(large)
    assert below.sent == [large, b"small" + large]
    turn.ends()
    assert len(below.sent) == 2


def test_a_close_sends_what_waits_and_an_abort_does_not() -> None:
    below, turn, transport = made()
    transport.write(b"last words")
    transport.close()
    turn.ends()
    assert (below.sent, below.ended) == ([b"last words"], "closed")
    below, turn, transport = made()
    transport.write(b"never sent")
    transport.abort()
    turn.ends()
    assert (below.sent, below.ended) == ([], "aborted")


@given(st.lists(st.one_of(st.none(), st.integers(0, 3 * _MOST))))
def test_all_that_is_written_is_sent_in_its_order_and_little_waits(sizes: list[int | None]) -> None:
    below, turn, transport = made()
    written = b""
    for number, size in enumerate(sizes):
        if size is None:
            turn.ends()
            assert b"".join(below.sent) == written
        else:
            data = bytes([number % 256]) * size
            written += data
            transport.write(data)
            assert transport.get_write_buffer_size() < _MOST
    turn.ends()
    assert b"".join(below.sent) == written


async def test_a_piece_reaches_a_real_client_while_the_answer_goes_on() -> None:
    """uvicorn with our protocol, and an application that goes on only when the client has had its first piece."""
    import uvicorn

    from cellrun.service.gathering import GatheringProtocol

    had = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await had.wait()
        await send({"type": "http.response.body", "body": b"second", "more_body": False})

    config = uvicorn.Config(application, port=0, http=GatheringProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    async with asyncio.timeout(HANG):
        serving = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.readuntil(b"first\r\n")).startswith(b"HTTP/1.1 200")
        had.set()
        assert await reader.read() == b"6\r\nsecond\r\n0\r\n\r\n"
        writer.close()
        await writer.wait_closed()
        server.should_exit = True
        await serving
