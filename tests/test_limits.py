from __future__ import annotations

import dataclasses
import math

import pytest

from cellrun.limits import FLUSH_INTERVAL, KILL_CONFIRMATION, UNSET, Limits, Unset

TIMES = ["timeout", "queue_timeout", "grace", "start_timeout", "idle_timeout"]
SIZES = ["text", "displays", "outputs", "stream_buffer", "queue_length", "late_events"]


def test_every_limit_is_checked() -> None:
    assert [field.name for field in dataclasses.fields(Limits)] == TIMES + SIZES


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf])
def test_a_time_below_zero_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [0, 0.5, 60, math.inf])
def test_a_time_of_zero_or_more_is_taken(name: str, value: float) -> None:
    assert getattr(Limits(**{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1])
def test_a_size_below_one_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


@pytest.mark.parametrize("name", SIZES)
def test_a_size_of_one_is_taken(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", ["timeout", "queue_timeout", "idle_timeout"])
def test_no_limit_is_spelled_none(name: str) -> None:
    assert getattr(Limits(**{name: None}), name) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["grace", "start_timeout"])
def test_a_time_that_has_no_none_refuses_it(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: None})  # type: ignore[arg-type]


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().text = 1  # type: ignore[misc]


def test_unset_is_not_none_and_says_its_name() -> None:
    assert UNSET is Unset.UNSET
    assert repr(UNSET) == "UNSET"


def test_after_the_grace_and_the_confirmation_the_caller_has_waited_less_than_a_second_more() -> None:
    assert 0 < FLUSH_INTERVAL + KILL_CONFIRMATION < 1
