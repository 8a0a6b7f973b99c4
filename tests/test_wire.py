from __future__ import annotations

import json
import math
import typing
from typing import Any

import pytest

from cellrun.errors import ProtocolError
from cellrun.events import (
    ClearOutput,
    Comm,
    Display,
    DisplayUpdate,
    ErrorOutput,
    Event,
    ExecuteResult,
    Finished,
    InputRequest,
    KernelRestarted,
    OutputDropped,
    Payload,
    Queued,
    Started,
    Stderr,
    Stdout,
)
from cellrun.result import DisplayOutput, ErrorInfo, Omission, Output, PageOutput, Result, StreamOutput
from cellrun.wire import (
    event_from_dict,
    event_from_json,
    event_to_dict,
    event_to_json,
    event_type,
    output_to_dict,
    result_to_dict,
)

HEAD: dict[str, Any] = {"seq": 1, "execution_id": "e"}
BUNDLE: dict[str, Any] = {"data": {"text/plain": "x", "application/json": [1, None]}, "metadata": {"a": {}}}

SPELLINGS: list[tuple[Event, str, dict[str, Any]]] = [
    (Queued(**HEAD, position=2), "queued", {"position": 2}),
    (Started(**HEAD, execution_count=None), "started", {"execution_count": None}),
    (Stdout(**HEAD, text="é\n"), "stdout", {"text": "é\n"}),
    (Stderr(**HEAD, text=""), "stderr", {"text": ""}),
    (Display(**HEAD, **BUNDLE), "display", {**BUNDLE, "display_id": None}),
    (DisplayUpdate(**HEAD, **BUNDLE, display_id="d"), "display_update", {**BUNDLE, "display_id": "d"}),
    (
        ExecuteResult(**HEAD, **BUNDLE, execution_count=3),
        "execute_result",
        {**BUNDLE, "execution_count": 3, "display_id": None},
    ),
    (ClearOutput(**HEAD, wait=True), "clear_output", {"wait": True}),
    (InputRequest(**HEAD, prompt="? ", password=True), "input_request", {"prompt": "? ", "password": True}),
    (
        ErrorOutput(**HEAD, name="E", value="v", traceback="\x1b[31mt"),
        "error_output",
        {"name": "E", "value": "v", "traceback": "\x1b[31mt"},
    ),
    (
        OutputDropped(**HEAD, reason="data_rate", detail="d"),
        "output_dropped",
        {"reason": "data_rate", "detail": "d"},
    ),
    (KernelRestarted(**HEAD, reason="r"), "kernel_restarted", {"reason": "r"}),
    (
        Comm(**HEAD, kind="open", comm_id="c", target_name="t", data={"a": 1}, metadata={}, buffers=(b"\x00\xff", b"")),
        "comm",
        {
            "kind": "open",
            "comm_id": "c",
            "target_name": "t",
            "data": {"a": 1},
            "metadata": {},
            "buffers": [{"base64": "AP8="}, {"base64": ""}],
        },
    ),
    (Payload(**HEAD, source="page", content={"start": 0}), "payload", {"source": "page", "content": {"start": 0}}),
    (
        Finished(**HEAD, status="ok", execution_count=3, duration=0.5, files=("a", "b")),
        "finished",
        {"status": "ok", "execution_count": 3, "duration": 0.5, "reason": None, "files": ["a", "b"]},
    ),
    (
        Finished(**HEAD, status="kernel_died", execution_count=None, duration=0, reason="r"),
        "finished",
        {"status": "kernel_died", "execution_count": None, "duration": 0, "reason": "r", "files": None},
    ),
]


def test_every_event_is_in_the_table_of_spellings() -> None:
    assert {type(event) for event, _, _ in SPELLINGS} == set(typing.get_args(Event))


@pytest.mark.parametrize(("event", "name", "fields"), SPELLINGS)
def test_an_event_is_spelled_as_promised_and_comes_back(event: Event, name: str, fields: dict[str, Any]) -> None:
    spelled = {"type": name, "seq": 1, "execution_id": "e", **fields}
    assert event_type(event) == name
    assert event_to_dict(event) == spelled
    assert list(event_to_dict(event))[:3] == ["type", "seq", "execution_id"]
    assert json.loads(event_to_json(event)) == spelled
    assert event_from_dict(spelled) == event
    assert event_from_json(event_to_json(event)) == event
    assert event_from_json(event_to_json(event).encode()) == event


