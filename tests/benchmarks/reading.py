"""The jobs that read: large and small files, cold and warm, listings, the start of a mount."""

import os
import random
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from boxes import Box
from entrants import Entrant, curl, entered
from measure import Meter, Role, Watch
from pages import PAGE
from processes import call
from stage import Contestant, Place, Stage

_FULL = ("--vfs-cache-mode", "full")
_CHECKERS = ("--checkers", "64")  # requests for the sizes of files that are under way at once
_BOTH = {"off": _CHECKERS, "full": (*_FULL, *_CHECKERS)}
_BLOCK = 4096
_MOST_WAITS = 8  # the first as long as a listing should live, the others half as long
_NOTHING = "no line of text has these words"


def cold(stage: Stage) -> list[Entrant]:
    """One large file that nobody has read."""
    box = _large(stage)

    def play(contestant: Contestant, meter: Meter) -> None:
        with contestant.open() as place:
            watch = Watch(place.watched)
            call(["cat", place.path / box.file_name(0)])
            meter.add("cold read", watch.read())

    entrants = entered(stage.readers(box, peers=_BOTH), play)
    return [*entrants, _fetching(stage, stage.reads.contents(box), "cold read")]


def warm(stage: Stage) -> list[Entrant]:
    """One large file that has just been read."""
    box = _large(stage)

    def play(contestant: Contestant, meter: Meter) -> None:
        with contestant.open() as place:
            file = place.path / box.file_name(0)
            call(["cat", file])
            watch = Watch(place.watched)
            call(["cat", file])
            meter.add("warm re-read", watch.read())
            call(["cmp", file, stage.local(box) / file.name])

    return entered(stage.readers(box, peers=_BOTH), play)


def small(stage: Stage) -> list[Entrant]:
    """All small files of a directory, by three tools."""
    box = Box(name="small", count=stage.sizes.small_files, size=stage.sizes.small)

    def play(contestant: Contestant, meter: Meter) -> None:
        with contestant.open() as place:
            for state in ("cold", "warm"):
                watch = Watch(place.watched)
                _cat_all(place.path)
                meter.add(f"{state} cat *", watch.read())
        with contestant.open() as place:
            for state in ("cold", "warm"):
                watch = Watch(place.watched)
                call(["grep", "-r", _NOTHING, place.path], accepted=1)
                meter.add(f"{state} grep -r", watch.read())
        with contestant.open() as place:
            _copied(stage, place, box, meter)

    # Far away one mode of the peer is as slow as the other: each file is a round trip.
    peers = {"full": _BOTH["full"]} if stage.lines.rtt else _BOTH
    metrics = ("cold cat *", "cold grep -r", "cold cp -r")
    entrants = entered(stage.readers(box, peers=peers), play)
    return [*entrants, _fetching(stage, stage.reads.contents(box), *metrics)]


