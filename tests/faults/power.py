"""What a disk may hold after a power cut, worked out from a trace of the system calls before it.

Run by a test. `power.py command TRACE` tells, as JSON, how to run what is to be traced.
`power.py TRACE DIRECTORY steps` tells how many calls changed something below DIRECTORY, which of
them were durable calls on `disk`, and what was noted after which. `power.py TRACE DIRECTORY AT KIND
SEED TARGET` makes in TARGET what is there if the power fails after AT of them: `disk`, and `data`,
which is a server's elsewhere and loses nothing. Of what was not synced on `disk`,

strict  nothing is there; a name is, once its directory was synced (all that POSIX promises);
empty   all names are there, and no data: files end where they did when they were last synced;
zeros   all names and sizes are there, the data are zeros;
newest  all of the database is there, of other files names and sizes, and zeros;
mixed   some names and some blocks of data are there, chosen by SEED: half of the seeds make names
        durable in their order, with every sync of anything, as ext4 does, half as POSIX says;
all     everything is: the kernel lives on.
"""

import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,rename,"
    "renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,fsync,"
    "fdatasync,sync_file_range,copy_file_range,sendfile,sync,syncfs"
)
COMMAND = (
    *("strace", "-f", "-y", "-xx", "-qq", "--signal=none", "--seccomp-bpf"),
    *("-s", "10000000", "-e", f"trace={CALLS}", "-o"),
)
DISK, DATA, NOTES = "disk", "data", "notes"  # in DIRECTORY
BLOCK = 4096
SYNCS = ("fsync", "fdatasync", "syncfs", "sync")
DATABASE = ".sqlite"
LOST = "-shm"  # SQLite makes its shared memory anew

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPENED = re.compile(r"(\w+)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that did something."""

    name: str
    text: str  # its arguments, as strace wrote them
    result: int

    @property
    def strings(self) -> list[bytes]:
        return [bytes.fromhex(found.replace("\\x", "")) for found in _STRING.findall(self.text)]

    @property
    def opened(self) -> list[str | None]:
        """The paths of its descriptors; None for what has no name any more."""
        return [
            None if deleted else bytes.fromhex(path.replace("\\x", "")).decode()
            for _, path, deleted in _OPENED.findall(self.text)
        ]

    @property
    def paths(self) -> list[str]:
        """The paths that it was given, each below its own directory if that was given too."""
        above = [*self.opened, None, None]
        return [
            os.path.join(base or "", path.decode())
            for base, path in zip(above, self.strings, strict=False)
        ]

    @property
    def numbers(self) -> list[int]:
        """The numbers at the end of its arguments."""
        return [int(word) for word in re.findall(r"(?<=, )\[?(\d+)\]?(?=[,)]|$)", self.text)]


def calls(trace: Path) -> Iterator[Call]:
    """Every call that succeeded, in the order in which they ended."""
    begun: dict[str, str] = {}
    with trace.open() as lines:
        for line in lines:
            match = _LINE.match(line.rstrip("\n"))
            if match is None:
                continue
            thread, resumed, rest, name, text = match.groups()
            if name is not None and text.endswith(_UNFINISHED):
                begun[thread] = text.removesuffix(_UNFINISHED)
                continue
            if resumed is not None:
                name, text = resumed, begun.pop(thread, "") + rest
            *_, result = _RESULT.finditer(text) or (None,)
            if result is not None and int(result[1]) >= 0:
                yield Call(name, text[: result.start()], int(result[1]))


@dataclass(slots=True, eq=False)
class Inode:
    """A file or a directory, as programs see it, and as it is on the disk for sure."""

    is_directory: bool = False
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)  # writes, or new sizes
    position: int = 0

    def write(self, offset: int, data: bytes) -> None:
        _write(self.data, offset, data)
        self.pending.append((offset, data))

    def resize(self, size: int) -> None:
        if size != len(self.data):
            _resize(self.data, size)
            self.pending.append(size)

    def sync(self) -> None:
        self.synced = bytes(self.data)
        self.pending.clear()

    def zeros(self) -> bytes:
        """Its size is right, and what was not synced is not there."""
        data = bytearray(self.synced)
        _resize(data, len(self.data))
        return bytes(data)

    def mixed(self, chance: random.Random) -> bytes:
        data = bytearray(self.synced)
        for change in self.pending:
            if isinstance(change, int):
                if chance.random() < 0.5:
                    _resize(data, change)
                continue
            for offset, block in _blocks(*change):
                if chance.random() < 0.5:
                    _write(data, offset, block)
        return bytes(data)


