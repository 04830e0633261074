"""`containerfs serve`: the embedded Containers API, started by hand or by a mount."""

from pathlib import Path

import click

_DIRECTORY = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 for one that the system chooses.",
)
@click.option("--uds", type=_DIRECTORY, help="Listen on a Unix socket instead (mode 0600).")
@click.option("--data", type=_DIRECTORY, required=True, help="Directory to keep everything in.")
@click.option("--api-key-file", type=_FILE, help="Ask for the key in this file (mode 0600).")
@click.option(
    "--behaviour", "behaviours", metavar="NAME=VALUE", multiple=True, help="Behave differently."
)
@click.option(
    "--fault",
    "faults",
    metavar="kind=KIND,NAME=VALUE,…",
    multiple=True,
    help="Fail on purpose, as kind=cut,operation=content,at=1000,count=1.",
)
@click.option("--admin", is_flag=True, help="Offer the /admin routes.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends.")
def serve(
    *,
    host: str,
    port: int,
    uds: Path | None,
    data: Path,
    api_key_file: Path | None,
    behaviours: tuple[str, ...],
    faults: tuple[str, ...],
    admin: bool,
    until_eof: bool,
) -> None:
    """Serve the Containers API from this machine, with everything kept in a directory.

    Prints `listening on ADDRESS` when it is ready.
    """
    # Only this command pays for loading the server.
    from containerfs.server.behaviours import BehaviourError, parse_behaviours
    from containerfs.server.faults import FaultError, parse_fault
    from containerfs.server.main import serve as run
    from containerfs.server.settings import ServeError, ServeSettings

    try:
        settings = ServeSettings(
            data=data,
            host=host,
            port=port,
            uds=uds,
            api_key_file=api_key_file,
            behaviours=parse_behaviours(behaviours),
            faults=tuple(parse_fault(fault) for fault in faults),
            admin=admin,
            until_eof=until_eof,
        )
    except (BehaviourError, FaultError) as exc:
        raise click.UsageError(str(exc)) from exc
    try:
        run(settings)
    except ServeError as exc:
        raise click.ClickException(str(exc)) from exc


if __name__ == "__main__":
    serve()
