"""How the mount waits for the kernel's next request: look first, sleep only where none comes.

pyfuse3 takes a lock and a pass through the event loop for each request, which costs more than
most requests do. It finds trio by an attribute of its own module, which its asyncio support
replaces too; `Receiving` stands there instead and makes the wait short.
"""

import os
import select
import time
from collections.abc import Callable
from typing import Any, Self

import trio

LINGER = 50e-6  # seconds to look out for the request that mostly follows an answer at once
TURN = 1e-3  # seconds of answering without a break; then other tasks have theirs


class Receiving:
    """What pyfuse3 takes for the modules `trio` and `trio.lowlevel`, and for its lock."""

    def __init__(self, *, is_busy: Callable[[], bool], turn: float = TURN) -> None:
        """Args:
        is_busy: Whether there is other work that lingering would keep waiting.
        turn: Seconds of answering without a break.
        """
        self.lowlevel = self
        self._is_busy = is_busy
        self._turn = turn
        self._lock = trio.Lock()
        self._poll: select.poll | None = None
        self._has_request = False
        self._turn_ends = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio if hasattr(trio, name) else trio.lowlevel, name)

    def Lock(self) -> Self:  # noqa: N802 - trio's name
        return self

    async def __aenter__(self) -> None:
        """Have the right to wait for a request, or see that there is one already.

        Who sees one passes those who wait: it is there to be read by whoever comes first.
        """
        self._has_request = self._sees_request()
        if not self._has_request:
            await self._lock.acquire()

    async def __aexit__(self, *exc: object) -> None:
        if self._has_request:
            self._has_request = False
        else:
            self._lock.release()

    def _sees_request(self) -> bool:
        now = time.perf_counter()
        if self._poll is None or now > self._turn_ends:
            return False
        end = now if self._is_busy() else now + LINGER
        while not self._poll.poll(0):
            if time.perf_counter() >= end:
                return False
            os.sched_yield()  # whose request it will be may share this processor
        return True

    async def wait_readable(self, fd: int) -> None:
        """Return when *fd* has a request, and nobody can have read it before the caller does."""
        if self._has_request:
            return
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        await trio.lowlevel.wait_readable(fd)
        while not self._poll.poll(0):  # another one saw it first
            await trio.lowlevel.wait_readable(fd)
        self._turn_ends = time.perf_counter() + self._turn
