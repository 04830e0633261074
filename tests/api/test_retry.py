"""When something is sent again, and after how long."""

import itertools
from datetime import UTC, datetime

import pytest
import trio
import trio.testing

from containerfs.api.retry import Refusal, Schedule, asked_wait, is_retriable, own_wait, repeat
from containerfs.errors import RateLimited, ServerFault

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_these_statuses_are_repeated(status: int) -> None:
    assert is_retriable(status, {})
    assert not is_retriable(status, {"x-should-retry": "false"})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_these_statuses_are_not_repeated(status: int) -> None:
    assert not is_retriable(status, {})
    assert is_retriable(status, {"x-should-retry": "true"})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "9"}, 9),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Fri, 02 Jan 2026 03:05:05 GMT"}, 60),
        ({"retry-after": "Fri, 02 Jan 2026 03:05:05 -0000"}, 60),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "121"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Fri, 02 Jan 2026 03:00:00 GMT"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3),
        ({}, None),
    ],
)
def test_the_server_is_believed_up_to_two_minutes(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert asked_wait(headers, now=NOW) == seconds


def test_waits_double_from_half_a_second_to_eight_and_are_jittered_downwards() -> None:
    longest = [own_wait(n, jitter=lambda: 0.0) for n in range(7)]
    assert longest == [0.5, 1, 2, 4, 8, 8, 8]
    assert own_wait(0, jitter=lambda: 1.0) == 0.375


def refusal(wait: float | None = None, *, retriable: bool = True) -> Refusal:
    return Refusal(error=ServerFault("no"), is_retriable=retriable, wait=wait)


async def test_attempts_go_on_until_one_succeeds(autojump_clock: trio.testing.MockClock) -> None:
    outcomes = [refusal(2.0), refusal(3.0), "yes"]

    async def attempt(number: int) -> str | Refusal:
        return outcomes[number]

    assert await repeat(attempt, schedule=Schedule(), what="x") == "yes"
    assert trio.current_time() == 5.0


async def test_what_is_refused_for_coming_too_often_is_no_attempt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    too_often = Refusal(error=RateLimited("slow down"), is_retriable=True, wait=1.0)
    outcomes = [too_often, refusal(1.0), too_often, too_often, refusal(1.0), "too late"]

    async def attempt(number: int) -> str | Refusal:
        return outcomes[number]

    with pytest.raises(ServerFault):
        await repeat(attempt, schedule=Schedule(most_attempts=2), what="x")
    assert trio.current_time() == 4.0


@pytest.mark.parametrize("wait", [0.0, 0.01])
async def test_who_is_refused_again_and_again_and_asked_for_no_wait_waits_longer_and_gives_up(
    autojump_clock: trio.testing.MockClock, wait: float
) -> None:
    at = []

    async def attempt(number: int) -> str | Refusal:
        at.append(trio.current_time())
        assert number < 20
        return Refusal(error=RateLimited("slow down"), is_retriable=True, wait=wait)

    with pytest.raises(RateLimited):
        await repeat(attempt, schedule=Schedule(patience=30.0, most_attempts=5), what="x")
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert pauses[0] == wait  # it may mean it
    assert pauses[1] > 0.5
    assert pauses[-1] > 5
    assert at[-1] < 31


async def test_a_wait_beyond_the_deadline_is_not_begun(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def attempt(number: int) -> Refusal:
        return Refusal(error=RateLimited("slow down"), is_retriable=True, wait=11.0)

    with pytest.raises(RateLimited):
        await repeat(attempt, schedule=Schedule(deadline=trio.current_time() + 10), what="x")
    assert trio.current_time() == 0.0


async def test_a_wait_that_the_server_asks_for_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    outcomes = [refusal(11.0), refusal(11.0), "yes"]

    async def attempt(number: int) -> str | Refusal:
        return outcomes[number]

    schedule = Schedule(deadline=trio.current_time() + 10, grace=23.0)
    schedule.scope = trio.CancelScope(deadline=schedule.deadline)
    with schedule.scope:
        assert await repeat(attempt, schedule=schedule, what="x") == "yes"
    assert trio.current_time() == 22.0


async def test_a_server_can_ask_for_so_much_only(autojump_clock: trio.testing.MockClock) -> None:
    async def attempt(number: int) -> Refusal:
        return refusal(11.0)

    schedule = Schedule(deadline=trio.current_time() + 10, grace=23.0)
    with pytest.raises(ServerFault):
        await repeat(attempt, schedule=schedule, what="x")
    assert trio.current_time() == 22.0


async def test_waits_of_a_transfer_are_bounded_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    numbers = []

    async def attempt(number: int) -> Refusal:
        numbers.append(number)
        return refusal(4.0)

    with pytest.raises(ServerFault):
        await repeat(attempt, schedule=Schedule(patience=10.0), what="x")
    assert numbers == [0, 1, 2]


async def test_what_may_not_be_repeated_is_tried_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    numbers = []

    async def attempt(number: int) -> Refusal:
        numbers.append(number)
        return refusal(retriable=False)

    with pytest.raises(ServerFault):
        await repeat(attempt, schedule=Schedule(), what="x")
    assert numbers == [0]
