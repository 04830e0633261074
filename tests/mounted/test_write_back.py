"""What the README promises of `write_back`."""

import os
import threading

import pytest

LATER = 60  # seconds: longer than any test


def xattr(path, name):
    return os.getxattr(path, f"user.containerfs.{name}").decode()


@pytest.fixture
def boxed(mount):
    """`boxed(**options)`: a mount, and a container in it."""

    def boxed(**options):
        mounted = mount(**options)
        (mounted / "box").mkdir()
        return mounted, mounted / "box"

    return boxed


def test_with_write_back_close_returns_once_the_file_is_safe_on_this_disk(
    boxed, server, stored, run, command
):
    mounted, box = boxed(write_back=LATER)
    id = xattr(box, "id")
    (box / "file").write_bytes(b"content")
    assert (box / "file").read_bytes() == b"content"
    assert "box/file" in run(command, "queue", mounted.path)
    assert server.requests("create_file") == []
    mounted.kill()
    mounted.remount()
    assert (box / "file").read_bytes() == b"content"
    mounted.stop()
    assert stored(id) == {"file": b"content"}


def test_with_write_back_it_is_sent_within_that_time(boxed, stored, eventually):
    _, box = boxed(write_back=0.2)
    id = xattr(box, "id")
    (box / "file").write_bytes(b"content")
    (box / "empty").touch()
    with (box / "open").open("wb", buffering=0) as still_open:
        still_open.write(b"closed once")
        os.close(os.dup(still_open.fileno()))
        expected = {"file": b"content", "empty": b"", "open": b"closed once"}
        eventually(lambda: stored(id) == expected)


def test_with_write_back_many_are_sent_at_once(boxed, server, stored, eventually):
    _, box = boxed(write_back=0)
    id = xattr(box, "id")
    server.set_faults({"kind": "stall", "operation": "create_file", "seconds": 2})
    contents = {f"file{number}": b"%d" % number for number in range(8)}
    for name, content in contents.items():
        (box / name).write_bytes(content)
    eventually(lambda: server.admin("GET", "/admin/faults")[0]["fired"] == len(contents))
    assert stored(id) == {}
    eventually(lambda: stored(id) == contents)


def test_with_write_back_fsync_and_sync_wait_for_the_server(boxed, stored, sync):
    _, box = boxed(write_back=LATER)
    id = xattr(box, "id")
    with (box / "file").open("wb", buffering=0) as writer:
        writer.write(b"content")
        os.fsync(writer.fileno())
        assert stored(id) == {"file": b"content"}
    (box / "other").write_bytes(b"other")
    assert stored(id) == {"file": b"content"}
    sync(box)
    assert stored(id) == {"file": b"content", "other": b"other"}


def test_with_write_back_a_file_that_is_saved_again_is_sent_once(boxed, server, stored):
    mounted, box = boxed(write_back=LATER)
    id = xattr(box, "id")
    for number in range(5):
        (box / "file").write_bytes(b"%d" % number)
    (box / "gone").write_bytes(b"gone")
    (box / "gone").unlink()
    os.rename(box / "file", box / "renamed")
    mounted.stop()
    assert stored(id) == {"renamed": b"4"}
    assert len(server.requests("create_file")) == 1


@pytest.mark.parametrize("how", ["close", "fsync"])
def test_with_write_back_a_failure_is_the_next_closes_error_once(
    boxed, server, errno_of, eventually, how, sync
):
    mounted, box = boxed(write_back=0)
    mounted.expect("'file' is not on the server", "is kept here", "not everything")
    server.set_faults({"kind": "status", "operation": "create_file", "status": 403})
    (box / "file").write_bytes(b"content")
    eventually(lambda: "error" in str(os.listxattr(box / "file")))

    def close():
        fd = os.open(box / "file", os.O_RDWR)
        try:
            if how == "fsync":
                os.fsync(fd)
        finally:
            os.close(fd)

    assert errno_of(close) == "EACCES"
    assert "403" in xattr(box / "file", "error")
    server.set_faults()
    if how == "close":
        assert errno_of(close) is None
        sync(box / "file")
    assert errno_of(close) is None
    assert errno_of(os.getxattr, box / "file", "user.containerfs.error") == "ENODATA"


def test_with_write_back_a_write_while_it_is_sent_is_not_mixed_in(boxed, server, stored):
    mounted, box = boxed(write_back=0)
    id = xattr(box, "id")
    server.set_faults({"kind": "stall", "operation": "create_file", "seconds": 1, "count": 1})
    writers = [
        threading.Thread(target=(box / "file").write_bytes, args=(b"%d" % number * 1000,))
        for number in range(5)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    last = (box / "file").read_bytes()
    assert last in [b"%d" % number * 1000 for number in range(5)]
    mounted.stop()
    assert stored(id) == {"file": last}


def test_what_is_written_while_a_directory_is_synced_is_sent_by_the_next_fsync(boxed, stored, sync):
    _, box = boxed(write_back=LATER)
    id = xattr(box, "id")
    names = [f"file{number}" for number in range(4)]
    wrong = []
    for writes in range(60):  # each ends at another moment of the sending
        fds = [os.open(box / name, os.O_RDWR | os.O_CREAT) for name in names]
        for fd in fds:
            os.pwrite(fd, b"before %04d" % writes, 0)
        syncing = threading.Thread(target=sync, args=(box,))
        syncing.start()
        for _ in range(8 * writes):
            os.statvfs(box)
        for fd in fds:
            os.pwrite(fd, b"meanwhile %04d" % writes, 0)
        syncing.join()
        last = {name: os.pread(fd, 100, 0) for name, fd in zip(names, fds, strict=True)}
        for fd in fds:
            os.fsync(fd)
            os.close(fd)
        wrong += [name for name in names if stored(id)[name] != last[name]]
    assert not wrong
