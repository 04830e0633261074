"""Random system calls: each is done in a mount and on a local disk, and must answer the same.

Where `test_model` has few calls and looks at everything after each, here are the many flags,
offsets and errors of calls on paths and open files. The trees are compared at the end, and once
more after a remount. A failure ends with the shortest sequence that shows it.
"""

import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import random
import stat
import struct
from contextlib import closing

import pytest

LONG_AGO = 10**18  # nanoseconds: times that were set are before, all others after
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2  # linux/stat.h UTIME_NOW, UTIME_OMIT
AT_SYMLINK_NOFOLLOW = 0x100
PLAIN = (os.O_NONBLOCK, os.O_NONBLOCK | os.O_CREAT, os.O_NONBLOCK | os.O_CREAT | os.O_EXCL)
SPECIAL = (
    *(0, 0, 0, 0, os.O_TRUNC, os.O_APPEND, os.O_APPEND | os.O_TRUNC, os.O_DIRECTORY),
    *(os.O_NOFOLLOW, os.O_PATH, os.O_SYNC, os.O_DSYNC, os.O_NOATIME),
)
NAMES = ("a", "b", "c", "d", "d/a", "d/b", "d/d", "d/d/a")
ODD = (
    *("", ".", "d/.", "d/..", "d/../a", "a/", "d/", "a/b", "d//a", "./a", "../x/..", "n" * 255),
    *("n" * 256, "d/" + "./" * 2040, "./" * 2048 + "a", ".a.swp", "a~", "a.lock", "ä", "x\ny"),
)

_libc = ctypes.CDLL(None, use_errno=True)


def one_of(choices):
    return lambda chance: chance.choice(choices)


slots = one_of(range(6))
bools = one_of((False, True))
sizes = one_of((0, 1, 5, 100, 4095, 4096, 4097, 9000, 70_000))
offsets = one_of((None, None, 0, 1, 100, 4096, 9000))
modes = one_of((0o700, 0o755, 0o7777, 0o4711, 0o2770))
attributes = one_of(("user.a", "user.b", "user.", "other.a", "user." + "n" * 251))


def paths(chance):
    """Mostly names that meet again."""
    return chance.choice(NAMES if chance.random() < 0.9 else ODD)


def contents(chance):
    return chance.choice((b"", b"x", b"0123456789")) * chance.choice((1, 7, 500, 4096))


def times(chance):
    second = chance.choice((0, 1, 981_173_106))
    return second, chance.choice((0, 999_999_999, NOW, OMIT, 10**9))


