"""What the README promises of reading."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from containerfs.cache.packs import cost


def content_of(length, *, seed=b"x"):
    """Bytes that differ everywhere."""
    return (b"".join(seed + b"%07d\n" % number for number in range(length // 9 + 1)))[:length]


def used(cache):
    """Bytes on disk of all cached content."""
    size = 0
    for path in cache.rglob("content/*"):
        with suppress(FileNotFoundError):
            size += os.stat(path).st_blocks * 512
    return size


def test_a_file_is_fetched_once(server, mount, eventually, run):
    data = content_of(3_000_000)
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", data)
    mounted = mount()
    file = mounted / "box" / "file"
    gate = threading.Barrier(8)

    def read(turn):
        gate.wait()
        with file.open("rb") as reader:
            reader.seek(turn * 300_000)
            return reader.read() == data[turn * 300_000 :]

    with ThreadPoolExecutor(8) as readers:
        assert all(readers.map(read, range(8)))
    assert file.read_bytes() == data
    assert len(server.requests("content")) == 1
    mounted.remount()
    assert file.read_bytes() == data
    assert run("cmp", file, "-", check=False).returncode == 1
    assert len(server.requests("content")) == 1


def test_the_least_recently_read_content_goes_first(server, mount, eventually):
    id = server.new_container("box")
    for name in ("a", "b", "c"):
        server.write(id, f"/mnt/data/{name}", content_of(600_000, seed=name.encode()))
    mounted = mount(cache_size="1500000")

    def read(name):
        with (mounted / "box" / name).open("rb") as reader:
            os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the kernel's pages
            assert reader.read() == content_of(600_000, seed=name.encode())

    for name in ("a", "b", "a", "c"):
        read(name)
    eventually(lambda: 1_200_000 <= used(mounted.cache) <= 1_500_000)
    server.forget_requests()
    for name in ("a", "c"):
        read(name)
    assert server.requests("content") == []
    read("b")
    assert len(server.requests("content")) == 1


def test_bytes_are_served_while_the_rest_still_arrives(server, mount):
    data = content_of(2_000_000)
    server.write(server.new_container("box"), "/mnt/data/file", data)
    server.set_faults({"operation": "content", "kind": "stall-body", "at": 1_000_000})
    mounted = mount(transfer_timeout=2)
    with (mounted / "box" / "file").open("rb", buffering=0) as reader:
        assert reader.read(4096) == data[:4096]
        server.set_faults()
        assert os.pread(reader.fileno(), 4096, 500_000) == data[500_000:504_096]
        rest = b""
        while len(rest) < len(data) - 4096:
            rest += reader.read(1 << 20)
        assert rest == data[4096:]


@pytest.mark.parametrize("behaviours", [{}, {"content_length": False}, {"range": False}], ids=str)
def test_a_broken_stream_is_taken_up_where_it_stopped(server, mount, behaviours):
    data = content_of(300_000)
    server.set_behaviours(**behaviours)
    server.write(server.new_container("box"), "/mnt/data/file", data)
    server.set_faults({"operation": "content", "kind": "cut", "at": 100_000, "count": 1})
    assert (mount() / "box" / "file").read_bytes() == data
    assert len(server.requests("content")) == 2


@pytest.mark.parametrize("behaviours", [{}, {"content_length": False}, {"range": False}], ids=str)
def test_a_size_that_the_server_does_not_tell_is_found_out_when_asked_for(
    server, mount, run, behaviours
):
    server.set_behaviours(null_bytes="always", **behaviours)
    id = server.new_container("box")
    data = content_of(200_000)
    for name in ("big", "again"):
        server.write(id, f"/mnt/data/{name}", data)
    server.write(id, "/mnt/data/empty", b"")
    mounted = mount()
    box = mounted / "box"
    assert sorted(os.listdir(box)) == ["again", "big", "empty"]
    assert server.requests("content") == []
    assert os.stat(box / "big").st_size == len(data)
    assert (box / "big").read_bytes() == data
    assert run("cat", box / "again", text=False) == data
    assert run("wc", "-c", "again", "big", "empty", cwd=box).split()[0:4:2] == ["200000", "200000"]
    assert run("stat", "-c", "%s", box / "empty") == "0\n"
    assert (box / "empty").read_bytes() == b""
    (box / "written").write_bytes(b"written here")
    assert os.stat(box / "written").st_size == 12
    assert (mounted.remount() / "box" / "written").read_bytes() == b"written here"


WRONG = [
    (10, {}),
    (40_000, {}),
    (None, {"kind": "endless"}),
    (None, {"kind": "answer", "status": 200, "body": '{"error": "no such file"}'}),
    (None, {"kind": "cut", "at": 0}),
]


@pytest.mark.parametrize("content_length", [True, False])
def test_a_wrong_length_is_an_error(server, mount, errno_of, eventually, content_length):
    data = content_of(20_000)
    server.set_behaviours(content_length=content_length)
    id = server.new_container("box")
    faults = []
    for number, (told, fault) in enumerate(WRONG):
        members = {} if told is None else {"bytes": told}
        file = server.write(id, f"/mnt/data/{number}", data, **members)["id"]
        faults += [{"operation": "content", "match": file, **fault}] if fault else []
    server.write(id, "/mnt/data/right", data)
    server.set_faults(*faults)
    mounted = mount(transfer_timeout=2)
    for number, (told, _) in enumerate(WRONG):
        file = mounted / "box" / str(number)
        assert os.stat(file).st_size == (told or len(data))
        for _ in range(2):
            assert errno_of(file.read_bytes) == "EIO", WRONG[number]
    assert (mounted / "box" / "right").read_bytes() == data
    eventually(lambda: used(mounted.cache) == cost(len(data)))


def test_an_error_sent_as_a_file_is_never_content(server, mount, errno_of):
    id = server.new_container("box")
    server.write(id, "/mnt/data/phantom", phantom=True, bytes=5)
    server.set_behaviours(errors_as_200=True)
    mounted = mount()
    assert errno_of((mounted / "box" / "phantom").read_bytes) == "EIO"
    assert used(mounted.cache) == 0


def test_a_listed_file_that_is_not_there_disappears(server, mount, errno_of):
    id = server.new_container("box")
    server.write(id, "/mnt/data/phantom", phantom=True)
    server.write(id, "/mnt/data/a.txt/mnt/data/b.txt", phantom=True)
    server.write(id, "/mnt/data/file", b"content")
    mounted = mount()
    assert len(os.listdir(mounted / "box")) == 3
    assert errno_of((mounted / "box" / "phantom").read_bytes) == "ENOENT"
    assert "phantom" not in os.listdir(mounted / "box")
    assert (mounted / "box" / "file").read_bytes() == b"content"


def test_a_large_file_comes_by_parts_and_no_byte_twice(server, mount, run):
    data = content_of(20 << 20)
    server.write(server.new_container("box"), "/mnt/data/file", data)
    server.set_faults({"kind": "latency", "operation": "content", "seconds": 0.03})
    file = mount() / "box" / "file"
    with file.open("rb") as reader:
        assert run("tail", "-c", "100", file, text=False) == data[-100:]
        assert reader.read() == data
    asked = server.requests("content")
    assert sum(request["bytes_out"] for request in asked) == len(data)
    assert {request["status"] for request in asked} == {206}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may tell the kernel")
def test_the_kernel_reads_a_mebibyte_ahead(box):
    device = os.stat(box).st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}")
    assert (bdi / "read_ahead_kb").read_text() == "1024\n"