def _write(data: bytearray, offset: int, new: bytes) -> None:
    if len(data) < offset:
        _resize(data, offset)
    data[offset : offset + len(new)] = new


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _blocks(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        count = BLOCK - offset % BLOCK
        yield offset, data[:count]
        offset, data = offset + count, data[count:]


@dataclass(frozen=True, slots=True)
class Renaming:
    """A change of names that is there as a whole or not at all; None: no such name any more."""

    names: dict[str, Inode | None]

    def is_in(self, directory: str) -> bool:
        return any(name.rpartition("/")[0] == directory for name in self.names)


Names = dict[str, Inode]


class Disk:
    """A directory: what programs see in it, and what of that is surely on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._names: Names = {}
        self._synced: dict[bool, Names] = {False: {}, True: {}}  # by whether names are ordered
        self._pending: dict[bool, list[Renaming]] = {False: [], True: []}

    def apply(self, call: Call) -> bool:
        """Do what *call* did, if it changed something here; whether it did."""
        handler: Callable[[Call], bool] | None = getattr(self, f"_{call.name}", None)
        return handler is not None and handler(call)

    # Names.

    def _inside(self, path: str | None) -> str | None:
        """The path below the root; None elsewhere."""
        if path is None or not path.startswith(self._root + "/"):
            return None
        return path.removeprefix(self._root)

    def _paths(self, call: Call) -> list[str | None]:
        assert all(path.startswith("/") for path in call.paths), call
        return [self._inside(path) for path in call.paths]

    def _change(self, names: dict[str, Inode | None]) -> bool:
        for pending in self._pending.values():
            pending.append(Renaming(names))
        _rename(self._names, names)
        return True

    def _openat(self, call: Call) -> bool:
        if "O_CREAT" not in call.text and "O_TRUNC" not in call.text:
            return False
        (path,) = self._paths(call)
        if path is None:
            return False
        inode = self._names.get(path)
        if inode is None:
            return self._change({path: Inode()})
        inode.position = len(inode.data) if "O_APPEND" in call.text else 0
        if "O_TRUNC" in call.text:
            inode.resize(0)
            return True
        return False

    def _mkdir(self, call: Call) -> bool:
        (path,) = self._paths(call)
        return path is not None and self._change({path: Inode(is_directory=True)})

    def _rename(self, call: Call) -> bool:
        old, new = self._paths(call)
        if old is None or new is None:
            assert old is new, call
            return False
        names: dict[str, Inode | None] = {}
        for path, inode in self._names.items():
            if path == old or path.startswith(f"{old}/"):
                names[path] = None
                names[new + path.removeprefix(old)] = inode
        return self._change(names)

    def _link(self, call: Call) -> bool:
        old, new = self._paths(call)
        return old is not None and new is not None and self._change({new: self._names[old]})

    def _unlink(self, call: Call) -> bool:
        (path,) = self._paths(call)
        return path is not None and self._change({path: None})

    _mkdirat, _linkat, _unlinkat, _rmdir = _mkdir, _link, _unlink, _unlink
    _renameat = _renameat2 = _rename

    # Data.

    def _file(self, call: Call, which: int = 0) -> Inode | None:
        path = self._inside(call.opened[which])
        return None if path is None else self._names[path]

    def _write(self, call: Call) -> bool:
        inode = self._file(call)
        if inode is None:
            return False
        data = b"".join(call.strings)[: call.result]
        inode.write(inode.position, data)
        inode.position += len(data)
        return True

    _writev = _write

    def _pwrite64(self, call: Call) -> bool:
        inode = self._file(call)
        if inode is None:
            return False
        inode.write(call.numbers[-1], b"".join(call.strings)[: call.result])
        return True

    def _ftruncate(self, call: Call) -> bool:
        inode = self._file(call)
        if inode is None:
            return False
        inode.resize(call.numbers[-1])
        return True

    def _fallocate(self, call: Call) -> bool:
        inode = self._file(call)
        if inode is None:
            return False
        mode, offset, size = call.numbers
        assert mode == 0, call
        inode.resize(max(len(inode.data), offset + size))
        return True

    def _copy_file_range(self, call: Call) -> bool:
        source, target = self._file(call), self._file(call, 1)
        if target is None:
            return False
        start, to = call.numbers[0], call.numbers[1]
        assert source is not None, call
        target.write(to, bytes(source.data[start : start + call.result]))
        return True

    def _unknown(self, call: Call) -> bool:
        paths = map(self._inside, [*call.opened, *call.paths])
        assert not any(paths), f"what does {call} do?"
        return False

    _creat = _truncate = _pwritev = _pwritev2 = _sendfile = _unknown
    _symlink = _symlinkat = _unknown

    # Syncing.

    def _fsync(self, call: Call) -> bool:
        (opened,) = call.opened
        path = "" if opened == self._root else self._inside(opened)
        if path is None:
            return False
        self._settle(True, lambda _: True)
        if path == "" or self._names[path].is_directory:
            self._settle(False, lambda renaming: renaming.is_in(path))
        else:
            self._names[path].sync()
        return True

    _fdatasync = _fsync

    def _syncfs(self, call: Call) -> bool:
        for is_ordered in (True, False):
            self._settle(is_ordered, lambda _: True)
        for inode in self._names.values():
            inode.sync()
        return True

    _sync = _syncfs

    def _settle(self, is_ordered: bool, chosen: Callable[[Renaming], bool]) -> None:
        names, pending = self._synced[is_ordered], self._pending[is_ordered]
        for renaming in pending:
            if chosen(renaming):
                _rename(names, renaming.names)
        pending[:] = [renaming for renaming in pending if not chosen(renaming)]

    # After the power cut.

    def after(self, kind: str, seed: str) -> dict[str, bytes | None]:
        """What is there: the content of files, None for directories."""
        chance = random.Random(seed)
        names = self._names
        if kind == "strict":
            names = self._synced[False]
        elif kind == "mixed":
            names = self._some_names(chance)
        return {
            path: _left(path, inode, kind, chance)
            for path, inode in sorted(names.items())
            if not path.endswith(LOST) and _has_parents(path, names)
        }

    def _some_names(self, chance: random.Random) -> Names:
        is_ordered = chance.random() < 0.5
        names, pending = dict(self._synced[is_ordered]), self._pending[is_ordered]
        if is_ordered:
            some: Iterable[Renaming] = pending[: chance.randint(0, len(pending))]
        else:
            some = [renaming for renaming in pending if chance.random() < 0.5]
        for renaming in some:
            _rename(names, renaming.names)
        return names


def _rename(names: Names, changes: dict[str, Inode | None]) -> None:
    for path, inode in changes.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _has_parents(path: str, names: Names) -> bool:
    above = path.rpartition("/")[0]
    return not above or (above in names and _has_parents(above, names))


def _left(path: str, inode: Inode, kind: str, chance: random.Random) -> bytes | None:
    if inode.is_directory:
        return None
    if kind == "all" or (kind == "newest" and DATABASE in path):
        return bytes(inode.data)
    if kind in ("zeros", "newest"):
        return inode.zeros()
    return inode.mixed(chance) if kind == "mixed" else inode.synced


def put(files: dict[str, bytes | None], target: Path) -> None:
    """Make the directory *target* with these in it."""
    target.mkdir(mode=0o700)
    for path, data in files.items():
        place = target / path.removeprefix("/")
        if data is None:
            place.mkdir(mode=0o700)
        else:
            place.touch(mode=0o600)
            place.write_bytes(data)


class World:
    """All that is below one directory, call by call."""

    def __init__(self, directory: Path) -> None:
        self.disk, self.data = Disk(directory / DISK), Disk(directory / DATA)
        self._notes = str(directory / NOTES)
        self.count = 0
        self.durable: list[int] = []
        self.noted: list[tuple[int, str]] = []

    def apply(self, call: Call) -> None:
        is_note = call.name == "write" and call.opened == [self._notes]
        is_on_disk = self.disk.apply(call)
        if not (is_note or is_on_disk or self.data.apply(call)):
            return
        self.count += 1
        if is_note:
            self.noted.append((self.count, call.strings[0].decode()))
        if is_on_disk and call.name in SYNCS:
            self.durable.append(self.count)


def main() -> None:
    if sys.argv[1] == "command":
        print(json.dumps([*COMMAND, sys.argv[2]]))
        return
    trace, directory, at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    world = World(directory)
    for call in calls(trace):
        if str(world.count) == at:
            break
        world.apply(call)
    if at == "steps":
        print(json.dumps([world.count, world.durable, world.noted]))
        return
    kind, seed, target = sys.argv[4], sys.argv[5], Path(sys.argv[6])
    target.mkdir()
    put(world.disk.after(kind, seed), target / DISK)
    put(world.data.after("all", seed), target / DATA)


if __name__ == "__main__":
    main()
