"""What is to be sent in the background, each when its time has come.

A few workers take what is due, the first due first: a thousand files that were closed at once are
not a thousand tasks that wait for each other.
"""

import heapq
import math
from collections.abc import Awaitable, Callable

import trio

MOST = 64  # that are sent at one time, unless there may be more connections


class Departures:
    """Calls what it was given, at its time; what it calls must not fail."""

    def __init__(self, *, nursery: trio.Nursery, connections: int = 0) -> None:
        """Args:
        connections: How many the server may be asked for.
        """
        self.most = max(MOST, connections)  # that are sent at one time
        self._nursery = nursery
        self._due: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []  # a heap
        self._count = 0
        self._workers = 0
        self._rest: trio.CancelScope | None = None  # of who waits until something is due
        self._is_watched = False

    def add(self, send: Callable[[], Awaitable[None]], *, after: float) -> None:
        """Call *send* in *after* seconds, or as soon after that as a worker is free."""
        at = trio.current_time() + after
        self._count += 1
        heapq.heappush(self._due, (at, self._count, send))
        if not self._is_watched:
            self._is_watched = True
            self._nursery.start_soon(self._watch)
        elif self._rest is not None and self._workers < self.most and at < self._rest.deadline:
            self._rest.deadline = at

    def aside(self, call: Callable[[], Awaitable[None]], *, after: float) -> None:
        """Call *call* in *after* seconds, whatever else is due."""

        async def later() -> None:
            await trio.sleep(after)
            await call()

        self._nursery.start_soon(later)

    async def _watch(self) -> None:
        """Have a worker for what is due, for as long as anything will be."""
        try:
            while self._due:
                if self._is_due and self._workers < self.most:
                    self._workers += 1
                    self._nursery.start_soon(self._work)
                    await trio.lowlevel.checkpoint()  # it takes what is due
                    continue
                next_due = self._due[0][0] if self._workers < self.most else math.inf
                with trio.CancelScope(deadline=next_due) as self._rest:
                    await trio.sleep_forever()
                self._rest = None
        finally:
            self._is_watched = False

    async def _work(self) -> None:
        try:
            while self._is_due:
                _, _, send = heapq.heappop(self._due)
                await send()
        finally:
            self._workers -= 1
            if self._rest is not None and self._due:
                self._rest.deadline = self._due[0][0]

    @property
    def _is_due(self) -> bool:
        return bool(self._due) and self._due[0][0] <= trio.current_time()
