"""How much is logged: after a burst one line a second, whatever fails, and however often.

What is new is told at once: the first entry of its kind, and an error that was not told before.
What comes again waits for its turn. Meanwhile a later entry of its kind takes its place, and the
one that is told says how many went before it: the last word on each kind is never lost.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BURST = 20  # entries that are told at once
PER_SECOND = 1.0  # entries that are told after that
FORGOTTEN = 60.0  # seconds after which a kind is new again
MOST_KINDS = 1_000  # that are remembered


@dataclass(slots=True, eq=False, repr=False)
class _Turns:
    """Who may be told when."""

    since: float
    left: float = float(BURST)
    seen: dict[object, float] = field(default_factory=dict)  # kinds, the last seen at the end
    waiting: dict[object, tuple[logging.LogRecord, int]] = field(default_factory=dict)

    def refill(self, now: float) -> None:
        self.left = min(float(BURST), self.left + (now - self.since) * PER_SECOND)
        self.since = now

    def is_new(self, kind: object, now: float) -> bool:
        """Whether nothing of its kind came lately; too many at once are not."""
        before = self.seen.pop(kind, None)
        self.seen[kind] = now
        if len(self.seen) > MOST_KINDS:
            del self.seen[next(iter(self.seen))]
        is_known = before is not None and now - before < FORGOTTEN
        return not is_known and kind not in self.waiting and self.left > -BURST

    def wait(self, kind: object, record: logging.LogRecord) -> None:
        """Have it told when its turn comes, in place of what waits of its kind."""
        _, count = self.waiting.get(kind, (record, -1))
        self.waiting[kind] = (record, count + 1)

    def next(self) -> logging.LogRecord:
        """The one whose kind waits longest."""
        record, count = self.waiting.pop(next(iter(self.waiting)))
        if count:
            record.msg = f"{record.msg} ({count} more like this were not logged)"
        return record


class VolumeLimit(logging.Handler):
    """Hands on to another handler what is to be told; debugging entries without a limit."""

    def __init__(
        self, target: logging.Handler, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args:
        clock: Seconds.
        """
        super().__init__()
        self._target = target
        self._clock = clock
        self._information = _Turns(since=clock())
        self._warnings = _Turns(since=clock())
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it now, or when its turn comes; the caller holds the lock."""
        if record.levelno <= logging.DEBUG:
            self._target.handle(record)
            return
        turns = self._warnings if record.levelno >= logging.WARNING else self._information
        now = self._clock()
        turns.refill(now)
        kind = _kind(record)
        if turns.is_new(kind, now):
            turns.left -= 1
            self._target.handle(record)
        else:
            turns.wait(kind, record)
        self._take_turns()

    def _take_turns(self) -> None:
        for turns in (self._warnings, self._information):
            while turns.waiting and turns.left >= 1:
                turns.left -= 1
                self._target.handle(turns.next())
        if self._timer is None and (self._warnings.waiting or self._information.waiting):
            self._timer = threading.Timer(1 / PER_SECOND, self._later)
            self._timer.daemon = True
            self._timer.start()

    def _later(self) -> None:
        self.acquire()
        try:
            self._timer = None
            for turns in (self._warnings, self._information):
                turns.refill(self._clock())
            self._take_turns()
        finally:
            self.release()

    def close(self) -> None:
        """Tell all that waits: one entry a kind."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
            for turns in (self._warnings, self._information):
                while turns.waiting:
                    self._target.handle(turns.next())
        finally:
            self.release()
        self._target.close()
        super().close()


def _kind(record: logging.LogRecord) -> object:
    """What two entries have in common when one can stand for the other."""
    if record.exc_info and record.exc_info[2]:
        trace = record.exc_info[2]
        while trace.tb_next:
            trace = trace.tb_next
        place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        return (record.name, record.msg, record.exc_info[0], place)
    if record.levelno >= logging.ERROR:
        return (record.name, record.getMessage())
    return (record.name, record.levelno, record.msg)
