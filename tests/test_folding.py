from __future__ import annotations

from typing import Any

import pytest

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
    Status,
    Stderr,
    Stdout,
)
from cellrun.folding import Folder, fold, split_bytes, utf8_size
from cellrun.limits import Limits
from cellrun.result import DisplayOutput, ErrorInfo, Omission, Output, PageOutput, Result, StreamOutput

HEAD: dict[str, Any] = {"seq": 0, "execution_id": "e"}


def out(text: str) -> Event:
    return Stdout(**HEAD, text=text)


def err(text: str) -> Event:
    return Stderr(**HEAD, text=text)


def show(text: str, display_id: str | None = None) -> Event:
    return Display(**HEAD, data={"text/plain": text}, metadata={}, display_id=display_id)


def update(text: str, display_id: str | None) -> Event:
    return DisplayUpdate(**HEAD, data={"text/plain": text}, metadata={"new": True}, display_id=display_id)


def clear(*, wait: bool = False) -> Event:
    return ClearOutput(**HEAD, wait=wait)


def error(name: str = "E") -> Event:
    return ErrorOutput(**HEAD, name=name, value="v", traceback="t")


def page(text: str) -> Event:
    return Payload(**HEAD, source="page", content={"data": {"text/plain": text}})


def finish(status: Status = "ok") -> Event:
    return Finished(**HEAD, status=status, execution_count=3, duration=1.5)


def folded(*events: Event, **limits: int) -> Result:
    return fold([*events, finish()], Limits(**limits))


def shown(*events: Event, **limits: int) -> list[str | Omission]:
    """The outputs in short: o: and e: before the texts of streams, d: displays, p: pages, !: errors."""
    return [short(output) for output in folded(*events, **limits).outputs]


def short(output: Output) -> str | Omission:
    match output:
        case StreamOutput(name=name, text=text):
            return f"{name[3]}:{text}"
        case DisplayOutput(data=data):
            return f"d:{data['text/plain']}"
        case PageOutput(data=data):
            return f"p:{data['text/plain']}"
        case ErrorInfo(name=name):
            return f"!:{name}"
        case Omission():
            return output


# -- in order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "outputs"),
    [
        ([], []),
        ([out("a"), out("b")], ["o:ab"]),
        ([out("a"), err("b"), out("c")], ["o:a", "e:b", "o:c"]),
        ([out("a"), show("x"), out("b")], ["o:a", "d:x", "o:b"]),
        ([out("a"), page("x"), out("b")], ["o:a", "p:x", "o:b"]),
        ([out("a"), error(), out("b")], ["o:a", "!:E", "o:b"]),
        ([out("a"), err(""), out("b"), out("")], ["o:ab"]),
        ([out("")], []),
    ],
)
def test_outputs_keep_the_order_in_which_they_were_shown(events: list[Event], outputs: list[str]) -> None:
    assert shown(*events) == outputs


@pytest.mark.parametrize(
    "event",
    [
        Queued(**HEAD, position=1),
        Started(**HEAD, execution_count=1),
        InputRequest(**HEAD, prompt="?", password=False),
        Comm(**HEAD, kind="open", comm_id="c", target_name="t", data={}, metadata={}),
        OutputDropped(**HEAD, reason="connection", detail="x"),
        KernelRestarted(**HEAD, reason="x"),
        Payload(**HEAD, source="set_next_input", content={"text": "x"}),
        Payload(**HEAD, source="page", content={"data": "no bundle"}),
        Payload(**HEAD, source="page", content={}),
    ],
)
def test_other_events_show_nothing_and_part_no_text(event: Event) -> None:
    assert shown(out("a"), event, out("b")) == ["o:ab"]


def test_the_end_says_how_it_went() -> None:
    end = Finished(
        seq=9, execution_id="x", status="timeout", execution_count=7, duration=2.5, reason="2 s", files=("a", "b")
    )
    assert fold([end]) == Result("x", "timeout", execution_count=7, duration=2.5, reason="2 s", files=("a", "b"))


