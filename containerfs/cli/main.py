"""The entry points: what the installed commands call. Click is loaded as all the rest is."""

from collections.abc import Sequence
from typing import NoReturn

from containerfs.cli.starting import collecting_later


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point `containerfs`."""
    with collecting_later():
        from containerfs.cli.commands import group, run
    run(group, args, program="containerfs")


def mount_helper(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point `mount.containerfs`, which mount(8) calls."""
    with collecting_later():
        from containerfs.cli.commands import run
        from containerfs.cli.mount import helper
    run(helper, args, program="mount.containerfs")
