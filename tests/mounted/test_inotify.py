"""What inotify tells of changes through the mount, and, when asked for, of changes by others."""

import ctypes
import os
import select
import struct
import subprocess

import pytest

LIBC = ctypes.CDLL(None, use_errno=True)
NAMES = {
    0x002: "MODIFY",
    0x004: "ATTRIB",
    0x008: "CLOSE_WRITE",
    0x040: "MOVED_FROM",
    0x080: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
}
MASK = sum(NAMES)


class Watch:
    """Events of one directory."""

    def __init__(self, path):
        self.fd = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        assert LIBC.inotify_add_watch(self.fd, os.fsencode(path), MASK) > 0

    def events(self):
        """What happened by now, as "NAME file"."""
        found = []
        while select.select([self.fd], [], [], 0)[0]:
            data = os.read(self.fd, 65536)
            while data:
                _, mask, _, length = struct.unpack_from("iIII", data)
                name = data[16 : 16 + length].rstrip(b"\0").decode()
                found += [f"{NAMES[bit]} {name}".strip() for bit in NAMES if mask & bit]
                data = data[16 + length :]
        return found


@pytest.fixture
def watch():
    watches = []

    def watch(path):
        watches.append(Watch(path))
        return watches[-1]

    yield watch
    for each in watches:
        os.close(each.fd)


def test_changes_through_the_mount_are_seen_as_on_a_disk(box, tmp_path, watch, run):
    """The same commands on both: the same events."""
    script = (
        "echo a > f; echo b >> f; mv f g; mkdir d; touch d2; chmod 600 g; cp g h; ln -s g l; "
        "mv h d/h; rm g l; sed -i s/x/y/ d2; mv d e"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    told = []
    for directory in (box, disk):
        watcher = watch(directory)
        run("sh", "-c", script, cwd=directory)
        events = [each for each in watcher.events() if " sed" not in each]
        told.append(events)
    assert told[0] == told[1]
    assert "CREATE f" in told[0]
    assert "CLOSE_WRITE f" in told[0]
    assert "MOVED_FROM f" in told[0]
    assert "MOVED_TO g" in told[0]


def test_another_process_that_watches_is_woken(box):
    with subprocess.Popen(
        ["inotifywait", "-m", "--format", "%e %f", "-e", "close_write,moved_to", box],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while "established" not in process.stderr.readline():
            pass
        (box / "file").write_bytes(b"x")
        assert process.stdout.readline() == "CLOSE_WRITE,CLOSE file\n"
        os.rename(box / "file", box / "new")
        assert process.stdout.readline() == "MOVED_TO new\n"
        process.terminate()


def test_sending_a_file_causes_no_event_of_its_own(box, watch):
    watcher = watch(box)
    fd = os.open(box / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x")
    os.fsync(fd)
    os.close(fd)
    assert watcher.events() == ["CREATE file", "MODIFY file", "CLOSE_WRITE file"]


def test_changes_by_others_are_told_when_asked_for(mount, server, watch, eventually):
    id = server.new_container("box")
    server.write(id, "/mnt/data/dir/file", b"x")
    mounted = mount(notify="utime", ttl=0)
    box = mounted / "box"
    os.listdir(box)
    os.listdir(box / "dir")
    before = os.stat(box / "dir")
    top, below = watch(box), watch(box / "dir")
    server.write(id, "/mnt/data/dir/new", b"x")
    assert sorted(os.listdir(box / "dir")) == ["file", "new"]
    eventually(lambda: "ATTRIB" in below.events())
    assert top.events() == ["ATTRIB dir"]
    after = os.stat(box / "dir")
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    server.write(id, "/mnt/data/other", b"x")
    os.listdir(box)
    eventually(lambda: "ATTRIB" in top.events())


def test_changes_by_others_are_not_told_when_not_asked_for(mount, server, watch):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"x")
    box = mount(ttl=0) / "box"
    os.listdir(box)
    watcher = watch(box)
    server.write(id, "/mnt/data/new", b"x")
    assert sorted(os.listdir(box)) == ["file", "new"]
    (box / "own").write_bytes(b"x")
    assert watcher.events() == ["CREATE own", "MODIFY own", "CLOSE_WRITE own"]