def listed(stage: Stage) -> list[Entrant]:
    """A large directory: unknown, known, and known for too long."""
    box = Box(name="listed", count=stage.sizes.listed_files, size=stage.sizes.listed)
    peers = {"off": _CHECKERS}
    life = stage.sizes.listing_life
    pages: dict[Role, int] = {"ours": -(-box.count // PAGE)}  # the peer asks for one index
    brief = {"off": (*_CHECKERS, "--dir-cache-time", f"{life}s")}
    contestants = zip(
        stage.readers(box, peers=peers),
        stage.readers(box, ours=(f"--ttl={life}",), peers=brief),
        strict=True,
    )
    entrants = [
        Entrant(
            name=usual.name, role=usual.role, play=partial(_listed, usual, forgetful, life, pages)
        )
        for usual, forgetful in contestants
    ]
    return [*entrants, _fetching(stage, stage.reads.listings(box), "cold ls -l")]


def spawned(stage: Stage) -> list[Entrant]:
    """From nothing to the names of the root."""
    box = _large(stage)

    def play(contestant: Contestant, meter: Meter) -> None:
        watch = Watch()
        with contestant.open() as place:
            os.listdir(place.path.parent)
            meter.add("spawn to first ls", watch.read())

    command = _curl(stage, ["/v1/containers?limit=100&order=desc"])

    def imported(meter: Meter) -> None:
        watch = Watch()
        call([sys.executable, "-c", "import trio, pyfuse3"])
        call(command)
        meter.add("spawn to first ls", watch.read())

    contestants = [each for each in stage.readers(box, peers={"off": ()}) if each.role != "limit"]
    return [*entered(contestants, play), Entrant(name="imports", role="limit", play=imported)]


def scattered(stage: Stage) -> list[Entrant]:
    """Blocks of a large file that is in the contestant's cache, but not in the kernel's."""
    box = _large(stage)
    blocks = range(box.size // _BLOCK)

    def play(contestant: Contestant, meter: Meter) -> None:
        with contestant.open() as place:
            file = place.path / box.file_name(0)
            call(["cat", file])
            places = [each * _BLOCK for each in random.Random(0).choices(blocks, k=count)]
            descriptor = os.open(file, os.O_RDONLY)
            try:
                if contestant.role != "limit":
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
                watch = Watch(place.watched)
                for offset in places:
                    os.pread(descriptor, _BLOCK, offset)
                meter.add("random reads", watch.read())
            finally:
                os.close(descriptor)

    count = stage.sizes.random_reads
    return entered(stage.readers(box, peers={"full": _FULL}), play)


def grown(stage: Stage) -> list[Entrant]:
    """Listing and reading, each at several numbers of files."""
    entrants: list[Entrant] = []
    for count in stage.sizes.growth_listed:
        box = Box(name=f"listed-{count}", count=count, size=stage.sizes.listed)
        entrants += entered(stage.readers(box, peers={"off": _CHECKERS}), partial(_list_one, count))
    for count in stage.sizes.growth_read:
        box = Box(name=f"read-{count}", count=count, size=stage.sizes.small)
        entrants += entered(stage.readers(box, peers={"off": _CHECKERS}), partial(_read_one, count))
    return entrants


def _list_one(count: int, contestant: Contestant, meter: Meter) -> None:
    with contestant.open() as place:
        watch = Watch(place.watched)
        call(["ls", "-l", place.path])
        meter.add("cold ls -l", watch.read(), amount=count)


def _read_one(count: int, contestant: Contestant, meter: Meter) -> None:
    with contestant.open() as place:
        watch = Watch(place.watched)
        _cat_all(place.path)
        meter.add("cold cat *", watch.read(), amount=count)


def _listed(
    usual: Contestant, forgetful: Contestant, life: float, pages: dict[Role, int], meter: Meter
) -> None:
    with usual.open() as place:
        for state in ("cold", "warm"):
            watch = Watch(place.watched)
            call(["ls", "-l", place.path])
            meter.add(f"{state} ls -l", watch.read())
    with usual.open() as place:
        watch = Watch(place.watched)
        with os.scandir(place.path) as entries:
            next(entries)
        meter.add("first name", watch.read())
    with forgetful.open() as place:
        call(["ls", "-l", place.path])
        _list_when_stale(place, life, pages.get(usual.role, 1), meter)


def _list_when_stale(place: Place, life: float, pages: int, meter: Meter) -> None:
    """Wait until all of it is asked for again: how long a listing lives is not ours to say."""
    for attempt in range(_MOST_WAITS):
        time.sleep((life / 2 if attempt else life + 1) if place.watched.requests else 0)
        watch = Watch(place.watched)
        call(["ls", "-l", place.path])
        reading = watch.read()
        if reading.requests is None or reading.requests >= pages:
            break
    meter.add("ls -l after the TTL", reading)


def _copied(stage: Stage, place: Place, box: Box, meter: Meter) -> None:
    target = stage.fresh()
    try:
        watch = Watch(place.watched)
        call(["cp", "-r", place.path, target])
        meter.add("cold cp -r", watch.read())
        call(["diff", "-r", target, stage.local(box)])
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _large(stage: Stage) -> Box:
    return Box(name="large", count=1, size=stage.sizes.large)


def _cat_all(directory: Path) -> None:
    call(["sh", "-c", "cat -- *"], cwd=directory)


def _fetching(stage: Stage, paths: Iterator[str], *metrics: str) -> Entrant:
    """What curl needs for the same bytes, under the names of these metrics."""
    command = _curl(stage, paths)

    def play(meter: Meter) -> None:
        watch = Watch()
        call(command)
        reading = watch.read()
        for metric in metrics:
            meter.add(metric, reading)

    return Entrant(name="curl", role="limit", play=play)


def _curl(stage: Stage, paths: Iterable[str]) -> list[str | Path]:
    transfers = [{"url": stage.url(path)} for path in paths]
    return curl(config=stage.fresh(), transfers=transfers, certificate=stage.certificate)
