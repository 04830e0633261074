"""What a mount takes of the machine is bounded, whatever there is to do: memory, disk, connections,
threads."""

import hashlib
import os
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20
WINDOW = 8 * MIB  # of disk, for each place at which a file is read that does not fit the cache
SLACK = MIB // 4  # small files come and go while they are counted one after the other


def fact(mounted, name):
    """A number that /proc tells of the mount's process."""
    lines = Path(f"/proc/{mounted.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def peak_memory(mounted):
    return fact(mounted, "VmHWM") * 1024


def used(mounted):
    """Bytes of disk that the cached content takes, also where its name is gone."""
    found = {}
    for path in mounted.cache.glob("*/content/*"):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        found[facts.st_ino] = facts.st_blocks * 512
    for path in Path(f"/proc/{mounted.pid}/fd").iterdir():
        try:
            if "/content/" in os.readlink(path):
                facts = path.stat()
                found[facts.st_ino] = facts.st_blocks * 512
        except FileNotFoundError:
            continue
    return sum(found.values())


def connections(server):
    """How many are open at the server: its own ends have its socket's path, and are connected."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(f" {server.uds}") and line.split()[5] == "03" for line in lines)


@contextmanager
def watching(measure):
    """The highest value of *measure* while what is inside runs, in a list."""
    most = [measure()]
    is_over = threading.Event()

    def watch():
        while not is_over.wait(0.005):
            most[0] = max(most[0], measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()
        most[0] = max(most[0], measure())


def blocks_of(size, *, seed=b""):
    """Content of *size* bytes, no two blocks of which are alike, by pieces of 1 MiB."""
    block = random.Random(seed).randbytes(MIB)
    for offset in range(0, size, MIB):
        piece = offset.to_bytes(8, "big") + block[8:]
        yield piece[: size - offset]


def need_disk(path, size):
    free = shutil.disk_usage(path).free
    if free < size + 1024 * MIB:
        pytest.skip(f"{size >> 20} MiB of disk are needed, {free >> 20} MiB are free")


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.deep)])
def test_a_container_of_many_files_takes_little_memory(server, mount, run, count):
    id = server.new_container("box")
    for start in range(0, count, 5_000):
        names = (f"/mnt/data/file number {number:06}" for number in range(start, start + 5_000))
        files = [{"path": name, "phantom": True, "bytes": 10} for name in names]
        server.admin("POST", f"/admin/files/{id}", files)
    mounted = mount()
    before = peak_memory(mounted)
    listed = run("ls", "-l", mounted / "box")
    assert len(listed.splitlines()) == count + 1
    assert peak_memory(mounted) < before + 2_000 * count
    assert count < 100_000 or peak_memory(mounted) < 300e6


@pytest.mark.parametrize("size", [256 * MIB, pytest.param(5_120 * MIB, marks=pytest.mark.deep)])
def test_a_large_file_is_copied_in_and_out_with_little_memory(mount, run, tmp_path, size):
    need_disk(tmp_path, 4 * size)
    source = tmp_path / "source"
    with source.open("wb") as writer:
        writer.writelines(blocks_of(size))
    first = mount(max_file_size=size)
    (first / "box").mkdir()
    run("cp", source, first / "box" / "file", patience=600)
    assert peak_memory(first) < 200e6
    first.stop()
    second = mount(max_file_size=size)
    run("cmp", source, second / "box" / "file", patience=600)
    assert peak_memory(second) < 200e6


@pytest.fixture
def large(server, mount):
    """A file that is much larger than the cache of the mount it is in; its path and content."""
    data = b"".join(blocks_of(48 * MIB))
    server.write(server.new_container("box"), "/mnt/data/file", data)
    mounted = mount(cache_size="4MiB")
    return mounted, mounted / "box" / "file", data


def test_a_file_larger_than_the_cache_is_read_without_passing_its_size(large, server):
    mounted, path, data = large
    with watching(lambda: used(mounted)) as most:
        assert path.read_bytes() == data
    assert 0 < most[0] <= 4 * MIB + WINDOW
    assert len(server.requests("content")) == 1


def test_a_file_larger_than_the_cache_is_read_by_many_in_any_order(large):
    mounted, path, data = large
    order = random.Random(3)

    def read(_):
        with path.open("rb", buffering=0) as reader:
            for _ in range(10):
                place = order.randrange(len(data))
                os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if os.pread(reader.fileno(), 5_000, place) != data[place : place + 5_000]:
                    return False
        return True

    with watching(lambda: used(mounted)) as most, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    assert most[0] <= 4 * MIB + 32 * WINDOW


def test_a_file_larger_than_the_cache_can_be_changed_and_renamed(large, stored, id_of):
    mounted, path, data = large
    with path.open("r+b") as writer:
        writer.seek(5)
        writer.write(b"changed")
    path.rename(path.with_name("renamed"))
    expected = data[:5] + b"changed" + data[12:]
    assert stored(id_of(mounted / "box")) == {"renamed": expected}
    assert path.with_name("renamed").read_bytes() == expected


def test_many_files_do_not_pass_the_size_of_the_cache(server, mount, run):
    id = server.new_container("box")
    contents = {f"file{number}": os.urandom(10_000) for number in range(300)}
    contents |= {f"tiny{number}": b"%d" % number for number in range(600)}
    for name, data in contents.items():
        server.write(id, f"/mnt/data/{name}", data)
    mounted = mount(cache_size="1MiB")
    with watching(lambda: used(mounted)) as most:
        for name, data in contents.items():
            assert (mounted / "box" / name).read_bytes() == data
    assert MIB // 2 < most[0] <= MIB + SLACK


def test_many_open_files_do_not_pass_the_size_of_the_cache(server, mount):
    id = server.new_container("box")
    contents = {f"file{number}": os.urandom(100_000) for number in range(100)}
    for name, data in contents.items():
        server.write(id, f"/mnt/data/{name}", data)
    mounted = mount(cache_size="1MiB")
    readers = {name: (mounted / "box" / name).open("rb", buffering=0) for name in contents}
    with watching(lambda: used(mounted)) as most:
        for _ in range(2):
            for name, reader in readers.items():
                os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.pread(reader.fileno(), 100_000, 0) == contents[name]
    for reader in readers.values():
        reader.close()
    assert most[0] <= MIB + 32 * 102_400 + SLACK


@pytest.mark.parametrize("told", [2**63 - 1, None], ids=["told", "untold"])
def test_a_body_that_never_ends_does_not_fill_the_disk(server, mount, eventually, errno_of, told):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content", bytes=told)
    server.set_behaviours(range=False)
    server.set_faults({"kind": "endless", "operation": "content"})
    mounted = mount(cache_size="8MiB", max_file_size="8MiB")
    mounted.expect("more than")
    path = mounted / "box" / "file"
    with watching(lambda: used(mounted)) as most:
        if told is None:
            assert errno_of(path.read_bytes) == "EFBIG"
        else:
            with path.open("rb", buffering=0) as reader:
                read = sum(len(reader.read(MIB)) for _ in range(64))
                assert read == 64 * MIB
    assert most[0] <= 8 * MIB + WINDOW
    eventually(lambda: used(mounted) == 0)


def test_an_open_file_of_a_size_that_cannot_be_is_removed(server, mount, stored):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content", bytes=2**62)
    mounted = mount()
    with (mounted / "box" / "file").open("rb"):
        (mounted / "box" / "file").unlink()
    assert stored(id) == {}


def test_a_download_that_nobody_reads_ends(server, mount, eventually):
    data = b"".join(blocks_of(32 * MIB))
    server.write(server.new_container("box"), "/mnt/data/file", data)
    server.set_faults({"kind": "stall-body", "operation": "content", "at": 4 * MIB})
    mounted = mount()
    with (mounted / "box" / "file").open("rb") as reader:
        assert reader.read(10) == data[:10]
    eventually(lambda: "is left at" in mounted.log)
    assert used(mounted) < len(data)
    server.set_faults()
    server.forget_requests()
    assert (mounted / "box" / "file").read_bytes() == data
    assert sum(request["bytes_out"] for request in server.requests("content")) < len(data)


def test_a_download_that_drips_frees_its_place(server, mount, errno_of, eventually):
    id = server.new_container("box")
    slow = server.write(id, "/mnt/data/slow", os.urandom(100_000))["id"]
    server.write(id, "/mnt/data/quick", b"quick")
    server.set_faults({"kind": "drip", "operation": "content", "match": slow, "seconds": 0.2})
    mounted = mount(op_timeout=2, transfer_timeout=2, timeout=30, max_connections=2)
    mounted.expect("no answer within")
    box = mounted / "box"
    reader = (box / "slow").open("rb", buffering=0)
    assert errno_of(reader.read, 1000) == "ETIMEDOUT"
    assert eventually(lambda: errno_of((box / "quick").read_bytes) is None)
    reader.close()


def test_connections_and_threads_are_bounded_under_many_readers_and_writers(
    server, mount, stored, id_of
):
    id = server.new_container("box")
    contents = {f"there{number}": os.urandom(30_000) for number in range(100)}
    for name, data in contents.items():
        server.write(id, f"/mnt/data/{name}", data)
    mounted = mount(max_connections=8, prefetch_small=0)
    box = mounted / "box"

    def read(name):
        return (box / name).read_bytes() == contents[name]

    def write(number):
        return (box / f"new{number}").write_bytes(b"%d" % number * 1000) > 0

    with (
        watching(lambda: connections(server)) as most_connections,
        watching(lambda: fact(mounted, "Threads")) as most_threads,
        ThreadPoolExecutor(200) as pool,
    ):
        done = [*pool.map(read, contents)], [*pool.map(write, range(100))]
    assert all(map(all, done))
    server.forget_requests()
    assert 2 <= most_connections[0] <= 8 + 1  # one is the test's own
    assert most_threads[0] <= 64
    assert len(stored(id_of(box))) == 200


# As in the tests of the local disk: a small one, in a mount name space of its own.
SMALL_DISK = """
set -e
mount -t tmpfs -o size=8m tmpfs "$CACHE"
chmod 700 "$CACHE"
"$COMMAND" mount -d --uds "$SOCKET" --cache-dir "$CACHE" --log-file "$LOG" "$DIR"
trap '"$COMMAND" umount "$DIR"' EXIT
for i in $(seq 0 19); do sha256sum < "$DIR/box/file$i"; done
sha256sum < "$DIR/box/large"
eval "$THEN"
"""


@pytest.fixture
def on_small_disk(server, run, tmp_path, command):
    """Reads all files of the box on a disk of 8 MiB, then does *then*; what was said."""

    def act(*, then=""):
        for name in ("cache", "dir"):
            (tmp_path / name).mkdir()
        words = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
        said = run(
            *(*words, "sh", "-c", SMALL_DISK),
            COMMAND=command,
            SOCKET=server.uds,
            CACHE=str(tmp_path / "cache"),
            DIR=str(tmp_path / "dir"),
            LOG=str(tmp_path / "log"),
            THEN=then,
        )
        assert "Traceback" not in (tmp_path / "log").read_text()
        return said

    return act


def test_on_a_full_disk_cached_content_goes_before_a_write_fails(server, on_small_disk, stored):
    id = server.new_container("box")
    for number in range(20):
        server.write(id, f"/mnt/data/file{number}", os.urandom(MIB))
    server.write(id, "/mnt/data/large", b"not large")
    on_small_disk(then='head -c 5000000 /dev/zero > "$DIR/box/new"')
    assert stored(id)["new"] == bytes(5_000_000)


def test_on_a_full_disk_cached_content_goes_before_a_read_fails(server, on_small_disk):
    id = server.new_container("box")
    contents = [os.urandom(MIB) for _ in range(20)]
    for number, data in enumerate(contents):
        server.write(id, f"/mnt/data/file{number}", data)
    large = os.urandom(12 * MIB)
    large_id = server.write(id, "/mnt/data/large", large)["id"]
    said = on_small_disk()
    expected = [hashlib.sha256(data).hexdigest() for data in [*contents, large]]
    assert [word for word in said.split() if word != "-"] == expected
    asked = [request for request in server.requests("content") if large_id not in request["path"]]
    assert len(asked) == len(contents)