@pytest.mark.parametrize(("event", "name", "fields"), SPELLINGS)
def test_a_reader_passes_over_what_a_newer_writer_adds(event: Event, name: str, fields: dict[str, Any]) -> None:
    assert event_from_dict({**event_to_dict(event), "added": [1], "seq2": None}) == event


@pytest.mark.parametrize(("event", "name", "fields"), SPELLINGS)
def test_a_field_that_is_missing_is_named_unless_it_has_a_default(
    event: Event, name: str, fields: dict[str, Any]
) -> None:
    for field in ["seq", "execution_id", *fields]:
        spelled = event_to_dict(event)
        del spelled[field]
        if field in ("files", "reason", "display_id", "buffers") and not (
            field in ("reason", "display_id") and isinstance(event, (OutputDropped, KernelRestarted, DisplayUpdate))
        ):
            event_from_dict(spelled)
        else:
            with pytest.raises(ProtocolError, match=f"lacks '{field}'"):
                event_from_dict(spelled)


@pytest.mark.parametrize(("event", "name", "fields"), SPELLINGS)
def test_a_field_of_another_kind_is_named(event: Event, name: str, fields: dict[str, Any]) -> None:
    for field in ["seq", "execution_id", *fields]:
        for wrong in (object(), [object()], [[]], b"x"):
            with pytest.raises(ProtocolError, match=f"'{field}' of the {name} event"):
                event_from_dict({**event_to_dict(event), field: wrong})


@pytest.mark.parametrize(
    ("event", "field", "wrong"),
    [
        (SPELLINGS[0][0], "position", True),
        (SPELLINGS[0][0], "position", 1.0),
        (SPELLINGS[0][0], "seq", None),
        (SPELLINGS[1][0], "execution_count", "1"),
        (SPELLINGS[4][0], "data", []),
        (SPELLINGS[4][0], "data", None),
        (SPELLINGS[4][0], "display_id", 1),
        (SPELLINGS[7][0], "wait", 1),
        (SPELLINGS[10][0], "reason", "bad_luck"),
        (SPELLINGS[12][0], "kind", ["open"]),
        (SPELLINGS[12][0], "buffers", ["AA=="]),
        (SPELLINGS[12][0], "buffers", {"base64": "AA=="}),
        (SPELLINGS[14][0], "status", "fine"),
        (SPELLINGS[14][0], "duration", True),
        (SPELLINGS[14][0], "duration", "1"),
        (SPELLINGS[14][0], "files", [1]),
        (SPELLINGS[14][0], "files", "a"),
        (SPELLINGS[14][0], "files", [{"base64": "AA=="}]),
    ],
)
def test_json_has_many_wrong_kinds(event: Event, field: str, wrong: Any) -> None:
    with pytest.raises(ProtocolError, match=f"'{field}'"):
        event_from_dict({**event_to_dict(event), field: wrong})


@pytest.mark.parametrize(
    "item", [{}, {"base64": 1}, {"base64": None}, {"base64": "A"}, {"base64": "é"}, {"base64": "A A="}]
)
def test_bytes_that_are_misspelled_are_refused(item: Any) -> None:
    with pytest.raises(ProtocolError, match="base64"):
        event_from_dict({**event_to_dict(SPELLINGS[12][0]), "buffers": [item]})


def test_a_whole_number_of_seconds_is_a_duration() -> None:
    spelled = {**event_to_dict(SPELLINGS[14][0]), "duration": 2}
    event = event_from_dict(spelled)
    assert isinstance(event, Finished)
    assert event.duration == 2


@pytest.mark.parametrize("data", [None, 1, "stdout", [], [{"type": "stdout"}]])
def test_what_is_no_object_is_no_event(data: Any) -> None:
    with pytest.raises(ProtocolError, match="JSON object"):
        event_from_dict(data)


@pytest.mark.parametrize("name", ["", "Stdout", "base_event", None, 1, [], {}, "nonsense"])
def test_an_unknown_type_is_refused_and_the_known_ones_are_listed(name: Any) -> None:
    with pytest.raises(ProtocolError, match=r"unknown event type .*clear_output.*stdout"):
        event_from_dict({"type": name, "seq": 1, "execution_id": "e"})


