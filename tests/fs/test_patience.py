"""What is waited for as long as it gets on."""

import pytest
import trio

from containerfs.errors import TimedOut
from containerfs.fs.patience import LEAST_PROGRESS, Patience


async def move(patience, *, by):
    """Four times so many bytes, nine seconds after each other."""
    with patience.waiting("it") as progress:
        for number in range(1, 5):
            await trio.sleep(9)
            progress(number * by)


async def test_what_does_not_move_is_given_up(autojump_clock):
    with pytest.raises(TimedOut), Patience(10).waiting("it"):
        await trio.sleep(11)
    assert trio.current_time() == 10


async def test_what_moves_is_waited_for(autojump_clock):
    await move(Patience(10), by=LEAST_PROGRESS)
    assert trio.current_time() == 36


async def test_what_moves_too_little_is_given_up(autojump_clock):
    with pytest.raises(TimedOut):
        await move(Patience(10), by=1)
    assert trio.current_time() == 10


async def test_a_pause_that_the_server_asks_for_does_not_count(autojump_clock):
    patience = Patience(10)
    with patience.waiting("it"):
        await trio.sleep(5)
        patience.put_off(60)
        await trio.sleep(64)
    with pytest.raises(TimedOut), patience.waiting("another"):
        await trio.sleep(11)


async def test_what_begins_in_such_a_pause_has_its_time_after_it(autojump_clock):
    patience = Patience(10)
    patience.put_off(60)
    with patience.waiting("it") as progress:
        await trio.sleep(50)
        progress(LEAST_PROGRESS)
        await trio.sleep(19)
    with pytest.raises(TimedOut), patience.waiting("another"):
        await trio.sleep(11)


async def test_who_has_waited_already_waits_for_the_rest(autojump_clock):
    patience = Patience(10)
    await trio.sleep(20)
    with pytest.raises(TimedOut), patience.waiting("it", since=14):
        await trio.sleep(11)
    assert trio.current_time() == 24
    with pytest.raises(TimedOut), patience.waiting("it", since=14):
        pytest.fail("it is not even begun")
