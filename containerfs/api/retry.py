"""When a failed request is sent again, and after how long.

Repeated are connection failures, time-outs, 408, 409, 429 and 5xx, unless the server's
`x-should-retry` says otherwise. The wait is what the server asks for (`retry-after-ms`,
`retry-after` in seconds or as a date) when that is 120 s or less, else min(0.5·2ⁿ, 8) s with
jitter; less than half a second is believed once. A 429 is no attempt: the server did nothing, and
time alone ends it. A request that creates something is only repeated when the server certainly did
not act on it: the service has no idempotency key, and what is created twice is billed twice.
"""

import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import trio

from containerfs.errors import FileSystemError, RateLimited

log = logging.getLogger(__name__)

LONGEST_ASKED = 120.0  # seconds; a longer Retry-After is not believed
GRACE = 75.0  # seconds of such waits that a call's limits do not count: a minute, and a margin
FIRST_WAIT = 0.5  # seconds
LONGEST_WAIT = 8.0  # seconds

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Refusal:
    """One attempt that failed, and what follows from it."""

    error: FileSystemError
    is_retriable: bool
    wait: float | None = None  # seconds the server asks for
    most_attempts: float = math.inf  # how often it is worth trying in the face of this


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Schedule:
    """How long to go on.

    Attributes:
        deadline: On trio's clock; a wait that would pass it is not begun.
        patience: Seconds that all waits together may take.
        grace: Seconds of waits that the server asks for, which do not count; what would use it up
            counts. A limit of so many requests a minute asks for up to a minute.
        scope: Ends what is under way at the deadline.
    """

    deadline: float = math.inf
    patience: float = math.inf
    most_attempts: float = math.inf
    grace: float = 0.0
    scope: trio.CancelScope | None = None

    def put_off(self, wait: float) -> None:
        """The server asks for a wait of so many seconds: have all limits that much later."""
        if 0 < wait < self.grace:
            self.grace -= wait
            self.deadline += wait
            self.patience += wait
            if self.scope is not None:
                self.scope.deadline = self.deadline

    def latest(self, now: float) -> float:
        """When a wait that begins now must have ended, on trio's clock."""
        return min(self.deadline, now + self.patience)


def is_retriable(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer of this *status* is worth another attempt."""
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    return status in (408, 409, 429) or status >= 500


def asked_wait(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """The seconds the server asks to be left alone for, where it names a believable number.

    Args:
        now: What a date counts from, else the answer's own: our clocks may differ.
    """
    wait = _number(headers.get("retry-after-ms"), scale=0.001)
    if wait is None:
        wait = _number(headers.get("retry-after"))
    if wait is None:
        now = now or http_date(headers.get("date")) or datetime.now(UTC)
        wait = _seconds_until(headers.get("retry-after"), now=now)
    return wait if wait is not None and 0 <= wait <= LONGEST_ASKED else None


def own_wait(attempt: int, *, jitter: Callable[[], float] = random.random) -> float:
    """The seconds to wait after failed attempt number *attempt* (0 is the first)."""
    longest = min(FIRST_WAIT * 2.0 ** min(attempt, 16), LONGEST_WAIT)
    return longest * (1 - 0.25 * jitter())


async def repeat(
    attempt: Callable[[int], Awaitable[T | Refusal]], *, schedule: Schedule, what: object
) -> T:
    """Call *attempt* (with 0, 1, 2…) until it succeeds or may not be repeated.

    Args:
        what: The operation, as the log is to print it.

    Raises:
        FileSystemError: The last refusal's error; at once if the next wait would pass the deadline.
    """
    number = refused = 0
    waited = 0.0
    while True:
        outcome = await attempt(number)
        if not isinstance(outcome, Refusal):
            return outcome
        wait = _wait(outcome.wait, number)
        schedule.put_off(outcome.wait or 0.0)
        number += 1
        refused += isinstance(outcome.error, RateLimited)
        waited += wait
        is_last = number - refused >= min(schedule.most_attempts, outcome.most_attempts)
        is_late = trio.current_time() + wait >= schedule.deadline or waited > schedule.patience
        if not outcome.is_retriable or is_last or is_late:
            raise outcome.error
        log.info("%s: again in %.2f s, because of: %s", what, wait, outcome.error)
        await trio.sleep(wait)


def _wait(asked: float | None, number: int) -> float:
    # A server may ask for no wait again and again: what is no attempt would go on without an end.
    is_believed = asked is not None and (asked >= FIRST_WAIT or number == 0)
    return asked if asked is not None and is_believed else own_wait(number)


def _number(text: str | None, *, scale: float = 1.0) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number * scale if math.isfinite(number) else None


def _seconds_until(text: str | None, *, now: datetime) -> float | None:
    when = http_date(text)
    return None if when is None else (when - now).total_seconds()


def http_date(text: str | None) -> datetime | None:
    """The time that a header tells; None where it tells none."""
    from email.utils import parsedate_to_datetime  # seldom needed: starting is import time

    try:
        when = parsedate_to_datetime((text or "")[:100])
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)  # "-0000" means UTC
