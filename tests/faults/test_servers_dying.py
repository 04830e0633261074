"""The server is killed, alone or together with the mount: what it acknowledged is there, once, and
what it did not is kept and sent.
"""

import os
import random
import threading

import pytest

NOT_SENT = ("not on the server", "is kept here", "not everything", "stale listing", "is deleted")
NOT_SENT += ("deleted later", "kept for later", "rename")


class Under:
    """Calls made at the same time; `.answers` has the errno or None of each that is over."""

    def __init__(self, errno_of, **calls):
        self.answers = {}

        def make(name, call):
            self.answers[name] = errno_of(call)

        self._threads = [threading.Thread(target=make, args=pair) for pair in calls.items()]
        for thread in self._threads:
            thread.start()

    def end(self):
        for thread in self._threads:
            thread.join()
        return self.answers


def fired(server):
    return all(fault["fired"] for fault in server.admin("GET", "/admin/faults"))


POINTS = {
    "before it took anything": {"kind": "stall", "operation": "create_file"},
    "once it had stored the file": {"kind": "stall-body", "at": 0, "operation": "create_file"},
    "before the old one went": {"kind": "stall", "operation": "delete_file"},
    "once the old one had gone": {"kind": "stall-body", "at": 0, "operation": "delete_file"},
}


@pytest.fixture
def mounted(mount):
    mounted = mount(ttl=0.1)
    mounted.expect(*NOT_SENT)
    return mounted


@pytest.fixture
def box(mounted):
    path = mounted / "box"
    path.mkdir()
    return path


@pytest.mark.parametrize("with_mount", [False, True], ids=["alone", "with the mount"])
@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_a_server_killed_in_an_upload_has_each_file_once_afterwards(
    server, mounted, box, stored, id_of, errno_of, eventually, point, with_mount, write, sync
):
    id = id_of(box)
    write(box / "kept", b"kept")
    write(box / "file", b"old")
    server.set_faults(point)
    under = Under(errno_of, file=lambda: write(box / "file", b"new"))
    eventually(lambda: fired(server))
    server.kill()
    if with_mount:
        mounted.kill()
    server.start()
    assert stored(id)["kept"] == b"kept"
    answer = under.end()["file"]
    if with_mount:
        mounted.remount()
    elif answer is None:
        assert stored(id)["file"] == b"new"
    assert (box / "file").read_bytes() == b"new"
    sync(box)
    eventually(lambda: stored(id) == {"kept": b"kept", "file": b"new"})
    assert sorted(os.listdir(box)) == ["file", "kept"]


def test_a_server_killed_in_the_middle_of_a_large_body_has_the_file_once_afterwards(
    server, box, stored, id_of, errno_of, eventually, write, sync
):
    data = random.Random(1).randbytes(64 << 20)
    under = Under(errno_of, file=lambda: write(box / "file", data))
    eventually(lambda: any(1 << 20 < size < len(data) for size in sizes(server.data)))
    server.kill()
    server.start()
    under.end()
    sync(box)
    assert stored(id_of(box)) == {"file": data}
    assert (box / "file").read_bytes() == data


def sizes(directory):
    """Bytes of every file below *directory*, whatever comes and goes there."""
    for above, _, names in os.walk(directory):
        for name in names:
            try:
                yield os.stat(os.path.join(above, name)).st_size
            except FileNotFoundError:
                continue


def test_what_a_dead_server_did_not_take_is_kept_and_sent_when_it_lives(
    server, box, stored, id_of, errno_of, eventually, write
):
    id = id_of(box)
    write(box / "old", b"old")
    server.kill()
    answers = Under(
        errno_of,
        old=lambda: write(box / "old", b"overwritten"),
        new=lambda: write(box / "new", b"new"),
    ).end()
    assert set(answers.values()) == {"EHOSTUNREACH"}
    for name, data in {"old": b"overwritten", "new": b"new"}.items():
        assert (box / name).read_bytes() == data
        assert b"no connection" in os.getxattr(box / name, "user.containerfs.error")
    server.start()
    eventually(lambda: stored(id) == {"old": b"overwritten", "new": b"new"})
    assert "user.containerfs.error" not in os.listxattr(box / "new")


def test_a_server_killed_again_and_again_loses_and_doubles_nothing(
    server, mounted, box, stored, id_of, errno_of, write, sync
):
    """Four write versions of their file after each other while the server comes and goes."""
    id = id_of(box)
    chance = random.Random(7)
    names = [f"file{number}" for number in range(4)]
    last = dict.fromkeys(names, b"")
    is_over = threading.Event()
    turn = threading.Event()

    def life(name):
        for version in range(1000):
            if is_over.is_set():
                return
            last[name] = b"%s, version %d" % (name.encode(), version)
            errno_of(write, box / name, last[name])

    threads = [threading.Thread(target=life, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for _ in range(5):
        turn.wait(chance.uniform(0.05, 0.6))
        server.kill()
        server.start()
    is_over.set()
    for thread in threads:
        thread.join()
    sync(box)
    assert {name: (box / name).read_bytes() for name in names} == last
    mounted.stop()
    assert stored(id) == last


@pytest.mark.parametrize("with_mount", [False, True], ids=["alone", "with the mount"])
def test_a_server_killed_under_write_back_gets_everything_later(
    server, mount, stored, id_of, eventually, with_mount, write, sync
):
    mounted = mount(write_back=0.2, ttl=0.1)
    mounted.expect(*NOT_SENT)
    box = mounted / "box"
    box.mkdir()
    id = id_of(box)
    write(box / "old", b"old")
    sync(box)
    server.set_faults({"kind": "stall-body", "at": 0, "operation": "create_file"})
    contents = {f"file{number}": b"%d" % number for number in range(20)} | {"old": b"newer"}
    for name, data in contents.items():
        write(box / name, data)
    eventually(lambda: fired(server))
    server.kill()
    if with_mount:
        mounted.kill()
    server.start()
    if with_mount:
        mounted.remount()
    assert {name: (box / name).read_bytes() for name in contents} == contents
    sync(box)
    eventually(lambda: stored(id) == contents)
    assert sorted(os.listdir(box)) == sorted(contents)
