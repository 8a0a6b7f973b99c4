from __future__ import annotations

import pytest

from cellrun.protocol.gaps import Gaps


def saw(gaps: Gaps, *numbers: int, ours: bool = True, parent: str = "run", kernel: str = "kernel_7") -> None:
    for number in numbers:
        gaps.saw(f"{kernel}_{number}", parent, ours=ours)


def test_nothing_is_lost_while_the_connection_holds() -> None:
    gaps = Gaps()
    saw(gaps, 1, 2, 50)
    assert gaps.lost() == 0


def test_each_number_that_did_not_come_after_a_break_was_lost() -> None:
    gaps = Gaps()
    saw(gaps, 1, 2)
    gaps.reconnected()
    saw(gaps, 5, 6, 9)
    assert gaps.lost() == 4


def test_nothing_is_lost_where_every_number_came() -> None:
    gaps = Gaps()
    saw(gaps, 1, 2)
    gaps.reconnected()
    saw(gaps, 4, 3, 5)
    assert gaps.lost() == 0


def test_counting_ends_with_the_answer() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 9)
    assert gaps.lost() == 7
    assert gaps.lost() == 0
    saw(gaps, 20)
    assert gaps.lost() == 0


def test_several_breaks_in_a_row_count_as_one() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 5)
    gaps.reconnected()
    saw(gaps, 9)
    assert gaps.lost() == 6


def test_a_second_break_after_an_answer_counts_anew() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 3)
    assert gaps.lost() == 1
    gaps.reconnected()
    saw(gaps, 4)
    assert gaps.lost() == 0


def test_numbers_from_before_the_break_that_come_late_are_not_counted() -> None:
    gaps = Gaps()
    saw(gaps, 1, 5)
    gaps.reconnected()
    saw(gaps, 4, 6)
    assert gaps.lost() == 0


@pytest.mark.parametrize(("missing", "lost"), [(3, 0), (4, 4)])
def test_a_probe_of_the_server_explains_three_numbers(missing: int, lost: int) -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 2, ours=False, parent="nudge")
    saw(gaps, 3 + missing)
    assert gaps.lost() == lost


def test_each_probe_is_counted_once_however_many_of_its_messages_are_seen() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 2, 3, ours=False, parent="nudge")
    saw(gaps, 8)
    assert gaps.lost() == 4


def test_two_probes_explain_six() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 2, ours=False, parent="one")
    saw(gaps, 3, ours=False, parent="two")
    saw(gaps, 10)
    assert gaps.lost() == 0


def test_strangers_from_before_the_break_explain_nothing() -> None:
    gaps = Gaps()
    saw(gaps, 1, ours=False, parent="nudge")
    gaps.reconnected()
    saw(gaps, 4)
    assert gaps.lost() == 2


def test_another_process_numbers_anew() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 100, 101, kernel="another_8")
    assert gaps.lost() == 0


@pytest.mark.parametrize("msg_id", ["", "0f3c9b6e", "a_b", "kernel_7_", "kernel_x_3", "_3", "kernel_7_3\n"])
def test_ids_that_are_not_numbered_are_passed_over(msg_id: str) -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    gaps.saw(msg_id, "run", ours=True)
    saw(gaps, 4)
    assert gaps.lost() == 2


def test_a_break_before_the_first_message_loses_nothing_that_is_known() -> None:
    gaps = Gaps()
    gaps.reconnected()
    saw(gaps, 5, 9)
    assert gaps.lost() == 0


def test_what_the_kernel_has_sent_again_is_not_counted() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 9)
    gaps.closed()
    saw(gaps, 15)
    assert gaps.lost() == 0


def test_a_break_after_all_was_sent_again_counts_anew() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 9)
    gaps.closed()
    gaps.reconnected()
    saw(gaps, 12)
    assert gaps.lost() == 2


def test_there_may_be_nothing_to_close() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.closed()
    saw(gaps, 9)
    assert gaps.lost() == 0


def test_digits_without_end_are_passed_over() -> None:
    gaps = Gaps()
    gaps.saw("kernel_7_" + "9" * 5_000, "run", ours=True)
    assert gaps.lost() == 0


def test_children_of_the_kernel_end_no_counting() -> None:
    gaps = Gaps()
    saw(gaps, 1)
    gaps.reconnected()
    saw(gaps, 5)
    saw(gaps, 5, 6, kernel="kernel_8")
    assert gaps.lost() == 3


def test_what_another_channel_was_ahead_of_is_missed_too() -> None:
    gaps = Gaps()
    saw(gaps, 1, 2)
    gaps.saw("kernel_7_5", "run", ours=True, iopub=False)
    saw(gaps, 3)
    gaps.saw("kernel_7_2", "run", ours=True, iopub=False)
    gaps.reconnected()
    saw(gaps, 6)
    assert gaps.lost() == 1
