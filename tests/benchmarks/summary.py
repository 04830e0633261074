"""Samples made into rows: medians, the best of the peer, the limit, and what was to be reached."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from measure import Role, Sample
from targets import TARGETS, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All rounds of one contestant in one metric."""

    contestant: str
    role: Role
    rounds: int
    seconds: float  # the median, as the next ones
    least: float
    most: float
    cpu: float | None
    requests: float | None
    rss: int | None  # the most


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A target, and what came of it: *found* times what it is held against."""

    target: Target
    found: float

    @property
    def is_met(self) -> bool:
        return self.found <= self.target.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one of our contestants beside the others."""

    job: str
    metric: str
    rtt: int
    tls: bool
    amount: int | None
    ours: Figures
    peer: Figures | None  # the best of its modes
    limit: Figures | None
    judgements: tuple[Judgement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The most memory that the daemons had in a job."""

    job: str
    ours: int
    peer: int | None  # the least of its modes


_Key = tuple[str, str, int, bool, int | None]


def rows(samples: Iterable[Sample], *, is_judged: bool) -> list[Row]:
    """A row for each metric of each of our contestants, in the order of the samples.

    Args:
        is_judged: Whether the targets apply: they are made for the default sizes.
    """
    found: dict[_Key, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.reading is not None:
            key = (sample.job, sample.metric, sample.rtt, sample.tls, sample.amount)
            found[key][sample.contestant].append(sample)
    figures = {
        key: [_figures(each) for each in contestants.values()] for key, contestants in found.items()
    }
    return [
        _row(key, ours, figures, is_judged=is_judged)
        for key, contestants in figures.items()
        for ours in contestants
        if ours.role == "ours"
    ]


def memory(samples: Iterable[Sample], jobs: str) -> list[Memory]:
    """A line for each of these jobs, from the runs without a distance and without TLS."""
    peaks: dict[str, dict[tuple[Role, str], int]] = defaultdict(dict)
    for sample in samples:
        if sample.reading is None or sample.reading.rss is None or sample.rtt or sample.tls:
            continue
        who = (sample.role, sample.contestant)
        before = peaks[sample.job].get(who, 0)
        peaks[sample.job][who] = max(before, sample.reading.rss)
    return [
        Memory(
            job=job,
            ours=peaks[job][("ours", "containerfs")],
            peer=min(
                (rss for (role, _), rss in peaks[job].items() if role == "peer"), default=None
            ),
        )
        for job in jobs
        if ("ours", "containerfs") in peaks[job]
    ]


def bytes_an_entry(found: Iterable[Row]) -> float | None:
    """What one more file in a directory costs the daemon in memory, from the job on growth."""
    grown = [
        (row.amount, row.ours.rss)
        for row in found
        if row.metric == "cold ls -l" and row.amount and row.ours.rss
    ]
    if len(grown) < 2:
        return None
    (few, small), (many, large) = min(grown), max(grown)
    return (large - small) / (many - few)


def failures(samples: Iterable[Sample]) -> list[str]:
    """Everything that could not be measured, in words, each once."""
    return list(
        dict.fromkeys(
            f"{sample.job}, {sample.contestant}, {sample.rtt} ms{', TLS' if sample.tls else ''}: "
            f"{sample.failure}"
            for sample in samples
            if sample.failure
        )
    )


def _figures(samples: Sequence[Sample]) -> Figures:
    readings = [sample.reading for sample in samples if sample.reading is not None]
    seconds = [reading.seconds for reading in readings]
    cpu = [reading.cpu for reading in readings if reading.cpu is not None]
    requests = [reading.requests for reading in readings if reading.requests is not None]
    return Figures(
        contestant=samples[0].contestant,
        role=samples[0].role,
        rounds=len(readings),
        seconds=median(seconds),
        least=min(seconds),
        most=max(seconds),
        cpu=median(cpu) if cpu else None,
        requests=median(requests) if requests else None,
        rss=max((reading.rss for reading in readings if reading.rss is not None), default=None),
    )


def _row(key: _Key, ours: Figures, figures: dict[_Key, list[Figures]], *, is_judged: bool) -> Row:
    job, metric, rtt, tls, amount = key
    peer = min(
        (each for each in figures[key] if each.role == "peer"),
        key=lambda each: each.seconds,
        default=None,
    )
    limits = [each for each in figures[key] if each.role == "limit"]
    # What goes over the line is held against curl, where that took part.
    limit = next((each for each in limits if each.contestant == "curl"), *limits[:1] or [None])
    row = Row(
        job=job, metric=metric, rtt=rtt, tls=tls, amount=amount, ours=ours, peer=peer, limit=limit
    )
    if not is_judged or amount is not None:
        return row
    judgements = (
        Judgement(target=target, found=value)
        for target in TARGETS
        if (target.job, target.metric, target.rtt, target.tls) == (job, metric, rtt, tls)
        and target.contestant == ours.contestant
        and (value := _multiple(target, row, figures)) is not None
    )
    return replace(row, judgements=tuple(judgements))


def _multiple(target: Target, row: Row, figures: dict[_Key, list[Figures]]) -> float | None:
    """Our figure as a multiple of what the target holds it against."""
    if target.against == "rtt":
        return row.ours.seconds / (row.rtt / 1000)
    if target.against in ("peer", "limit"):
        other = row.peer if target.against == "peer" else row.limit
    else:
        key = (row.job, target.against, row.rtt, row.tls, row.amount)
        same = (each for each in figures.get(key, []) if each.contestant == row.ours.contestant)
        other = next(same, None)
    ours = getattr(row.ours, target.quantity)
    theirs = getattr(other, target.quantity) if other else None
    return ours / theirs if ours is not None and theirs else None
