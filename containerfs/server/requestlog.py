"""What the server was asked, in order of arrival: for tests and benchmarks that count requests."""

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

CAPACITY = 100_000  # requests; older ones are forgotten


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request; what is known of its answer is filled in as it is sent."""

    method: str
    path: str
    query: str
    operation: str | None  # None for an unknown route
    status: int | None = None  # None where no answer was begun
    request_id: str
    at: float = field(default_factory=time.monotonic)  # when it arrived, in seconds
    bytes_in: int = 0  # of the body, as far as it was read
    bytes_out: int = 0  # of the body


class RequestLog:
    """The last requests, in memory."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=CAPACITY)

    def add(self, entry: Entry) -> None:
        """A request has arrived."""
        self._entries.append(entry)

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        return [asdict(entry) for entry in self._entries]
