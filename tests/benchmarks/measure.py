"""What is measured: seconds, and beside them a daemon's CPU time, memory and requests."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["ours", "peer", "limit"]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the clock and the instruments beside it say; None where there is nothing to see."""

    seconds: float
    cpu: float | None = None  # seconds of the daemon
    rss: int | None = None  # bytes, the daemon's peak so far
    requests: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of one contestant, or why there is none."""

    job: str  # a letter
    metric: str
    contestant: str
    role: Role
    rtt: int  # milliseconds
    tls: bool
    round: int  # from 0
    amount: int | None = None  # files, where a job tries several
    reading: Reading | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What there is to look at beside the clock; None where there is nothing."""

    pid: int | None = None
    requests: Callable[[], int] | None = None


class Watch:
    """A running clock."""

    def __init__(self, watched: Watched | None = None) -> None:
        self._watched = watched or Watched()
        self._requests = self._watched.requests() if self._watched.requests else None
        self._cpu = cpu_seconds(self._watched.pid)
        self._started = time.perf_counter()

    def read(self, *, counting: bool = True) -> Reading:
        """What has been since the start; the clock goes on.

        Args:
            counting: Also ask the server for the number of requests, which takes a moment.
        """
        seconds = time.perf_counter() - self._started
        cpu = cpu_seconds(self._watched.pid)
        requests = None
        if counting and self._watched.requests is not None:
            requests = self._watched.requests() - (self._requests or 0)
        return Reading(
            seconds=seconds,
            cpu=None if cpu is None else cpu - (self._cpu or 0.0),
            rss=peak_rss(self._watched.pid),
            requests=requests,
        )


@dataclass(slots=True, kw_only=True)
class Meter:
    """Takes the samples of one contestant in one round of a job."""

    job: str
    contestant: str
    role: Role
    rtt: int
    tls: bool
    round: int
    samples: list[Sample] = field(default_factory=list)

    def add(
        self,
        metric: str,
        reading: Reading | None,
        *,
        amount: int | None = None,
        failure: str | None = None,
    ) -> None:
        """Keep a reading under a name."""
        self.samples.append(
            Sample(
                job=self.job,
                metric=metric,
                contestant=self.contestant,
                role=self.role,
                rtt=self.rtt,
                tls=self.tls,
                round=self.round,
                amount=amount,
                reading=reading,
                failure=failure,
            )
        )


def cpu_seconds(pid: int | None) -> float | None:
    """CPU time of a process so far, in the kernel too. Source: proc(5), /proc/pid/stat."""
    if pid is None:
        return None
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_rss(pid: int | None) -> int | None:
    """The most memory a process has had resident, in bytes. Source: proc(5), VmHWM."""
    if pid is None:
        return None
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
