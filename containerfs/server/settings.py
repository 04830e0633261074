"""What a server is started with."""

from dataclasses import dataclass, field
from pathlib import Path

from containerfs.server.behaviours import Behaviours
from containerfs.server.faults import Fault


class ServeError(Exception):
    """The server can't start; the message says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Everything `serve` needs to know."""

    data: Path  # directory of the database and the contents; made if missing
    host: str = "127.0.0.1"
    port: int = 0  # 0: one that the system chooses
    uds: Path | None = None  # a Unix socket instead of host and port
    api_key_file: Path | None = None  # whoever asks must know the key in it
    behaviours: Behaviours = field(default_factory=Behaviours)
    faults: tuple[Fault, ...] = ()
    admin: bool = False  # whether the admin routes exist
    until_eof: bool = False  # stop when standard input ends
