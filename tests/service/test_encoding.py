"""Small pure parts: Accept headers, ranges, framing, the words for why a kernel died."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellrun.errors import CellrunError
from cellrun.event_log import Entry, entry_of
from cellrun.events import Stdout
from cellrun.launch.death import describe_exit
from cellrun.service.encoding import Encoding, as_ndjson, as_sse, chosen, encoded
from cellrun.service.metrics import cause_of
from cellrun.service.problem_response import as_response
from cellrun.service.problems import _OF_ERROR, KINDS, Problem
from cellrun.service.routes_files import part_of


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("APPLICATION/JSON", "json"),
        ("application/*", "json"),
        ("text/*", "sse"),
        ("text/event-stream", "sse"),
        ("text/event-stream; charset=utf-8", "sse"),
        ("text/event-stream, */*", "sse"),
        ("*/*, text/event-stream", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("application/x-ndjson, application/json", "json"),
        ("application/json;q=0.5, application/x-ndjson", "ndjson"),
        ("application/json;q=0.5,text/event-stream;q=0.9", "sse"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "json"),
        ("text/event-stream;q=0, application/json", "json"),
        ("text/event-stream;q=0", None),
        ("image/png", None),
        ("text/html", None),
        ("text/event-stream;q=nonsense", None),
        (",,,", None),
        ("application/jsonx", None),
        ("*/*;q=0", None),
        ("application/json;q=0, */*", "ndjson"),
        ("text/event-stream;q=nan", None),
    ],
)
def test_an_accept_header_chooses_what_it_asks_for(accept: str | None, encoding: Encoding | None) -> None:
    assert chosen(accept) == encoding


@given(st.text())
def test_no_accept_header_breaks_the_choice(accept: str) -> None:
    assert chosen(accept) in {"json", "sse", "ndjson", None}


@pytest.mark.parametrize(
    ("asked", "size", "part"),
    [
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=2-3", 10, (2, 4)),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=9-", 10, (9, 10)),
        ("bytes=8-99", 10, (8, 10)),
        ("bytes=-4", 10, (6, 10)),
        ("bytes=-99", 10, (0, 10)),
        (" bytes=2-3 ", 10, (2, 4)),
        ("bytes=3-2", 10, None),
        ("bytes=-", 10, None),
        ("bytes=", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=0-1,2-3", 10, None),
        ("bytes=1 - 2", 10, None),
        ("pages=1-2", 10, None),
        ("bytes=" + "9" * 40 + "-", 10, None),
        ("", 10, None),
    ],
)
def test_a_range_is_a_part_or_is_passed_over(asked: str, size: int, part: tuple[int, int] | None) -> None:
    assert part_of(asked, size) == part


@pytest.mark.parametrize(("asked", "size"), [("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_a_range_of_which_there_is_nothing_is_a_problem(asked: str, size: int) -> None:
    with pytest.raises(Problem) as caught:
        part_of(asked, size)
    assert caught.value.code == "range_not_satisfiable"


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_a_range_is_what_a_slice_is(first: int, last: int, size: int) -> None:
    data = bytes(range(size))
    if first <= last and first < size:
        assert part_of(f"bytes={first}-{last}", size) == (first, min(last + 1, size))
    if last:
        begin, end = part_of(f"bytes=-{last}", size) or (0, 0)
        assert data[begin:end] == data[-last:]


def test_server_sent_events_have_number_type_and_one_line_of_data() -> None:
    entry = entry_of(Stdout(seq=3, execution_id="e", text="a\r\n\n\u2028data: b"))
    framed = as_sse([entry, Entry(4, "display", b"{}")])
    first, second, rest = framed.split(b"\n\n")
    head = b"id: 3\nevent: stdout\ndata: "
    assert first.startswith(head)
    assert b"\n" not in first[len(head) :]
    assert b"\r" not in first
    assert json.loads(first[len(head) :])["text"] == "a\r\n\n\u2028data: b"
    assert (second, rest) == (b"id: 4\nevent: display\ndata: {}", b"")
    assert as_sse([]) == as_ndjson([]) == b""


@pytest.mark.parametrize(("encoding", "encode"), [("sse", as_sse), ("ndjson", as_ndjson)])
async def test_large_events_are_sent_as_they_are_held(
    encoding: Encoding, encode: Callable[[list[Entry]], bytes]
) -> None:
    """Not copied into one text with others, for each of those who wait."""
    piece = [
        Entry(1, "stdout", b'{"seq":1}'),
        Entry(2, "display", b'"' + b"x" * 300_000 + b'"'),
        Entry(3, "stdout", b"{}"),
    ]

    async def pieces() -> AsyncIterator[list[Entry]]:
        yield piece

    parts = [part async for part in encoded(pieces(), encoding)]
    assert b"".join(parts) == encode(piece)
    assert any(part is piece[1].data for part in parts)


async def test_an_empty_piece_becomes_a_sign_of_life_that_readers_pass_over() -> None:
    async def pieces() -> AsyncIterator[Sequence[Entry]]:
        yield []
        yield [Entry(1, "stdout", b"{}"), Entry(2, "stdout", b"{}")]

    assert [piece async for piece in encoded(pieces(), "ndjson")] == [b"\n", b"{}\n{}\n"]
    alive, data = [piece async for piece in encoded(pieces(), "sse")]
    assert alive.startswith(b":")
    assert alive.endswith(b"\n\n")
    assert data == as_sse([Entry(1, "stdout", b"{}"), Entry(2, "stdout", b"{}")])


def test_every_problem_is_spelled_alike_and_every_error_has_one() -> None:
    for code, kind in KINDS.items():
        response = as_response(Problem(code, "a detail", retry_after=0.2, execution_id="e"))
        body = json.loads(bytes(response.body))
        assert (body["code"], body["status"], body["detail"]) == (code, response.status_code, "a detail")
        assert (body["retryable"], body["execution_id"]) == (kind.retryable, "e")
        assert response.headers["retry-after"] == "1"
        assert ("www-authenticate" in response.headers) == (response.status_code == 401)
    codes = {cls.code for cls in CellrunError.__subclasses__() if cls.__module__ == "cellrun.errors"}
    assert codes - set(_OF_ERROR) == {"execution_failed"}  # which only Result.raise_for_error raises
    assert set(_OF_ERROR.values()) <= set(KINDS)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (describe_exit(3, out_of_memory=False), "exit"),
        (describe_exit(-11, out_of_memory=False), "signal"),
        (describe_exit(None, out_of_memory=False), "other"),
        (describe_exit(-9, out_of_memory=True), "out_of_memory"),
        ("out of memory, limit 512 MB: …", "out_of_memory"),
        ("the kernel was killed: a cell did not stop within 2 s of its interrupt", "killed"),
        ("the service ended while this ran, and the kernel with it; the variables are gone", "service"),
        (None, "other"),
    ],
)
def test_what_killed_a_kernel_is_counted_under_its_cause(reason: str | None, cause: str) -> None:
    assert cause_of(reason) == cause