def test_what_was_lost_restarted_and_handed_over_is_kept() -> None:
    result = folded(
        KernelRestarted(**HEAD, reason="it died"),
        OutputDropped(**HEAD, reason="data_rate", detail="too fast"),
        OutputDropped(**HEAD, reason="connection", detail="5 messages"),
        Payload(**HEAD, source="set_next_input", content={"text": "x"}),
    )
    assert result.restarted == "it died"
    assert result.dropped == ("data_rate: too fast", "connection: 5 messages")
    assert result.payloads == ({"source": "set_next_input", "text": "x"},)


def test_a_result_of_an_expression_knows_its_number() -> None:
    event = ExecuteResult(**HEAD, data={"text/plain": "1"}, metadata={"a": 1}, execution_count=4)
    assert folded(event).outputs == (DisplayOutput({"text/plain": "1"}, {"a": 1}, "execute_result", 4),)


def test_without_finished_there_is_no_result() -> None:
    with pytest.raises(ValueError, match="Finished"):
        fold([out("a")])


@pytest.mark.parametrize("event", [out("a"), finish(), Queued(**HEAD, position=1)])
def test_nothing_may_follow_finished(event: Event) -> None:
    with pytest.raises(ValueError, match=type(event).__name__):
        fold([finish(), event])


def test_a_folder_can_be_asked_again() -> None:
    folder = Folder()
    for event in (out("a"), show("x"), finish()):
        folder.add(event)
    assert folder.result() == folder.result()


# -- errors ------------------------------------------------------------------------------------------


def test_the_last_error_is_the_one_that_ended_the_cell() -> None:
    result = fold([error("A"), error("B"), finish("error")])
    assert result.error == ErrorInfo("B", "v", "t")
    assert [short(output) for output in result.outputs] == ["!:A", "!:B"]


def test_an_error_that_was_shown_but_ended_nothing_is_an_output_only() -> None:
    result = fold([error(), out("went on"), finish("ok")])
    assert [short(output) for output in result.outputs] == ["!:E", "o:went on"]
    assert result.error is None


def test_a_cleared_error_is_still_the_error() -> None:
    result = fold([error(), clear(), finish("error")])
    assert result.outputs == ()
    assert result.error == ErrorInfo("E", "v", "t")


# -- clear_output ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "outputs"),
    [
        ([out("a"), show("x"), clear(), out("b")], ["o:b"]),
        ([out("a"), clear()], []),
        ([clear(), out("a")], ["o:a"]),
        ([out("a"), clear(wait=True)], ["o:a"]),
        ([out("a"), clear(wait=True), out("b"), out("c")], ["o:bc"]),
        ([out("a"), clear(wait=True), err("b")], ["e:b"]),
        ([out("a"), clear(wait=True), show("x")], ["d:x"]),
        ([out("a"), clear(wait=True), page("x")], ["p:x"]),
        ([out("a"), clear(wait=True), error()], ["!:E"]),
        ([out("a"), clear(wait=True), out("")], ["o:a"]),
        ([out("a"), clear(wait=True), clear(), out("b"), out("c")], ["o:bc"]),
        ([out("a"), clear(wait=True), clear(wait=True), out("b"), show("x")], ["o:b", "d:x"]),
        ([out("a"), clear(wait=True), out("b"), clear(wait=True)], ["o:b"]),
    ],
)
def test_what_was_cleared_is_gone_at_once_or_with_the_next_output(events: list[Event], outputs: list[str]) -> None:
    assert shown(*events) == outputs


def test_an_update_in_place_is_no_new_output_that_a_waiting_clear_waits_for() -> None:
    # As nbclient and JupyterLab do: only what is appended clears.
    assert shown(out("a"), show("x", "d"), clear(wait=True), update("y", "d")) == ["o:a", "d:y"]
    assert shown(out("a"), show("x", "d"), clear(wait=True), update("y", "d"), out("b")) == ["o:b"]


def test_what_was_cleared_does_not_count_towards_the_limits() -> None:
    result = folded(out("a" * 50), clear(), out("b" * 8), text=20)
    assert result.stdout == "b" * 8
    assert (result.truncated, result.stdout_size) == (False, 8)


