"""What the service describes: containers, files, and pages of them."""

from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

DEEPEST = 128  # components of a path that are directories of their own


class Version(NamedTuple):
    """What tells one content of a file from another: the service has no hash or ETag."""

    id: str
    created: int
    size: int | None


class RemoteFile(NamedTuple):
    """What the server last said of a file.

    A tuple, as Version is: a list of 100,000 is made, and compared with the last one, in a quarter
    of the time that it would take with a dataclass.
    """

    id: str
    container_id: str
    path: str
    size: int | None  # bytes; None where the server does not say
    created: int  # Unix seconds; 0 where the server does not say
    source: str | None  # "user", "assistant"; None where the server does not say

    @property
    def version(self) -> Version:
        """Changes when the content does."""
        return Version(self.id, self.created, self.size)

    @property
    def weight(self) -> int:
        """About the characters that it takes to know it, and the directories above it."""
        return len(self.id) + len(self.path) * (1 + min(self.path.count("/"), DEEPEST))


_DEAD = ("expired", "deleted")  # the second is the contract's word for what others saw as expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What the server last said of a container."""

    id: str
    name: str
    created: int  # Unix seconds; 0 where the server does not say
    status: str  # "running" and anything unknown is live
    last_active: int | None = None  # Unix seconds
    expires_after: int | None = None  # idle minutes
    memory_limit: str | None = None
    network_policy: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def weight(self) -> int:
        """About the characters that it takes to know it."""
        return len(self.id) + len(self.name)

    @property
    def is_expired(self) -> bool:
        """Dead: its data is gone. An unknown or missing status counts as live."""
        return self.status.lower() in _DEAD

    @property
    def expires_at(self) -> int | None:
        """Unix seconds at which it dies if nothing touches it, where the server tells enough."""
        if self.last_active is None or self.expires_after is None:
            return None
        return self.last_active + 60 * self.expires_after


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Page(Generic[T]):
    """One answer of a list operation, in the server's order."""

    data: tuple[T, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool
    size: int = 0  # bytes of the answer
