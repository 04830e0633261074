"""The server is asked for what the work needs, and for nothing else: every request is counted.

The jobs are those of `./run bench`, smaller; what is counted does not depend on the machine. Told
elsewhere: a scan asks for each file once, over many directories too, and how far ahead it was when
it stops (`test_prefetch`); nothing is asked when nobody looks, and what one call asks without a ttl
(`test_time`); a save of each editor (`test_editors`); what programs close (`test_closing`); what a
rename needs (`test_renames`); writing under a limit of requests (`tests/faults`).
"""

import os
import random
from collections import Counter

import pytest

from containerfs.api.listing import PAGE
from containerfs.cache.downloads import LARGE
from containerfs.cache.parts import PART

WHILE = 3600  # seconds of ttl: longer than any of these tests take
FEW = PAGE  # files, no more than one page
MANY = 10 * PAGE
EPOCH = 1_750_000_000
BLOCK = 4096
LIMIT = 20  # requests
PERIOD = 2  # seconds in which there may be as many
SLACK = 1  # seconds after a refusal in which what was on its way may still arrive


class Asked:
    """What the server was asked since the last time."""

    def __init__(self, server):
        self._server = server
        server.forget_requests()

    def __call__(self):
        """How many requests of each operation; each was answered, and none came twice."""
        entries = self.entries()
        assert {entry["status"] for entry in entries} <= {200, 206}
        return dict(Counter(entry["operation"] for entry in entries))

    def entries(self):
        found = self._server.requests()
        self._server.forget_requests()
        return found


@pytest.fixture
def asked(server):
    return Asked(server)


@pytest.fixture
def filled(server):
    """A new container of small files, ten of which were made in one second: `filled(count)`."""

    def filled(count, *, name="box"):
        files = [
            {
                "path": f"/mnt/data/{number:05}",
                "content_base64": "Y29udGVudA==",
                "created_at": EPOCH + number // 10,
            }
            for number in range(count)
        ]
        server.admin("POST", f"/admin/files/{server.new_container(name)}", files)
        server.forget_requests()

    return filled


@pytest.fixture
def entered(server, mount):
    """An empty container that has been looked into: `entered(...)`, options as for `mount`."""

    def entered(**options):
        server.new_container("box")
        directory = mount(ttl=WHILE, **options) / "box"
        assert os.listdir(directory) == []
        server.forget_requests()
        return directory

    return entered


@pytest.fixture
def large(server):
    """A container with one large file: its bytes."""
    data = random.Random(0).randbytes(3 * PART)
    assert len(data) > LARGE
    server.upload(server.new_container("box"), "large", data)
    server.forget_requests()
    return data


@pytest.fixture
def source(tmp_path):
    """A local directory of small files: `source(count)`."""

    def source(count):
        path = tmp_path / "source"
        path.mkdir()
        for number in range(count):
            (path / f"{number:03}").write_bytes(b"content %d\n" % number)
        return path

    return source


# a, b, i: one large file.


def test_a_cold_file_is_served_once_byte_for_byte(mount, asked, large):
    assert (mount(ttl=WHILE) / "box" / "large").read_bytes() == large
    entries = asked.entries()
    contents = [entry for entry in entries if entry["operation"] == "content"]
    assert sum(entry["bytes_out"] for entry in contents) == len(large)
    assert len(contents) <= len(large) / PART
    assert len(entries) == 2 + len(contents)  # the containers, and the files of this one


def test_a_file_that_is_not_large_is_one_request(server, mount, asked):
    server.upload(server.new_container("box"), "file", bytes(LARGE))
    asked()
    assert (mount(ttl=WHILE) / "box" / "file").read_bytes() == bytes(LARGE)
    assert asked() == {"list_containers": 1, "list_files": 1, "content": 1}


