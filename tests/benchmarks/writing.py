"""The jobs that write: small files and a large one copied in, and an editor's save."""

import os
from pathlib import Path

from boxes import Box
from entrants import Entrant, curl, entered
from ground import HOST
from measure import Meter, Watch
from processes import call
from stage import Contestant, Place, Stage

WRITERS = 16
_LATE = ("--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--transfers", "64")
_BOTH: dict[str, tuple[str, ...]] = {"off": (), "writes": _LATE}


def small(stage: Stage) -> list[Entrant]:
    """Many small files, by one writer and by several."""
    box = Box(name="small", count=stage.sizes.small_files, size=stage.sizes.small)
    source = stage.local(box)

    def play(contestant: Contestant, meter: Meter) -> None:
        with contestant.open() as place:
            watch = Watch(place.watched)
            call(["cp", "-r", source, place.path / "in"])
            _finish("cp -r", place, box, watch, meter)
        with contestant.open() as place:
            watch = Watch(place.watched)
            _copy_in_parallel(source, place.path, box.count)
            _finish(f"{WRITERS} writers", place, box, watch, meter)

    files = [source / box.file_name(number) for number in range(box.count)]
    metrics = ("cp -r: uploaded", f"{WRITERS} writers: uploaded")
    # Far away the peer's other mode, file by file, takes many times as long as this one.
    peers = {"writes": _LATE} if stage.lines.rtt else _BOTH
    return [*entered(stage.writers(peers=peers), play), _sending(stage, files, *metrics)]


def large(stage: Stage) -> list[Entrant]:
    """One large file."""
    box = Box(name="large", count=1, size=stage.sizes.large)
    source = stage.local(box) / box.file_name(0)

    def play(contestant: Contestant, meter: Meter) -> None:
        with contestant.open() as place:
            watch = Watch(place.watched)
            call(["cp", source, place.path])
            _finish("cp", place, box, watch, meter)

    entrants = entered(stage.writers(peers=_BOTH), play)
    return [*entrants, _sending(stage, [source], "cp: uploaded")]


def saved(stage: Stage) -> list[Entrant]:
    """A file saved the way vim does it."""
    size = stage.sizes.saved
    after = Box(name="saved", count=1, size=size + 1)

    def play(contestant: Contestant, meter: Meter) -> None:
        with contestant.open() as place:
            file = place.path / after.file_name(0)
            file.write_bytes(b"x" * size)
            place.settle(1, size)
            file.read_bytes()
            watch = Watch(place.watched)
            _save(file, b"y" * after.size)
            _finish("save", place, after, watch, meter)

    return entered(stage.writers(peers={"writes": _LATE}), play)


def _finish(what: str, place: Place, box: Box, watch: Watch, meter: Meter) -> None:
    """Note when the work returned and when everything was on the server."""
    returned = watch.read(counting=False)
    place.settle(box.count, box.count * box.size)
    meter.add(f"{what}: returns", returned)
    meter.add(f"{what}: uploaded", watch.read())
    place.verify(box.count, box.count * box.size)


def _copy_in_parallel(source: Path, target: Path, count: int) -> None:
    each = str(-(-count // WRITERS))
    words = f'find "$1" -type f -print0 | xargs -0 -P {WRITERS} -n {each} cp -t "$2"'
    call(["sh", "-c", words, "sh", source, target])


def _save(file: Path, data: bytes) -> None:
    """What vim does with `:w`: try the directory, keep the old file aside, write the new one."""
    swap, trial, backup = (
        file.with_name(name) for name in (f".{file.name}.swp", "4913", f"{file.name}~")
    )
    swap.write_bytes(b"b0VIM" + bytes(4091))
    trial.touch()
    trial.unlink()
    file.rename(backup)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    file.chmod(0o644)
    backup.unlink()
    swap.unlink()


def _sending(stage: Stage, files: list[Path], *metrics: str) -> Entrant:
    """What curl needs to upload the same files, under the names of these metrics."""

    def play(meter: Meter) -> None:
        id = stage.writes.new_container("curl")
        url = f"http://{HOST}:{stage.lines.port(stage.writes.port)}/v1/containers/{id}/files"
        transfers = [{"url": url, "form": f"file=@{file}"} for file in files]
        command = curl(config=stage.fresh(), transfers=transfers, certificate=None)
        watch = Watch()
        call(command)
        reading = watch.read()
        stage.writes.delete_container(id)
        for metric in metrics:
            meter.add(metric, reading)

    return Entrant(name="curl", role="limit", play=play)
