"""How long an operation waits for a transfer: as long as it gets on."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from containerfs.errors import TimedOut

LEAST_PROGRESS = 64 << 10  # bytes that a transfer must move within the limit to be waited for


class Patience:
    """The mount's `op_timeout`, for what may take longer because there is much to move."""

    def __init__(self, limit: float) -> None:
        """Args:
        limit: Seconds.
        """
        self._limit = limit
        self._scopes: set[trio.CancelScope] = set()
        self._silent_until = -math.inf  # on trio's clock

    def put_off(self, seconds: float) -> None:
        """The server asks to be left alone for so much longer: nothing can get on, nor has to."""
        self._silent_until = max(self._silent_until, trio.current_time()) + seconds
        for scope in self._scopes:
            scope.deadline += seconds

    @contextmanager
    def waiting(self, what: str, *, since: float | None = None) -> Iterator[Callable[[int], None]]:
        """Give up what is done inside once it has not got on for the limit.

        Args:
            since: When nothing has moved since, on trio's clock; None for now.

        Yields:
            To be told the bytes moved so far; they may begin anew.

        Raises:
            TimedOut: It did not get on.
        """
        told = 0
        begun = max(trio.current_time() if since is None else since, self._silent_until)
        if begun + self._limit <= trio.current_time():
            raise self._timed_out(what)
        scope = trio.CancelScope(deadline=begun + self._limit)
        self._scopes.add(scope)
        with scope:

            def progress(moved: int) -> None:
                nonlocal told
                if moved < told:
                    told = moved
                elif moved - told >= LEAST_PROGRESS:
                    told = moved
                    scope.deadline = max(trio.current_time(), self._silent_until) + self._limit

            try:
                yield progress
            finally:
                self._scopes.remove(scope)
        if scope.cancelled_caught:
            raise self._timed_out(what)

    def _timed_out(self, what: str) -> TimedOut:
        return TimedOut(f"{what}: nothing moved for {self._limit:g} s")
