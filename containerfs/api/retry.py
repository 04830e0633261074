"""When a failed request is sent again, and after how long.

Repeated are connection failures, time-outs, 408, 409, 429 and 5xx, unless the server's
`x-should-retry` says otherwise. The wait is what the server asks for (`retry-after-ms`,
`retry-after` in seconds or as a date) when that is 120 s or less, else min(0.5·2ⁿ, 8) s with
jitter. A request that creates something is only repeated when the server certainly did not act on
it: the service has no idempotency key, and what is created twice is billed twice.
"""

import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import trio

from containerfs.errors import FileSystemError

log = logging.getLogger(__name__)

LONGEST_ASKED = 120.0  # seconds; a longer Retry-After is not believed
FIRST_WAIT = 0.5  # seconds
LONGEST_WAIT = 8.0  # seconds

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One attempt that failed, and what follows from it."""

    error: FileSystemError
    is_retriable: bool
    wait: float | None = None  # seconds the server asks for
    most_attempts: float = math.inf  # how often it is worth trying in the face of this


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long to go on."""

    deadline: float = math.inf  # on trio's clock; a wait that would pass it is not begun
    patience: float = math.inf  # seconds that all waits together may take
    most_attempts: float = math.inf

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
    """The seconds the server asks to be left alone for, where it names a believable number."""
    wait = _number(headers.get("retry-after-ms"), scale=0.001)
    if wait is None:
        wait = _number(headers.get("retry-after"))
    if wait is None:
        wait = _seconds_until(headers.get("retry-after"), now=now or datetime.now(UTC))
    return wait if wait is not None and 0 <= wait <= LONGEST_ASKED else None


def own_wait(attempt: int, *, jitter: Callable[[], float] = random.random) -> float:
    """The seconds to wait after failed attempt number *attempt* (0 is the first)."""
    longest = min(FIRST_WAIT * 2.0 ** min(attempt, 16), LONGEST_WAIT)
    return longest * (1 - 0.25 * jitter())


async def repeat(
    attempt: Callable[[int], Awaitable[T | Refusal]], *, schedule: Schedule, what: str
) -> T:
    """Call *attempt* (with 0, 1, 2…) until it succeeds or may not be repeated.

    Args:
        what: The operation, for the log.

    Raises:
        FileSystemError: The last refusal's error; at once if the next wait would pass the deadline.
    """
    number = 0
    waited = 0.0
    while True:
        outcome = await attempt(number)
        if not isinstance(outcome, Refusal):
            return outcome
        wait = own_wait(number) if outcome.wait is None else outcome.wait
        number += 1
        waited += wait
        is_last = number >= min(schedule.most_attempts, outcome.most_attempts)
        is_late = trio.current_time() + wait >= schedule.deadline or waited > schedule.patience
        if not outcome.is_retriable or is_last or is_late:
            raise outcome.error
        log.info("%s: again in %.2f s, because of: %s", what, wait, outcome.error)
        await trio.sleep(wait)


def _number(text: str | None, *, scale: float = 1.0) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number * scale if math.isfinite(number) else None


def _seconds_until(text: str | None, *, now: datetime) -> float | None:
    try:
        when = parsedate_to_datetime((text or "")[:100])
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # "-0000" in a date means UTC
        when = when.replace(tzinfo=UTC)
    return (when - now).total_seconds()
