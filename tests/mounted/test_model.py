"""A model of the whole tree: what is done in a mount is done on a local disk too.

After each step the two must look the same, and fail the same; and now and then the server, asked
by the `openai` package, must have every file of the tree once, and nothing else. A failure ends
with the shortest sequence that shows it, as shell commands: their working directory is the mount.
"""

import base64
import ctypes
import errno
import os
import re
import shlex
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

NAMES = ("a", "b", "c.txt", "ä ö", "%41", "4913", ".a.swp", "a~")
SCRATCH = ("4913", ".a.swp", "a~")
LONG_AGO = 10**18  # nanoseconds: times that were set are before, all others after
FRESH = 60  # seconds that a mount lives at least before another takes its place
NOREPLACE, EXCHANGE = 1, 2
PREFIX = re.compile(r"(?<![^/])[0-9a-f]{32}-(?=[^/]+$)")  # of what was uploaded, at the server
OPENINGS = {
    "<": os.O_RDONLY,
    "<>": os.O_RDWR | os.O_CREAT,
    ">": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    ">>": os.O_RDWR | os.O_CREAT | os.O_APPEND,
}

numbers = st.integers(0, 2**16)
offsets = st.sampled_from((0, 1, 5, 100, 4095, 4096, 9000))
contents = st.builds(
    lambda text, times: text * times,
    st.sampled_from((b"", b"x", b"hello", b"0123456789abcdef\n")),
    st.sampled_from((1, 1, 1, 300)),
)

_libc = ctypes.CDLL(None, use_errno=True)


