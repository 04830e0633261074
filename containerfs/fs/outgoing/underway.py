"""Names that something is being sent as, or looked for: never both at once.

Who looks for what was sent before knows it by its name and content. What is just arriving, and
nobody here has been told of, would be taken for it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

Name = tuple[str, str]  # container id, and the last component: a server may drop the others


def name_of(container_id: str, path: str) -> Name:
    """What an upload as *path* may be taken for another one by."""
    return container_id, path.rpartition("/")[2]


class UnderWay:
    """What is sent, and what is looked for, by their names."""

    def __init__(self) -> None:
        self._sent: Counter[Name] = Counter()
        self._sought: Counter[Name] = Counter()
        self._over = trio.Event()  # some of it is

    def is_sent(self, name: Name) -> bool:
        return bool(self._sent[name])

    def is_sought(self, name: Name) -> bool:
        return bool(self._sought[name])

    async def less(self) -> None:
        """Return when some of it is over."""
        await self._over.wait()

    @contextmanager
    def sending(self, name: Name) -> Iterator[None]:
        """Around an upload, which begins where `is_sought` has just said no."""
        with self._counted(self._sent, name):
            yield

    @asynccontextmanager
    async def looking(self, name: Name) -> AsyncIterator[None]:
        """Around a search; it begins once nothing is sent, and nothing is until it ends."""
        with self._counted(self._sought, name):
            while self.is_sent(name):
                await self.less()
            yield

    @contextmanager
    def _counted(self, those: Counter[Name], name: Name) -> Iterator[None]:
        those[name] += 1
        try:
            yield
        finally:
            those[name] -= 1
            if not those[name]:
                del those[name]
                over, self._over = self._over, trio.Event()
                over.set()
