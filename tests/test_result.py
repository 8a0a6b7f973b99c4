from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest

from cellrun.errors import ExecutionFailed
from cellrun.events import Status
from cellrun.mime import Image
from cellrun.result import DisplayOutput, ErrorInfo, Omission, Output, PageOutput, Result, StreamOutput

PNG = b"\x89PNG\r\n"
PNG64 = base64.b64encode(PNG).decode()


def out(text: str) -> StreamOutput:
    return StreamOutput("stdout", text)


def err(text: str) -> StreamOutput:
    return StreamOutput("stderr", text)


def show(**data: Any) -> DisplayOutput:
    """`show(text_plain="x")` is a display of the type text/plain."""
    return DisplayOutput({mime.replace("_", "/", 1): value for mime, value in data.items()}, {})


def result(*outputs: Output, status: Status = "ok", **fields: Any) -> Result:
    return Result("e", status, outputs, **fields)


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ([], ""),
        ([out("a\n")], "a"),
        ([out("a\n\n")], "a"),
        ([out("a"), err("b")], "ab"),
        ([out("a\n"), show(text_plain="x"), out("b")], "a\nx\nb"),
        ([out("a"), show(text_plain="x"), out("b")], "a\nx\nb"),
        ([show(text_plain="x"), show(text_plain="y")], "x\ny"),
        ([out("10%\r"), out("99%\n")], "99%"),
        ([out("\x1b[31mred\x1b[0m")], "red"),
        ([show(text_plain="\x1b[31mred\x1b[0m")], "red"),
        ([show(text_plain="<a.B at 0x12>", text_html="<b>x</b>")], "x"),
        ([show(image_png=PNG64)], "<image/png>"),
        ([PageOutput({"text/plain": "\x1b[1mhelp\x1b[0m"})], "help"),
        ([out("a\n"), ErrorInfo("E", "v", "\x1b[31mTraceback\x1b[0m\nE: v")], "a\nTraceback\nE: v"),
        ([ErrorInfo("E", "v", "")], "E: v"),
        ([out("a"), Omission(stdout=3, stderr=4), out("b")], "a\n[… 7 bytes left out here …]\nb"),
        ([show(text_plain="x"), Omission(displays=3), show(text_plain="y")], "x\n[… 3 displays left out here …]\ny"),
        ([out("a"), Omission(displays=1)], "a\n[… 1 displays left out here …]"),
        ([DisplayOutput({}, {})], ""),
        ([out("a"), DisplayOutput({}, {}), out("b")], "a\nb"),
    ],
)
def test_the_text_is_what_a_person_reads(outputs: list[Output], text: str) -> None:
    assert result(*outputs).text == text


def test_each_stream_is_joined_as_it_was_sent() -> None:
    made = result(out("a\r"), err("x"), show(text_plain="d"), out("\x1b[0mb"), err("y"))
    assert (made.stdout, made.stderr) == ("a\r\x1b[0mb", "xy")


def test_a_note_stands_in_each_stream_that_lost_something_and_in_no_other() -> None:
    made = result(out("a"), Omission(stdout=3), out("b"), err("x"))
    assert made.stdout == "a\n[… 3 bytes of stdout left out here …]\nb"
    assert made.stderr == "x"
    assert result(err("a"), Omission(stderr=3)).stderr == "a\n[… 3 bytes of stderr left out here …]\n"


def test_an_exception_is_no_text_of_standard_error() -> None:
    assert result(ErrorInfo("E", "v", "t")).stderr == ""


@pytest.mark.parametrize(
    ("omission", "what", "note"),
    [
        (Omission(), "stdout", ""),
        (Omission(stdout=1), "stdout", "\n[… 1 bytes of stdout left out here …]\n"),
        (Omission(stdout=1), "stderr", ""),
        (Omission(displays=2), "displays", "\n[… 2 displays left out here …]\n"),
    ],
)
def test_an_omission_says_how_much_it_was(omission: Omission, what: str, note: str) -> None:
    assert omission.note(what) == note


def test_the_pictures_are_one_for_each_display_that_holds_one() -> None:
    made = result(
        show(image_png=PNG64, image_jpeg=PNG64),
        show(text_plain="x"),
        out("y"),
        PageOutput({"image/png": PNG64}),
        DisplayOutput({"image/gif": PNG64}, {}, "execute_result", 1),
    )
    assert made.images == (Image("image/png", PNG), Image("image/gif", PNG))


def test_a_traceback_comes_with_and_without_its_colours() -> None:
    error = ErrorInfo("E", "v", "\x1b[31mTraceback\x1b[0m")
    assert (error.traceback, error.traceback_ansi) == ("Traceback", "\x1b[31mTraceback\x1b[0m")


@pytest.mark.parametrize("status", ["error", "timeout", "interrupted", "kernel_died"])
def test_only_ok_is_ok(status: Status) -> None:
    assert result().ok
    assert not result(status=status).ok


def test_a_result_that_is_ok_raises_nothing() -> None:
    made = result()
    assert made.raise_for_error() is made


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"error": ErrorInfo("ValueError", "bad", "")}, "ValueError: bad"),
        ({"error": ErrorInfo("E", "v", ""), "reason": "r"}, "E: v"),
        ({"reason": "exit code 3"}, "exit code 3"),
        ({}, "no reason is known"),
    ],
)
def test_any_other_raises_with_the_whole_result_inside(fields: dict[str, Any], what: str) -> None:
    made = result(status="kernel_died", **fields)
    with pytest.raises(ExecutionFailed, match=f"'kernel_died': {what}") as caught:
        made.raise_for_error()
    assert caught.value.result is made


def test_results_do_not_change_and_are_equal_by_what_they_say() -> None:
    made = result(out("a"))
    assert made.text == "a"
    assert made == result(out("a"))
    assert made != result(out("b"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.status = "error"  # type: ignore[misc]


def test_a_result_is_spelled_as_on_the_wire() -> None:
    made = result(out("a\n"), error=ErrorInfo("E", "v", "t"), execution_count=3, duration=0.5, files=("x",))
    spelled = made.to_dict()
    assert json.loads(json.dumps(spelled)) == spelled
    assert {key: spelled[key] for key in ("execution_id", "status", "stdout", "stderr", "text", "outputs")} == {
        "execution_id": "e",
        "status": "ok",
        "stdout": "a\n",
        "stderr": "",
        "text": "a",
        "outputs": [{"type": "stdout", "text": "a\n"}],
    }
    assert {key: spelled[key] for key in ("error", "execution_count", "duration", "truncated", "files")} == {
        "error": {"name": "E", "value": "v", "traceback": "t"},
        "execution_count": 3,
        "duration": 0.5,
        "truncated": False,
        "files": ["x"],
    }
