"""How much is logged: what happens again and again is told once a second, with a count."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

BURST = 20  # entries of one kind that are told at once
PER_SECOND = 1.0  # entries of one kind that are told after that


@dataclass(slots=True)
class _Kind:
    """Entries of one place in the code."""

    left: float = float(BURST)
    since: float = 0.0
    dropped: int = 0


class VolumeFilter(logging.Filter):
    """Drops entries of a kind that comes too often; the next one tells how many went before."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        clock: Seconds.
        """
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int, object], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to tell it."""
        if record.levelno <= logging.DEBUG:
            return True
        kind = self._kinds.setdefault((record.name, record.levelno, record.msg), _Kind())
        now = self._clock()
        kind.left = min(BURST, kind.left + (now - kind.since) * PER_SECOND)
        kind.since = now
        if kind.left < 1:
            kind.dropped += 1
            return False
        kind.left -= 1
        if kind.dropped:
            record.msg = f"{record.msg} ({kind.dropped} more like this were not logged)"
            kind.dropped = 0
        return True
