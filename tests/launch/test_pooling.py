"""The pool itself, with plain objects as kernels whose starts and ends the tests decide."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from cellrun.errors import KernelStartError, LimitExceeded, SessionLost
from cellrun.launch.pool import PoolLimits
from cellrun.launch.pooling import KernelPool, PoolStatus
from tests.support.waiting import HANG

T = TypeVar("T")


class Kernel:
    def __init__(self) -> None:
        self.ended = False


async def bounded(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, HANG)


async def turns(count: int) -> None:
    """So many turns of the event loop, in which everything that is due happens."""
    for _ in range(count):
        await asyncio.sleep(0)


class Workshop:
    """Starts and ends kernels when the test says so; or at once."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.starts: asyncio.Queue[asyncio.Future[Kernel]] = asyncio.Queue()
        self.ends: asyncio.Queue[Kernel] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.began = 0
        self.cancelled = 0
        self.kernels: list[Kernel] = []
        self.exist = 0
        self.existed = 0
        self.busy = 0

    async def start(self) -> Kernel:
        self.began += 1
        self.exist += 1
        self.existed = max(self.existed, self.exist)
        try:
            if self.at_once:
                await turns(2)
            else:
                future: asyncio.Future[Kernel] = asyncio.get_running_loop().create_future()
                self.starts.put_nowait(future)
                await future
        except BaseException as error:
            await turns(1)  # cleaning up
            self.exist -= 1
            self.cancelled += isinstance(error, asyncio.CancelledError)
            raise
        kernel = Kernel()
        self.kernels.append(kernel)
        return kernel

    async def end(self, kernel: Kernel) -> None:
        assert not kernel.ended, "ended twice"
        kernel.ended = True
        await self.may_end.wait()
        self.exist -= 1
        self.ends.put_nowait(kernel)

    def pool(self, **given: Any) -> KernelPool[Kernel]:
        limits = PoolLimits(**{"ready": 0, "at_once": 4, "cpus": 2, "refill_delay": 0, **given})
        return KernelPool(self.start, self.end, limits=limits, busy=lambda: self.busy)

    async def starting(self) -> asyncio.Future[Kernel]:
        """The next start that begins: it goes on when this has a result."""
        future: asyncio.Future[Kernel] = await bounded(self.starts.get())
        return future

    async def start_one(self) -> None:
        (await self.starting()).set_result(Kernel())

    async def ended(self) -> Kernel:
        kernel: Kernel = await bounded(self.ends.get())
        return kernel


async def filled(shop: Workshop, **given: Any) -> KernelPool[Kernel]:
    """A pool whose ready kernels are there."""
    pool = shop.pool(**given)
    for _ in range(pool._state.target):
        await shop.start_one()
    await bounded(pool.ready(HANG))
    return pool


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a call that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits")


async def waits(pool: KernelPool[Kernel], **given: Any) -> asyncio.Task[Kernel]:
    """A caller that is in the line."""
    in_line = asyncio.Event()
    task = asyncio.ensure_future(pool.take(**{"timeout": HANG, "on_position": lambda _: in_line.set(), **given}))
    await bounded(in_line.wait())
    return task


# -- what it is for ----------------------------------------------------------------------------------


async def test_kernels_are_made_ready_and_the_oldest_is_given_without_waiting() -> None:
    shop = Workshop()
    pool = await filled(shop, ready=2)
    assert pool.status == PoolStatus(ready=2, starting=0, held=0, ending=0, waiting=0)
    assert at_once(pool.take(0)) is shop.kernels[0]
    assert pool.status == PoolStatus(ready=1, starting=1, held=1, ending=0, waiting=0)
    await bounded(pool.aclose())


async def test_callers_are_served_in_their_order_and_hear_their_place() -> None:
    shop = Workshop()
    pool = shop.pool(ready=1, at_once=2)
    heard: list[list[int]] = [[], [], []]
    takes = [asyncio.ensure_future(pool.take(HANG, on_position=places.append)) for places in heard]
    for _ in takes:
        await shop.start_one()
    for task, kernel in zip(takes, shop.kernels, strict=False):
        assert await bounded(task) is kernel
    assert heard == [[1], [2, 1], [3, 2, 1]]
    await bounded(pool.aclose())


async def test_a_kernel_that_is_given_back_is_ended_and_never_given_again() -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool(most=1)
    first = await bounded(pool.take(HANG))
    second = await waits(pool)
    pool.give_back(first)
    pool.give_back(first)
    assert await bounded(second) is not first
    assert await shop.ended() is first
    await bounded(pool.aclose())


