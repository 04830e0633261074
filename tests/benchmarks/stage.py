"""What a job finds when it begins: servers at some distance, material, and contestants to call.

A contestant opens a place: a directory in which the work is done, whatever is behind it. So each
job is written once.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import mounts
from boxes import Box, Sizes
from ground import HOST, Ground, Lines
from measure import Role, Watched
from processes import BenchError
from servers import Embedded, WebDav

PEER = "rclone"
WRITE_BACK = "--write-back"
_SETTLED = 600.0  # seconds that a mount has to send everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory that a contestant has opened."""

    path: Path
    watched: Watched = field(default_factory=Watched)
    # Both take the number of files that there should be in the end, and their bytes.
    settle: Callable[[int, int], None] = lambda _files, _size: None  # returns when all is sent
    verify: Callable[[int, int], None] = lambda _files, _size: None  # raises BenchError


Opened = AbstractContextManager[Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Who takes part, and how it opens the place for a job.

    Args:
        missing: Why it can't take part; None when it can.
    """

    name: str
    role: Role
    open: Callable[[], Opened]
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything a job needs."""

    reads: Ground
    writes: Embedded
    webdav: WebDav | None  # None: there is no peer
    lines: Lines
    tls: bool
    sizes: Sizes
    temp: Path
    can_write_back: bool
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def fresh(self) -> Path:
        """A path in the temporary directory that nothing has used."""
        return self.temp / f"{self.lines.rtt}{'t' if self.tls else ''}-{next(self._numbers)}"

    def local(self, box: Box) -> Path:
        """The box as a directory on the local disk."""
        path = self.temp / "local" / box.name
        if not path.exists():
            box.write(path)
        return path

    def url(self, path: str) -> str:
        """Where something of the reading ground is, over the line."""
        if not self.tls:
            return f"http://{HOST}:{self.lines.port(self.reads.port)}{path}"
        if self.reads.tls_port is None:
            raise BenchError("this ground has no TLS")
        return f"https://{HOST}:{self.lines.port(self.reads.tls_port)}{path}"

    @property
    def certificate(self) -> Path | None:
        """What to trust."""
        return self.reads.certificate if self.tls else None

    def readers(
        self, box: Box, *, ours: tuple[str, ...] = (), peers: dict[str, tuple[str, ...]]
    ) -> list[Contestant]:
        """Who reads a box.

        Args:
            ours: Further options of containerfs.
            peers: The peer's modes: their names, and their options.
        """
        self.reads.add(box)
        found = [
            Contestant(name="containerfs", role="ours", open=partial(self._read_ours, box, ours))
        ]
        if self.webdav is not None:
            found += [
                Contestant(
                    name=f"{PEER} {mode}", role="peer", open=partial(self._read_peer, box, options)
                )
                for mode, options in peers.items()
            ]
        return [*found, Contestant(name="local", role="limit", open=partial(self._read_local, box))]

    def writers(self, *, peers: dict[str, tuple[str, ...]]) -> list[Contestant]:
        """Who writes into a new container, or a new directory; arguments as for `readers`."""
        found = [
            Contestant(name="containerfs", role="ours", open=partial(self._write_ours, ())),
            Contestant(
                name="containerfs write_back",
                role="ours",
                open=partial(self._write_ours, (f"{WRITE_BACK}=1",)),
                missing=None if self.can_write_back else "not available",
            ),
        ]
        if self.webdav is not None:
            found += [
                Contestant(
                    name=f"{PEER} {mode}",
                    role="peer",
                    open=partial(self._write_peer, self.webdav, options),
                )
                for mode, options in peers.items()
            ]
        return [*found, Contestant(name="local", role="limit", open=self._write_local)]

    @contextmanager
    def _read_ours(self, box: Box, options: tuple[str, ...]) -> Iterator[Place]:
        mount = mounts.containerfs(
            self.fresh(),
            base_url=self.url("/v1"),
            certificate=self.certificate,
            options=options,
        )
        with mount as running:
            watched = Watched(pid=running.pid, requests=self.reads.requests)
            yield Place(path=running.path / box.name, watched=watched)

    @contextmanager
    def _read_peer(self, box: Box, options: tuple[str, ...]) -> Iterator[Place]:
        remote = [":http:", "--http-url", self.url("/data/")]
        if self.certificate is not None:
            remote += ["--ca-cert", str(self.certificate)]
        with mounts.rclone(self.fresh(), remote=remote, options=options) as running:
            watched = Watched(pid=running.pid, requests=self.reads.requests)
            yield Place(path=running.path / box.name, watched=watched)

    @contextmanager
    def _read_local(self, box: Box) -> Iterator[Place]:
        yield Place(path=self.local(box))

    @contextmanager
    def _write_ours(self, options: tuple[str, ...]) -> Iterator[Place]:
        place = self.fresh()
        id = self.writes.new_container(place.name)
        self.writes.forget_requests()
        port = self.lines.port(self.writes.port)
        mount = mounts.containerfs(place, base_url=f"http://{HOST}:{port}/v1", options=options)
        with mount as running:
            path = running.path / place.name

            def settle(_files: int, _size: int) -> None:
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)  # of a directory: everything below it is on the server
                finally:
                    os.close(descriptor)

            def verify(files: int, size: int) -> None:
                if (found := self.writes.stored(id)) != (files, size):
                    raise BenchError(f"the server has {found}, not {(files, size)}")

            watched = Watched(pid=running.pid, requests=self.writes.requests)
            yield Place(path=path, watched=watched, settle=settle, verify=verify)
        self.writes.delete_container(id)

    @contextmanager
    def _write_peer(self, webdav: WebDav, options: tuple[str, ...]) -> Iterator[Place]:
        place = self.fresh()
        webdav.new_directory(place.name)
        url = f"http://{HOST}:{self.lines.port(webdav.port)}/"
        remote = [":webdav:", "--webdav-url", url]
        with mounts.rclone(place, remote=remote, options=options) as running:

            def settle(files: int, size: int) -> None:
                deadline = time.monotonic() + _SETTLED
                while (found := webdav.stored(place.name)) != (files, size):
                    if time.monotonic() > deadline:
                        raise BenchError(f"the server has {found}, not {(files, size)}")
                    time.sleep(0.02)

            watched = Watched(pid=running.pid)
            yield Place(path=running.path / place.name, watched=watched, settle=settle)

    @contextmanager
    def _write_local(self) -> Iterator[Place]:
        place = self.fresh()
        place.mkdir()
        yield Place(path=place)
