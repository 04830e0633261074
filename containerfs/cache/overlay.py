"""What was changed here, laid over a listing for as long as the server's own lags behind.

What was created here is added to it, and what was deleted here is left out of it (tombstones).
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from containerfs.api.types import Container, RemoteFile

OVERLAY_LIFE = 300.0  # how long an object created here is shown without the server listing it
MISSING_LIFE = 300.0  # how long an object is hidden that is listed and answers 404
UNLISTED_LIFE = 60.0  # how long one is hidden at least that was deleted before it was listed

EntryT = TypeVar("EntryT", Container, RemoteFile)


@dataclass(slots=True, eq=False, repr=False)
class Overlay(Generic[EntryT]):
    """Our own changes that a listing may not show yet.

    Attributes:
        unlisted: Ids of what was deleted before the server's own list was seen to hold it. That it
            does not confirms nothing: one that is behind may come to show it yet.
        kept: What is shown, listed or not, while something here is done with it.
    """

    created: dict[str, tuple[EntryT, float]] = field(default_factory=dict)
    deleted: dict[str, float] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    missing: dict[str, float] = field(default_factory=dict)
    kept: dict[str, EntryT] = field(default_factory=dict)

    def over(self, listed: tuple[EntryT, ...]) -> tuple[EntryT, ...]:
        """*listed*, the newest first, as it is with our changes."""
        now = trio.current_time()
        self.missing = {id: until for id, until in self.missing.items() if until > now}
        if self.kept:
            ids = {entry.id for entry in listed}
            listed += tuple(entry for id, entry in self.kept.items() if id not in ids)
        if not self.created and not self.deleted and not self.missing:
            return listed
        own = tuple(entry for entry, _ in reversed(self.created.values()))
        changed = self.changed
        return own + tuple(entry for entry in listed if entry.id not in changed)

    @property
    def changed(self) -> set[str]:
        """The ids of the objects that are not shown as they are listed."""
        return self.created.keys() | self.deleted.keys() | self.missing.keys()

    def delete(self, id: str, *, is_new: bool = False) -> None:
        """The object was deleted here.

        Args:
            is_new: It was made here, and shown to nobody.
        """
        if self.created.pop(id, None) is not None or is_new:
            self.unlisted.add(id)
        self.kept.pop(id, None)
        self.deleted[id] = trio.current_time()

    def settle(self, listed: tuple[EntryT, ...], *, begun: float) -> tuple[list[str], list[str]]:
        """Forget the changes that the server's answer to a request of *begun* confirms.

        Returns:
            The ids whose creation is told by the server's own list from now on, and those whose
            deletion is done.
        """
        if not self.created and not self.deleted:
            return [], []
        ids = {entry.id for entry in listed}
        there = [
            id
            for id, (_, since) in self.created.items()
            if (id in ids and since < begun) or begun - since > OVERLAY_LIFE
        ]
        for id in there:
            del self.created[id]
        self.unlisted -= ids
        gone = [
            id
            for id, since in self.deleted.items()
            if since < begun
            and id not in ids
            and (id not in self.unlisted or begun - since > UNLISTED_LIFE)
        ]
        for id in gone:
            del self.deleted[id]
        self.unlisted.difference_update(gone)
        return there, gone
