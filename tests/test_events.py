from __future__ import annotations

import dataclasses
import typing

import pytest

import cellrun
from cellrun.events import BaseEvent, Comm, Display, Event, ExecuteResult, Finished, Payload, Stdout

CLASSES = typing.get_args(Event)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_event_has_a_number_and_an_execution(cls: type[BaseEvent]) -> None:
    assert issubclass(cls, BaseEvent)
    assert [field.name for field in dataclasses.fields(cls)][:2] == ["seq", "execution_id"]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_event_class_can_be_imported_from_the_front_door(cls: type[BaseEvent]) -> None:
    assert getattr(cellrun, cls.__name__) is cls
    assert cls.__name__ in cellrun.__all__


@pytest.mark.parametrize("cls", CLASSES)
def test_no_event_takes_its_fields_by_position(cls: type[BaseEvent]) -> None:
    with pytest.raises(TypeError):
        cls(1, "e")  # type: ignore[call-arg]


@pytest.mark.parametrize("cls", CLASSES)
def test_events_hold_nothing_but_their_fields(cls: type[BaseEvent]) -> None:
    assert "__dict__" not in dir(cls)


def test_every_event_of_the_module_is_in_the_union() -> None:
    defined = {cls for cls in vars(cellrun.events).values() if isinstance(cls, type) and issubclass(cls, BaseEvent)}
    assert set(CLASSES) == defined - {BaseEvent}


def test_events_do_not_change() -> None:
    event = Stdout(seq=1, execution_id="e", text="hi")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.text = "ho"  # type: ignore[misc]


def test_events_of_the_same_words_are_equal_and_others_are_not() -> None:
    assert Stdout(seq=1, execution_id="e", text="hi") == Stdout(seq=1, execution_id="e", text="hi")
    assert Stdout(seq=1, execution_id="e", text="hi") != Stdout(seq=2, execution_id="e", text="hi")


@pytest.mark.parametrize(
    ("event", "field", "default"),
    [
        (Display(seq=1, execution_id="e", data={}, metadata={}), "display_id", None),
        (ExecuteResult(seq=1, execution_id="e", data={}, metadata={}, execution_count=1), "display_id", None),
        (
            Comm(seq=1, execution_id="e", kind="open", comm_id="c", target_name=None, data={}, metadata={}),
            "buffers",
            (),
        ),
        (Finished(seq=1, execution_id="e", status="ok", execution_count=1, duration=0), "reason", None),
        (Finished(seq=1, execution_id="e", status="ok", execution_count=1, duration=0), "files", None),
    ],
)
def test_what_most_events_of_a_kind_lack_may_be_left_out(event: Event, field: str, default: object) -> None:
    assert getattr(event, field) == default


def test_a_payload_keeps_what_the_kernel_said() -> None:
    assert Payload(seq=1, execution_id="e", source="page", content={"start": 0}).content == {"start": 0}
