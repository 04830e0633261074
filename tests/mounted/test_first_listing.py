"""A directory that nobody has listed yet shows its names as their pages come.

The server is one whose pages are answered when the test lets them, so that what is shown early can
be told from what is shown in the end.
"""

import contextlib
import ctypes
import json
import os
import random
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PAGE = 100
EPOCH = 1_750_000_000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
for each in (LIBC.readdir, LIBC.telldir, LIBC.rewinddir, LIBC.closedir):
    each.argtypes = [ctypes.c_void_p]


class Api:
    """One container, `box`; `let` says how many pages of each order are answered."""

    uds = None

    def __init__(self):
        self.files = []  # the oldest first
        self.answered = []  # (order, number of the page) of each
        self.asked = {"desc": 0, "asc": 0}
        self.fails = set()  # answered with 500
        self.refuses = set()  # answered with 400
        self.answered_before_delete = []
        self._let = {"desc": 0, "asc": 0}
        self._changed = threading.Condition()

    def add(self, path, *, created=None, size=3, source="assistant"):
        number = len(self.files)
        self.files.append(
            {
                "id": f"cfile_{number:06}",
                "object": "container.file",
                "created_at": EPOCH + number if created is None else created,
                "bytes": size,
                "path": path if path.startswith("/") else f"/mnt/data/{path}",
                "source": source,
            }
        )

    def let(self, *, desc=10**6, asc=10**6):
        with self._changed:
            self._let.update(desc=desc, asc=asc)
            self._changed.notify_all()

    def page(self, query):
        order, after = query.get("order", "desc"), query.get("after")
        with self._changed:
            number = self.asked[order] = self.asked[order] + 1
            self._changed.wait_for(lambda: self._let[order] >= number)
            self.answered.append((order, number))
        if (order, number) in self.fails:
            return 500, None
        if (order, number) in self.refuses:
            return 400, None
        listed = sorted(self.files, key=lambda file: file["created_at"], reverse=order == "desc")
        ids = [file["id"] for file in listed]
        start = ids.index(after) + 1 if after else 0
        return 200, listing(listed[start : start + PAGE], has_more=start + PAGE < len(listed))


def listing(data, *, has_more=False):
    last = data[-1]["id"] if data else None
    return {"object": "list", "data": data, "last_id": last, "has_more": has_more}


BOX = {"id": "cntr_1", "object": "container", "name": "box", "created_at": EPOCH}


@pytest.fixture
def api():
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path, _, query = self.path.partition("?")
            if path.endswith("/content"):
                self.answer(200, b"abc")
            elif path.endswith("/files"):
                status, page = api.page(dict(urllib.parse.parse_qsl(query)))
                self.answer(status, json.dumps(page).encode())
            else:
                self.answer(200, json.dumps(listing([BOX])).encode())

        def do_DELETE(self):
            api.answered_before_delete = list(api.answered)
            id = self.path.rpartition("/")[2]
            api.files = [file for file in api.files if file["id"] != id]
            self.answer(200, json.dumps({"id": id, "deleted": True}).encode())

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            with contextlib.suppress(BrokenPipeError):  # who met the other end asks no more
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield api
        api.let()
        server.shutdown()
        thread.join()


@pytest.fixture
def box(api, mount):
    """The container, while its first page of the newest is answered and nothing else is."""

    def box(count=5 * PAGE, **options):
        for number in range(len(api.files), count):
            api.add(f"{number:05}")
        api.let(desc=1, asc=0)
        return mount(server=api, ttl=3600, **options) / "box"

    return box


@pytest.fixture
def background():
    with ThreadPoolExecutor() as pool:
        yield pool.submit


NEWEST = [f"{number:05}" for number in range(5 * PAGE - 1, 4 * PAGE, -1)]  # less the last


def take(entries, count):
    return [next(entries).name for _ in range(count)]


def test_the_names_of_the_first_page_come_before_the_others_are_there(api, box):
    with os.scandir(box()) as entries:
        assert take(entries, len(NEWEST)) == NEWEST
        assert api.answered == [("desc", 1)]
        api.let()
        rest = [entry.name for entry in entries]
    assert sorted(NEWEST + rest) == [f"{number:05}" for number in range(5 * PAGE)]


def test_names_come_with_each_page(api, box):
    with os.scandir(box()) as entries:
        take(entries, len(NEWEST))
        api.let(desc=2, asc=0)
        take(entries, PAGE)
        assert api.answered == [("desc", 1), ("desc", 2)]
        api.let()
        assert len(list(entries)) == 5 * PAGE - 2 * PAGE + 1


def test_what_is_shown_early_can_be_looked_at_and_read(api, box):
    path = box()
    assert os.stat(path / NEWEST[0]).st_size == 3
    assert (path / NEWEST[1]).read_bytes() == b"abc"
    with os.scandir(path) as entries:
        assert next(entries).stat().st_mtime == EPOCH + 5 * PAGE - 1
    assert api.answered == [("desc", 1)]


