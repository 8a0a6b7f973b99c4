from __future__ import annotations

import pytest

from cellrun.protocol.timing import Action, Timing, plan


def timing(timeout: float | None = 10, **fields: float | bool | None) -> Timing:
    made = Timing(started=100, timeout=timeout, grace=2, confirmation=0.5)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("case", "now", "action", "until"),
    [
        (timing(), 100, Action.WAIT, 110),
        (timing(), 109.9, Action.WAIT, 110),
        (timing(), 110, Action.INTERRUPT, None),
        (timing(), 1000, Action.INTERRUPT, None),
        (timing(0), 100, Action.INTERRUPT, None),
        (timing(None), 1e9, Action.WAIT, None),
        (timing(stop_wanted=True), 100, Action.INTERRUPT, None),
        (timing(None, stop_wanted=True), 100, Action.INTERRUPT, None),
        (timing(interrupted=105), 106.9, Action.WAIT, 107),
        (timing(interrupted=105), 107, Action.KILL, None),
        (timing(interrupted=105), 200, Action.KILL, None),
        (timing(None, stop_wanted=True, interrupted=105), 106, Action.WAIT, 107),
        (timing(interrupted=109), 110.5, Action.WAIT, 111),
        (timing(interrupted=105, killed=107), 107.4, Action.WAIT, 107.5),
        (timing(interrupted=105, killed=107), 107.5, Action.ABANDON, None),
        (timing(killed=107), 200, Action.ABANDON, None),
    ],
)
def test_the_plan_is_a_function_of_the_times(case: Timing, now: float, action: Action, until: float | None) -> None:
    assert plan(case, now) == (action, until)


def test_every_action_has_its_turn_in_one_long_execution() -> None:
    case = timing()
    seen = []
    now: float | None = 100.0
    while now is not None:
        action, until = plan(case, now)
        seen.append(action)
        if action is Action.INTERRUPT:
            case.interrupted = until = now
        elif action is Action.KILL:
            case.killed = until = now
        now = until
    wait = Action.WAIT
    assert seen == [wait, Action.INTERRUPT, wait, Action.KILL, wait, Action.ABANDON]
    assert case.interrupted == 110
    assert case.killed == 112


def test_without_a_time_limit_there_is_no_deadline() -> None:
    assert timing(None).deadline is None
    assert timing(10).deadline == 110
