"""What a client that was away is given when it comes back: bounded, in order, and honest about what is missing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cellrun.protocol.message import Message
from cellrun.service.jupyter.replay import Replay, says, weight

FIRST, SECOND = {"msg_id": "1"}, {"msg_id": "2"}


def line(text: str, parent: dict[str, Any] = FIRST) -> Message:
    return says("stream", {"name": "stdout", "text": text}, parent)


def texts(messages: list[Message]) -> list[str]:
    return [message.content["text"] for message in messages if message.msg_type == "stream"]


def test_what_came_is_given_once_and_in_order() -> None:
    replay = Replay()
    for text in "abc":
        replay.add(line(text))
    assert texts(replay.take()) == ["a", "b", "c"]
    assert replay.take() == []
    replay.add(line("d"))
    assert texts(replay.take()) == ["d"]


def test_of_too_much_the_oldest_is_forgotten_and_that_is_said_in_its_place() -> None:
    replay = Replay(kept=3 * weight(line("x" * 1_000)))
    for number in range(5):
        replay.add(line(f"{number}" * 1_000))
    gap, *rest = replay.take()
    assert [text[0] for text in texts(rest)] == ["2", "3", "4"]
    assert "2 messages" in gap.content["text"]
    assert "were forgotten while the client was away" in gap.content["text"]
    assert (gap.content["name"], gap.parent_header) == ("stderr", FIRST)


def test_each_request_has_its_own_gap_and_its_end_is_never_forgotten() -> None:
    replay = Replay(kept=600)
    for parent in (FIRST, SECOND):
        replay.add(line("x" * 1_000, parent))
        replay.add(says("execute_reply", {"status": "ok"}, parent, "shell"))
        replay.add(says("input_request", {"prompt": "?"}, parent, "stdin"))
    found = replay.take()
    assert [(message.msg_type, message.parent_id) for message in found] == [
        (kind, parent) for parent in ("1", "2") for kind in ("stream", "execute_reply", "input_request")
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.booleans(), st.sampled_from([FIRST, SECOND]))), st.integers(0, 9_000)
)
def test_no_more_is_kept_than_is_allowed_and_every_message_is_given_or_counted(
    sizes: list[tuple[int, bool, dict[str, Any]]], kept: int
) -> None:
    replay, ends = Replay(kept), 0
    for size, end, parent in sizes:
        ends += end
        replay.add(says("status", {"execution_state": "idle"}, parent) if end else line("x" * size, parent))
    found = replay.take()
    gaps = [message for message in found if "were forgotten" in message.content.get("text", "")]
    lost = sum(int(message.content["text"].split()[1]) for message in gaps)
    assert len(found) - len(gaps) + lost == len(sizes)
    assert sum(message.msg_type == "status" for message in found) == ends
    assert sum(weight(message) for message in found if message not in gaps and message.msg_type == "stream") <= kept


def test_all_of_a_message_has_weight() -> None:
    long = "x" * 1_000_000
    header = {"msg_id": "1", "msg_type": "display_data"}
    for message in (
        Message("iopub", header, {"session": long}, {}, {}),
        Message("iopub", header, {}, {"a": {"b": [long]}}, {}),
        Message("iopub", header, {}, {}, {"data": {"text/plain": "x"}, "metadata": {"a": long}}),
        Message("iopub", header, {}, {}, {"text": "x", "name": long}),
        Message("iopub", header, {}, {}, {"data": {}, "transient": {long: 1}}),
        Message("iopub", header, {}, {}, {}, (long.encode(),)),
    ):
        assert 1_000_000 < weight(message) < 1_010_000


def test_ends_are_kept_without_what_is_long_in_them_and_openings_are_forgotten() -> None:
    replay = Replay(kept=10_000)
    for number in range(3_000):
        replay.add(says("comm_open", {"data": "x" * 100_000}, FIRST))
        replay.add(says("error", {"ename": "E", "evalue": "v" * 100_000, "traceback": ["t" * 100_000]}, FIRST))
        replay.add(
            says(
                "execute_reply",
                {"status": "ok", "execution_count": number, "payload": [{"a": "x" * 100_000}]},
                FIRST,
                "shell",
            )
        )
    found = replay.take()
    assert sum(weight(message) for message in found) < 6_000_000
    (last,) = [message.content for message in found if message.content.get("execution_count") == 2_999]
    assert (last["status"], last["payload"]) == ("ok", [])
    errors = [message.content for message in found if message.msg_type == "error"]
    assert {(content["ename"], len(content["evalue"]), len(content["traceback"])) for content in errors} == {
        ("E", 256, 0)
    }
    assert not any(message.msg_type == "comm_open" for message in found)
