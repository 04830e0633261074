"""How many requests may be under way at once, as the server takes them.

The limit grows while it is used up and answers are quick: by one for each answer until the server
answers 429 for the first time, then by one for each round of them. It halves at 429, and while a
Retry-After runs nobody sends anything. Turns are first come, first served. Requests and transfers
share the limit, but transfers never take its last quarter: a stalled transfer holds its place
until its inactivity limit, and metadata must go on meanwhile.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from containerfs.errors import RateLimited

START = 100  # all pages of 10,000 files at once, when they are listed again
TRANSFER_SHARE = 0.75
QUICK = 2.0  # an answer is quick when it takes at most this many times the best one seen
SLACK = 0.05  # seconds added to that, so that noise on a short line does not count as slowness


@dataclass(slots=True, eq=False, repr=False)
class _Turn:
    is_transfer: bool
    number: int
    granted: trio.Event = field(default_factory=trio.Event)


class Limiter:
    """Gives out places for requests.

    Args:
        maximum: The most places there will ever be, 1 or more.
        clock: Seconds, as trio counts them.
    """

    def __init__(self, *, maximum: int, clock: Callable[[], float] = trio.current_time) -> None:
        self._maximum = maximum
        self._clock = clock
        self._limit = float(min(START, maximum))
        self._in_use = {False: 0, True: 0}  # by is_transfer
        self._waiting: dict[bool, deque[_Turn]] = {False: deque(), True: deque()}
        self._turns = 0
        self._best = math.inf
        self._halved_at = -math.inf
        self._paused_until = -math.inf
        self.on_pause: Callable[[float], None] = _ignore  # told the seconds, when there are more

    @property
    def limit(self) -> int:
        """How many places there are now."""
        return int(self._limit)

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return self._in_use[False] + self._in_use[True]

    async def enter(self, *, is_transfer: bool = False) -> None:
        """Take a place, once there is one; `leave` gives it back."""
        if not self._waiting[is_transfer] and self._admits(is_transfer):
            self._in_use[is_transfer] += 1
            return
        self._turns += 1
        turn = _Turn(is_transfer, self._turns)
        self._waiting[is_transfer].append(turn)
        try:
            await turn.granted.wait()
        except trio.Cancelled:
            if turn.granted.is_set():
                self.leave(is_transfer=is_transfer)
            else:
                self._waiting[is_transfer].remove(turn)
            raise

    def leave(self, *, is_transfer: bool = False) -> None:
        """Give a place back."""
        self._in_use[is_transfer] -= 1
        self._wake()

    @asynccontextmanager
    async def place(self, *, is_transfer: bool = False) -> AsyncIterator[None]:
        """Hold a place, once there is one."""
        await self.enter(is_transfer=is_transfer)
        try:
            yield
        finally:
            self.leave(is_transfer=is_transfer)

    @property
    def pause(self) -> float:
        """The seconds for which the server still asks for silence."""
        return max(0.0, self._paused_until - self._clock())

    async def sit_out_pause(self, deadline: float) -> None:
        """Return when the server does not ask for silence (any more).

        Raises:
            RateLimited: It asks for it until after *deadline* (on trio's clock); at once.
        """
        while (left := self.pause) > 0:
            if self._paused_until >= deadline:
                raise RateLimited(f"the server asks for {left:.1f} s without requests")
            await trio.sleep(left)

    def answered(self, *, after: float) -> None:
        """An answer's headers came *after* seconds: more places if that was quick."""
        self._best = min(self._best, after)
        if self._is_used_up and after <= self._best * QUICK + SLACK:
            more = 1.0 if self._halved_at == -math.inf else 1 / self._limit
            self._limit = min(float(self._maximum), self._limit + more)
            self._wake()

    def refused(self, *, sent_at: float, wait: float | None) -> None:
        """429 came: half the places, and silence for everyone while the server asks for it.

        Args:
            sent_at: When that request was sent; those sent before the last halving halve no more.
            wait: Seconds the server asked for, None where it named none.
        """
        now = self._clock()
        if sent_at >= self._halved_at:
            self._limit = max(1.0, self._limit / 2)
            self._halved_at = now
        if wait is not None and now + wait > self._paused_until:
            begun = max(now, self._paused_until)
            self._paused_until = now + wait
            self.on_pause(self._paused_until - begun)

    def _wake(self) -> None:
        while admitted := [
            queue[0]
            for is_transfer, queue in self._waiting.items()
            if queue and self._admits(is_transfer)
        ]:
            turn = min(admitted, key=lambda turn: turn.number)
            self._waiting[turn.is_transfer].popleft()
            self._in_use[turn.is_transfer] += 1
            turn.granted.set()

    @property
    def _transfer_share(self) -> int:
        return max(1, int(self._limit * TRANSFER_SHARE))

    @property
    def _is_used_up(self) -> bool:
        return self.in_use >= self.limit or self._in_use[True] >= self._transfer_share

    def _admits(self, is_transfer: bool) -> bool:
        if is_transfer:
            return self._in_use[True] < self._transfer_share and self.in_use < self.limit
        return self.in_use < self.limit or not self._in_use[False]


def _ignore(_: float) -> None:
    """Nobody wants to know."""