class Side:
    """A directory, with what is open in it."""

    def __init__(self, path):
        (path / "d").mkdir(parents=True)
        self.at = os.open(path, os.O_RDONLY)
        self.opened = {}

    def close(self):
        for each in (*self.opened.values(), self.at):
            os.close(each)

    def fd(self, slot):
        fd = self.opened[sorted(self.opened)[slot % len(self.opened)]]
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH and not os.fstat(fd).st_nlink:
            # FUSE tells nobody who holds a removed file only so: it may be gone.
            raise OSError(errno.ESTALE, "it may be gone")
        return fd

    def keep(self, slot, fd):
        if slot in self.opened:
            os.close(self.opened[slot])
        self.opened[slot] = fd

    # What needs no open file.

    def open(self, slot, path, access, plain, special, mode):
        flags = access | plain | special
        self.keep(slot, os.open(path, flags, mode, dir_fd=self.at))

    def stat(self, path, follow):
        return facts(os.stat(path, dir_fd=self.at, follow_symlinks=follow))

    def access(self, path, how, follow):
        return os.access(path, how, dir_fd=self.at, follow_symlinks=follow)

    def chmod(self, path, mode):
        os.chmod(path, mode, dir_fd=self.at)

    def utimensat(self, path, atime, mtime, flags):
        both = struct.pack("4q", *atime, *mtime)
        self._checked(_libc.utimensat(self.at, os.fsencode(path), both, flags))

    def symlink(self, to, path):
        os.symlink(to, path, dir_fd=self.at)

    def readlink(self, path):
        return os.readlink(path, dir_fd=self.at)

    def mkdir(self, path, mode):
        os.mkdir(path, mode, dir_fd=self.at)

    def mknod(self, path, kind):
        os.mknod(path, kind | 0o640, dir_fd=self.at)

    def rmdir(self, path):
        os.rmdir(path, dir_fd=self.at)

    def unlink(self, path):
        os.unlink(path, dir_fd=self.at)

    def rename(self, old, new, flags):
        names = os.fsencode(old), os.fsencode(new)
        self._checked(_libc.renameat2(self.at, names[0], self.at, names[1], flags))

    def listdir(self, path):
        with closing(Opened(path, os.O_RDONLY | os.O_DIRECTORY, self.at)) as opened:
            return sorted(os.listdir(opened.fd))

    def setxattr(self, path, name, value, flags):
        with closing(Opened(path, os.O_PATH, self.at)) as opened:
            os.setxattr(opened.link, name, value[:1000], flags)

    def getxattr(self, path, name):
        with closing(Opened(path, os.O_PATH, self.at)) as opened:
            return os.getxattr(opened.link, name)

    def removexattr(self, path, name):
        with closing(Opened(path, os.O_PATH, self.at)) as opened:
            os.removexattr(opened.link, name)

    def truncate(self, path, size):
        with closing(Opened(path, os.O_PATH, self.at)) as opened:
            os.truncate(opened.link, size)

    # What is done with an open one.

    def reopen(self, slot, to, flags):
        self.keep(to, os.open(f"/proc/self/fd/{self.fd(slot)}", flags | os.O_NONBLOCK))

    def dup(self, slot, to):
        self.keep(to, os.dup(self.fd(slot)))

    def close_one(self, slot):
        os.close(self.opened.pop(sorted(self.opened)[slot % len(self.opened)]))

    def read(self, slot, size):
        return os.read(self.fd(slot), size)

    def pread(self, slot, size, offset):
        return os.pread(self.fd(slot), size, offset)

    def write(self, slot, data):
        return os.write(self.fd(slot), data)

    def pwrite(self, slot, data, offset, flags):
        return os.pwritev(self.fd(slot), [data[:5], data[5:]], offset, flags)

    def lseek(self, slot, offset, whence):
        if not stat.S_ISDIR(os.fstat(self.fd(slot)).st_mode):
            return os.lseek(self.fd(slot), offset, whence)
        return None

    def ftruncate(self, slot, size):
        os.ftruncate(self.fd(slot), size)

    def fsync(self, slot):
        os.fsync(self.fd(slot))

    def fstat(self, slot):
        return facts(os.fstat(self.fd(slot)))

    def is_at(self, slot, path):
        found = os.stat(path, dir_fd=self.at, follow_symlinks=False)
        return found.st_ino == os.fstat(self.fd(slot)).st_ino

    def copy_file_range(self, slot, to, size, offset, at):
        return os.copy_file_range(self.fd(slot), self.fd(to), size, offset, at)

    def sendfile(self, slot, to, size, offset):
        return os.sendfile(self.fd(to), self.fd(slot), offset, size)

    def appending(self, slot, on):
        flags = fcntl.fcntl(self.fd(slot), fcntl.F_GETFL) & ~os.O_APPEND
        fcntl.fcntl(self.fd(slot), fcntl.F_SETFL, flags | (os.O_APPEND if on else 0))

    def flock(self, slot, how):
        fcntl.flock(self.fd(slot), how | fcntl.LOCK_NB)

    def mapped(self, slot, data, offset):
        with mmap.mmap(self.fd(slot), 0) as mapping:
            size = min(len(data), max(0, len(mapping) - offset))
            mapping[offset : offset + size] = data[:size]
            return mapping[:]

    def _checked(self, result):
        if result < 0:
            raise OSError(ctypes.get_errno(), "failed")


class Opened:
    """A path that is open for a moment, and another name of it that no path can be too long for."""

    def __init__(self, path, flags, at):
        self.fd = os.open(path, flags, dir_fd=at)
        self.link = f"/proc/self/fd/{self.fd}"

    def close(self):
        os.close(self.fd)


CALLS = (  # how often, what, and with which arguments
    (12, Side.open, slots, paths, one_of((0, 1, 2, 2)), one_of(PLAIN), one_of(SPECIAL), modes),
    (2, Side.stat, paths, bools),
    (1, Side.access, paths, one_of(range(8)), bools),
    (2, Side.chmod, paths, modes),
    (3, Side.utimensat, paths, times, times, one_of((0, AT_SYMLINK_NOFOLLOW))),
    (3, Side.symlink, one_of(("a", "d", "d/a", ".", "gone", "")), paths),
    (1, Side.readlink, paths),
    (4, Side.mkdir, paths, modes),
    (1, Side.mknod, paths, one_of((stat.S_IFIFO, stat.S_IFREG, 0))),
    (2, Side.rmdir, paths),
    (4, Side.unlink, paths),
    (8, Side.rename, paths, paths, one_of((0, 0, 0, 1, 2, 2, 3))),
    (1, Side.listdir, paths),
    (2, Side.setxattr, paths, attributes, contents, one_of((0, 0, 1, 2))),
    (1, Side.getxattr, paths, attributes),
    (1, Side.removexattr, paths, attributes),
    (2, Side.truncate, paths, sizes),
    (2, Side.reopen, slots, slots, one_of((0, 1, 2, os.O_RDWR | os.O_TRUNC, 1 | os.O_APPEND))),
    (1, Side.dup, slots, slots),
    (5, Side.close_one, slots),
    (3, Side.read, slots, sizes),
    (3, Side.pread, slots, sizes, sizes),
    (5, Side.write, slots, contents),
    (6, Side.pwrite, slots, contents, sizes, one_of((0, 0, 0, os.RWF_SYNC, os.RWF_APPEND))),
    (3, Side.lseek, slots, sizes, one_of(range(3))),
    (3, Side.ftruncate, slots, sizes),
    (2, Side.fsync, slots),
    (2, Side.fstat, slots),
    (1, Side.is_at, slots, paths),
    (3, Side.copy_file_range, slots, slots, sizes, offsets, offsets),
    (2, Side.sendfile, slots, slots, sizes, offsets),
    (3, Side.appending, slots, bools),
    (2, Side.flock, slots, one_of((fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN))),
    (3, Side.mapped, slots, contents, sizes),
)


