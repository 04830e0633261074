"""Plays a story on a real mount of a real server, and looks what is there after a power cut.

Run by a test. `power_story.py live DIRECTORY STORY`, under strace, plays STORY with the mount's
files in `disk` and the server's in `data`, and writes into `notes`, as each call begins and
returns, what may be there from then on. `power_story.py look DIRECTORY STORY TARGET` mounts what is
left in TARGET, as on a machine that has booted anew, and prints as JSON what the mount shows at
first, what the server has in the end, what of it stays here, and what was logged.
"""

import hashlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from containerfs import mountpoint
from containerfs.api.client import connect
from containerfs.api.connection import Connection
from containerfs.api.listing import all_files
from containerfs.fs.names.names import stripped

BOX = "box"
PATIENCE = 60  # seconds that anything may take
NOTHING = "-"  # there is no such file
SWAP = ".swp"  # a name that stays on this machine
TORN = "*"  # as on any disk: what was there, zeros, and what was being written


def digest(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:12]}:{len(data)}"


def text(label: str, size: int) -> bytes:
    """That many bytes, like those of no other label."""
    lines = b"".join(b"%s %d\n" % (label.encode(), number) for number in range(size // 4 + 1))
    return lines[:size]


class Story:
    """Calls on files of one container, each noted with what may be there if it is cut off."""

    def __init__(self, box: Path, notes: int, *, is_late: bool) -> None:
        """Args:
        is_late: Close returns before the server has the file.
        """
        self._box = box
        self._notes = notes
        self._is_late = is_late
        self._content: dict[str, bytes] = {}
        self._waiting: set[str] = set()  # what only this machine has
        self._may: dict[str, list[str]] = {}
        self._somewhere: list[tuple[list[str], str]] = []  # one of these names has this

    def note(self) -> None:
        facts = {"may": self._may, "somewhere": self._somewhere}
        os.write(self._notes, json.dumps(facts).encode() + b"\n")

    def begin(self, name: str, data: bytes | None, *, may_tear: bool = False) -> None:
        """From now on this may be there, too.

        Args:
            may_tear: Where only this machine has the file, some of it may be there.
        """
        also = [NOTHING if data is None else digest(data)]
        if may_tear and (name in self._waiting or name.endswith(SWAP)):
            also.append(TORN)
        self._may[name] = [*dict.fromkeys([*self._may.get(name, [NOTHING]), *also])]
        self.note()

    def end(self, name: str, data: bytes | None) -> None:
        """This is there, and nothing else under this name."""
        self._may[name] = [NOTHING if data is None else digest(data)]
        self._content.pop(name, None)
        self._waiting.discard(name)
        if data is not None:
            self._content[name] = data
        if self._is_late:
            self._waiting.add(name)
        self.note()

    def save(self, name: str, data: bytes) -> None:
        """Write a file from its start, and close it."""
        self.begin(name, data, may_tear=True)
        (self._box / name).write_bytes(data)
        self.end(name, data)

    def refused(self, name: str, data: bytes) -> None:
        """Save a file that the server does not take at first: it is kept."""
        self.begin(name, data)
        try:
            (self._box / name).write_bytes(data)
        except OSError:
            self.end(name, data)
            self._waiting.add(name)
        else:
            raise AssertionError("it was not refused")

    def append(self, name: str, data: bytes) -> None:
        whole = self._content[name] + data
        self.begin(name, whole, may_tear=True)
        with (self._box / name).open("ab", buffering=0) as file:
            file.write(data)
        self.end(name, whole)

    @contextmanager
    def opened(self, name: str) -> Iterator["OpenFile"]:
        fd = os.open(self._box / name, os.O_RDWR | os.O_CREAT, 0o644)
        file = OpenFile(self, name, fd, bytearray(self._content.get(name, b"")))
        try:
            yield file
        finally:
            os.close(fd)
        self.end(name, bytes(file.data))

    def truncate(self, name: str, size: int) -> None:
        data = self._content[name][:size]
        self.begin(name, data)
        os.truncate(self._box / name, size)
        if not self._is_late:  # else it is on its way
            self.end(name, data)
        self._content[name] = data

    def rename(self, old: str, new: str) -> None:
        data = self._content[old]
        self._somewhere.append(([old, new], digest(data)))
        self.begin(old, None)
        self.begin(new, data)
        os.rename(self._box / old, self._box / new)
        if self._is_late:  # as on any disk, a power cut may undo it
            self._content[new] = self._content.pop(old)
            self._waiting.add(new)
            self.note()
        else:
            self._somewhere.pop()
            self.end(old, None)
            self.end(new, data)

    def unlink(self, name: str) -> None:
        self.begin(name, None)
        os.unlink(self._box / name)
        self._content.pop(name)
        if not self._is_late:
            self.end(name, None)

    def is_on_server(self) -> None:
        """Everything is."""
        self._somewhere.clear()
        for name in self._may:
            data = self._content.get(name)
            self._may[name] = [NOTHING if data is None else digest(data)]
        self._waiting.clear()
        self.note()

    def sync(self) -> None:
        fd = os.open(self._box, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
        self.is_on_server()

    def read_all(self) -> None:
        for name, data in self._content.items():
            assert (self._box / name).read_bytes() == data


@dataclass(slots=True)
class OpenFile:
    """A file of the story, while it is open."""

    story: Story
    name: str
    fd: int
    data: bytearray

    def write(self, at: int, data: bytes) -> None:
        grows = at + len(data) > len(self.data)
        self.data[at : at + len(data)] = data
        self.story.begin(self.name, bytes(self.data), may_tear=grows)
        os.pwrite(self.fd, data, at)

    def sync(self) -> None:
        os.fsync(self.fd)
        self.story.end(self.name, bytes(self.data))


def everyday(story: Story) -> None:
    story.save("a", text("a1", 300))
    story.save("b", text("b1", 20_000))
    story.save("c", text("c1", 5_000))
    story.save("a", text("a2", 700))
    with story.opened("b") as file:
        file.write(5_000, b"in place")
        file.sync()
        file.write(9_000, b"once more")
    story.append("c", text("c2", 100))
    story.rename("b", "d")
    story.save("t", text("t1", 400))
    story.rename("t", "a")
    story.truncate("c", 10)
    for number in range(4):
        story.save(f"many{number}", text(f"m{number}", 100 + number))
    story.unlink("many0")
    story.read_all()


def overlapping(story: Story) -> None:
    """What is on its way, or was just sent, is written again."""
    everyday(story)
    story.sync()
    for turn in range(3):
        story.save("a", text(f"a{turn}", 6_000))
        with story.opened("a") as file:  # on its way by now
            file.write(100, b"%d at once" % turn)
        with story.opened("d") as file:
            file.write(turn * 4_096, b"%d" % turn)
        story.save(f"new{turn}", text(f"n{turn}", 50))
        with story.opened("d") as file:
            file.write(turn * 4_096, b"%d again" % turn)
            file.sync()
    story.sync()
    for name in ("new0", "other"):  # what was safe comes back by no power cut, once it was sent
        story.save(name, text(f"{name}, first", 300))
        story.unlink(name)
        story.save(name, text(f"{name}, second", 300))
        with story.opened(name) as file:
            file.sync()
    story.save("moved", text("moved", 300))
    story.rename("moved", "here")
    story.save("moved", text("another", 300))
    story.sync()
    story.unlink("new0")


def refused(story: Story) -> None:
    """The server is full for a while."""
    story.save("a", text("a1", 5_000))
    story.refused("a", text("a2", 6_000))
    story.refused("b", text("b1", 5_000))
    story.save("c", text("c1", 100))
    story.rename("b", "d")
    story.append("a", b"more")


def staying(story: Story) -> None:
    """Some files are for this machine only."""
    story.save("a", text("a1", 100))
    with story.opened(".a.swp") as file:
        file.write(0, text("s1", 5_000))
        file.sync()
        file.write(100, b"s2")
        file.sync()
    with story.opened("a") as file:
        file.write(10, b"x")
        file.sync()


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A story, with the options of the mount and of the server."""

    tell: Callable[[Story], None]
    is_late: bool = False
    mount: tuple[str, ...] = ()
    server: tuple[str, ...] = ()


PLAYS = {
    "everyday": Play(tell=everyday),
    "late": Play(
        tell=overlapping,
        is_late=True,
        mount=("--write-back=0",),
        server=("--fault", "kind=latency,operation=create_file,seconds=0.1"),
    ),
    "refused": Play(
        tell=refused,
        server=("--fault", "kind=status,operation=create_file,status=507,after=1,count=2"),
    ),
    "staying": Play(tell=staying),
}


@dataclass(slots=True)
class Stage:
    """A server and a mount of it."""

    directory: Path
    data: Path
    disk: Path
    play: Play
    log: Path
    with_faults: bool
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def mountpoint(self) -> Path:
        return self.directory / "mnt"

    @property
    def socket(self) -> str:
        return str(self.directory / "socket")

    @contextmanager
    def server(self) -> Iterator[None]:
        with suppress(FileNotFoundError):
            os.unlink(self.socket)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "containerfs.cli.serve"),
                *("--data", str(self.data), "--uds", self.socket),
                *("--behaviour", "expiry=false"),  # to look at all cuts may take longer
                *(self.play.server if self.with_faults else ()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(b"listening on ")
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)
            process.stdout.close()

    @contextmanager
    def mount(self) -> Iterator[None]:
        """Mounted inside, and ended in order afterwards."""
        name = str(self.directory / "notify")
        with suppress(FileNotFoundError):
            os.unlink(name)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
            self.log.open("ab") as log,
        ):
            channel.bind(name)
            channel.settimeout(0.2)
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "containerfs", "mount"),
                    *("--uds", self.socket, f"--cache-dir={self.disk}/home/cache"),
                    *self.play.mount,
                    str(self.mountpoint),
                ],
                env=self._environment | {"NOTIFY_SOCKET": name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            try:
                wait_until_ready(channel, process)
                yield
                process.terminate()
                assert process.wait(PATIENCE) == 0
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait(PATIENCE)
                while mountpoint.at(self.mountpoint):
                    mountpoint.detach(self.mountpoint)

    @property
    def _environment(self) -> dict[str, str]:
        home = self.directory / "home"
        return {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}


def wait_until_ready(channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(TimeoutError):
            assert "READY=1" in channel.recv(4096).decode()
            return
    raise RuntimeError("the mount did not begin")


def live(directory: Path, name: str) -> None:
    for each in ("mnt", "disk", "home"):
        (directory / each).mkdir(mode=0o700)
    play = PLAYS[name]
    stage = Stage(directory, directory / "data", directory / "disk", play, directory / "log", True)
    notes = os.open(directory / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with stage.server():
        with stage.mount():
            box = stage.mountpoint / BOX
            box.mkdir()
            story = Story(box, notes, is_late=play.is_late)
            play.tell(story)
        story.is_on_server()


def look(directory: Path, name: str, target: Path) -> dict[str, Any]:
    disk = target / "disk"
    for database in disk.rglob("state.sqlite"):
        boot_anew(database)
    stage = Stage(directory, target / "data", disk, PLAYS[name], target / "log", False)
    with stage.server():
        with stage.mount():
            first = shown(stage.mountpoint / BOX)
        sent = trio.run(on_server, stage.socket)
    here = sorted(path.name for path in disk.rglob("spool/*"))
    log = stage.log.read_text()
    return {"first": first, "sent": sent, "here": here, "log": log}


def boot_anew(database: Path) -> None:
    """Let the mounts before have been those of an earlier boot; a test can't boot the machine."""
    with closing(sqlite3.connect(database)) as connection, suppress(sqlite3.OperationalError):
        connection.execute("UPDATE boot SET id = 'before the power cut'")
        connection.commit()


def shown(box: Path) -> dict[str, str]:
    if not box.exists():
        return {}
    return {path.name: digest(path.read_bytes()) for path in sorted(box.iterdir())}


async def on_server(path: str) -> dict[str, list[str]]:
    """What it has under each name."""
    sent: dict[str, list[str]] = {}
    async with connect(Connection(base_url="http://localhost/v1", uds=path)) as client:
        containers = (await client.list_containers()).data
        for box in containers:
            for file in await all_files(client, box.id):
                async with client.download_file(box.id, file.id) as body:
                    data = b"".join([chunk async for chunk in body])
                (*_, name) = stripped(file.path, id=file.id) or (file.path,)
                sent.setdefault(name, []).append(digest(data))
    return sent


def main() -> None:
    directory, name = Path(sys.argv[2]), sys.argv[3]
    if sys.argv[1] == "live":
        live(directory, name)
    else:
        print(json.dumps(look(directory, name, Path(sys.argv[4]))))


if __name__ == "__main__":
    main()