# -- updates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "outputs"),
    [
        ([show("x", "d"), out("a"), update("y", "d")], ["d:y", "o:a"]),
        ([show("x", "d"), show("z", "d"), update("y", "d")], ["d:y", "d:y"]),
        ([show("x", "d"), show("z", "other"), update("y", "d")], ["d:y", "d:z"]),
        ([show("x", "d"), update("y", "d"), update("z", "d")], ["d:z"]),
        ([show("x"), update("y", "d")], ["d:x", "d:y"]),
        ([update("x", "d"), out("a"), update("y", "d")], ["d:y", "o:a"]),
        ([show("x"), update("y", None)], ["d:x", "d:y"]),
        ([show("x", ""), update("y", None)], ["d:x", "d:y"]),
        ([out("a"), show("x", "d"), out("b"), update("y", "d"), out("c")], ["o:a", "d:y", "o:bc"]),
    ],
)
def test_an_update_replaces_in_place_every_display_of_its_id(events: list[Event], outputs: list[str]) -> None:
    assert shown(*events) == outputs


def test_an_update_keeps_what_kind_of_output_it_was() -> None:
    event = ExecuteResult(**HEAD, data={"text/plain": "1"}, metadata={}, execution_count=4, display_id="d")
    assert folded(event, update("2", "d")).outputs == (
        DisplayOutput({"text/plain": "2"}, {"new": True}, "execute_result", 4, "d"),
    )


def test_an_update_of_an_earlier_cells_display_says_so() -> None:
    assert folded(update("x", "d")).outputs == (
        DisplayOutput({"text/plain": "x"}, {"new": True}, display_id="d", of_earlier=True),
    )


def test_an_update_of_a_display_that_was_left_out_does_not_make_it_one_of_an_earlier_cell() -> None:
    result = folded(show("x" * 20, "d"), show("y" * 20), show("z" * 20), update("new", "d"), displays=30)
    assert not any(isinstance(output, DisplayOutput) and output.of_earlier for output in result.outputs)


# -- limits of text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "size", "outputs"),
    [
        ([out("abcdefghij")], 10, ["o:abcdefghij"]),
        ([out("abcdefghijk")], 10, ["o:abcde", Omission(stdout=1), "o:ghijk"]),
        ([out("abcde"), out("fghijklmno")], 10, ["o:abcde", Omission(stdout=5), "o:klmno"]),
        ([out("abc"), err("defgh"), out("ijk")], 8, ["o:abc", "e:d", Omission(stderr=3), "e:h", "o:ijk"]),
        ([out("abcd"), err("efgh"), out("ijkl")], 8, ["o:abcd", Omission(stderr=4), "o:ijkl"]),
        ([out("abcd"), show("x"), out("efghijkl")], 8, ["o:abcd", "d:x", Omission(stdout=4), "o:ijkl"]),
        ([out("abc")], 1, [Omission(stdout=3)]),
        ([out("abc")], 2, ["o:a", Omission(stdout=1), "o:c"]),
        ([out("€€€")], 6, ["o:€", Omission(stdout=3), "o:€"]),
        ([out("€€€")], 8, ["o:€", Omission(stdout=3), "o:€"]),
        ([out("a€b")], 4, ["o:a", Omission(stdout=3), "o:b"]),
        ([out("😀😀")], 6, [Omission(stdout=8)]),
        ([out("\ud800" * 3)], 6, ["o:\ud800", Omission(stdout=3), "o:\ud800"]),
    ],
)
def test_of_too_much_text_the_first_and_the_last_half_stay(
    events: list[Event], size: int, outputs: list[str | Omission]
) -> None:
    assert shown(*events, text=size) == outputs


def test_text_within_the_limit_is_one_output_also_above_the_half() -> None:
    assert folded(out("a" * 15), text=20).outputs == (StreamOutput("stdout", "a" * 15),)


def test_the_sizes_are_the_true_ones_whatever_is_kept() -> None:
    result = folded(out("€" * 100), err("b" * 50), text=10)
    assert (result.stdout_size, result.stderr_size, result.truncated) == (300, 50, True)


