"""The benchmark: containerfs beside rclone and beside what the machine can do, in one run.

Everything is started here, on loopback and in one temporary directory, and ended here, also when
the run is cut short; what was measured until then is shown.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import about
import click
import mounts
import plot
import report
import servers
from boxes import QUICK, Sizes
from entrants import Entrant
from ground import Ground, Lines
from jobs import LETTERS, Job, chosen
from measure import Meter, Sample, Watch
from nginx import nginx
from processes import BenchError
from rich.console import Console
from stage import PEER, WRITE_BACK, Stage

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXPECTED = (BenchError, OSError, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run."""

    jobs: Sequence[Job]
    rtts: Sequence[int]  # milliseconds
    rounds: int
    patience: float  # seconds; who needs longer for a job does it once
    sizes: Sizes
    has_peer: bool


def run(plan: Plan, samples: list[Sample], tell: Callable[[str], None]) -> None:
    """Run all jobs; *samples* grows as they go."""
    with ExitStack() as stack:
        temp = Path(stack.enter_context(_directory()))
        reads, writes, webdav = _grounds(plan, temp, stack)
        bare = Stage(
            reads=reads,
            writes=writes,
            webdav=webdav,
            lines=Lines(rtt=0, stack=stack, directory=temp),
            tls=False,
            sizes=plan.sizes,
            temp=temp,
            can_write_back=mounts.has_option(WRITE_BACK),
        )
        for rtt in plan.rtts:
            stage = replace(bare, lines=Lines(rtt=rtt, stack=stack, directory=temp))
            for job in plan.jobs:
                if rtt and job.is_near_only:
                    continue
                _compete(job, stage, plan, samples, tell)
                if job.has_tls and not rtt and reads.tls_port is not None:
                    _compete(job, replace(stage, tls=True), plan, samples, tell)


def _grounds(
    plan: Plan, temp: Path, stack: ExitStack
) -> tuple[Ground, servers.Embedded, servers.WebDav | None]:
    writes = stack.enter_context(servers.embedded(temp / "embedded"))
    if not plan.has_peer:
        return writes, writes, None
    if shutil.which(PEER) is None:
        raise BenchError(f"{PEER} is missing; --no-peer does without it")
    reads = stack.enter_context(nginx(temp / "nginx"))
    return reads, writes, stack.enter_context(servers.webdav(temp / "webdav"))


def _compete(
    job: Job, stage: Stage, plan: Plan, samples: list[Sample], tell: Callable[[str], None]
) -> None:
    """All rounds of a job: in each, everyone once, in one order and the other by turns."""
    entrants = list(job.entrants(stage))
    for turn in range(plan.rounds):
        for entrant in list(entrants) if turn % 2 == 0 else entrants[::-1]:
            meter = Meter(
                job=job.letter,
                contestant=entrant.name,
                role=entrant.role,
                rtt=stage.lines.rtt,
                tls=stage.tls,
                round=turn,
            )
            watch = Watch()
            is_over = _play(entrant, meter)
            samples += meter.samples
            seconds = watch.read().seconds
            tell(_line(meter, seconds))
            if is_over or seconds > plan.patience:
                entrants.remove(entrant)


def _play(entrant: Entrant, meter: Meter) -> bool:
    """One turn; whether it is the last because it failed."""
    if entrant.missing is not None:
        meter.add("", None, failure=entrant.missing)
        return True
    try:
        entrant.play(meter)
    except _EXPECTED as exc:
        meter.add("", None, failure=str(exc))
        return True
    return False


def _line(meter: Meter, seconds: float) -> str:
    where = f"{meter.rtt} ms{', TLS' if meter.tls else ''}"
    failures = [each.failure for each in meter.samples if each.failure]
    how = failures[0] if failures else f"{seconds:.1f} s"
    return f"{meter.job} {where}, round {meter.round + 1}, {meter.contestant}: {how}"


@contextmanager
def _directory() -> Iterator[str]:
    """The temporary directory; kept when something is still mounted in it."""
    path = tempfile.mkdtemp(prefix="containerfs-bench-")
    try:
        yield path
    finally:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            is_in_use = path in table.read()
        if not is_in_use:
            shutil.rmtree(path, ignore_errors=True)


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
    default=90.0,
    show_default=True,
    help="Who needs more seconds for a job does it once.",
)
@click.option("--quick", is_flag=True, help="Tiny sizes: to see that it works.")
@click.option("--json", "json_file", type=_FILE, help="Write everything that was measured.")
@click.option("--markdown", type=_FILE, help="Write the tables.")
@click.option("--plot", "picture", type=_FILE, help="Draw what job k found (needs matplotlib).")
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
        _draw(picture, samples)
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


def _draw(picture: Path, samples: Sequence[Sample]) -> None:
    try:
        plot.draw(picture, samples)
    except ImportError as exc:
        raise click.ClickException("no matplotlib: pip install 'containerfs[bench]'") from exc


if __name__ == "__main__":
    main()