def rename(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def printf(data: bytes) -> str:
    if len(data) <= 17:
        return f"printf %s {shlex.quote(data.decode())}"
    return f"yes {shlex.quote(data[:16].decode())} | head -c {len(data)}"


def put(path: Path, data: bytes, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


def pwrite(path: Path, data: bytes, offset: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        assert os.pwrite(fd, data, offset) == len(data)
    finally:
        os.close(fd)


def described(path: Path) -> tuple[object, ...]:
    """What a program sees of *path*."""
    facts = path.lstat()
    told: tuple[object, ...] = (stat.filemode(facts.st_mode),)
    if facts.st_mtime_ns < LONG_AGO:
        told += (facts.st_mtime_ns,)
    if stat.S_ISLNK(facts.st_mode):
        return (*told, os.readlink(path))
    names = os.listxattr(path)
    own = {name: os.getxattr(path, name) for name in names if "containerfs" not in name}
    if stat.S_ISREG(facts.st_mode):
        content = path.read_bytes()
        return (*told, own, facts.st_nlink, facts.st_size, len(content), content)
    return (*told, own)


def tree(root: Path, containers: Iterable[str]) -> dict[str, tuple[object, ...]]:
    """Everything in *containers* below *root*."""
    found = {}
    pending = [root / container for container in containers]
    while pending:
        for path in pending.pop().iterdir():
            found[os.fspath(path.relative_to(root))] = described(path)
            if path.is_dir() and not path.is_symlink():
                pending.append(path)
    return found


class Model(RuleBasedStateMachine):
    """The steps; `world` is what the test gives them to work with."""

    world: "World"

    def __init__(self):
        super().__init__()
        self.mount, self.twin, self.ids = self.world.begin()
        self.handles: dict[int, tuple[int, int]] = {}
        self.steps = 0
        for container in self.ids:
            note(f"mkdir {container}")

    # Doing everything twice.

    def both(self, line, call):
        note(line)
        results = []
        for root in (self.mount.path, self.twin):
            try:
                results.append(call(root))
            except OSError as exc:
                results.append(errno.errorcode[exc.errno])
        assert results[0] == results[1], f"{line}: not as on a local disk"
        return results[0]

    def path(self, number, *kinds):
        """An entry of these kinds ("f", "d", "l"; a container is "c"), or None."""
        found = list(self.ids) if "c" in kinds else []
        for name, facts in self.seen.items():
            kind = {"-": "f"}.get(facts[0][0], facts[0][0])
            if kind in kinds:
                found.append(name)
        return sorted(found)[number % len(found)] if found else None

    def place(self, number, name):
        return f"{self.path(number, 'c', 'd')}/{name}"

    @property
    def seen(self):
        return tree(self.twin, self.ids)

    # Files.

    @rule(where=numbers, name=st.sampled_from(NAMES), data=contents)
    def create(self, where, name, data):
        path = self.place(where, name)
        line = f"set -C; {printf(data)} > {shlex.quote(path)}; set +C"
        self.both(line, lambda root: put(root / path, data, os.O_EXCL))

    @rule(where=numbers, name=st.sampled_from(NAMES), data=contents)
    def overwrite(self, where, name, data):
        path = self.place(where, name)
        line = f"{printf(data)} > {shlex.quote(path)}"
        self.both(line, lambda root: put(root / path, data, os.O_TRUNC))

    @rule(which=numbers, data=contents)
    def append(self, which, data):
        if path := self.path(which, "f", "l", "d"):
            line = f"{printf(data)} >> {shlex.quote(path)}"
            self.both(line, lambda root: put(root / path, data, os.O_APPEND))

    @rule(which=numbers, data=contents, offset=offsets)
    def write_at(self, which, data, offset):
        if path := self.path(which, "f"):
            to = f"dd of={shlex.quote(path)} bs=1 seek={offset} conv=notrunc status=none"
            self.both(f"{printf(data)} | {to}", lambda root: pwrite(root / path, data, offset))

    @rule(which=numbers, size=offsets)
    def truncate(self, which, size):
        if path := self.path(which, "f", "d"):
            line = f"truncate -s {size} {shlex.quote(path)}"
            self.both(line, lambda root: os.truncate(root / path, size))

    @rule(which=numbers)
    def unlink(self, which):
        if path := self.path(which, "f", "l", "d"):
            self.both(f"unlink {shlex.quote(path)}", lambda root: os.unlink(root / path))

    # Directories, links and names.

    @rule(where=numbers, name=st.sampled_from(NAMES))
    def mkdir(self, where, name):
        path = self.place(where, name)
        self.both(f"mkdir {shlex.quote(path)}", lambda root: os.mkdir(root / path, 0o755))

    @rule(which=numbers)
    def rmdir(self, which):
        if path := self.path(which, "d", "d", "f"):
            self.both(f"rmdir {shlex.quote(path)}", lambda root: os.rmdir(root / path))

    @rule(where=numbers, name=st.sampled_from(NAMES), to=st.sampled_from(("a", "b", "gone")))
    def symlink(self, where, name, to):
        path = self.place(where, name)
        line = f"ln -sT {to} {shlex.quote(path)}"
        self.both(line, lambda root: os.symlink(to, root / path))

    @rule(
        which=numbers,
        where=numbers,
        name=st.sampled_from(NAMES),
        flags=st.sampled_from((0, 0, 0, NOREPLACE, EXCHANGE)),
    )
    def rename(self, which, where, name, flags):
        if old := self.path(which, "f", "d", "l"):
            new = self.place(where, name)
            how = {0: "", NOREPLACE: " --no-clobber", EXCHANGE: " --exchange"}[flags]
            line = f"mv -T{how} {shlex.quote(old)} {shlex.quote(new)}"
            self.both(line, lambda root: rename(root / old, root / new, flags))

    @rule(which=numbers, mode=st.sampled_from((0o600, 0o640, 0o755)))
    def chmod(self, which, mode):
        if path := self.path(which, "f", "d"):
            if stat.S_ISDIR((self.twin / path).stat().st_mode):
                mode |= stat.S_IXUSR  # or only root can go on in it
            line = f"chmod {mode:o} {shlex.quote(path)}"
            self.both(line, lambda root: os.chmod(root / path, mode))

    @rule(which=numbers, mtime=st.sampled_from((1, 10**9 + 5, 123_456_789_123_456_789)))
    def utime(self, which, mtime):
        if path := self.path(which, "f"):
            line = f"touch -d @{mtime / 1e9:.9f} {shlex.quote(path)}"
            self.both(line, lambda root: os.utime(root / path, ns=(mtime, mtime)))

    @rule(which=numbers, value=st.sampled_from((b"", b"blue")))
    def setxattr(self, which, value):
        if path := self.path(which, "f", "d"):
            line = f"setfattr -n user.colour -v {shlex.quote(value.decode())} {shlex.quote(path)}"
            self.both(line, lambda root: os.setxattr(root / path, "user.colour", value))

    # Open files.

    @precondition(lambda self: len(self.handles) < 4)
    @rule(where=numbers, name=st.sampled_from(NAMES), how=st.sampled_from(sorted(OPENINGS)))
    def open(self, where, name, how):
        path = self.place(where, name)
        number = next(number for number in range(3, 8) if number not in self.handles)
        opened = []

        def call(root):
            opened.append(os.open(root / path, OPENINGS[how], 0o644))

        if self.both(f"exec {number}{how} {shlex.quote(path)}", call) is None:
            self.handles[number] = (opened[0], opened[1])

    def on_handle(self, which, line, call):
        number = sorted(self.handles)[which % len(self.handles)]
        descriptors = iter(self.handles[number])
        python = f"python3 -c 'import os; print(os.{line.format(number)})'"
        return self.both(python, lambda _: call(next(descriptors)))

    @precondition(lambda self: self.handles)
    @rule(which=numbers, data=contents, offset=offsets)
    def pwrite(self, which, data, offset):
        line = f"pwrite({{}}, {data[:17]!r} * {max(1, len(data) // 17)}, {offset})"
        self.on_handle(which, line, lambda fd: os.pwrite(fd, data, offset))

    @precondition(lambda self: self.handles)
    @rule(which=numbers, offset=offsets)
    def pread(self, which, offset):
        self.on_handle(which, f"pread({{}}, 9999, {offset})", lambda fd: os.pread(fd, 9999, offset))

    @precondition(lambda self: self.handles)
    @rule(which=numbers, size=offsets)
    def ftruncate(self, which, size):
        self.on_handle(which, f"ftruncate({{}}, {size})", lambda fd: os.ftruncate(fd, size))

    @precondition(lambda self: self.handles)
    @rule(which=numbers)
    def fsync(self, which):
        self.on_handle(which, "fsync({})", os.fsync)

    @precondition(lambda self: self.handles)
    @rule(which=numbers)
    def fstat(self, which):
        def call(fd):
            facts = os.fstat(fd)
            return facts.st_size, facts.st_nlink, stat.filemode(facts.st_mode)

        self.on_handle(which, "fstat({})", call)

    @precondition(lambda self: self.handles)
    @rule(which=numbers)
    def close(self, which):
        number = sorted(self.handles)[which % len(self.handles)]
        descriptors = iter(self.handles.pop(number))
        self.both(f"exec {number}>&-", lambda _: os.close(next(descriptors)))

    # What others do.

    def sync(self):
        """Have the server hold everything, and the mount know it; returns its objects by path."""
        for container in self.ids:
            note(f"sync {container}")
            fd = os.open(self.mount / container, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        self.look()
        return {path: ids[0] for path, ids in self.world.objects(self.ids).items()}

    @precondition(lambda self: self.world.sees_others)
    @rule(where=numbers, name=st.sampled_from(NAMES[:4]), data=contents)
    def others_write(self, where, name, data):
        path = self.place(where, name)
        if path not in self.seen:
            self.sync()
            note(f"# the model's code writes {data[:17]!r}, {len(data)} bytes, to {path!r}")
            container, _, rest = path.partition("/")
            self.world.server.write(self.ids[container], f"/mnt/data/{rest}", data)
            (self.twin / path).write_bytes(data)
            self.look()

    @precondition(lambda self: self.world.sees_others)
    @rule(which=numbers, data=contents, same_id=st.booleans())
    def others_replace(self, which, data, same_id):
        path = self.path(which, "f")
        id = self.sync().get(path) if path else None
        if id is None:
            return
        if same_id and (self.twin / path).stat().st_size == len(data):
            data += b"!"  # the service has no other sign of a new version within one second
        note(f"# the model's code writes {data[:17]!r}, {len(data)} bytes, over {path!r}")
        self.world.rewrite(self.ids, path, id, data, same_id=same_id)
        replaced = self.twin / "replaced"
        replaced.write_bytes(data)
        replaced.chmod(stat.S_IMODE((self.mount / path).stat().st_mode))
        old = self.twin / path
        for name in os.listxattr(old):  # modes and attributes belong to the path
            os.setxattr(replaced, name, os.getxattr(old, name))
        replaced.rename(old)
        self.look()

    @precondition(lambda self: self.world.sees_others)
    @rule(which=numbers)
    def others_delete(self, which):
        path = self.path(which, "f")
        id = self.sync().get(path) if path else None
        if id is not None:
            note(f"# somebody else deletes {path!r}")
            self.world.delete(self.ids, path, id)
            (self.twin / path).unlink()
            self.look()

    # Mounting anew.

    def let_go(self):
        for ours, twins in self.handles.values():
            with suppress(OSError):
                os.close(ours)
            os.close(twins)
        self.handles.clear()

    @precondition(lambda self: self.steps % 6 == 5)
    @rule(ttl=st.sampled_from((0, 0, 60)))
    def remount(self, ttl):
        self.let_go()
        note(f"# close all, unmount, mount --ttl={ttl}")
        self.world.remount(ttl)

    @precondition(lambda self: self.steps % 6 == 5)
    @rule(ttl=st.sampled_from((0, 0, 60)))
    def kill(self, ttl):
        note(f"# kill -9, mount --ttl={ttl}")
        self.mount.kill()
        self.let_go()
        self.world.remount(ttl)

    # What must hold.

    def look(self):
        seen, wanted = tree(self.mount.path, self.ids), self.seen
        assert seen == wanted, "the tree is not as on a local disk"

    @invariant()
    def both_trees_are_alike(self):
        self.look()
        self.steps += 1
        if self.steps % 5 == 0:
            self.server_has_every_file_once()

    def server_has_every_file_once(self):
        self.sync()
        here = Counter()
        backups = 0
        for path, facts in self.seen.items():
            if facts[0][0] == "-":
                if path.rpartition("/")[2] in SCRATCH:
                    backups += 1
                else:
                    here[path, facts[-1]] += 1
        there = self.world.stored(self.ids)
        assert not here - there, "the server lacks these"
        # What was renamed to a temporary name keeps its object: it may be an editor's backup.
        assert (there - here).total() <= backups, f"the server has too much: {there - here}"

    def teardown(self):
        self.let_go()


class World:
    """One mount for all runs of the model, and two containers and a local directory for each."""

    def __init__(self, *, mount, server, api, directory):
        self.mount = mount
        self.server = server
        self.api = api
        self.directory = directory
        self.sees_others = True
        self.due = time.monotonic() + FRESH
        self.runs = 0

    def begin(self):
        self.runs += 1
        if not self.sees_others or not self.mount.is_running or time.monotonic() > self.due:
            self.remount(0)
        for container in self.mount.path.iterdir():
            shutil.rmtree(container, ignore_errors=True)
        twin = self.directory / f"twin-{self.runs}"
        names = (f"box-{self.runs}", f"other-{self.runs}")
        for name in names:
            (twin / name).mkdir(parents=True)
            (self.mount / name).mkdir()
        ids = {container.name: container.id for container in self.api.containers.list()}
        return self.mount, twin, {name: ids[name] for name in names}

    def remount(self, ttl):
        self.sees_others = ttl == 0
        self.due = time.monotonic() + FRESH
        self.mount.remount(ttl=ttl)

    def _files(self, ids):
        for name, id in ids.items():
            for file in self.api.containers.files.list(id, limit=100):
                yield file, f"{name}/{PREFIX.sub('', file.path.removeprefix('/mnt/data/'))}"

    def objects(self, ids):
        found: dict[str, list[str]] = {}
        for file, path in self._files(ids):
            found.setdefault(path, []).append(file.id)
        return found

    def stored(self, ids):
        content = self.api.containers.files.content
        return Counter(
            (path, content.retrieve(file.id, container_id=file.container_id).read())
            for file, path in self._files(ids)
        )

    def rewrite(self, ids, path, file_id, data, *, same_id):
        container, _, rest = path.partition("/")
        body = {"content_base64": base64.b64encode(data).decode(), "same_id": same_id}
        if not same_id:
            body["path"] = f"/mnt/data/{rest}"
        self.server.admin("PUT", f"/admin/files/{ids[container]}/{file_id}", body)

    def delete(self, ids, path, file_id):
        container = path.partition("/")[0]
        self.api.containers.files.delete(file_id, container_id=ids[container])


@pytest.fixture
def check(server, mount, api, tmp_path):
    def check(**limits):
        class Bound(Model):
            world = World(mount=mount(ttl=0), server=server, api=api, directory=tmp_path)

        run_state_machine_as_test(
            Bound,
            settings=settings(
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
                **limits,
            ),
        )

    return check


def test_the_mount_is_like_a_local_disk_and_the_server_has_it_all(check):
    check(max_examples=10, stateful_step_count=30, derandomize=True)


@pytest.mark.deep
def test_the_mount_is_like_a_local_disk_for_thousands_of_steps(check):
    check(max_examples=100, stateful_step_count=50)
