"""The material of all jobs: containers with files whose names, sizes and bytes follow from a rule.

Every server of a run holds the same boxes, so that contestants read the same bytes.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
EPOCH = 1_750_000_000  # when the first file of every box was made, in Unix seconds
A_SECOND = 10  # files that were made in one second
LINE = 63  # characters of a line of text


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much each job has to do."""

    large: int = 256 * MIB  # bytes of the one large file
    small_files: int = 1_000
    small: int = 4096  # bytes of each
    listed_files: int = 10_000
    listed: int = 64  # bytes of each
    listing_life: int = 20  # seconds for which a listing is told to count; reading it takes less
    saved: int = 10 * 1024  # bytes of the file that an editor saves
    random_reads: int = 2_000
    growth_listed: tuple[int, ...] = (1_000, 10_000, 100_000)
    growth_read: tuple[int, ...] = (100, 1_000, 10_000)


QUICK = Sizes(
    large=4 * MIB,
    small_files=40,
    listed_files=300,
    listing_life=1,
    random_reads=100,
    growth_listed=(100, 300),
    growth_read=(10, 40),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A container of files of one size, named 000000.txt and upwards, the oldest first."""

    name: str
    count: int
    size: int  # bytes of each

    @property
    def id(self) -> str:
        """The container's id, where a server lets us choose it."""
        return f"cntr_{_digest(self.name, 24)}"

    def file_name(self, number: int) -> str:
        """What the file is called in every mount."""
        return f"{number:06d}.txt"

    def file_id(self, number: int) -> str:
        """A file's id as live ones look; its last six digits are the number."""
        return f"cfile_{self.created(number):08x}{_digest(self.name, 9)}{number:06d}"

    def created(self, number: int) -> int:
        """Unix seconds."""
        return EPOCH + number // A_SECOND

    def path(self, number: int) -> str:
        """The server's path of a file that a user has uploaded."""
        return f"/mnt/data/{_digest(f'{self.name} {number}', 16)}-{self.file_name(number)}"

    def container_json(self) -> dict[str, Any]:
        """The container as the API describes it."""
        return {
            "id": self.id,
            "object": "container",
            "created_at": EPOCH,
            "status": "running",
            "expires_after": {"anchor": "last_active_at", "minutes": 20},
            "last_active_at": EPOCH,
            "memory_limit": "1g",
            "name": self.name,
        }

    def file_json(self, number: int) -> dict[str, Any]:
        """A file as the API describes it."""
        return {
            "id": self.file_id(number),
            "object": "container.file",
            "created_at": self.created(number),
            "bytes": self.size,
            "container_id": self.id,
            "path": self.path(number),
            "source": "user",
        }

    def chunks(self, number: int) -> Iterator[bytes]:
        """A file's bytes: lines of text, at most 1 MiB at a time."""
        for start in range(0, self.size, MIB):
            length = min(MIB, self.size - start)
            yield _text(f"{self.name} {number} {start}", length)

    def write(self, directory: Path) -> None:
        """Make all files in a directory, which must not exist."""
        directory.mkdir(parents=True)
        for number in range(self.count):
            with open(directory / self.file_name(number), "wb", buffering=0) as file:
                for chunk in self.chunks(number):
                    file.write(chunk)


def as_json(value: Any) -> bytes:
    """JSON as servers send it."""
    return json.dumps(value, separators=(",", ":")).encode()


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _text(seed: str, length: int) -> bytes:
    raw = random.Random(seed).randbytes(length // 2 + 1).hex()
    lines = (raw[at : at + LINE] for at in range(0, length, LINE))
    return "\n".join(lines).encode().ljust(length, b"\n")[:length]
