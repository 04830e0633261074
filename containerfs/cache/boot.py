"""Whether the machine was switched off since it was used last: what was not synced may be lost.

Then the state database is whole, but may be older than other files and the server, and other files
may be older than the database, or hold zeros. A killed process loses nothing of what it wrote.
"""

from pathlib import Path

from containerfs.cache.state import State

SCHEMA = "CREATE TABLE IF NOT EXISTS boot(id TEXT NOT NULL);"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # source: proc_sys_kernel(5)


class Boot:
    """The last boot of the machine that the state was used in."""

    def __init__(self, state: State) -> None:
        self._connection = state.connection
        state.connection.executescript(SCHEMA)
        row = state.connection.execute("SELECT id FROM boot").fetchone()
        self._last = None if row is None else str(row[0])
        self._now = _boot_id()

    @property
    def is_new(self) -> bool:
        """Whether the machine has booted since; False where nobody knows."""
        return self._last is not None and self._now not in (None, self._last)

    def remember(self) -> None:
        """Let this boot be the last; what is written from now on is written in it."""
        if self._now is not None and self._now != self._last:
            self._connection.execute("DELETE FROM boot")
            self._connection.execute("INSERT INTO boot VALUES(?)", (self._now,))


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None