async def test_while_all_processors_are_busy_nothing_is_refilled_until_that_changes() -> None:
    shop = Workshop()
    shop.busy = 2
    pool = shop.pool(ready=1)
    assert pool.status.starting == 0
    shop.busy = 1
    pool.changed()
    assert pool.status.starting == 1
    await bounded(pool.aclose())


async def test_a_refill_begins_by_itself_some_time_after_a_take() -> None:
    shop = Workshop()
    pool = await filled(shop, ready=1, refill_delay=0.01)
    at_once(pool.take(HANG))
    assert pool.status.starting == 0
    await shop.start_one()
    await bounded(pool.ready(HANG))
    await bounded(pool.aclose())


async def test_a_pool_at_rest_has_neither_tasks_nor_timers() -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool(ready=2)
    await bounded(pool.take(HANG, queue_timeout=HANG))
    await bounded(pool.ready(HANG))
    await turns(3)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert pool._timer is None or pool._timer.cancelled()
    await bounded(pool.aclose())


async def test_more_are_kept_ready_or_fewer() -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool(ready=0)
    pool.resize(3)
    await bounded(pool.ready(HANG))
    assert pool.status.ready == 3
    pool.resize(1)
    assert {await shop.ended(), await shop.ended()} == set(shop.kernels[:2])
    assert pool.status.ready == 1
    await bounded(pool.aclose())


async def test_renewed_kernels_are_there_before_the_old_ones_end() -> None:
    shop = Workshop()
    pool = await filled(shop, ready=1)
    pool.renew()
    replacement = await shop.starting()
    assert pool.status == PoolStatus(ready=1, starting=1, held=0, ending=0, waiting=0)
    replacement.set_result(Kernel())
    assert await shop.ended() is shop.kernels[0]
    assert at_once(pool.take(HANG)) is shop.kernels[1]
    await bounded(pool.aclose())


async def test_kernels_that_are_too_old_are_replaced_by_themselves() -> None:
    shop = Workshop()
    pool = await filled(shop, ready=1, max_age=0.01)
    await shop.start_one()
    assert await shop.ended() is shop.kernels[0]
    await bounded(pool.aclose())


# -- what ends by itself -----------------------------------------------------------------------------


async def test_a_ready_kernel_that_dies_is_ended_and_replaced() -> None:
    shop = Workshop()
    pool = await filled(shop, ready=1)
    pool.lost(shop.kernels[0])
    assert pool.status.ready == 0
    assert await shop.ended() is shop.kernels[0]
    await shop.start_one()
    await bounded(pool.ready(HANG))
    assert at_once(pool.take(HANG)) is shop.kernels[1]
    await bounded(pool.aclose())


async def test_a_held_kernel_that_dies_stays_its_holders() -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool()
    kernel = await bounded(pool.take(HANG))
    pool.lost(kernel)
    pool.lost(Kernel())
    assert (pool.status.held, kernel.ended) == (1, False)
    pool.give_back(kernel)
    await bounded(pool.aclose())
    assert kernel.ended


@pytest.mark.parametrize("late", range(6))
async def test_a_kernel_that_dies_on_its_way_is_not_given_or_was_given_before(late: int) -> None:
    shop = Workshop()
    pool = shop.pool()
    task = await waits(pool)
    await shop.start_one()
    await turns(late)
    died = shop.kernels[0] if shop.kernels else None
    had_it = task.done()
    if died is not None:
        pool.lost(died)
    if died is not None and not had_it:
        await shop.start_one()
    assert (await bounded(task) is died) == (had_it and died is not None)
    await bounded(pool.aclose())


# -- failures ----------------------------------------------------------------------------------------


async def test_what_a_start_raises_is_raised_by_the_first_take_and_the_next_gets_another_try() -> None:
    shop = Workshop()
    pool = shop.pool(at_once=2)
    first, second, third = [await waits(pool) for _ in range(3)]
    await shop.starting()
    (await shop.starting()).set_exception(KernelStartError("broken"))
    with pytest.raises(KernelStartError, match="broken"):
        await bounded(first)
    assert (pool.status.starting, pool.status.waiting) == (2, 2)
    await bounded(pool.aclose())
    for task in (second, third):
        with pytest.raises(SessionLost):
            await bounded(task)


