"""Streams of content that are taken up again where they broke off."""

import logging
from collections.abc import Awaitable, Callable

import trio

from containerfs.api.body import LEAST_PROGRESS
from containerfs.errors import FileSystemError, TimedOut

log = logging.getLogger(__name__)

ATTEMPTS = 4  # streams in a row that bring little before a failure is the readers'
MUCH = 1 << 20  # bytes; a stream that brought as many counts as a good one
BACK_OFF = 0.5  # seconds before the second stream; doubles


async def persistently(
    stream: Callable[[], Awaitable[None]], *, available: Callable[[], int], what: str
) -> None:
    """Await *stream* anew until it ends well, as long as each brings something.

    One that was too slow has to bring more than a little to be worth another.

    Args:
        available: The bytes that are there so far.
        what: Whose content it is, for the log.

    Raises:
        FileSystemError: Why it broke off the last time.
    """
    failures = 0
    while True:
        before = available()
        try:
            return await stream()
        except FileSystemError as exc:
            brought = available() - before
            failures = 1 if brought >= MUCH else failures + 1
            least = LEAST_PROGRESS if isinstance(exc, TimedOut) else 1
            if not exc.retriable or failures == ATTEMPTS or brought < least:
                raise
            log.info("%s broke off at %d: %s", what, available(), exc)
        await trio.sleep(BACK_OFF * 2 ** (failures - 1))
