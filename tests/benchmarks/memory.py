"""Memory that a virtual machine has never used: whoever touches it first waits for the host."""

import mmap
from contextlib import ExitStack, suppress
from pathlib import Path

_CHUNK = 256 << 20  # bytes
_SHARE = 0.75  # of what is free; the rest is left to who else is at work
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


def touch() -> None:
    """Use most of what is free once, and give it back.

    Where the README's figures come from, the first use of a page took 11 µs and a later one 1.6 µs:
    for a file of 256 MiB 0.6 s, which fell to one contestant and spared the next.
    """
    with ExitStack() as held, suppress(OSError):  # less is free than the kernel thought
        for _ in range(int(_SHARE * _available()) // _CHUNK):
            held.callback(mmap.mmap(-1, _CHUNK, flags=_FLAGS).close)


def _available() -> int:
    """Bytes. Source: proc_meminfo(5), MemAvailable."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