async def test_a_setup_that_is_broken_is_not_tried_without_pause_but_for_a_caller_at_once() -> None:
    shop = Workshop()
    pool = shop.pool(ready=1)
    ready = asyncio.ensure_future(pool.ready(HANG))
    (await shop.starting()).set_exception(KernelStartError("broken"))
    with pytest.raises(KernelStartError, match="broken"):
        await bounded(ready)
    assert pool.status.starting == 0
    task = await waits(pool)
    await shop.start_one()
    assert await bounded(task) is shop.kernels[0]
    await bounded(pool.aclose())


async def test_a_refill_that_failed_is_tried_again_by_itself() -> None:
    shop = Workshop()
    pool = shop.pool(ready=1)
    (await shop.starting()).set_exception(KernelStartError("broken"))
    await shop.start_one()
    await bounded(pool.ready(HANG))
    await bounded(pool.aclose())


async def test_kernels_that_are_not_ready_in_time_are_told_with_the_reason() -> None:
    shop = Workshop()
    pool = shop.pool(ready=2, most=5)
    with pytest.raises(KernelStartError, match=r"0 of 2 kernels are ready after 0 s; 1 kernels exist, of at most 5"):
        await pool.ready(0)
    (await shop.starting()).set_exception(KernelStartError("broken"))
    await turns(5)
    with pytest.raises(KernelStartError, match="the last start failed: broken") as caught:
        await pool.ready(0)
    assert caught.value.retryable
    await shop.start_one()
    await shop.starting()
    with pytest.raises(KernelStartError, match="1 of 2 kernels are ready after 0 s; 2 kernels exist"):
        await pool.ready(0)
    await bounded(pool.aclose())


async def test_a_start_that_takes_too_long_is_cancelled_and_is_a_failure() -> None:
    shop = Workshop()
    pool = shop.pool(start_timeout=0.01)
    with pytest.raises(KernelStartError, match=r"no kernel came up within 0\.01 s"):
        await bounded(pool.take(HANG))
    assert shop.cancelled == 1
    await bounded(pool.aclose())


async def test_a_start_that_raises_a_timeout_of_its_own_raises_that() -> None:
    shop = Workshop()
    pool = shop.pool()
    task = await waits(pool)
    (await shop.starting()).set_exception(TimeoutError("of its own"))
    with pytest.raises(TimeoutError, match="of its own"):
        await bounded(task)
    await bounded(pool.aclose())


async def test_a_start_that_somebody_else_cancels_is_a_failure() -> None:
    shop = Workshop()
    pool = shop.pool()
    task = await waits(pool)
    (await shop.starting()).cancel()
    with pytest.raises(KernelStartError, match="the start was cancelled"):
        await bounded(task)
    await bounded(pool.aclose())


async def test_an_end_or_a_callback_that_fails_is_reported_and_the_pool_goes_on() -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))

    async def end(kernel: Kernel) -> None:
        raise OSError("no")

    shop = Workshop(at_once=True)
    pool = KernelPool(shop.start, end, limits=PoolLimits(ready=0, most=1))
    for _ in range(2):
        pool.give_back(await bounded(pool.take(HANG, on_position=lambda position: 1 / 0)))
    await bounded(pool.aclose())
    assert sorted(reported) == ["on_position failed"] * 2 + ["the end of a kernel failed"] * 2


# -- limits ------------------------------------------------------------------------------------------


async def test_a_full_line_refuses_at_once() -> None:
    shop = Workshop()
    pool = shop.pool(waiting=1, most=1)
    await waits(pool)
    with pytest.raises(
        LimitExceeded, match="1 callers wait for a kernel already; 1 kernels exist, of at most 1"
    ) as caught:
        at_once(pool.take(HANG))
    assert caught.value.retryable
    await bounded(pool.aclose())


async def test_who_waits_too_long_for_a_start_hears_of_the_limit() -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool(most=1, memory=100)
    await bounded(pool.take(HANG))
    expected = (
        r"could be started within 0\.01 s, at place 1 of the line; 1 kernels exist, of at most 1, and take 64 of 0 MiB"
    )
    with pytest.raises(LimitExceeded, match=expected) as caught:
        await bounded(pool.take(HANG, queue_timeout=0.01))
    assert caught.value.retryable
    assert pool.status.waiting == 0
    await bounded(pool.aclose())


async def test_who_waits_too_long_for_a_kernel_hears_that() -> None:
    shop = Workshop()
    pool = shop.pool()
    with pytest.raises(KernelStartError, match=r"no kernel was ready within 0\.01 s") as caught:
        await bounded(pool.take(0.01, queue_timeout=0))
    assert caught.value.retryable
    await bounded(pool.aclose())
    assert shop.exist == 0


