"""Which complete content is kept, least recently used first: in memory and in the state database.

Where the database fails the memory goes on, and the next mount checks what is on disk. What is new
is written there by many at once: a crash before that makes it a stranger, which the next mount
removes. Until a file was synced, it is not believed any more once the machine was switched off.
What is in a pack has a checksum beside it: a power cut may bring a row back whose place was punched
out already.
"""

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from containerfs.cache.packs import cost
from containerfs.errors import LocalFault, NoSpace

log = logging.getLogger(__name__)

MANY = 256  # new names; as many are written at once

SCHEMA = """
CREATE TABLE IF NOT EXISTS content(
    name TEXT PRIMARY KEY, size INTEGER NOT NULL, used INTEGER NOT NULL,
    address INTEGER, crc INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unsynced(name TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class ContentIndex:
    """Names, sizes, and where in the packs what has no file of its own is.

    Attributes:
        cost: Bytes of disk that all of it takes.
    """

    def __init__(self, connection: sqlite3.Connection, *, after_power_cut: bool = False) -> None:
        """Args:
        after_power_cut: What was not synced may be lost.
        """
        self._connection = connection
        connection.executescript(SCHEMA)
        if "address" not in [row[1] for row in connection.execute("PRAGMA table_info(content)")]:
            # It was made before there were packs.
            connection.execute("ALTER TABLE content ADD COLUMN address INTEGER")
            connection.execute("ALTER TABLE content ADD COLUMN crc INTEGER")
        if after_power_cut:
            connection.execute("DELETE FROM content WHERE name IN (SELECT name FROM unsynced)")
            connection.execute("DELETE FROM unsynced")
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._addresses: dict[str, int] = {}
        self._unproven: dict[str, int] = {}  # checksums
        self._used = 0
        for name, size, self._used, address, crc in connection.execute(
            "SELECT name, size, used, address, crc FROM content ORDER BY used"
        ):
            self._sizes[name] = size
            if address is not None:
                self._addresses[name], self._unproven[name] = address, crc
        # When they were used, and their checksums; the database has none of them.
        self._unwritten: dict[str, tuple[int, int | None]] = {}
        self._new: set[str] = set()  # since the unsynced ones were asked for
        self.cost = sum(map(cost, self._sizes.values()))

    def __iter__(self) -> Iterator[str]:
        """The names, the least recently used first."""
        return iter(self._sizes)

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def size(self, name: str) -> int | None:
        """Bytes of *name*; None where it is not kept."""
        return self._sizes.get(name)

    def address(self, name: str) -> int | None:
        """Where in the packs *name* is; None where it has a file, or is not kept."""
        return self._addresses.get(name)

    def checksum(self, name: str) -> int | None:
        """The CRC-32 that an earlier mount's *name* must have; None where it is beyond doubt."""
        return self._unproven.get(name)

    def proved(self, name: str) -> None:
        """*name* has its checksum."""
        self._unproven.pop(name, None)

    @property
    def addresses(self) -> list[tuple[int, int]]:
        """All addresses, and the sizes of what is there."""
        return [(address, self._sizes[name]) for name, address in self._addresses.items()]

    def touch(self, name: str) -> None:
        """*name* was used now."""
        self._sizes.move_to_end(name)

    def add(
        self, name: str, size: int, *, address: int | None = None, crc: int | None = None
    ) -> None:
        """*name* is kept from now on, and was used now; an earlier one is forgotten.

        Args:
            address, crc: Its place and its CRC-32, if it is in a pack.
        """
        if name in self._sizes:
            self.drop(name)
        self._sizes[name] = size
        if address is not None:
            self._addresses[name] = address
        self._new.add(name)
        self.cost += cost(size)
        self._used += 1
        self._unwritten[name] = self._used, crc
        if len(self._unwritten) >= MANY:
            self.write()

    def write(self) -> None:
        """Have the database know all that is new."""
        if not self._unwritten:
            return
        rows = [
            (name, self._sizes[name], used, self._addresses.get(name), crc)
            for name, (used, crc) in self._unwritten.items()
        ]
        self._unwritten.clear()
        with _not_indexed(), self._at_once():
            self._connection.executemany(
                "INSERT OR IGNORE INTO unsynced VALUES(?)", [row[:1] for row in rows]
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO content VALUES(?, ?, ?, ?, ?)", rows
            )

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        if self._connection.in_transaction:  # somebody else's: what comes to nothing is a stranger
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._commit()

    def _commit(self) -> None:
        if self._connection.in_transaction:  # a full disk may have ended it already
            self._connection.execute("COMMIT")

    def drop(self, name: str) -> None:
        """*name* is kept no more; unknown names are fine."""
        size = self._sizes.pop(name, None)
        self._addresses.pop(name, None)
        self._unproven.pop(name, None)
        if size is not None:
            self.cost -= cost(size)
        if self._unwritten.pop(name, None) is not None:
            return
        with _not_indexed():
            self._connection.execute("DELETE FROM content WHERE name = ?", (name,))

    def unsynced(self) -> list[str]:
        """What may not be on the disk yet; for `synced`, once it is."""
        self.write()
        self._new.clear()
        names: list[str] = []
        with _not_indexed():
            names.extend(name for (name,) in self._connection.execute("SELECT name FROM unsynced"))
        return names

    def synced(self, names: list[str]) -> None:
        """These are on the disk, or are kept no more; what came under their names since is not."""
        rows = [(name,) for name in names if name not in self._new]
        with _not_indexed():
            self._connection.executemany("DELETE FROM unsynced WHERE name = ?", rows)

    def save(self) -> None:
        """Remember for the next mount in which order content was used."""
        self.write()
        rows = [(rank, name) for rank, name in enumerate(self._sizes)]
        with _not_indexed(), self._at_once():
            self._connection.executemany("UPDATE content SET used = ? WHERE name = ?", rows)


@contextmanager
def _not_indexed() -> Iterator[None]:
    """Go on where the index fails inside: the next mount checks it against what is on disk."""
    try:
        yield
    except (NoSpace, LocalFault) as exc:
        log.warning("the index of the cache is not up to date: %s", exc)
