"""A run: everything is started, all jobs are done by turns, and everything is ended.

All servers listen on loopback; all files are in one temporary directory.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import mounts
import servers
from boxes import Sizes
from entrants import Entrant
from ground import Ground, Lines
from jobs import Job
from measure import Meter, Sample, Watch
from nginx import nginx
from processes import BenchError
from stage import PEER, WRITE_BACK, Stage

_EXPECTED = (BenchError, OSError, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run."""

    jobs: Sequence[Job]
    rtts: Sequence[int]  # milliseconds
    rounds: int
    patience: float  # seconds; who has spent them on a job is asked for no other round of it
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
    spent = dict.fromkeys(entrants, 0.0)
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
            spent[entrant] += seconds
            if is_over or spent[entrant] > plan.patience:
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
    _spread(path)
    try:
        yield path
    finally:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            is_in_use = path in table.read()
        if not is_in_use:
            shutil.rmtree(path, ignore_errors=True)


def _spread(path: str) -> None:
    """Have each directory in *path* lie far from the others, where the disk can.

    An ext4 without a journal takes up to 0.6 ms to make a file near where many were removed in the
    last minute: one round would pay for the tidying of the one before.
    """
    with suppress(OSError):  # where there is no chattr
        subprocess.run(["chattr", "+T", path], capture_output=True, check=False)