def test_a_note_stands_in_the_text_where_something_was_left_out() -> None:
    result = folded(out("a" * 10 + "b" * 30), text=10)
    assert result.stdout == "aaaaa\n[… 30 bytes of stdout left out here …]\nbbbbb"
    assert result.stderr == ""


def test_of_too_many_outputs_the_first_and_the_last_half_stay() -> None:
    events = [event for number in range(5) for event in (out(f"{number}"), err("x"))]
    assert shown(*events, outputs=4) == ["o:0", "e:x", Omission(stdout=3, stderr=3), "o:4", "e:x"]


# -- limits of displays ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "limit", "kept"),
    [
        ([5, 5], 10, ["0", "1"]),
        ([5, 5, 5], 10, ["0", 1, "2"]),
        ([3, 3, 3, 3], 10, ["0", 2, "3"]),
        ([100], 10, ["0"]),
        ([100, 100], 10, [1, "1"]),
        ([1, 100, 1], 10, ["0", 1, "2"]),
    ],
)
def test_of_too_many_displays_the_first_and_the_last_stay_and_always_the_newest(
    sizes: list[int], limit: int, kept: list[str | int]
) -> None:
    events = [show(str(number) * size) for number, size in enumerate(sizes)]
    told = [
        short_of.displays if isinstance(short_of, Omission) else short_of[2]
        for short_of in shown(*events, displays=limit)
    ]
    assert told == kept


def test_of_too_many_displays_by_number_the_first_and_the_last_half_stay() -> None:
    assert shown(*(show(str(number)) for number in range(9)), outputs=4) == [
        "d:0",
        "d:1",
        Omission(displays=5),
        "d:7",
        "d:8",
    ]


def test_text_and_displays_are_left_out_at_their_own_places() -> None:
    events = [event for number in range(4) for event in (out(f"{number}"), show(f"{number}"))]
    assert shown(*events, outputs=2) == ["o:0", "d:0", Omission(stdout=2), "o:3", Omission(displays=2), "d:3"]


def test_updates_are_held_to_the_limit_too() -> None:
    events = [show("x", str(number)) for number in range(4)] + [update("y" * 100, str(number)) for number in range(4)]
    result = folded(*events, displays=100)
    size = sum(len(output.data["text/plain"]) for output in result.outputs if isinstance(output, DisplayOutput))
    assert size <= 200
    assert result.truncated


def test_an_update_that_grows_a_late_display_drops_the_ones_before_it() -> None:
    events = [show("a" * 10), show("b" * 4, "b"), show("c" * 4, "c"), update("C" * 10, "c")]
    assert shown(*events, displays=20) == ["d:" + "a" * 10, Omission(displays=1), "d:" + "C" * 10]


@pytest.mark.parametrize("event", [error(), page("x")])
def test_errors_and_pages_without_end_are_held_to_the_number_of_outputs(event: Event) -> None:
    assert len(folded(*[event] * 100, outputs=10).outputs) <= 11


# -- bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("abc", 3), ("é", 2), ("€", 3), ("😀", 4), ("\ud800", 3), ("\ud83d\ude00", 6)]
)
def test_the_size_of_a_text_is_that_of_its_utf8(text: str, size: int) -> None:
    assert utf8_size(text) == size


@pytest.mark.parametrize(
    ("text", "size", "index"),
    [
        ("abc", 0, 0),
        ("abc", 2, 2),
        ("abc", 9, 3),
        ("é", 1, 0),
        ("é", 2, 1),
        ("aé€😀", 1, 1),
        ("aé€😀", 2, 1),
        ("aé€😀", 3, 2),
        ("aé€😀", 5, 2),
        ("aé€😀", 6, 3),
        ("aé€😀", 9, 3),
        ("aé€😀", 10, 4),
        ("\ud800\udfff", 3, 1),
        ("\ud800\udfff", 5, 1),
        ("", 0, 0),
    ],
)
def test_a_text_is_cut_between_characters(text: str, size: int, index: int) -> None:
    assert split_bytes(text, size) == index