def test_an_error_text_holds_little_of_what_the_other_side_said() -> None:
    with pytest.raises(ProtocolError) as caught:
        event_from_dict({"type": "x" * 10_000})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("line", ["", "{", "nonsense", b"\xff\xfe\xff", "[" * 100_000, "9" * 5_000, b""])
def test_what_is_no_json_is_no_event(line: str | bytes) -> None:
    with pytest.raises(ProtocolError, match="not a line of JSON"):
        event_from_json(line)


@pytest.mark.parametrize("text", ["a\nb\r\u2028\u0085", "\ud800", "a\udfff😀", "\\\ud800", '"\x00\x1b'])
def test_any_text_is_one_line_of_utf8_and_comes_back(text: str) -> None:
    event = Stdout(**HEAD, text=text)
    line = event_to_json(event)
    assert "\n" not in line
    assert "\r" not in line
    assert event_from_json(line.encode("utf-8")) == event


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_does_not_break_the_line(number: float) -> None:
    # Python reads and writes NaN; no other reader of JSON does.
    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    line = event_to_json(Display(**HEAD, data={"application/json": {"a": [number]}}, metadata={}))
    json.loads(line, parse_constant=refuse)


def test_a_value_that_json_does_not_know_is_written_as_its_text() -> None:
    line = event_to_json(Display(**HEAD, data={"x": {1}}, metadata={}))
    assert json.loads(line)["data"] == {"x": "{1}"}


# -- results -----------------------------------------------------------------------------------------

OUTPUTS: list[tuple[Output, dict[str, Any]]] = [
    (StreamOutput("stdout", "a"), {"type": "stdout", "text": "a"}),
    (StreamOutput("stderr", "a"), {"type": "stderr", "text": "a"}),
    (DisplayOutput({"x": 1}, {"m": 2}), {"type": "display", "data": {"x": 1}, "metadata": {"m": 2}}),
    (
        DisplayOutput({}, {}, display_id="d"),
        {"type": "display", "data": {}, "metadata": {}, "display_id": "d"},
    ),
    (
        DisplayOutput({}, {}, "execute_result", 3),
        {"type": "execute_result", "data": {}, "metadata": {}, "execution_count": 3},
    ),
    (PageOutput({"text/plain": "x"}), {"type": "page", "data": {"text/plain": "x"}}),
    (Omission(1, 2, 3), {"type": "omission", "stdout": 1, "stderr": 2, "displays": 3}),
    (
        ErrorInfo("E", "v", "\x1b[31mt\x1b[0m"),
        {"type": "error", "name": "E", "value": "v", "traceback": "t"},
    ),
]


@pytest.mark.parametrize(("output", "spelled"), OUTPUTS)
def test_an_output_is_spelled_as_promised(output: Output, spelled: dict[str, Any]) -> None:
    assert output_to_dict(output) == spelled


def test_every_output_is_in_the_table_of_spellings() -> None:
    assert {type(output) for output, _ in OUTPUTS} == set(typing.get_args(Output))


def test_a_result_has_all_that_is_promised_and_is_ready_for_json() -> None:
    result = Result(
        "e",
        "error",
        tuple(output for output, _ in OUTPUTS),
        error=ErrorInfo("E", "v", "\x1b[31mt\x1b[0m"),
        execution_count=3,
        duration=0.5,
        reason="r",
        truncated=True,
        stdout_size=10,
        stderr_size=20,
        dropped=("connection: x",),
        restarted="it died",
        files=("a",),
        payloads=({"source": "page"},),
    )
    spelled = result_to_dict(result)
    assert json.loads(json.dumps(spelled)) == spelled
    assert spelled == {
        "execution_id": "e",
        "status": "error",
        "stdout": result.stdout,
        "stderr": result.stderr,
        "text": result.text,
        "outputs": [spelled for _, spelled in OUTPUTS],
        "error": {"name": "E", "value": "v", "traceback": "t"},
        "execution_count": 3,
        "duration": 0.5,
        "truncated": True,
        "files": ["a"],
        "reason": "r",
        "restarted": "it died",
        "dropped": ["connection: x"],
        "payloads": [{"source": "page"}],
        "stdout_size": 10,
        "stderr_size": 20,
    }


def test_a_result_without_an_error_or_known_files_says_null() -> None:
    spelled = result_to_dict(Result("e", "ok"))
    assert (spelled["error"], spelled["files"], spelled["outputs"]) == (None, None, [])