# -- cancelling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", range(7))
@pytest.mark.parametrize("ready", [0, 1])
async def test_a_cancelled_caller_leaves_no_trace_at_any_moment(late: int, ready: int) -> None:
    shop = Workshop()
    pool = shop.pool(ready=ready)
    task = asyncio.ensure_future(pool.take(HANG))
    other: asyncio.Task[Kernel] | None = None
    if late > 2:
        await shop.start_one()
        other = asyncio.ensure_future(pool.take(HANG))
        await turns(late - 3)
    else:
        await turns(late)
    task.cancel()
    with suppress(asyncio.CancelledError):
        pool.give_back(await task)
    if other is not None:
        await turns(5)
        if not other.done():
            await shop.start_one()
        assert not (await bounded(other)).ended
    assert pool.status.waiting == 0
    assert pool.status.held == (other is not None)
    await bounded(pool.aclose())
    assert shop.exist == (other is not None)


async def test_a_kernel_that_was_given_in_the_moment_of_the_cancellation_goes_to_the_next() -> None:
    shop = Workshop()
    pool = shop.pool()
    first, second = await waits(pool), await waits(pool)
    await shop.start_one()
    while not pool._state.promised:
        await turns(1)
    first.cancel()
    assert await bounded(second) is shop.kernels[0]
    assert first.cancelled()
    assert shop.began == 2
    await bounded(pool.aclose())
    assert shop.exist == 1


async def test_a_start_that_nobody_wants_any_more_is_cancelled() -> None:
    shop = Workshop()
    pool = shop.pool()
    task = await waits(pool)
    await shop.starting()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.status == PoolStatus(ready=0, starting=0, held=0, ending=1, waiting=0)
    await bounded(pool.aclose())
    assert (shop.cancelled, shop.exist) == (1, 0)


async def test_who_waits_for_ready_kernels_does_not_hear_of_starts_that_are_no_longer_wanted() -> None:
    shop = Workshop()
    pool = shop.pool(ready=1)
    ready = asyncio.ensure_future(pool.ready(HANG))
    takes = [await waits(pool) for _ in range(2)]
    start, _ = await shop.starting(), await shop.starting()
    for task in takes:
        task.cancel()
    await asyncio.wait(takes)
    await turns(5)
    assert shop.cancelled == 1
    start.set_result(Kernel())
    await bounded(ready)
    await bounded(pool.aclose())


async def test_a_start_that_is_cancelled_before_it_ran_is_forgotten() -> None:
    shop = Workshop()
    pool = shop.pool(ready=1)
    await pool.aclose()
    assert shop.began == 0
    assert pool.status == PoolStatus(0, 0, 0, 0, 0)


# -- closing -----------------------------------------------------------------------------------------


async def test_closing_refuses_who_waits_and_ends_all_but_what_is_held() -> None:
    shop = Workshop()
    pool = await filled(shop, ready=2, most=4)
    held, back = at_once(pool.take(HANG)), at_once(pool.take(HANG))
    shop.may_end.clear()
    pool.give_back(back)
    waiting = [await waits(pool) for _ in range(3)]
    assert pool.status == PoolStatus(ready=0, starting=2, held=1, ending=1, waiting=3)
    closing = [asyncio.ensure_future(pool.aclose()) for _ in range(2)]
    for task in waiting:
        with pytest.raises(SessionLost, match="closed"):
            await bounded(task)
    for call in (pool.take(HANG), pool.ready(HANG)):
        with pytest.raises(SessionLost, match="closed"):
            at_once(call)
    assert not any(task.done() for task in closing)
    shop.may_end.set()
    await bounded(asyncio.gather(*closing))
    assert pool.status == PoolStatus(ready=0, starting=0, held=1, ending=0, waiting=0)
    assert (shop.cancelled, shop.exist, held.ended) == (2, 1, False)
    shop.may_end.clear()
    pool.give_back(held)
    again = asyncio.ensure_future(pool.aclose())
    await turns(5)
    assert not again.done()
    shop.may_end.set()
    await bounded(again)
    assert (held.ended, shop.exist) == (True, 0)