def test_what_is_not_there_is_known_in_the_end(api, box, background, errno_of):
    absent = background(errno_of, os.stat, box() / "absent")
    assert not absent.done()
    api.let()
    assert absent.result() == "ENOENT"


def test_a_failing_page_is_an_error_and_not_the_end(api, box, errno_of):
    pages = range(1, 100)
    api.fails = {("desc", number) for number in pages[2:]} | {("asc", number) for number in pages}
    path = box(timeout=1)
    entries = os.scandir(path)
    names = take(entries, len(NEWEST))
    api.let()
    with pytest.raises(OSError, match="Input/output error"):
        names.extend(entry.name for entry in entries)
    entries.close()
    assert len(names) == 2 * PAGE - 1
    api.fails = set()
    assert len(os.listdir(path)) == 5 * PAGE
    assert os.stat(path / NEWEST[0]).st_size == 3


def test_what_the_rest_decides_is_not_shown_early(api, box):
    for number in range(4 * PAGE):
        api.add(f"{number:05}")
    prefix = "0123456789abcdef" * 2 + "-"
    for name in (prefix + "sent", "dir/file", "with\nline", "/tmp/outside", "é" * 200, "certain"):
        api.add(name, source="user")
    path = box(len(api.files))
    with os.scandir(path) as entries:
        names = take(entries, PAGE - 5)  # less the last of the page
        assert api.answered == [("desc", 1)]
        assert "certain" in names
        assert not {prefix + "sent", "dir", ".outside"} & set(names)
        api.let()
        names += [entry.name for entry in entries]
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(os.listdir(path))
    assert {"sent", "dir", ".outside", "with%0Aline"} <= set(names)


def test_of_uploads_of_one_name_the_newest_has_it_when_it_was_shown_so_early(api, box):
    first, second = (digit * 32 + "-" for digit in "12")
    for path, source in ((first + "twice", "user"), ("written", "assistant")):
        api.add(path, source=source)
    for number in range(2, 5 * PAGE - 2):
        api.add(f"{number:05}")
    api.add(second + "twice", source="user", size=7)
    api.add(second + "written", source="user", size=7)
    path = box()
    with os.scandir(path) as entries:
        names = take(entries, 2)
        assert set(names) == {"twice", "written"}
        assert os.stat(path / "twice").st_size == 7
        assert api.answered == [("desc", 1)]
        api.let()
        names += [entry.name for entry in entries]
    assert len(names) == len(set(names)) == 5 * PAGE
    assert sorted(names) == sorted(os.listdir(path))
    assert first + "twice" in names
    assert [name for name in names if name.startswith("written~")]
    assert [os.stat(path / name).st_size for name in ("twice", "written")] == [7, 7]


def test_of_several_versions_the_newest_is_shown_from_the_beginning(api, box):
    api.add("00490", size=1)
    for number in range(1, 5 * PAGE - 20):
        api.add(f"{number:05}")
    for number in range(20):
        api.add("00490" if number == 10 else f"new{number}", size=7)
    path = box()
    assert os.stat(path / "00490").st_size == 7
    assert api.answered == [("desc", 1)]
    api.let()
    assert os.listdir(path).count("00490") == 1
    assert os.stat(path / "00490").st_size == 7


def test_within_one_second_the_rest_of_the_second_is_awaited(api, box):
    for number in range(5 * PAGE):
        api.add(f"{number:05}", created=EPOCH + min(number, 4 * PAGE + 50))
    with os.scandir(box()) as entries:
        api.let(desc=2, asc=0)
        names = take(entries, 2 * PAGE - 1)
        assert len(set(names)) == 2 * PAGE - 1
        assert api.answered == [("desc", 1), ("desc", 2)]
        api.let()
        assert len(list(entries)) == 3 * PAGE + 1


def test_a_name_that_becomes_a_directory_is_given_once(api, box):
    for number in range(4 * PAGE):
        api.add("both/file" if number == 50 else f"{number:05}")
    api.add("both")
    path = box(len(api.files))
    with os.scandir(path) as entries:
        names = take(entries, 1)
        while "both" not in names:
            names += take(entries, 1)
        assert api.answered == [("desc", 1)]
        api.let()
        names += [entry.name for entry in entries]
    assert len(names) == len(set(names)) == 4 * PAGE + 1
    assert sorted(names) == sorted(os.listdir(path))
    assert os.listdir(path / "both") == ["file"]


def test_a_change_waits_for_the_whole(api, box, background, eventually):
    path = box()
    entries = os.scandir(path)
    names = take(entries, 10)
    changed = background(os.chmod, path / NEWEST[1], 0o600)
    api.let(desc=2, asc=0)
    names += take(entries, len(NEWEST) + PAGE - len(names))
    assert api.answered == [("desc", 1), ("desc", 2)]
    assert not changed.done()
    # These have the kernel lock the directory, so that nobody reads it meanwhile.
    removed = background(os.unlink, path / NEWEST[0])
    made = background((path / ".made.swp").write_bytes, b"here")
    for number in (3, 4):
        api.let(desc=number, asc=0)
        eventually(lambda number=number: ("desc", number) in api.answered)
    api.let()
    for each in (changed, removed, made):
        each.result()
    assert len(api.answered_before_delete) > 4
    names += [entry.name for entry in entries]
    entries.close()
    assert len(names) == len(set(names))
    stayed = {f"{number:05}" for number in range(5 * PAGE)} - {NEWEST[0]}
    assert stayed <= set(names)
    assert set(os.listdir(path)) == stayed | {".made.swp"}
    assert os.stat(path / NEWEST[1]).st_mode & 0o777 == 0o600


