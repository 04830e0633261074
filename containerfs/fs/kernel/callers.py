"""Which program a request comes from."""

from pathlib import Path


def program(pid: int) -> str | None:
    """The name of the program that a process runs, at most 15 bytes of it.

    Args:
        pid: As the request has it: 0 for a process that this one can't see.

    Returns:
        None where it can't be told.
    """
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return None
