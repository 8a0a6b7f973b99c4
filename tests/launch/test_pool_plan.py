"""The pure part of the pool: what it decides, as tables, and its laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cellrun.launch.pool import Action, End, Give, PoolLimits, PoolState, Refuse, Start, WakeAt, Why, plan


def limits(**given: Any) -> PoolLimits:
    return PoolLimits(**{"ready": 2, "at_once": 4, "cpus": 2, **given})


def perform(state: PoolState, now: float) -> list[Action]:
    """Decides, and begins what was decided."""
    actions = plan(state, now)
    for action in actions:
        state.begin(action, now)
    return actions


def pool(ready: int = 0, held: int = 0, now: float = 0.0, **given: Any) -> PoolState:
    """A pool with so many ready kernels (the lowest numbers) and so many held ones."""
    state = PoolState(limits(**given))
    for number in range(1, ready + held + 1):
        state.begin(Start(number), now)
        state.started(number, now)
    for number in range(ready + 1, ready + held + 1):
        ticket = state.ask(math.inf)
        state.begin(Give(ticket, number), now)
        assert state.claim(ticket) == number
    return state


# -- ready ahead -------------------------------------------------------------------------------------


def test_an_empty_pool_is_filled_one_kernel_at_a_time() -> None:
    state = PoolState(limits(ready=2))
    assert perform(state, 0) == [Start(1)]
    assert perform(state, 1) == []
    state.started(1, 1)
    assert perform(state, 1) == [Start(2)]
    state.started(2, 2)
    assert perform(state, 2) == []
    assert list(state.ready) == [1, 2]


def test_while_cells_run_on_all_processors_nothing_is_refilled() -> None:
    state = pool(ready=1, held=2, cpus=2)
    state.see(2, None)
    assert plan(state, 10) == []
    state.see(1, None)
    assert plan(state, 10) == [Start(4)]


def test_a_refill_begins_only_some_time_after_the_last_take() -> None:
    state = pool(ready=2, refill_delay=0.5)
    ticket = state.ask(math.inf)
    assert perform(state, 10) == [Give(ticket, 1), WakeAt(10.5)]
    assert plan(state, 10.4) == [WakeAt(10.5)]
    assert plan(state, 10.5) == [Start(3)]


def test_ready_kernels_that_are_too_many_are_ended() -> None:
    state = pool(ready=3, at_once=2)
    state.limits = limits(ready=0, at_once=2)
    assert perform(state, 1) == [End(1), End(2)]
    assert perform(state, 1) == []
    state.ended(1)
    assert perform(state, 1) == [End(3)]


def test_no_more_are_kept_ready_than_may_exist() -> None:
    state = pool(ready=2, most=2)
    state.limits = limits(ready=5, most=2)
    assert state.target == 2
    assert plan(state, 1) == []


# -- callers -----------------------------------------------------------------------------------------


def test_a_caller_gets_the_oldest_ready_kernel() -> None:
    state = PoolState(limits(ready=2))
    for number in (1, 2):
        state.begin(Start(number), 0)
    state.started(2, 1)
    state.started(1, 2)
    ticket = state.ask(math.inf)
    assert plan(state, 3)[0] == Give(ticket, 2)


def test_a_caller_gets_an_outdated_kernel_only_if_there_is_no_other() -> None:
    state = pool(ready=1)
    state.generation += 1
    assert perform(state, 1) == [Start(2)]
    state.started(2, 2)
    first, second = state.ask(math.inf), state.ask(math.inf)
    assert perform(state, 2)[:2] == [Give(first, 2), Give(second, 1)]


def test_each_caller_has_a_start_beyond_those_kept_ready_and_a_refill_under_way_is_the_firsts() -> None:
    state = PoolState(limits(ready=1, at_once=3))
    assert perform(state, 0) == [Start(1)]
    tickets = [state.ask(math.inf) for _ in range(5)]
    assert perform(state, 0) == [Start(2), Start(3)]
    state.started(2, 1)
    assert perform(state, 1) == [Give(tickets[0], 2), Start(4)]
    assert state.claim(tickets[0]) == 2
    assert state.claim(tickets[0]) is None


def test_callers_are_served_while_all_processors_are_busy_and_right_after_a_take() -> None:
    state = pool(ready=0, held=1, refill_delay=100)
    state.see(99, None)
    state.ask(math.inf)
    assert plan(state, 0) == [Start(2)]


def test_a_caller_that_went_leaves_no_start_that_nobody_wants() -> None:
    state = PoolState(limits(ready=1))
    tickets = [state.ask(math.inf) for _ in range(3)]
    perform(state, 0)
    for ticket in tickets:
        state.withdraw(ticket)
    assert perform(state, 0) == [End(3), End(2)]
    state.started(3, 1)  # too late
    state.failed(2, 1)
    assert perform(state, 1) == [End(3)]
    assert list(state.starting) == [1]


def test_what_was_promised_and_not_claimed_is_ready_again() -> None:
    state = pool(ready=1)
    ticket, other = state.ask(math.inf), state.ask(math.inf)
    assert perform(state, 0)[0] == Give(ticket, 1)
    state.withdraw(ticket)
    assert plan(state, 0)[0] == Give(other, 1)


def test_a_promised_kernel_that_dies_puts_its_caller_back_in_its_place() -> None:
    state = pool(ready=2)
    tickets = [state.ask(math.inf) for _ in range(3)]
    perform(state, 0)
    state.lost(2)
    state.lost(1)
    assert list(state.waiters) == tickets
    assert [action for action in perform(state, 0) if isinstance(action, End)] == [End(2), End(1)]


def test_a_held_kernel_that_dies_counts_until_it_is_given_back() -> None:
    state = pool(held=1)
    state.lost(1)
    assert state.held == {1}
    state.give_back(1)
    state.give_back(1)
    assert state.leaving == [1]


# -- limits ------------------------------------------------------------------------------------------


def test_a_kernel_counts_until_it_has_ended() -> None:
    state = pool(held=2, most=2, ready=0)
    state.limits = limits(ready=0, most=2)
    state.ask(math.inf)
    assert plan(state, 0) == []
    state.give_back(1)
    assert perform(state, 0) == [End(1)]
    state.ended(1)
    assert plan(state, 0) == [Start(3)]


@pytest.mark.parametrize(
    ("held", "memory", "starts"),
    [
        (0, None, 4),  # 10 for each by estimate
        (1, None, 3),
        (2, 20, 2),  # measured: 10 each
        (2, 30, 0),  # 15 each: 30 + 15 is more than 40
        (2, 26, 1),
        (2, 90, 0),
    ],
)
def test_memory_is_measured_memory_and_a_mean_for_each_start(held: int, memory: int | None, starts: int) -> None:
    state = pool(held=held, memory=40, estimate=10)
    state.see(0, memory)
    for _ in range(4):
        state.ask(math.inf)
    assert len([action for action in plan(state, 0) if isinstance(action, Start)]) == starts


def test_kernels_that_came_after_the_measurement_count_too() -> None:
    state = pool(held=1, memory=40)
    state.see(0, 10)
    for number in (2, 3, 4):
        state.begin(Start(number), 0)
        state.started(number, 0)
    state.see(0, 10)
    assert (state.used, state.allows_start) == (40, False)


def test_the_first_kernel_is_always_allowed() -> None:
    state = PoolState(limits(memory=1, estimate=100))
    assert plan(state, 0) == [Start(1)]


def test_the_line_has_an_end() -> None:
    state = pool(held=1, most=1, waiting=2)
    assert not state.full
    state.ask(math.inf)
    state.ask(math.inf)
    assert state.full
    assert not pool(ready=1, waiting=1).full


def test_a_caller_whose_time_is_up_is_refused_with_its_position() -> None:
    state = pool(held=1, most=1)
    first, second, third = state.ask(9), state.ask(7, 5), state.ask(8)
    assert plan(state, 0) == [WakeAt(5)]
    assert perform(state, 5) == [Refuse(second, 2, Why.LIMIT), WakeAt(8)]
    assert perform(state, 9) == [Refuse(first, 1, Why.TIME), Refuse(third, 1, Why.TIME)]


def test_the_queue_timeout_is_over_when_a_start_is_under_way() -> None:
    state = PoolState(limits(ready=0, at_once=1))
    first, second = state.ask(100, 5), state.ask(100, 5)
    assert perform(state, 0) == [Start(1), WakeAt(5)]
    assert perform(state, 5) == [Refuse(second, 2, Why.LIMIT), WakeAt(100)]
    assert perform(state, 100) == [Refuse(first, 1, Why.TIME), End(1)]


def test_a_queue_timeout_of_zero_takes_what_can_be_had_at_once() -> None:
    state = PoolState(limits(ready=0, most=1))
    first, second = state.ask(100, 0), state.ask(100, 0)
    assert perform(state, 0) == [Start(1), Refuse(second, 2, Why.LIMIT), WakeAt(100)]
    assert list(state.waiters) == [first]


# -- failures ----------------------------------------------------------------------------------------


def test_refills_that_fail_are_tried_again_after_ever_longer_pauses() -> None:
    state = PoolState(limits(ready=1))
    now, pauses = 0.0, []
    for number in range(1, 13):
        assert perform(state, now) == [Start(number)]
        assert state.failed(number, now) is None
        (wake,) = plan(state, now)
        assert isinstance(wake, WakeAt)
        pauses.append(round(wake.at - now, 6))
        now = wake.at
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30]
    perform(state, now)
    state.started(13, now)
    assert (state.failures, state.retry_at) == (0, -math.inf)


def test_starts_that_fail_together_are_one_failure_and_each_is_told_to_one_caller() -> None:
    state = PoolState(limits(ready=0))
    tickets = [state.ask(math.inf) for _ in range(3)]
    perform(state, 0)
    assert [state.failed(number, 1) for number in (3, 1, 2)] == tickets
    assert (state.failures, state.retry_at) == (1, 1.1)


def test_a_caller_gets_a_fresh_try_during_a_pause() -> None:
    state = PoolState(limits(ready=1))
    perform(state, 0)
    state.failed(1, 0)
    assert plan(state, 0.05) == [WakeAt(0.1)]
    ticket = state.ask(math.inf)
    assert perform(state, 0.05) == [Start(2)]
    assert state.failed(2, 0.06) == ticket
    assert plan(state, 0.06) == [WakeAt(0.1)]


# -- replacing ---------------------------------------------------------------------------------------


def test_kernels_that_are_too_old_are_replaced_first_and_ended_then() -> None:
    state = pool(ready=1, max_age=60)
    state.limits = limits(ready=1, max_age=60)
    assert plan(state, 0) == [WakeAt(60)]
    assert perform(state, 60) == [Start(2)]
    state.started(2, 61)
    assert perform(state, 61) == [End(1), WakeAt(121)]


def test_kernels_of_before_are_replaced_one_after_the_other() -> None:
    state = pool(ready=2)
    state.generation += 1
    ended = []
    for number in (3, 4):
        assert perform(state, 0) == [Start(number)]
        state.started(number, 0)
        (end, *_) = plan(state, 0)
        assert isinstance(end, End)
        state.begin(end, 0)
        state.ended(end.kernel)
        ended.append(end.kernel)
    assert ended == [1, 2]
    assert plan(state, 0) == []


def test_where_there_is_no_room_an_outdated_kernel_is_ended_first() -> None:
    state = pool(ready=2, most=2)
    state.generation += 1
    assert perform(state, 0) == [End(1)]
    state.ended(1)
    assert perform(state, 0) == [Start(3)]
    state.started(3, 0)
    assert perform(state, 0) == [End(2)]


def test_an_outdated_kernel_serves_on_where_its_end_would_make_no_room_or_starts_fail() -> None:
    state = pool(ready=2, memory=20)
    state.see(0, 30)
    state.generation += 1
    assert plan(state, 0) == []
    state.see(0, 20)
    assert plan(state, 0) == [End(1)]
    state.failures = 1
    assert plan(state, 0) == []


# -- the end -----------------------------------------------------------------------------------------


def test_a_closed_pool_ends_and_refuses_everything_but_what_is_held() -> None:
    state = pool(ready=2, held=1, at_once=9)
    state.begin(Start(4), 0)
    tickets = [state.ask(math.inf) for _ in range(4)]
    state.begin(Give(tickets[0], 2), 0)
    state.close()
    ends = [End(1), End(2)]
    refusals = [Refuse(ticket, 1, Why.CLOSED) for ticket in tickets]
    assert perform(state, 0) == [*ends, *refusals, End(4)]
    assert state.held == {3}
    state.give_back(3)
    assert perform(state, 0) == [End(3)]


@pytest.mark.parametrize(
    "given",
    [
        {"ready": -1},
        {"most": 0},
        {"memory": 0},
        {"waiting": 0},
        {"at_once": 0},
        {"max_age": 0},
        {"refill_delay": math.nan},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        PoolLimits(**given)


# -- the laws ----------------------------------------------------------------------------------------

SPANS = st.sampled_from([0.0, 0.01, 0.02, 0.1, 1.0, 7.0, 40.0])
MAYBE = st.none() | st.integers(1, 6)


class Pool(RuleBasedStateMachine):
    """Anything that may happen, in any order. Each time the pool is asked, as its shell does."""

    @initialize(
        given=st.builds(
            PoolLimits,
            ready=st.integers(0, 3),
            most=MAYBE,
            memory=MAYBE.map(lambda count: count and count * 10),
            estimate=st.sampled_from([1, 10, 30]),
            waiting=st.integers(1, 5),
            at_once=st.integers(1, 3),
            cpus=st.integers(1, 3),
            max_age=st.none() | st.just(5.0),
        )
    )
    def begin(self, given: PoolLimits) -> None:
        self.state = PoolState(given)
        self.now = 0.0
        self.known: set[int] = set()  # that were started and have not ended
        self.claimed: set[int] = set()
        self.gone: set[int] = set()
        self.line: list[int] = []
        self.requeued = 0
        self.wake: float | None = None
        self.decide()

    # -- what the shell does ---------------------------------------------------------------------

    def decide(self) -> None:
        for action in plan(self.state, self.now):
            self.check(action)
            self.state.begin(action, self.now)
        again = plan(self.state, self.now)
        assert all(isinstance(action, WakeAt) and action.at > self.now for action in again), again
        assert len(again) <= 1
        self.wake = next((action.at for action in again if isinstance(action, WakeAt)), None)

    def check(self, action: Action) -> None:
        state, given = self.state, self.state.limits
        match action:
            case Give(ticket, number):
                assert ticket == self.line.pop(0), "the first in the line is the first to get one"
                assert number in state.ready
                assert number not in self.claimed | self.gone
                assert not state.closed
            case Refuse(ticket, position, why):
                assert list(state.waiters)[position - 1] == ticket
                assert (why is Why.CLOSED) == state.closed
                self.line.remove(ticket)
            case Start(number):
                assert number not in self.known | self.gone
                assert not state.closed
                assert given.most is None or state.total < given.most
                if given.memory is not None and state.total:
                    assert state.used + (len(state.starting) + 1) * state.mean <= given.memory
                if state.waiters:
                    assert len(state.starting) < min(given.at_once, len(state.waiters))
                else:
                    assert not state.starting
                    assert state.busy < given.cpus
                    assert self.now >= max(state.last_take + given.refill_delay, state.retry_at)
                self.known.add(number)
            case End(number):
                assert number in {*state.starting, *state.ready, *state.leaving}
                assert number not in self.gone
                assert number in state.starting or len(state.ending) < given.at_once
            case WakeAt():
                pass

    # -- what happens ----------------------------------------------------------------------------

    @precondition(lambda self: not self.state.closed and not self.state.full)
    @rule(timeout=SPANS | st.just(math.inf), queue=SPANS | st.just(math.inf))
    def ask(self, timeout: float, queue: float) -> None:
        self.line.append(self.state.ask(self.now + timeout, self.now + queue))
        self.decide()

    @precondition(lambda self: self.state.promised)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        number = self.state.claim(data.draw(st.sampled_from(sorted(self.state.promised))))
        assert number is not None
        assert number not in self.claimed, "never given twice"
        self.claimed.add(number)

    @precondition(lambda self: self.state.promised or self.state.waiters)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from([*self.state.promised, *self.state.waiters]))
        if ticket in self.state.waiters:
            self.line.remove(ticket)
        self.state.withdraw(ticket)
        self.decide()

    @precondition(lambda self: self.state.starting)
    @rule(data=st.data(), succeeds=st.booleans())
    def start_is_over(self, data: st.DataObject, succeeds: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.state.starting)))
        if succeeds:
            self.state.started(number, self.now)
        else:
            first = self.state.failed(number, self.now)
            assert first == (self.line.pop(0) if self.line else None)
            self.over(number)
        self.decide()

    @precondition(lambda self: self.state.ending)
    @rule(data=st.data(), too_late=st.booleans())
    def end_is_over(self, data: st.DataObject, too_late: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.state.ending)))
        if too_late:
            self.state.started(number, self.now)
        else:
            assert self.state.failed(number, self.now) is None
            self.over(number)
        self.decide()

    def over(self, number: int) -> None:
        self.known.remove(number)
        self.gone.add(number)

    @rule(number=st.integers(0, 30))
    def give_back(self, number: int) -> None:
        self.state.give_back(number)
        self.decide()

    @rule(number=st.integers(0, 30))
    def lose(self, number: int) -> None:
        before = len(self.state.waiters)
        held = set(self.state.held)
        self.state.lost(number)
        self.requeued += len(self.state.waiters) - before
        self.line = list(self.state.waiters)
        assert self.state.held == held
        self.decide()

    @rule(busy=st.integers(0, 4), memory=MAYBE.map(lambda count: count and count * 7))
    def measure(self, busy: int, memory: int | None) -> None:
        self.state.see(busy, memory)
        self.decide()

    @rule(span=SPANS)
    def wait(self, span: float) -> None:
        """Nothing is to be done before the time that the plan said, and the shell wakes at that time."""
        until = self.now + span
        while self.wake is not None and self.wake <= until:
            just_before = math.nextafter(self.wake, -math.inf)
            assert just_before <= self.now or plan(self.state, just_before) == [WakeAt(self.wake)]
            self.now = self.wake
            self.decide()
        self.now = until
        self.decide()

    @rule()
    def renew(self) -> None:
        self.state.generation += 1
        self.decide()

    @rule(ready=st.integers(0, 4))
    def resize(self, ready: int) -> None:
        self.state.limits = PoolLimits(**{**vars(self.state.limits), "ready": ready})
        self.decide()

    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if really == 0 and not self.state.closed:
            self.line = sorted([*self.line, *self.state.promised])
            self.state.close()
            self.decide()
            assert not self.line

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def each_kernel_is_in_one_place(self) -> None:
        state = self.state
        promised = [number for number, _, _ in state.promised.values()]
        places = [*state.starting, *state.ready, *promised, *state.held, *state.leaving, *state.ending]
        assert len(places) == len(set(places)) == state.total
        assert set(places) == self.known
        assert state.held <= self.claimed
        assert not self.claimed & {*state.starting, *state.ready, *promised}

    @invariant()
    def the_limits_hold(self) -> None:
        state = self.state
        assert state.limits.most is None or state.total <= state.limits.most
        assert len(state.waiters) <= state.limits.waiting + self.requeued
        assert list(state.waiters) == self.line == sorted(self.line)
        assert not (state.waiters and state.ready)

    def teardown(self) -> None:
        """Left alone, with starts that succeed and holders that give back, the pool serves all who wait, without any time
        going by, and comes to rest with what is to be ready."""
        if not hasattr(self, "state"):
            return
        state, served = self.state, []
        expected = [] if state.closed else [*self.line, *state.promised]
        for _ in range(500):
            state.see(0, state.memory if self.line else 10 * state.grown or None)
            self.decide()
            served += list(state.promised)
            for ticket in list(state.promised):
                number = state.claim(ticket)
                assert number is not None
                assert number not in self.claimed
                self.claimed.add(number)
            for number in list(state.held):
                state.give_back(number)
            for number in list(state.starting):
                state.started(number, self.now)
            for number in list(state.ending):
                state.ended(number)
                self.over(number)
            self.each_kernel_is_in_one_place()
            if plan(state, self.now) == [WakeAt(self.wake or 0)] and not state.starting and not state.ending:
                if self.at_rest():
                    break
                assert not self.line
                self.now = self.wake or 0
            elif not plan(state, self.now) and not state.total - len(state.ready):
                break
        else:
            raise AssertionError(f"does not come to rest: {state}")
        assert sorted(served) == sorted(expected)
        assert self.at_rest()

    def at_rest(self) -> bool:
        state = self.state
        if state.waiters or state.total != len(state.ready):
            return False
        if state.closed:
            return not state.ready
        fresh = len(state.ready) - len(state.stale(self.now))
        return len(state.ready) <= state.target and (fresh == state.target or not state.allows_start)


Pool.TestCase.settings = settings(stateful_step_count=40, max_examples=200)
TestPool = Pool.TestCase
