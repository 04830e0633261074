"""Small files are fetched ahead of who reads through a directory, and of nobody else."""

import ctypes
import itertools
import mmap
import os
import shutil

import pytest

from containerfs.fs.files.prefetch import PARALLEL
from containerfs.fs.files.scanning import FIRST_WINDOW, GAP

COUNT = 400


@pytest.fixture
def full(server, mount):
    """A container with many small files that were never read here: its directory."""
    box_id = server.new_container("box")
    files = [
        {"path": f"/mnt/data/f{number:03}", "content_base64": "Y29udGVudA=="}
        for number in range(COUNT)
    ]
    server.admin("POST", f"/admin/files/{box_id}", files)
    directory = mount(ttl=300) / "box"
    assert len(os.listdir(directory)) == COUNT
    server.forget_requests()
    return directory


def contents(server):
    """The files whose content was asked for, one entry a request."""
    return [request["path"].split("/")[-2] for request in server.requests("content")]


@pytest.mark.parametrize("command", ["cat f*", "grep -r content .", "cp -r . ../../copy"])
def test_a_scan_asks_for_each_file_once(full, server, run, command):
    told = run("bash", "-c", command.replace("../../copy", f"{full.parents[1]}/copy"), cwd=full)
    assert "content" in told or "cp" in command
    asked = contents(server)
    assert len(asked) == len(set(asked)) == COUNT


@pytest.mark.parametrize("share", [2, 10])
def test_a_scan_of_the_files_of_one_suffix_asks_for_no_others(server, mount, run, share):
    box_id = server.new_container("box")
    files = [
        {
            "path": f"/mnt/data/f{n:03}{'.c' if n % share else '.py'}",
            "content_base64": "Y29udGVudA==",
            "created_at": 1_000 + n,  # so that no other order looks like theirs by accident
        }
        for n in range(COUNT)
    ]
    server.admin("POST", f"/admin/files/{box_id}", files)
    directory = mount(ttl=300) / "box"
    assert len(os.listdir(directory)) == COUNT
    run("grep", "-r", "--include=*.py", "content", directory)
    asked = contents(server)
    assert len(asked) == len(set(asked)) == COUNT // share
    run("grep", "-r", "content", directory)
    assert len(contents(server)) == len(set(contents(server))) == COUNT


def test_a_scan_that_looked_like_one_of_one_suffix_goes_on_with_all(server, mount, eventually):
    box_id = server.new_container("box")
    files = [
        {"path": f"/mnt/data/f{n:03}{'.c' if n % 3 else '.py'}", "content_base64": "Y29udGVudA=="}
        for n in range(COUNT)
    ]
    server.admin("POST", f"/admin/files/{box_id}", files)
    directory = mount(ttl=300) / "box"
    names = sorted(os.listdir(directory))
    for name in [*names[:12:3], *names[10:14]]:
        (directory / name).read_bytes()
    eventually(lambda: len(contents(server)) >= 8 + FIRST_WINDOW)
    asked = {request["path"].split("/")[-2] for request in server.requests("content")}
    ids = {name: os.getxattr(directory / name, "user.containerfs.id").decode() for name in names}
    assert {ids[name] for name in names[14:20]} <= asked


def test_a_scan_that_stops_has_fetched_no_more_than_a_window_ahead(full, server, eventually):
    for number in range(4):
        (full / f"f{number:03}").read_bytes()
    eventually(lambda: len(contents(server)) > 8)  # it was noticed
    assert len(contents(server)) <= 4 + 4 * FIRST_WINDOW


def test_nothing_more_is_begun_once_a_scan_has_stopped(full, server, eventually):
    server.set_faults({"kind": "latency", "operation": "content", "seconds": 1.5})
    for number in range(10):  # the last eight come together
        (full / f"f{number:03}").read_bytes()
    eventually(lambda: len(contents(server)) >= 10 + PARALLEL)
    (full / f"f{COUNT - 1:03}").read_bytes()  # as long as others would take
    assert len(contents(server)) <= 10 + PARALLEL + 1


