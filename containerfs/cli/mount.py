"""`containerfs mount` and `mount.containerfs`: from a command line to a running mount."""

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from containerfs.api.connection import DEFAULT_BASE_URL
from containerfs.cli.background import run_in_background
from containerfs.cli.mounting import Mounting, Ready, Source, check, serve
from containerfs.configuration import load
from containerfs.options import OPTIONS
from containerfs.setting import Option, OptionError


def _parameter(option: Option) -> click.Option:
    """The command line's form of an option; its value stays text until all sources are known."""
    default = f"  [default: {option.default}]" if option.default else ""
    if option.is_flag:
        negation = "no-" + option.flag.removeprefix("--")
        return click.Option([f"{option.flag}/--{negation}"], default=None, help=option.help)
    metavar = (option.unit or "number").upper() if "|" not in option.unit else option.unit
    return click.Option([option.flag], metavar=metavar, help=option.help + default)


def _option_parameters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one parameter for every option."""
    parameters = [_parameter(option) for option in OPTIONS.values()]
    command.__dict__.setdefault("__click_params__", []).extend(reversed(parameters))
    return command


def _source_and_directory(words: tuple[str, ...]) -> tuple[Source, Path]:
    """The positional arguments `[SOURCE] DIR`."""
    if len(words) not in (1, 2) or (len(words) == 1 and words[0] in ("openai:", "local:")):
        raise click.UsageError("expected [SOURCE] DIR: what to mount, and the directory for it")
    return _source(words[0] if len(words) == 2 else "openai:"), Path(words[-1])


def _source(text: str) -> Source:
    try:
        return Source.parse(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@click.command(options_metavar="[OPTIONS]")
@click.argument("where", nargs=-1, metavar="[SOURCE] DIR")
@click.option("-d", "--daemon", is_flag=True, help="Go on in the background once it is mounted.")
@click.option(
    "-o", "words", multiple=True, metavar="OPT[=VALUE],...", help="Options as in fstab: -o ro,ttl=5"
)
@click.option("--config", type=click.Path(path_type=Path), help="Read options from this TOML file.")
@_option_parameters
def mount(
    *,
    where: tuple[str, ...],
    daemon: bool,
    words: tuple[str, ...],
    config: Path | None,
    **given: str | bool | None,
) -> int:
    """Mount SOURCE on the directory DIR.

    SOURCE is "openai:", all containers of an account (the default; the key is taken from
    OPENAI_API_KEY, --api-key-file or --api-key-command), or "local:" or "local:DATA", the embedded
    server with its data in the directory DATA. Runs in the foreground until Ctrl-C.

    Every option can also be given as -o NAME=VALUE, as the variable CONTAINERFS_NAME, and in
    ~/.config/containerfs/config.toml.
    """
    source, directory = _source_and_directory(where)
    typed = {name: _as_text(value) for name, value in given.items() if value is not None}
    return _mount(source, directory, words=words, typed=typed, config=config, daemon=daemon)


@click.command()
@click.argument("source")
@click.argument("directory", type=Path)
@click.option("-s", "sloppy", is_flag=True, help="Pass over unknown options.")
@click.option("-f", "fake", is_flag=True, help="Check everything, mount nothing.")
@click.option("-n", "no_mtab", is_flag=True, help="Nothing: there is no mtab to write.")
@click.option("-v", "verbose", is_flag=True, help="Say what is mounted where.")
@click.option("-N", "namespace", hidden=True)
@click.option("-t", "file_system", hidden=True)
@click.option("-o", "words", multiple=True, metavar="OPT[=VALUE],...", help="Options.")
def helper(
    *,
    source: str,
    directory: Path,
    sloppy: bool,
    fake: bool,
    no_mtab: bool,
    verbose: bool,
    namespace: str | None,
    file_system: str | None,
    words: tuple[str, ...],
) -> int:
    """Mount SOURCE on DIRECTORY in the background: what mount(8) and fstab call.

    rw among the options says nothing, since mount(8) always adds it; noro undoes a ro of the
    configuration file.
    """
    chosen = _source("openai:" if source in ("none", "containerfs") else source)
    code = _mount(
        chosen, directory, words=words, daemon=True, sloppy=sloppy, fake=fake, by_mount=True
    )
    if verbose and code == 0:
        click.echo(f"{chosen.name} is mounted on {directory}")
    return code


def _as_text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def _mount(
    source: Source,
    directory: Path,
    *,
    words: tuple[str, ...],
    typed: Mapping[str, str] | None = None,
    config: Path | None = None,
    daemon: bool,
    sloppy: bool = False,
    fake: bool = False,
    by_mount: bool = False,
) -> int:
    """Read the options, check everything that can be checked now, and run."""
    try:
        given: dict[str, str] = {}
        for each in words:
            from containerfs.cli import optionstring  # not without any: starting is import time

            given |= optionstring.parse(each, sloppy=sloppy, means_rw=not by_mount)
        options = load(file=config, environ=os.environ, given=given | dict(typed or {}))
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    mounting = check(source, directory, options)
    if fake:
        return 0
    if daemon:
        return run_in_background(lambda ready: _report(mounting, ready), log_file=options.log_file)
    serve(mounting, ready=lambda: click.echo(_welcome(mounting)))
    return 0


def _report(mounting: Mounting, ready: Ready) -> int:
    """Serve in the background, where nobody above catches a failure."""
    try:
        serve(mounting, ready=ready)
    except click.ClickException as error:
        click.echo(f"containerfs: {error.format_message()}", err=True)
        return error.exit_code
    return 0


def _welcome(mounting: Mounting) -> str:
    """What is mounted where, and what to try."""
    where = shlex.quote(str(mounting.mountpoint))
    source = mounting.source.name
    if source == "openai:" and mounting.connection.base_url != DEFAULT_BASE_URL:
        source += f" ({mounting.connection.base_url})"
    lines = [
        f"{source} is mounted on {mounting.mountpoint}; Ctrl-C unmounts it. Try:",
        f"  ls {where}",
    ]
    if mounting.options.containers == "managed" and not mounting.options.ro:
        lines += [
            f"  mkdir {where}/demo              # makes a container",
            f"  cp report.csv {where}/demo/     # has been uploaded when cp returns",
        ]
    return "\n".join(lines)
