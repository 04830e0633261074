"""Changes of the state database for files that nobody waits for one by one, in one transaction.

What is written of a thousand files that are sent at the same time is mostly the same few pages, and
each transaction writes all those that it touches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from containerfs.cache.state import State

GATHERED = 0.002  # seconds in which changes come together

T = TypeVar("T")


@dataclass(slots=True, eq=False, repr=False)
class _Asked(Generic[T]):
    """A change that waits for its transaction, and then what came of it."""

    change: Callable[[], T]
    result: T | None = None
    error: Exception | None = None


class Batches:
    """Commits what many ask for at about the same time at once."""

    def __init__(self, *, state: State) -> None:
        self._state = state
        self._asked: list[_Asked[object]] = []
        self._done = trio.Event()  # for those

    async def commit(self, change: Callable[[], T], *, alone: bool) -> T:
        """Call *change*, and return its result once what it recorded is committed.

        Whoever asks can't be cancelled meanwhile: the change is made, or has failed, in the end.

        Args:
            change: Consistent by itself; where the others' transaction fails it is called again.
            alone: Now, not in a moment with others.

        Raises:
            LocalFault, NoSpace: It could not be committed; nothing of it was.
        """
        if alone:
            return change()
        asked: _Asked[T] = _Asked(change)
        self._asked.append(asked)  # type: ignore[arg-type]  # its result is read here only
        with trio.CancelScope(shield=True):
            if len(self._asked) > 1:
                await self._done.wait()
            else:
                await trio.sleep(GATHERED)
                self._commit()
        if asked.error is not None:
            raise asked.error
        return asked.result  # type: ignore[return-value]  # it was called

    def _commit(self) -> None:
        asked, self._asked = self._asked, []
        done, self._done = self._done, trio.Event()
        try:
            with self._state.transaction():
                for each in asked:
                    each.result = each.change()
        except Exception:  # one must not be the failure of all: each by itself
            for each in asked:
                try:
                    with self._state.transaction():
                        each.result = each.change()
                except Exception as exc:
                    each.error = exc
        done.set()