def is_in_memory(path):
    """Whether the kernel has the first page of a file that nobody has read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as pages:
        start = ctypes.c_char.from_buffer(pages)
        told = ctypes.create_string_buffer(1)
        failed = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(1), told
        )
        del start
    assert not failed
    return bool(told.raw[0] & 1)


def test_what_was_fetched_ahead_is_in_the_kernel_and_goes_when_it_is_replaced(
    server, mount, eventually
):
    box_id = server.new_container("box")
    for number in range(12):
        server.write(box_id, f"/mnt/data/{number:02}", b"content", created_at=1_000)
    directory = mount(ttl=1) / "box"
    assert all(path.stat().st_size for path in directory.iterdir())  # the kernel knows them
    for number in range(3):
        assert (directory / f"{number:02}").read_bytes() == b"content"
    eventually(lambda: len(contents(server)) > 8)
    ahead = [directory / f"{number:02}" for number in range(3, 10)]
    given = eventually(lambda: [path for path in ahead if is_in_memory(path)])
    server.write(box_id, f"/mnt/data/{given[0].name}", b"another", created_at=2_000)
    eventually(lambda: given[0].read_bytes() == b"another")


def test_a_scan_in_the_order_of_a_listing_on_its_way_is_noticed(server, mount, eventually):
    box_id = server.new_container("box")
    files = [
        {"path": f"/mnt/data/f{n:03}", "content_base64": "Y29udGVudA==", "created_at": 1_000 + n}
        for n in range(COUNT)
    ]
    server.admin("POST", f"/admin/files/{box_id}", files)
    # Longer than a listing that is shown as a whole.
    server.set_faults({"kind": "latency", "operation": "list_files", "seconds": 0.1})
    directory = mount(ttl=300) / "box"
    names = [entry.name for entry in os.scandir(directory)]
    assert sorted(names) != names
    for name in names[:4]:
        (directory / name).read_bytes()
    eventually(lambda: len(contents(server)) > 8)


def test_a_scan_goes_on_where_the_listing_was_still_on_its_way(server, mount, eventually):
    box_id = server.new_container("box")
    files = [
        {"path": f"/mnt/data/f{n:03}", "content_base64": "Y29udGVudA==", "created_at": 1_000 + n}
        for n in range(COUNT)
    ]
    server.admin("POST", f"/admin/files/{box_id}", files)
    server.set_faults({"kind": "latency", "operation": "list_files", "seconds": 0.3})
    directory = mount(ttl=300) / "box"
    with os.scandir(directory) as entries:
        for _ in range(4):
            (directory / next(entries).name).read_bytes()
        later = [entry.name for entry in entries][-100:]
    for name in later[:4]:
        (directory / name).read_bytes()
    ahead = os.getxattr(directory / later[5], "user.containerfs.id").decode()
    eventually(lambda: ahead in contents(server))


@pytest.fixture
def divided(server, mount):
    """Directories of one file or a few: `divided(few)`, the directory above them."""

    def make(few):
        box_id = server.new_container("box")
        files = [
            {"path": f"/mnt/data/d{number:03}/f{each}", "content_base64": "Y29udGVudA=="}
            for number in range(COUNT // few)
            for each in range(few)
        ]
        server.admin("POST", f"/admin/files/{box_id}", files)
        directory = mount(ttl=300) / "box"
        assert len(os.listdir(directory)) == COUNT // few
        server.forget_requests()
        return directory

    return make


@pytest.mark.parametrize("few", [1, 4])
@pytest.mark.parametrize("command", ["cat */*", "grep -r content .", "cp -r . COPY"])
def test_a_scan_of_many_directories_asks_for_each_file_once(
    divided, server, run, command, few, tmp_path
):
    run("bash", "-c", command.replace("COPY", f"{tmp_path}/copy"), cwd=divided(few))
    asked = contents(server)
    assert len(asked) == len(set(asked)) == COUNT


@pytest.mark.parametrize("few", [1, 4])
def test_a_scan_is_followed_into_the_next_directories(divided, server, few, eventually):
    directory = divided(few)
    paths = [f"d{number:03}/f{each}" for number in range(8) for each in range(few)]
    for path in paths:
        (directory / path).read_bytes()
    eventually(lambda: len(contents(server)) >= len(paths) + FIRST_WINDOW)


def test_who_stays_in_a_directory_gets_nothing_of_the_next(divided, server):
    directory = divided(4)
    pairs = itertools.combinations(sorted(directory.iterdir(), reverse=True), 2)
    first, before = next((a, b) for a, b in pairs if b.stat().st_ino < a.stat().st_ino)
    for each in (first, before):  # the second is before the first in both orders
        for name in sorted(os.listdir(each)):
            (each / name).read_bytes()
    assert len(contents(server)) == 8


def test_reading_out_of_order_fetches_what_is_read_and_nothing_else(full, server):
    # Too far apart by name to be a scan, and backwards by inode number.
    chosen = [full / f"f{number:03}" for number in range(0, COUNT, GAP + 8)]
    for path in sorted(chosen, key=lambda path: path.stat().st_ino, reverse=True):
        assert path.read_bytes() == b"content"
    assert len(contents(server)) == len(chosen)


def test_far_steps_in_a_small_directory_are_no_scan_yet(server, mount):
    box_id = server.new_container("box")
    for number in range(40):
        server.write(box_id, f"/mnt/data/{number:02}", b"content", created_at=1_000 + number)
    directory = mount(ttl=300) / "box"
    number_of = {path: path.stat().st_ino for path in sorted(directory.iterdir())}
    # Three steps in order, as among ten that are chosen by chance; backwards in the other orders.
    chosen = next(
        paths
        for paths in itertools.combinations(list(number_of), 4)
        if all(
            int(after.name) - int(before.name) >= 8 and number_of[after] < number_of[before]
            for before, after in itertools.pairwise(paths)
        )
    )
    for path in chosen:
        path.read_bytes()
    assert len(contents(server)) == 4


def test_nothing_is_fetched_for_an_indexer(full, server, run, tmp_path):
    indexer = tmp_path / "updatedb"
    shutil.copy(shutil.which("sed"), indexer)  # unlike `cat` a program by any name
    run(indexer, "-n", "p", *(full / f"f{number:03}" for number in range(30)))
    assert len(contents(server)) == 30


def test_no_more_is_fetched_ahead_than_the_cache_can_keep(server, mount):
    box_id = server.new_container("box")
    for number in range(100):
        server.write(box_id, f"/mnt/data/{number:02}", bytes(16 << 10))
    directory = mount(cache_size=512 << 10) / "box"
    for path in sorted(directory.iterdir()):
        path.read_bytes()
    assert len(contents(server)) == 100


def test_it_can_be_turned_off(server, mount):
    box_id = server.new_container("box")
    for number in range(20):
        server.write(box_id, f"/mnt/data/{number:02}", b"content")
    directory = mount(prefetch_small=0) / "box"
    for number in range(10):
        (directory / f"{number:02}").read_bytes()
    assert len(contents(server)) == 10
