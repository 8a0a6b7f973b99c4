"""Names of sessions within others: those of chats, and of a session on a service."""

from __future__ import annotations

import pytest

from cellrun import CellrunService
from cellrun.service import tool_calls
from cellrun.service.describe import Place
from cellrun.service.local_tools import LocalTools
from cellrun.service.problems import Problem

CHAT = "0b2c7d1e-6a54-4b0f-9f63-0d9f6d1c2a77"
NOWHERE = "cellrun://127.0.0.1:9"


def test_how_long_a_name_may_be_in_a_chat_is_said() -> None:
    place = Place("chat", CHAT)
    assert place.named("n" * 91) == f"{CHAT}:{'n' * 91}"
    for name in ("n" * 92, "my test", "a/b"):
        with pytest.raises(Problem, match="here a session is named with up to 91 letters, digits and") as refused:
            place.named(name)
        assert refused.value.code == "bad_request"


def test_a_chat_whose_own_name_is_as_long_as_may_be_has_no_room_for_others() -> None:
    place = Place("chat", "c" * 127)
    assert place.named(None) == "c" * 127
    with pytest.raises(Problem, match="leave `session` out"):
        place.named("n")


async def test_a_name_that_the_session_on_a_service_cannot_have_is_told_and_no_other_session_gives_way() -> None:
    tools = LocalTools(CellrunService(NOWHERE), timeout=60, session_id="base")
    try:
        for number in range(8):
            await tools.files(f"{number}")
        before = list(tools._sessions)
        for session, said in (
            ("mein Test", "here a session is named with up to 123 letters"),
            ("ü", "here a session is named with up to 123 letters"),
        ):
            answer = await tool_calls.call(
                tools, Place("connection", ""), "run_code", {"code": "1", "session": session}
            )
            assert (answer.failed, said in answer.text) == (True, True), answer.text
        assert list(tools._sessions) == before
    finally:
        await tools.aclose()


async def test_a_session_on_a_service_that_cannot_be_named_so_is_told_with_each_call() -> None:
    tools = LocalTools(CellrunService(NOWHERE), timeout=60, session_id="mein Test")
    try:
        answer = await tool_calls.call(tools, Place("connection", ""), "list_files", {})
        assert answer.failed
        assert "a session is named with up to 128 letters" in answer.text
    finally:
        await tools.aclose()