def test_a_listing_that_is_begun_anew_gives_no_name_twice(api, box):
    api.refuses = {("desc", 2)}  # what the page was to follow is gone
    with os.scandir(box()) as entries:
        names = take(entries, len(NEWEST))
        api.let()
        names += [entry.name for entry in entries]
    assert sorted(names) == [f"{number:05}" for number in range(5 * PAGE)]


class Dir:
    """A directory read by the C library, which knows places."""

    def __init__(self, path):
        self._dir = LIBC.opendir(os.fsencode(path))
        assert self._dir

    def read(self):
        entry = LIBC.readdir(self._dir)
        return os.fsdecode(ctypes.string_at(entry + 19)) if entry else None

    def tell(self):
        return LIBC.telldir(self._dir)

    def seek(self, place):
        LIBC.seekdir(self._dir, place)

    def rewind(self):
        LIBC.rewinddir(self._dir)

    def close(self):
        LIBC.closedir(self._dir)


def test_a_place_stays_what_it_was_while_names_come(api, box):
    directory = Dir(box())
    first = [directory.read() for _ in range(50)]
    place = directory.tell()
    following = [directory.read() for _ in range(30)]
    api.let()
    everything = first + following + list(iter(directory.read, None))
    directory.seek(place)
    assert first + list(iter(directory.read, None)) == everything
    directory.rewind()
    again = list(iter(directory.read, None))
    directory.close()
    assert sorted(again) == sorted(everything)
    assert len(set(again)) == len(again) == 5 * PAGE + 2


def test_who_rewinds_while_names_come_gets_all_of_them(api, box):
    directory = Dir(box())
    first = [directory.read() for _ in range(50)]
    directory.rewind()
    assert [directory.read() for _ in range(50)] == first
    api.let()
    assert len({*first, *iter(directory.read, None)}) == 5 * PAGE + 2
    directory.close()


def test_a_listing_asked_for_meanwhile_disturbs_nobody(api, box, background, errno_of):
    path = box()
    entries = os.scandir(path)
    names = take(entries, 10)
    refused = background(errno_of, os.rmdir, path)  # asks anew, whatever is known
    api.let()
    assert refused.result() == "ENOTEMPTY"
    names += [entry.name for entry in entries]
    entries.close()
    assert sorted(names) == sorted(os.listdir(path)) == [f"{n:05}" for n in range(5 * PAGE)]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_early_and_late_is_what_is_there(api, mount, seed):
    chance = random.Random(seed)
    names = ["a", "b", "d/e", "d", "a/b", ".x", "%2E", "same", "\n", *map(str, range(40))]
    prefixes = ["", "", "0123456789abcdef" * 2 + "-", "fedcba9876543210" * 2 + "-"]
    for number in range(5 * PAGE):
        name = chance.choice(names) if chance.random() < 0.3 else f"file{number}"
        source = chance.choice(["user", "assistant"])
        api.add(chance.choice(prefixes) + name, source=source, created=EPOCH + number // 3)
    api.let(desc=chance.randrange(1, 4), asc=chance.randrange(3))
    path = mount(server=api, ttl=3600) / "box"
    with os.scandir(path) as entries:
        found = take(entries, 1)
        api.let()
        found += [entry.name for entry in entries]
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(os.listdir(path))


def test_a_listing_that_fails_before_it_is_read_is_an_error_too(api, box, errno_of, eventually):
    pages = range(1, 100)
    api.refuses = {(order, number) for order in ("desc", "asc") for number in pages[1:]}
    path = box(timeout=1)
    with os.scandir(path) as entries:  # opened while the first page is there and nothing else
        api.let()
        eventually(lambda: len(api.answered) >= 3)
        assert errno_of(lambda: [entry.name for entry in entries]) is not None


def test_a_listing_that_ends_before_it_is_read_is_whole(api, box, eventually):
    path = box()
    with os.scandir(path) as entries:
        api.let()
        eventually(lambda: len(api.answered) >= 5)
        assert len([entry.name for entry in entries]) == 5 * PAGE


def test_who_takes_long_with_each_name_gets_all_of_them(api, box, eventually):
    path = box(op_timeout=1)
    with os.scandir(path) as entries:
        opened = time.monotonic()
        found = take(entries, 1)
        api.let()
        eventually(lambda: time.monotonic() > opened + 1.1)
        found += [entry.name for entry in entries]
    assert len(found) == 5 * PAGE
