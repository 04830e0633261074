"""What containerfs is to reach, as data; for the default sizes.

A bound is on the median of containerfs, as a multiple of something measured in the same run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from boxes import Sizes
from pages import PAGE

Quantity = Literal["seconds", "cpu", "rss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """At most *bound* times what it is held against.

    Args:
        against: "peer", the best of its modes; "limit"; "rtt", the round trip time; or another
            metric of the same contestant.
    """

    job: str
    metric: str
    rtt: int
    against: str
    bound: float
    contestant: str = "containerfs"
    quantity: Quantity = "seconds"
    tls: bool = False


def _near_and_far(
    job: str, metric: str, near: float, far: float, *, contestant: str = "containerfs"
) -> Iterator[Target]:
    """Bounds against the peer without a distance, and far away."""
    for rtt, bound in ((0, near), (50, far)):
        yield Target(
            job=job, metric=metric, rtt=rtt, against="peer", bound=bound, contestant=contestant
        )


def _limit(job: str, metric: str, bound: float, *, tls: bool = False) -> Target:
    return Target(job=job, metric=metric, rtt=0, against="limit", bound=bound, tls=tls)


def _round_trips(metric: str, bound: float) -> Target:
    return Target(job="d", metric=metric, rtt=50, against="rtt", bound=bound)


def _all() -> Iterator[Target]:
    yield from _near_and_far("a", "cold read", 0.5, 0.3)
    yield _limit("a", "cold read", 2)
    yield _limit("a", "cold read", 1.6, tls=True)
    yield Target(job="a", metric="cold read", rtt=0, against="peer", bound=0.45, quantity="cpu")
    yield from _near_and_far("b", "warm re-read", 0.08, 0.08)
    yield _limit("b", "warm re-read", 1.3)
    for tool in ("cat *", "grep -r", "cp -r"):
        yield from _near_and_far("c", f"cold {tool}", 0.6, 0.035)
        yield _limit("c", f"cold {tool}", 4)
    for tool in ("cat *", "grep -r"):
        yield from _near_and_far("c", f"warm {tool}", 0.25, 0.25)
        yield _limit("c", f"warm {tool}", 4)
    yield Target(job="d", metric="cold ls -l", rtt=0, against="peer", bound=0.15)
    yield _round_trips("cold ls -l", 0.55 * Sizes().listed_files / PAGE)
    yield _round_trips("first name", 3)
    yield _round_trips("ls -l after the TTL", 6)
    yield from _near_and_far("d", "warm ls -l", 0.13, 0.13)
    yield _limit("d", "warm ls -l", 1.3)
    late = "containerfs write_back"
    yield from _near_and_far("e", "cp -r: returns", 0.35, 0.2, contestant=late)
    yield from _near_and_far("e", "cp -r: uploaded", 0.03, 0.02, contestant=late)
    for rtt in (0, 50):
        yield Target(
            job="e",
            metric="16 writers: uploaded",
            rtt=rtt,
            against="cp -r: uploaded",
            bound=1 / 12,
        )
    yield from _near_and_far("f", "cp: uploaded", 0.6, 0.25)
    yield Target(job="h", metric="spawn to first ls", rtt=0, against="peer", bound=2.2)
    yield _limit("h", "spawn to first ls", 1.25)


TARGETS = tuple(_all())
# Peak memory of the daemon against the peer's, by job.
MEMORY = {"a": 0.65, "b": 0.65, "c": 1.0, "d": 0.65, "e": 0.65, "f": 0.65}
BYTES_AN_ENTRY = 600
BYTES_OF_MOST_ENTRIES = 300 * 10**6
