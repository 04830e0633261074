"""The command `containerfs`: its subcommands, each loaded when it is used.

Starting is import time, so this module imports little but click. Failures are one line on standard
error: exit code 1 for an error, 2 for a wrong command line, 130 for Ctrl-C.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

import containerfs
from containerfs.cli.starting import collecting_later


class Entry(NamedTuple):
    """Where a subcommand is, and what the list of them says about it."""

    module: str
    name: str
    help: str


COMMANDS = {
    "mount": Entry("mount", "mount", "Mount the Containers API on a directory."),
    "umount": Entry("umount", "umount", "Unmount it, and wait until everything is finished."),
    "queue": Entry("queue", "queue", "Show what is not on the server yet."),
    "sync": Entry("sync", "sync", "Send what is not on the server yet."),
    "recover": Entry("recover", "recover", "List, export or give up what was not sent."),
    "serve": Entry("serve", "serve", "Run the embedded Containers API."),
    "containers": Entry("service", "containers", "List, create, retrieve, delete containers."),
    "containers:files": Entry("service", "files", "List, create, retrieve, delete files."),
    "containers:files:content": Entry("service", "content", "Retrieve the content of a file."),
}


class Commands(click.Group):
    """The subcommands of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they are shown."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Import the command that was asked for; an unknown one is a usage error."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            import difflib  # seldom needed, like the commands

            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            maybe = f" (did you mean {near[0]}?)" if near else ""
            ctx.fail(f"no such command {cmd_name!r}{maybe}")
        with collecting_later():
            command = getattr(import_module(f"containerfs.cli.{entry.module}"), entry.name)
        assert isinstance(command, click.Command)  # noqa: S101 - a mistake in the table above
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(
    cls=Commands,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(containerfs.__version__, message="containerfs %(version)s")
def group() -> None:
    """Mount the OpenAI Containers API: containers are directories, their files are files."""


def run(command: click.Command, args: Sequence[str] | None, *, program: str) -> NoReturn:
    """Run a command and end the process with its exit code; a failure is told in one line."""
    _open_what_was_closed()
    try:
        code = command.main(args, prog_name=program, standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program
        _say(f"{path}: {_line(error)} (see {path} --help)")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _say(f"{program}: {_line(error)}")
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader has gone, as in `containerfs containers list | head`: no more is wanted.
        _print_no_more()
        sys.exit(1)
    except OSError as error:
        # Of files and sockets each command speaks itself; what it prints may find a full disk.
        _print_no_more()
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{program}: {where}{error.strerror or error}")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _open_what_was_closed() -> None:
    """Let go what is printed to a stream that the caller closed (`>&-`), which Python leaves out.

    Its descriptor's number must not be that of a file or a socket: libraries write there, too.
    """
    while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(unused)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _print_no_more() -> None:
    """Let go what is printed from here on, also what is still in a buffer as the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(error: click.ClickException) -> str:
    return " ".join(error.format_message().split()).rstrip(".")


def _say(line: str) -> None:
    click.echo(line, err=True)
