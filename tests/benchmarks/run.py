"""The benchmark: containerfs beside rclone and beside what the machine can do, in one run.

A run that is cut short ends everything that it started, and shows what was measured until then.
"""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import about
import click
import plot
import report
from boxes import QUICK, Sizes
from contest import Plan, run
from jobs import LETTERS, chosen
from measure import Sample
from processes import BenchError
from rich.console import Console
from stage import PEER

_FILE = click.Path(path_type=Path, dir_okay=False)


def _stop(number: int, _frame: FrameType | None) -> None:
    """End in order, once; what comes meanwhile can't interrupt that."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _rtts(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in text.split(","))
    except ValueError as exc:
        raise click.BadParameter("expected milliseconds, as 0,50") from exc
    if any(each < 0 for each in found):
        raise click.BadParameter("expected milliseconds, 0 or more")
    return found


def _writable(
    _context: click.Context, _parameter: click.Parameter, path: Path | None
) -> Path | None:
    """*path*, seen to be one that can be written: not after all that was measured."""
    if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{path.parent} is no directory to write in")
    return path


def _drawable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and find_spec("matplotlib") is None:
        raise click.ClickException("no matplotlib: pip install 'containerfs[bench]'")
    return _writable(context, parameter, path)


@click.command()
@click.argument("letters", nargs=-1, metavar="[JOB]...", type=click.Choice(LETTERS))
@click.option(
    "--rtt",
    "rtts",
    default="0,50",
    show_default=True,
    callback=_rtts,
    help="Round trip times, milliseconds.",
)
@click.option("--peer", type=click.Choice([PEER]), default=PEER, show_default=True)
@click.option("--no-peer", is_flag=True, help="Only containerfs, on its embedded server.")
@click.option("--rounds", type=click.IntRange(1), help="[default: 3; 1 with --quick]")
@click.option(
    "--patience",
    type=float,
    default=60.0,
    show_default=True,
    help="Who has spent more seconds on a job does no further round.",
)
@click.option("--quick", is_flag=True, help="Tiny sizes: to see that it works.")
@click.option(
    "--json",
    "json_file",
    type=_FILE,
    callback=_writable,
    help="Write everything that was measured.",
)
@click.option("--markdown", type=_FILE, callback=_writable, help="Write the tables.")
@click.option(
    "--plot",
    "picture",
    type=_FILE,
    callback=_drawable,
    help="Draw what job k found (needs matplotlib).",
)
def main(
    *,
    letters: tuple[str, ...],
    rtts: tuple[int, ...],
    peer: str,
    no_peer: bool,
    rounds: int | None,
    patience: float,
    quick: bool,
    json_file: Path | None,
    markdown: Path | None,
    picture: Path | None,
) -> None:
    """Measure containerfs. The jobs:

    \b
    a  one large file, cold              f  one large file copied in
    b  the same again, warm              g  the daemons' memory in a to f
    c  many small files                  h  spawn to first ls
    d  ls -l of a large directory        i  random reads of a cached file
    e  many small files copied in        j  an editor's save
    k  growth: d and c at several sizes
    """
    if picture is not None and letters and "k" not in letters:
        raise click.UsageError("--plot draws job k, which is not to be done")
    plan = Plan(
        jobs=chosen(letters),
        rtts=rtts,
        rounds=rounds or (1 if quick else 3),
        patience=patience,
        sizes=QUICK if quick else Sizes(),
        has_peer=not no_peer,
    )
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _stop)
    samples: list[Sample] = []
    before = about.load()
    code = 0
    try:
        run(plan, samples, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt as exc:
        click.echo(f"cut short by {exc}", err=True)
        code = 130
    except BenchError as exc:
        raise click.ClickException(str(exc)) from exc
    facts = _facts(plan, quick=quick, before=before)
    report.show(Console(), about=facts, samples=samples)
    if json_file is not None:
        report.write_json(json_file, about=facts, samples=samples)
    if markdown is not None:
        report.write_markdown(markdown, about=facts, samples=samples)
    if picture is not None:
        plot.draw(picture, samples)
    sys.exit(code)


def _facts(plan: Plan, *, quick: bool, before: float) -> dict[str, Any]:
    return {
        "date": about.date(),
        "machine": about.machine(),
        "versions": about.versions(),
        "load": (before, about.load()),
        "rounds": plan.rounds,
        "quick": quick,
    }


if __name__ == "__main__":
    main()