@pytest.mark.parametrize("late", range(8))
async def test_closing_at_any_moment_of_a_take_gives_the_kernel_or_ends_it(late: int) -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool()
    task = asyncio.ensure_future(pool.take(HANG))
    await turns(late)
    closing = asyncio.ensure_future(pool.aclose())
    try:
        kernel = await bounded(task)
    except SessionLost:
        await bounded(closing)
        assert shop.exist == 0
    else:
        await bounded(closing)
        assert (shop.exist, kernel.ended) == (1, False)


@pytest.mark.parametrize("late", range(8))
async def test_closing_at_any_moment_of_a_wait_for_ready_kernels_ends_the_wait(late: int) -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool(ready=1)
    ready = asyncio.ensure_future(pool.ready(60))
    await turns(late)
    await bounded(pool.aclose())
    with suppress(SessionLost):
        await bounded(ready)
    assert shop.exist == 0


async def test_a_close_that_is_cancelled_goes_on() -> None:
    shop = Workshop()
    pool = await filled(shop, ready=1)
    shop.may_end.clear()
    closing = asyncio.ensure_future(pool.aclose())
    await turns(1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    shop.may_end.set()
    await bounded(pool.aclose())
    assert shop.exist == 0


async def test_who_waits_for_ready_kernels_hears_of_the_close() -> None:
    shop = Workshop()
    pool = shop.pool(ready=1)
    ready = asyncio.ensure_future(pool.ready(HANG))
    await shop.starting()
    await bounded(pool.aclose())
    with pytest.raises(SessionLost):
        await bounded(ready)


async def test_a_callback_may_use_the_pool() -> None:
    shop = Workshop(at_once=True)
    pool = shop.pool(most=1)
    held = await bounded(pool.take(HANG))
    heard: list[int] = []

    def on_position(position: int) -> None:
        heard.append(position)
        pool.give_back(held)

    task = asyncio.ensure_future(pool.take(HANG, on_position=on_position))
    assert await bounded(task) is not held
    assert heard == [1]
    await bounded(pool.aclose())


async def test_what_changes_while_a_decision_is_performed_is_decided_anew() -> None:
    shop = Workshop(at_once=True)

    def end(kernel: Kernel) -> asyncio.Future[None]:
        pool.resize(2)
        return asyncio.ensure_future(shop.end(kernel))

    pool = KernelPool(shop.start, end, limits=PoolLimits(ready=3, at_once=3, cpus=1, refill_delay=0))
    await bounded(pool.ready(HANG))
    pool.resize(0)
    assert pool.status == PoolStatus(ready=2, starting=0, held=0, ending=1, waiting=0)
    await bounded(pool.aclose())


@pytest.mark.parametrize("seed", range(20))
async def test_in_any_mixture_of_takes_cancels_deaths_and_failures_nothing_is_given_twice_or_left(seed: int) -> None:
    chance = random.Random(seed)
    shop = Workshop(at_once=True)
    most = chance.choice([1, 3, 8])

    async def start() -> Kernel:
        kernel = await shop.start()
        if chance.random() < 0.1:
            shop.exist -= 1
            raise KernelStartError("broken")
        return kernel

    pool = KernelPool(start, shop.end, limits=PoolLimits(ready=chance.choice([0, 1, 3]), most=most, refill_delay=0))
    had: list[Kernel] = []
    actions: list[Callable[[], None]] = [pool.changed, pool.renew, lambda: pool.resize(chance.randrange(4))]

    async def caller() -> None:
        await turns(chance.randrange(40))
        with suppress(KernelStartError):
            kernel = await pool.take(HANG)
            had.append(kernel)
            await turns(chance.randrange(6))
            if chance.random() < 0.2:
                pool.lost(kernel)
            assert not kernel.ended
            pool.give_back(kernel)

    async def disturber() -> None:
        for _ in range(60):
            await turns(1)
            if chance.random() < 0.3:
                chance.choice(actions)()
            if shop.kernels and chance.random() < 0.3:
                pool.lost(chance.choice(shop.kernels))

    async def impatient() -> None:
        task = asyncio.ensure_future(pool.take(HANG))
        await turns(chance.randrange(12))
        task.cancel()
        with suppress(asyncio.CancelledError, KernelStartError):
            kernel = await task
            had.append(kernel)
            pool.give_back(kernel)

    callers = [asyncio.ensure_future(caller() if chance.random() < 0.7 else impatient()) for _ in range(40)]
    await bounded(asyncio.gather(disturber(), *callers))
    assert len(set(map(id, had))) == len(had)
    assert shop.existed <= most
    assert (pool.status.held, pool.status.waiting) == (0, 0)
    await bounded(pool.aclose())
    assert shop.exist == 0
