"""When a kernel ends by itself: what time decides, without waiting for it."""

from __future__ import annotations

import pytest

from cellrun.service.jupyter.lifetime import UNCLAIMED, Use, cause_to_end

IDLE = 1_800.0


def use(
    *, connected: bool, expected: bool = False, executing: bool = False, left: float = 0.0, used: float = 0.0
) -> Use:
    return Use(connected=connected, expected=expected, executing=executing, left=left, used=used)


@pytest.mark.parametrize(
    ("kernel", "ends", "cause"),
    [
        (use(connected=False), UNCLAIMED, "nobody is connected"),
        (use(connected=False, executing=True), UNCLAIMED, "nobody is connected"),
        (use(connected=False, left=50.0, used=70.0), 50.0 + UNCLAIMED, "nobody is connected"),
        (use(connected=False, expected=True), IDLE, "its client was away"),
        (use(connected=False, expected=True, executing=True, left=100.0), 100.0 + IDLE, "its client was away"),
        (use(connected=True, used=40.0), 40.0 + IDLE, "not used"),
    ],
)
def test_a_kernel_ends_when_its_time_is_over_and_not_before(kernel: Use, ends: float, cause: str) -> None:
    assert cause_to_end(kernel, ends, IDLE) is None
    assert cause_to_end(kernel, ends + 0.1, IDLE) == cause


def test_a_kernel_with_a_client_and_a_cell_goes_on() -> None:
    assert cause_to_end(use(connected=True, executing=True), 10 * IDLE, IDLE) is None


def test_without_an_idle_time_only_those_that_nobody_can_claim_end() -> None:
    assert cause_to_end(use(connected=True), 1e9, None) is None
    assert cause_to_end(use(connected=False, expected=True), 1e9, None) is None
    assert cause_to_end(use(connected=False), 1e9, None) == "nobody is connected"
