"""What others do to a file while a slow server keeps an operation on it waiting."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest


@pytest.fixture
def pool():
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def arrived(server, eventually):
    """`arrived(operation, count)`: returns once so many requests for it have come."""

    def arrived(operation, count=1):
        eventually(lambda: len(server.requests(operation)) >= count)

    return arrived


@pytest.fixture
def waiting(pool, eventually):
    """`waiting(call)`: the future of a call that the file system keeps waiting."""

    def waiting(call):
        begun = threading.Event()
        threads = []

        def run():
            threads.append(threading.get_native_id())
            begun.set()
            return call()

        future = pool.submit(run)
        begun.wait()
        place = Path(f"/proc/self/task/{threads[0]}/wchan")
        eventually(lambda: place.read_text() == "request_wait_answer" or future.done())
        return future

    return waiting


def test_a_file_that_is_sent_while_its_directory_waits_to_be_renamed_stays(
    server, mount, pool, waiting, arrived, write, stored, id_of
):
    box = mount(ttl=3600) / "box"
    (box / "dir").mkdir(parents=True)
    write(box / "dir" / "there", b"there")
    server.forget_requests()
    server.set_faults(
        {"kind": "latency", "operation": "create_file", "seconds": 2, "count": 1},
        {"kind": "stall-body", "operation": "create_file", "at": 5, "seconds": 4, "after": 1}
        | {"count": 1},
    )
    one = pool.submit(write, box / "dir" / "one", b"one")
    arrived("create_file")
    rename = waiting(lambda: os.rename(box / "dir", box / "new"))
    other = pool.submit(write, box / "dir" / "other", b"other")
    for call in (one, rename, other):
        call.result()
    contents = {"there": b"there", "one": b"one", "other": b"other"}
    assert {path.name: path.read_bytes() for path in (box / "new").iterdir()} == contents
    assert sorted(stored(id_of(box)).values()) == sorted(contents.values())


def test_a_directory_s_sync_does_not_fail_for_a_file_that_another_sync_sent_meanwhile(
    server, mount, pool, arrived, stored, id_of, eventually, errno_of
):
    def sync(file):
        return errno_of(lambda: os.fsync(file))

    box = mount(ttl=3600) / "box"
    box.mkdir()
    directory = os.open(box, os.O_RDONLY)
    files = [os.open(box / name, os.O_WRONLY | os.O_CREAT) for name in ("a", "b")]
    for file in files:
        os.write(file, b"content")
    server.set_faults(
        {"kind": "status", "status": 400, "operation": "create_file", "count": 1},
        {"kind": "latency", "operation": "create_file", "seconds": 3, "count": 1},
    )
    whole = pool.submit(os.fsync, directory)
    arrived("create_file", 2)
    syncs = [pool.submit(eventually, lambda file=file: sync(file) is None) for file in files]
    for each in (*syncs, whole):
        each.result()
    for each in (*files, directory):
        os.close(each)
    assert stored(id_of(box)) == {"a": b"content", "b": b"content"}


@pytest.mark.parametrize("by", ["this mount", "another machine"])
def test_what_replaces_a_file_that_is_being_opened_is_what_is_read(
    server, mount, pool, arrived, write, by
):
    id = server.new_container("box")
    old = server.write(id, "/mnt/data/file", b"old content", created_at=1_000)["id"]
    box = mount(ttl=0) / "box"
    assert os.listdir(box) == ["file"]
    server.set_faults({"kind": "latency", "operation": "content", "match": old, "seconds": 2})
    server.forget_requests()
    reader = pool.submit((box / "file").read_bytes)
    arrived("content")
    if by == "this mount":
        write(box / "file", b"new")
    else:
        server.call("DELETE", f"/v1/containers/{id}/files/{old}")
        server.write(id, "/mnt/data/file", b"new", created_at=2_000)
    assert os.listdir(box) == ["file"]  # so that the mount knows it, before the old one is missed
    assert reader.result() == b"new"
    assert os.listdir(box) == ["file"]
    assert (box / "file").read_bytes() == b"new"
    assert len(server.files(id)) == 1


def test_who_opens_a_file_that_gets_its_content_here_meanwhile_reads_that(
    server, mount, pool, arrived
):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"old content")
    box = mount(ttl=3600, timeout=3) / "box"
    assert os.listdir(box) == ["file"]
    server.set_faults({"kind": "status", "status": 500, "operation": "content"})
    server.forget_requests()
    reader = pool.submit((box / "file").read_bytes)
    arrived("content")
    with (box / "file").open("wb", buffering=0) as file:
        file.write(b"new")
        assert reader.result() == b"new"


def test_what_can_not_be_read_can_be_opened_to_be_written(server, mount, errno_of):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"old content")
    box = mount(ttl=3600, timeout=1) / "box"
    assert os.listdir(box) == ["file"]
    server.set_faults({"kind": "status", "status": 500, "operation": "content"})
    assert errno_of((box / "file").open, "rb", buffering=0) == "EIO"
    with (box / "file").open("r+b", buffering=0) as file:
        assert errno_of(file.read) == "EIO"
        file.truncate(0)
        file.write(b"new")
    assert (box / "file").read_bytes() == b"new"


def test_what_does_not_fit_the_cache_is_asked_for_once(server, mount):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content" * 20_000)
    path = mount(ttl=3600, cache_size="100k") / "box" / "file"
    assert path.read_bytes() == b"content" * 20_000
    assert len(server.requests("content")) == 1