def facts(status):
    """What a program sees; of a pipe the times are the kernel's affair."""
    told = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
    if not stat.S_ISDIR(status.st_mode):
        told += (status.st_nlink, status.st_size)
    if status.st_mtime_ns < LONG_AGO and not stat.S_ISFIFO(status.st_mode):
        told += (status.st_mtime_ns,)
    return told


def tree(root):
    """Everything below *root*."""
    found = {}
    for directory, names, files in os.walk(root):
        for path in (os.path.join(directory, name) for name in (*names, *files)):
            told = facts(os.lstat(path))
            if os.path.islink(path):
                told += (os.readlink(path),)
            else:
                own = (name for name in os.listxattr(path) if "containerfs" not in name)
                told += ({name: os.getxattr(path, name) for name in own},)
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        told += (file.read(),)
            found[os.path.relpath(path, root)] = told
    return found


def steps_of(seed):
    """A hundred calls, each with its arguments."""
    chance = random.Random(seed)
    calls = chance.choices(CALLS, [often for often, *_ in CALLS], k=100)
    return [(call, *(choose(chance) for choose in chosen)) for _, call, *chosen in calls]


def answer(side, call, *arguments):
    try:
        return call(side, *arguments)
    except OSError as exc:
        return errno.errorcode[exc.errno]
    except (IndexError, ValueError, ZeroDivisionError) as exc:  # nothing is open, or it is empty
        return type(exc)


def difference(steps, places):
    """How the first step that is not answered alike is; None if all are, and the trees."""
    sides = [Side(place) for place in places]
    try:
        for number, step in enumerate(steps):
            here, there = (answer(side, *step) for side in sides)
            if here != there:
                return number, step[0], f"{here!r:.200} and not {there!r:.200}"
        seen, wanted = (tree(place) for place in places)
        if seen != wanted:
            odd = {name for name in {**seen, **wanted} if seen.get(name) != wanted.get(name)}
            told = [
                f"{name}: {seen.get(name)!r:.200} and not {wanted.get(name)!r:.200}" for name in odd
            ]
            return len(steps), tree, "; ".join(told)
    finally:
        for side in sides:
            side.close()
    return None


def shortest(steps, places, found):
    """As few of the steps as end in the same difference."""
    steps = steps[: found[0] + 1]
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            again = difference(fewer, next(places))
            if again is not None and again[1] is found[1]:
                steps, found = fewer[: again[0] + 1], again
            else:
                start += size
        size //= 2
    lines = [f"{call.__name__}{arguments!r:.200}" for call, *arguments in steps]
    return "\n".join([*lines, f"-> {found[2]}"])


@pytest.fixture
def check(mount, tmp_path):
    def check(seeds, **options):
        mounted = mount(**options)
        box, twin = mounted / "box", tmp_path / "twin"
        for path in (box, twin):
            path.mkdir()
        places = ((box / str(number), twin / str(number)) for number in itertools.count())
        for seed in seeds:
            steps = steps_of(seed)
            found = difference(steps, next(places))
            assert found is None, f"seed {seed}:\n{shortest(steps, places, found)}"
        mounted.remount()
        assert tree(box) == tree(twin)

    return check


def test_each_call_answers_as_on_a_local_disk(check):
    check(range(100))


@pytest.mark.deep
@pytest.mark.parametrize(
    ("count", "options"),
    [(500, {}), (500, {"write_back": 5}), (30, {"ttl": 0, "cache_size": "1MiB"})],
)
def test_each_of_many_calls_answers_as_on_a_local_disk(check, count, options):
    seed = random.randrange(10**9)
    check(range(seed, seed + count), **options)
