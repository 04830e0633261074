"""How many requests are under way at once."""

from functools import partial

import pytest
import trio
import trio.testing

from containerfs.api.limits import START, TRANSFER_SHARE, Limiter
from containerfs.errors import RateLimited


async def hold(limiter: Limiter, number: int, order: list[int], *, transfer: bool = False) -> None:
    async with limiter.place(is_transfer=transfer):
        order.append(number)
        await trio.sleep(1)


async def test_no_more_places_are_given_than_there_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limiter = Limiter(maximum=3)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(hold, limiter, number, [])
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.in_use == 3
    assert limiter.in_use == 0


async def test_who_comes_first_is_served_first(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(maximum=1)
    order: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(hold, limiter, number, order)
            await trio.testing.wait_all_tasks_blocked()
    assert order == list(range(6))


async def test_who_gives_up_waiting_loses_no_place(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(maximum=1)
    order: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, limiter, 0, order)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await hold(limiter, 1, order)
        await hold(limiter, 2, order)
    assert order == [0, 2]
    assert limiter.in_use == 0


async def test_transfers_leave_places_for_metadata(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter(maximum=8)
    order: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(partial(hold, limiter, number, [], transfer=True))
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.in_use == 6
        nursery.start_soon(hold, limiter, 99, order)
        await trio.testing.wait_all_tasks_blocked()
        assert order == [99]


async def test_the_limit_grows_while_it_is_used_up_and_answers_are_quick() -> None:
    limiter = Limiter(maximum=2 * START)
    async with trio.open_nursery() as nursery:
        for number in range(2 * START):
            nursery.start_soon(hold, limiter, number, [])
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(START):
            limiter.answered(after=0.01)
        assert limiter.limit > START - 1
        for _ in range(10_000):
            limiter.answered(after=0.01)
        nursery.cancel_scope.cancel()
    assert START < limiter.limit <= 2 * START


async def test_the_limit_doubles_with_each_round_until_the_first_429() -> None:
    limiter = Limiter(maximum=4 * START)
    async with trio.open_nursery() as nursery:
        for number in range(4 * START):
            nursery.start_soon(hold, limiter, number, [])
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(START):
            limiter.answered(after=0.01)
        assert limiter.limit == 2 * START
        limiter.refused(sent_at=trio.current_time(), wait=None)
        assert limiter.limit == START
        for _ in range(START):
            limiter.answered(after=0.01)
        assert limiter.limit in (START, START + 1)
        nursery.cancel_scope.cancel()


async def test_the_limit_grows_where_all_that_is_under_way_are_transfers() -> None:
    limiter = Limiter(maximum=2 * START)
    async with trio.open_nursery() as nursery:
        for number in range(2 * START):
            nursery.start_soon(partial(hold, limiter, number, [], transfer=True))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(START):
            limiter.answered(after=0.01)
        assert limiter.limit == 2 * START
        assert limiter.in_use == 2 * START * TRANSFER_SHARE
        nursery.cancel_scope.cancel()


async def test_the_limit_does_not_grow_unused() -> None:
    limiter = Limiter(maximum=2 * START)
    for _ in range(1000):
        limiter.answered(after=0.01)
    assert limiter.limit == START


async def test_429_halves_once_for_all_requests_of_one_moment() -> None:
    limiter = Limiter(maximum=2 * START)
    sent_at = trio.current_time() - 1
    for _ in range(10):
        limiter.refused(sent_at=sent_at, wait=None)
    assert limiter.limit == START // 2


async def test_nobody_goes_on_while_a_retry_after_runs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limiter = Limiter(maximum=4)
    limiter.refused(sent_at=0.0, wait=7.0)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(limiter.sit_out_pause, 100.0)
    assert trio.current_time() == 7.0


async def test_a_pause_beyond_the_deadline_is_refused_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limiter = Limiter(maximum=4)
    limiter.refused(sent_at=0.0, wait=7.0)
    with pytest.raises(RateLimited):
        await limiter.sit_out_pause(6.0)
    assert trio.current_time() == 0.0


async def test_who_wants_to_know_is_told_of_each_pause_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limiter = Limiter(maximum=4)
    told: list[float] = []
    limiter.on_pause = told.append
    limiter.refused(sent_at=0.0, wait=7.0)
    await trio.sleep(2)
    limiter.refused(sent_at=0.0, wait=5.0)  # the same
    limiter.refused(sent_at=0.0, wait=None)
    limiter.refused(sent_at=0.0, wait=8.0)  # three more
    assert told == [7.0, 3.0]