def test_a_warm_file_is_not_asked_for_again(mount, asked, large):
    mounted = mount(ttl=WHILE)
    assert (mounted / "box" / "large").read_bytes() == large
    asked()
    assert (mounted / "box" / "large").read_bytes() == large
    assert asked() == {}
    mounted.remount()
    assert (mounted / "box" / "large").read_bytes() == large
    assert asked() == {"list_containers": 1, "list_files": 1}


def test_random_reads_of_a_cached_file_ask_for_nothing(mount, asked, large, fd):
    path = mount(ttl=WHILE) / "box" / "large"
    assert path.read_bytes() == large
    asked()
    reader = fd(path, os.O_RDONLY)
    os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_RANDOM)
    for block in random.Random(1).choices(range(len(large) // BLOCK), k=200):
        place = block * BLOCK
        assert os.pread(reader, BLOCK, place) == large[place : place + BLOCK]
    assert asked() == {}


# c: many small files.


@pytest.mark.parametrize("command", ["cat *", "grep -r content .", "cp -r . COPY"])
def test_a_cold_scan_is_one_page_and_one_request_a_file_and_a_warm_one_nothing(
    filled, mount, asked, run, command, tmp_path
):
    filled(FEW)
    box = mount(ttl=WHILE) / "box"
    for expected in ({"list_containers": 1, "list_files": 1, "content": FEW}, {}):
        run("bash", "-c", command.replace("COPY", f"{tmp_path}/copy"), cwd=box)
        assert asked() == expected


def test_under_a_limit_of_requests_a_cold_scan_completes_and_leaves_the_server_alone(
    server, filled, mount, asked, run
):
    filled(2 * LIMIT - 2)
    box = mount(ttl=WHILE) / "box"
    asked()
    server.set_faults({"kind": "rate-limit", "limit": LIMIT, "seconds": PERIOD})
    assert run("bash", "-c", "cat *", cwd=box) == "content" * (2 * LIMIT - 2)
    entries = asked.entries()
    served = [entry["path"] for entry in entries if entry["status"] == 200]
    assert len(served) == len(set(served)) == 2 * LIMIT - 1  # the list of files, and each of them
    refused = [entry["at"] for entry in entries if entry["status"] == 429]
    assert refused, "the limit was never met"
    # Retry-After reaches to where the first request no longer counts, or beyond.
    silence = min(refused) + SLACK, entries[0]["at"] + PERIOD
    assert [entry for entry in entries if silence[0] < entry["at"] < silence[1]] == []


# d: a large directory.


def test_a_cold_listing_asks_for_each_page_once_from_both_ends_and_a_warm_one_for_nothing(
    filled, mount, asked, run
):
    filled(MANY)
    box = mount(ttl=WHILE) / "box"
    assert len(run("ls", "-l", box).splitlines()) == 1 + MANY
    entries = asked.entries()
    listed = [entry["query"] for entry in entries if entry["operation"] == "list_files"]
    assert len(entries) == 1 + len(listed)  # the containers
    assert len(set(listed)) == len(listed) <= MANY // PAGE + 2  # they must pass where they meet
    assert all(any(f"order={end}" in query for query in listed) for end in ("desc", "asc"))
    run("ls", "-l", box)
    assert asked() == {}


def test_an_unchanged_listing_is_refreshed_by_asking_for_each_of_its_pages_once(
    filled, mount, asked, eventually
):
    filled(MANY)
    box = mount(ttl=1) / "box"
    assert len(os.listdir(box)) == MANY
    asked()
    listed = []

    def is_refreshed():
        assert len(os.listdir(box)) == MANY
        entries = asked.entries()
        listed.extend(entry["query"] for entry in entries if entry["operation"] == "list_files")
        return any("after=" in query for query in listed)

    eventually(is_refreshed)
    pages = [query for query in listed if "after=" in query]  # the first tells what is new, too
    # One more says that nothing follows the last. From one end: where each page begins is known.
    assert len(set(pages)) == len(pages) <= MANY // PAGE
    assert not any("order=asc" in query for query in listed)


def test_what_is_new_in_a_large_listing_is_asked_for_with_one_page(
    server, filled, mount, asked, eventually
):
    filled(MANY)
    mounted = mount(ttl=1)
    box = mounted / "box"
    id = os.getxattr(box, "user.containerfs.id").decode()
    assert len(os.listdir(box)) == MANY
    assert not (box / "new").exists()
    asked()
    server.write(id, "/mnt/data/new", b"of others")
    eventually((box / "new").exists)
    assert (box / "new").read_bytes() == b"of others"
    newest = server.write(id, "/mnt/data/newest", b"of others, too")
    eventually(lambda: "newest" in os.listdir(box))
    assert len(os.listdir(box)) == MANY + 2
    server.call("DELETE", f"/v1/containers/{id}/files/{newest['id']}")
    eventually(lambda: "newest" not in os.listdir(box))
    entries = asked.entries()
    listed = [entry["query"] for entry in entries if entry["operation"] == "list_files"]
    assert listed
    assert not any("after=" in query or "order=asc" in query for query in listed)
    # After as many times the ttl as it has pages it is read as a whole.
    old = os.getxattr(box / "00005", "user.containerfs.id").decode()
    server.call("DELETE", f"/v1/containers/{id}/files/{old}")
    eventually(lambda: not (box / "00005").exists())
    assert len(os.listdir(box)) == MANY


# e, f, j: what is written.


@pytest.mark.parametrize("options", [{}, {"write_back": 1}], ids=["default", "write_back"])
def test_a_copy_is_one_upload_a_file_and_nothing_else(entered, asked, run, source, options, sync):
    box, files = entered(**options), source(40)
    run("cp", "-r", files, box / "copy")
    sync(box)
    assert asked() == {"create_file": 40}
    run("diff", "-r", files, box / "copy")
    assert asked() == {}


def test_sixteen_writers_cause_one_upload_a_file_and_nothing_else(entered, asked, run, source):
    box = entered()
    copy = 'find "$1" -type f -print0 | xargs -0 -P 16 -n 4 cp -t "$2"'
    run("sh", "-c", copy, "sh", source(64), box)
    assert asked() == {"create_file": 64}


def test_a_large_file_copied_in_is_one_upload(entered, asked, run, tmp_path):
    box, file = entered(), tmp_path / "file"
    file.write_bytes(random.Random(0).randbytes(LARGE + 1))
    run("cp", file, box)
    assert asked() == {"create_file": 1}
    run("cmp", file, box / "file")
    assert asked() == {}


def test_a_save_of_vim_is_one_upload_one_delete_and_nothing_else(entered, asked, run):
    document = entered() / "document.txt"
    document.write_bytes(b"first line\n" * 1000)
    asked()
    words = ["-u", "NONE", "-N", "-es", "-c", "%s/first/1st/", "-c", "wq"]
    run("vim", *words, document, cwd=document.parent)
    assert asked() == {"create_file": 1, "delete_file": 1}
    assert document.read_bytes() == b"1st line\n" * 1000
    assert asked() == {}


# h, k: the start, and growth.


def test_a_mount_asks_for_two_lists_until_its_first_ls(filled, mount, asked, run):
    filled(FEW)
    assert len(run("ls", mount(ttl=WHILE) / "box").split()) == FEW
    assert asked() == {"list_containers": 1, "list_files": 1}


def test_twice_the_files_are_at_most_twice_the_requests(filled, mount, asked, run):
    filled(2 * PAGE, name="few")
    filled(4 * PAGE, name="many")
    mounted = mount(ttl=WHILE)
    os.listdir(mounted.path)
    asked()

    def cost(box):
        found = []
        for command in ("ls -l", "cat *"):
            run("bash", "-c", command, cwd=box)
            found.append(sum(asked().values()))
        return found

    few, many = cost(mounted / "few"), cost(mounted / "many")
    assert all(more <= 2 * less for less, more in zip(few, many, strict=True)), (few, many)
