"""What is sent in the background: in the order of its time, and not too much at once."""

import pytest
import trio
import trio.testing

from containerfs.fs.outgoing.departures import MOST, Departures


async def test_each_is_sent_at_its_time_whatever_the_order_of_coming(autojump_clock, nursery):
    departures, sent = Departures(nursery=nursery), []
    begun = trio.current_time()

    async def send(name):
        sent.append((name, round(trio.current_time() - begun)))

    departures.add(lambda: send("late"), after=10)
    await trio.testing.wait_all_tasks_blocked()
    departures.add(lambda: send("soon"), after=5)
    departures.add(lambda: send("now"), after=0)
    await trio.sleep(20)
    departures.add(lambda: send("again"), after=1)
    await trio.sleep(5)
    assert sent == [("now", 0), ("soon", 5), ("late", 10), ("again", 21)]


async def test_one_that_takes_long_does_not_hold_up_the_others(autojump_clock, nursery):
    departures, sent = Departures(nursery=nursery), []

    async def send(number):
        if not number:
            await trio.sleep(100)
        sent.append(number)

    for number in range(5):
        departures.add(lambda number=number: send(number), after=1)
    await trio.sleep(2)
    assert sorted(sent) == [1, 2, 3, 4]


@pytest.mark.parametrize(("connections", "bound"), [(1, MOST), (MOST + 10, MOST + 10)])
async def test_no_more_than_a_bound_are_sent_at_once_and_all_are(
    autojump_clock, nursery, connections, bound
):
    departures, sent = Departures(nursery=nursery, connections=connections), []
    under_way, most = 0, 0

    async def send(number):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(1)
        under_way -= 1
        sent.append(number)

    for number in range(3 * MOST):
        departures.add(lambda number=number: send(number), after=0)
    departures.add(lambda: send(-1), after=1.5)
    await trio.sleep(10)
    assert most == bound
    assert sorted(sent) == list(range(-1, 3 * MOST))
