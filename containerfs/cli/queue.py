"""`containerfs queue`: what is not on the server yet, and what is there still."""

from pathlib import Path

import click

from containerfs.cli.calling import failures_told, options_of, with_options
from containerfs.cli.output import format_option
from containerfs.cli.pending import accounts_at, show_unsent


@click.command()
@click.argument("directory", metavar="DIR", type=Path)
@format_option
@with_options(["cache_dir"])
def queue(*, directory: Path, form: str | None, given: dict[str, str]) -> None:
    """Show what of the mount on DIR is on this machine only, or still on the server.

    The state is "waiting" or "failed" for what should be on the server, with the reason of the
    failure, "local" for temporary files, which stay here, and "nameless" for what was unsent when
    the state was lost: no mount sends it, `containerfs recover` exports it. "obsolete" is what was
    replaced or removed here, and is still to be deleted from the server. "renaming" is the new name
    of a rename that is under way, or failed, while the server has not told what arrived of it.
    """
    with failures_told():
        show_unsent(accounts_at(directory, options_of(given)), form=form)
