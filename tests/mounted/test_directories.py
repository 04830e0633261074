"""Directories behave as on a local disk: listing while they change, nesting, renaming, removing."""

import ctypes
import os
import struct
import subprocess
import sys

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2


class Stream:
    """A directory read a few entries at a time: the C library would take them by the megabyte."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.position = 0
        self.pending = []

    def read(self):
        """The next name; None at the end."""
        if not self.pending:
            buffer = ctypes.create_string_buffer(1024)
            count = LIBC.getdents64(self.fd, buffer, len(buffer))
            assert count >= 0
            offset = 0
            while offset < count:  # struct linux_dirent64. Source: getdents(2).
                _, position, length, _ = struct.unpack_from("<QqHB", buffer, offset)
                name = ctypes.string_at(ctypes.addressof(buffer) + offset + 19)
                self.pending.append((name, position))
                offset += length
        if not self.pending:
            return None
        name, self.position = self.pending.pop(0)
        return name

    def rest(self):
        return list(iter(self.read, None))

    def tell(self):
        return self.position

    def seek(self, position):
        os.lseek(self.fd, position, os.SEEK_SET)
        self.pending, self.position = [], position


@pytest.fixture
def stream():
    streams = []

    def stream(path):
        streams.append(Stream(path))
        return streams[-1]

    yield stream
    for each in streams:
        os.close(each.fd)


@pytest.fixture
def rename2():
    def rename2(old, new, flags):
        old, new = os.fsencode(old), os.fsencode(new)
        if LIBC.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return rename2


def scratch_files(directory, count, *, start=0):
    """Files that cost no request."""
    for number in range(start, start + count):
        os.close(os.open(directory / f".{number}.swp", os.O_CREAT | os.O_WRONLY))


def test_what_stays_is_listed_once_while_entries_come_and_go(box, stream):
    scratch_files(box, 3000)
    listing = stream(box)
    seen = [listing.read() for _ in range(1000)]
    buffered = {name for name, _ in listing.pending}
    for number in range(0, 3000, 3):
        os.unlink(box / f".{number}.swp")
    scratch_files(box, 500, start=3000)
    os.rename(box / ".1.swp", box / ".renamed.swp")
    scratch_files(box, 1, start=9000)
    os.rename(box / ".9000.swp", box / ".2999.swp")  # replaced: the name stays
    rest = listing.rest()
    removed = {b".%d.swp" % number for number in range(0, 3000, 3)}
    assert not removed & (set(rest) - buffered)
    seen += rest
    assert len(seen) == len(set(seen))
    stayed = {b".%d.swp" % number for number in range(3000) if number % 3} - {b".1.swp"}
    assert stayed <= set(seen)


def test_removing_all_entries_while_listing_them_removes_all(box, stream):
    scratch_files(box, 2000)
    listing = stream(box)
    while (name := listing.read()) is not None:
        if name not in (b".", b".."):
            os.unlink(os.path.join(os.fsencode(box), name))
    assert os.listdir(box) == []
    os.rmdir(box)


def test_a_directory_of_10000_entries_is_listed_whole(box, run):
    for number in range(10_000):
        os.symlink("nowhere", box / f"{number:05}")
    names = [f"{number:05}" for number in range(10_000)]
    assert sorted(os.listdir(box)) == names
    assert run("ls", box).split() == names
    assert run("sh", "-c", 'find "$1" -type l | wc -l', "-", box).strip() == "10000"
    run("rm", "-rf", *box.glob("0*"), cwd=box)
    assert len(os.listdir(box)) == 0


def test_a_place_in_a_directory_can_be_returned_to(box, stream):
    scratch_files(box, 700)
    listing = stream(box)
    entries, places = [], []
    while True:
        places.append(listing.tell())
        name = listing.read()
        if name is None:
            break
        entries.append(name)
    assert len(entries) == 702
    for index in (701, 5, 400, 0, 699, 1):
        listing.seek(places[index])
        assert listing.rest() == entries[index:]
    os.unlink(box / ".3.swp")
    scratch_files(box, 1, start=700)
    listing.seek(0)
    assert set(listing.rest()) == (set(entries) - {b".3.swp"}) | {b".700.swp"}


def test_dot_and_dot_dot_are_the_directory_and_the_one_above(box, stream):
    (box / "a" / "b").mkdir(parents=True)
    assert {b".", b".."} <= set(stream(box / "a" / "b").rest())
    inner, middle = os.stat(box / "a" / "b"), os.stat(box / "a")
    assert os.stat(box / "a" / "b" / ".").st_ino == inner.st_ino
    assert os.stat(box / "a" / "b" / "..").st_ino == middle.st_ino
    (box / "c").mkdir()
    os.rename(box / "a" / "b", box / "c" / "b")
    assert os.stat(box / "c" / "b" / "..").st_ino == os.stat(box / "c").st_ino
    assert os.stat(box / ".." / "..").st_ino == os.stat(box.parent.parent).st_ino


def test_link_counts_tell_nothing_of_what_is_in_a_directory(mount, run):
    """Else who goes by them would leave out what was not listed yet."""
    mounted = mount()
    (mounted / "box" / "a" / "b").mkdir(parents=True)
    (mounted / "box" / "a" / "b" / "file").touch()
    mounted.remount()
    walk = "$File::Find::dont_use_nlink = 0; find(sub { print qq($_\n) }, @ARGV)"
    found = run("perl", "-MFile::Find", "-e", walk, mounted / "box").split()
    assert found == [".", "a", "b", "file"]
    assert os.stat(mounted / "box").st_nlink == os.stat(mounted / "box" / "a").st_nlink == 1


def test_the_time_of_a_directory_tells_when_an_entry_came_or_went(box, tick, rename2):
    (box / "dir").mkdir()
    (box / "file").touch()
    for directory in (box, box / "dir"):
        steps = [
            lambda directory=directory: (directory / "new").touch(),
            lambda directory=directory: os.rename(directory / "new", directory / ".n.swp"),
            lambda directory=directory: os.unlink(directory / ".n.swp"),
            lambda directory=directory: (directory / "sub").mkdir(),
            lambda directory=directory: os.rmdir(directory / "sub"),
            lambda directory=directory: os.symlink("x", directory / "link"),
            lambda directory=directory: rename2(directory / "link", box / "file", EXCHANGE),
            lambda directory=directory: os.unlink(directory / "link"),
        ]
        before = os.stat(directory).st_mtime_ns
        for step in steps:
            tick()
            step()
            after = os.stat(directory)
            assert after.st_mtime_ns > before
            assert after.st_ctime_ns == after.st_mtime_ns
            before = after.st_mtime_ns


def test_nested_empty_directories_survive_a_remount(mount, server):
    mounted = mount()
    (mounted / "box").mkdir()
    (mounted / "box" / "a" / "b" / "c").mkdir(parents=True)
    (mounted / "box" / "a" / "d").mkdir(mode=0o700)
    (mounted / "box" / "e" / "f").mkdir(parents=True)
    os.rmdir(mounted / "box" / "e" / "f")
    os.rename(mounted / "box" / "a" / "d", mounted / "box" / "a" / "moved")
    (mounted / "box" / "full").mkdir()
    (mounted / "box" / "full" / "file").write_bytes(b"x")
    (mounted / "box" / "full" / "file").unlink()

    def tree():
        return {
            os.path.relpath(path, mounted.path): (
                sorted(names + files),
                os.stat(path).st_ino,
                os.stat(path).st_mode,
                os.stat(path).st_mtime_ns,
            )
            for path, names, files in os.walk(mounted / "box")
        }

    before = tree()
    assert {path: names for path, (names, *_) in before.items()} == {
        "box": ["a", "e", "full"],
        "box/a": ["b", "moved"],
        "box/a/b": ["c"],
        "box/a/b/c": [],
        "box/a/moved": [],
        "box/e": [],
        "box/full": [],
    }
    mounted.remount()
    assert tree() == before
    assert server.requests("create_file") == server.requests("create_file")[:1]


@pytest.fixture
def things(box):
    """An entry of each kind."""
    (box / "full" / "dir").mkdir(parents=True)
    (box / "full" / "file").write_bytes(b"below")
    (box / "empty").mkdir()
    (box / "file").write_bytes(b"file")
    (box / "other").write_bytes(b"other")
    os.symlink("file", box / "link")
    return box


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("absent", "new", "ENOENT"),
        ("file", "absent/new", "ENOENT"),
        ("file", "file/new", "ENOTDIR"),
        ("file/x", "new", "ENOTDIR"),
        ("file", "empty", "EISDIR"),
        ("empty", "file", "ENOTDIR"),
        ("empty", "link", "ENOTDIR"),
        ("empty", "full", "ENOTEMPTY"),
        ("full", "full/dir/new", "EINVAL"),
        ("full", "full", None),
        ("file", "file", None),
        ("full/dir", "full", "ENOTEMPTY"),
        ("file", "x" * 256, "ENAMETOOLONG"),
        ("file", "x" * 255, None),
        ("empty/.", "new", "EBUSY"),
        ("full/..", "new", "EBUSY"),
        ("full", "empty", None),
        ("file", "other", None),
        ("file", "link", None),
        ("link", "file", None),
        ("link", "empty", "EISDIR"),
    ],
)
def test_rename_answers_as_a_disk_does(things, errno_of, old, new, expected):
    before = sorted(os.walk(things))
    assert errno_of(os.rename, f"{things}/{old}", f"{things}/{new}") == expected
    if expected:
        assert sorted(os.walk(things)) == before


def test_noreplace_renames_onto_a_free_name_only(things, rename2, errno_of, sent):
    assert errno_of(rename2, things / "file", things / "other", NOREPLACE) == "EEXIST"
    assert errno_of(rename2, things / "file", things / "link", NOREPLACE) == "EEXIST"
    assert errno_of(rename2, things / "full", things / "empty", NOREPLACE) == "EEXIST"
    assert errno_of(rename2, things / "file", things / "new", NOREPLACE | EXCHANGE) == "EINVAL"
    rename2(things / "file", things / "new", NOREPLACE)
    rename2(things / "full", things / "moved", NOREPLACE)
    assert sent(things) == {"new": b"file", "other": b"other", "moved/file": b"below"}


def test_exchange_swaps_two_names_of_any_kind(things, rename2, errno_of, sent):
    inodes = {name: os.lstat(things / name).st_ino for name in os.listdir(things)}
    assert errno_of(rename2, things / "file", things / "absent", EXCHANGE) == "ENOENT"
    assert errno_of(rename2, things / "full", things / "full" / "dir", EXCHANGE) == "EINVAL"
    assert errno_of(rename2, things / "full" / "dir", things / "full", EXCHANGE) in (
        "EINVAL",
        "ENOTEMPTY",
    )
    rename2(things / "file", things / "other", EXCHANGE)
    assert (things / "file").read_bytes() == b"other"
    assert (things / "other").read_bytes() == b"file"
    assert os.stat(things / "file").st_ino == inodes["other"]
    rename2(things / "file", things / "full", EXCHANGE)
    assert (things / "full").read_bytes() == b"other"
    assert (things / "file" / "file").read_bytes() == b"below"
    rename2(things / "link", things / "empty", EXCHANGE)
    assert os.readlink(things / "empty") == "file"
    assert os.listdir(things / "link") == []
    assert sent(things) == {"other": b"file", "full": b"other", "file/file": b"below"}


def test_a_container_is_not_renamed_and_files_stay_below_the_top(
    shared_mount, things, errno_of, rename2
):
    top = shared_mount.path
    assert errno_of(os.rename, things, top / "renamed") == "EPERM"
    assert errno_of(os.rename, things, things / "empty" / "x") == "EINVAL"
    assert errno_of(os.rename, things / "file", top / "file") == "EPERM"
    assert errno_of(os.rename, things / "full", top / "full") == "EXDEV"
    assert errno_of(rename2, things / "full", things, EXCHANGE) in ("EPERM", "EINVAL", "ENOTEMPTY")
    assert errno_of(os.open, top / "file", os.O_CREAT | os.O_WRONLY) == "EPERM"
    assert errno_of(os.symlink, "x", top / "link") == "EPERM"
    assert errno_of(os.rmdir, top) == "EBUSY"
    assert errno_of(os.rename, top, top.parent / "elsewhere") == "EBUSY"
    assert errno_of(os.rename, things / "file", top.parent / "elsewhere") == "EXDEV"
    assert errno_of(os.chmod, top, 0o700) == "EPERM"


def test_the_wrong_kind_of_thing_is_refused(things, errno_of):
    assert errno_of(os.rmdir, things / "file") == "ENOTDIR"
    assert errno_of(os.rmdir, things / "link") == "ENOTDIR"
    assert errno_of(os.rmdir, things / "full") == "ENOTEMPTY"
    assert errno_of(os.rmdir, things / "absent") == "ENOENT"
    assert errno_of(os.rmdir, f"{things}/empty/.") == "EINVAL"
    assert errno_of(os.unlink, things / "empty") == "EISDIR"
    assert errno_of(os.unlink, things / "absent") == "ENOENT"
    assert errno_of(os.unlink, things / "file" / "x") == "ENOTDIR"
    assert errno_of(os.mkdir, things / "empty") == "EEXIST"
    assert errno_of(os.mkdir, things / "link") == "EEXIST"
    assert errno_of(os.mkdir, things / "absent" / "x") == "ENOENT"
    assert errno_of(os.mkdir, things / "file" / "x") == "ENOTDIR"
    assert errno_of(os.listdir, things / "file") == "ENOTDIR"
    assert errno_of(os.symlink, "x", things / "file") == "EEXIST"
    assert errno_of(os.readlink, things / "file") == "EINVAL"
    assert errno_of(os.truncate, things / "full", 0) == "EISDIR"


def test_hard_links_and_devices_are_not_permitted(things, errno_of):
    assert errno_of(os.link, things / "file", things / "hard") == "EPERM"
    assert errno_of(os.mknod, things / "device", 0o20644, os.makedev(1, 3)) == "EPERM"
    os.mknod(things / "regular", 0o100600)
    assert os.stat(things / "regular").st_mode == 0o100600


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127 + "x"])
def test_names_of_255_bytes_work_and_longer_ones_are_refused(box, errno_of, name, sent):
    (box / name).write_bytes(b"x")
    assert (box / name).read_bytes() == b"x"
    assert sent(box) == {name: b"x"}
    longer = name + "x"
    assert errno_of(os.stat, box / longer) == "ENAMETOOLONG"
    assert errno_of(os.open, box / longer, os.O_CREAT | os.O_WRONLY) == "ENAMETOOLONG"
    assert errno_of(os.mkdir, box / longer) == "ENAMETOOLONG"
    assert errno_of(os.symlink, "x", box / longer) == "ENAMETOOLONG"
    assert errno_of(os.unlink, box / longer) == "ENAMETOOLONG"
    assert errno_of(os.rename, box / longer, box / "y") == "ENAMETOOLONG"


def test_a_read_only_mount_takes_no_change(mount, server, errno_of):
    server.write(server.new_container("box"), "/mnt/data/file", b"x")
    box = mount(ro=True) / "box"
    assert (box / "file").read_bytes() == b"x"
    assert errno_of(os.open, box / "file", os.O_WRONLY) == "EROFS"
    assert errno_of(os.open, box / "new", os.O_WRONLY | os.O_CREAT) == "EROFS"
    assert errno_of(os.unlink, box / "file") == "EROFS"
    assert errno_of(os.rename, box / "file", box / "new") == "EROFS"
    assert errno_of(os.mkdir, box / "dir") == "EROFS"
    assert errno_of(os.rmdir, box) == "EROFS"
    assert errno_of(os.chmod, box / "file", 0o600) == "EROFS"
    assert errno_of(os.utime, box / "file") == "EROFS"


def test_an_open_directory_that_was_removed_is_empty(box, errno_of):
    (box / "dir").mkdir()
    fd = os.open(box / "dir", os.O_RDONLY)
    os.rmdir(box / "dir")
    try:
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []
        assert errno_of(os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=fd) == "ENOENT"
        (box / "dir").mkdir()
        (box / "dir" / "file").touch()
        assert os.listdir(fd) == []
    finally:
        os.close(fd)


def test_a_directory_that_is_somebodys_working_directory_can_be_renamed(box):
    (box / "dir").mkdir()
    script = (
        "import os, sys; os.chdir(sys.argv[1]); print(flush=True); sys.stdin.readline(); "
        "open('made', 'w').write('x'); print(os.getcwd())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, box / "dir"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        os.rename(box / "dir", box / "renamed")
        assert process.communicate("\n")[0].strip() == str(box / "renamed")
    assert (box / "renamed" / "made").read_bytes() == b"x"


def test_a_big_tree_is_removed(box, run, sent, counted):
    for first in range(10):
        for second in range(4):
            directory = box / f"{first}" / f"{second}"
            directory.mkdir(parents=True)
            for third in range(5):
                (directory / f"{third}").write_bytes(b"x")
    assert len(sent(box)) == 200
    counted(box)
    run("rm", "-rf", *sorted(box.iterdir()))
    assert os.listdir(box) == []
    assert sent(box) == {}
    assert counted(box)["delete_file"] == 200
