"""The answer to an upload is lost, and for a while nobody can ask whether it has arrived.

What is done to such a file meanwhile leaves nothing of it on the server that nobody knows of.
"""

import os
import sqlite3
from contextlib import closing
from functools import partial

import pytest

SILENT = (
    {"kind": "status", "status": 500, "operation": "list_files"},
    {"kind": "status", "status": 500, "operation": "retrieve_file"},
)
LOST = ({"kind": "reset-after", "operation": "create_file"}, *SILENT)


@pytest.fixture
def mounted(mount):
    mounted = mount(timeout=2, ttl=3600)  # so that no listing shows it as somebody else's
    mounted.expect("stale listing", "has arrived is not known", "is not on the server", "wins over")
    return mounted


@pytest.fixture
def box(mounted):
    box = mounted / "box"
    box.mkdir()
    assert os.listdir(box) == []
    return box


@pytest.fixture
def lose(server, write, errno_of):
    """`lose(path, data)`: *data* arrives, and nobody here knows."""

    def lose(path, data):
        server.set_faults(*LOST)
        assert errno_of(write, path, data) == "EIO"

    return lose


@pytest.fixture
def shown():
    """`shown(box)`: the files of a directory, and what is in them."""
    return lambda box: {path.name: path.read_bytes() for path in box.iterdir() if path.is_file()}


@pytest.fixture
def settled_in(eventually, stored, id_of, shown):
    """`settled_in(mounted, {name: content})`: the directory `box` and the server come to hold these
    files, and no more.
    """

    def settled_in(mounted, contents):
        def is_so():
            box = mounted / "box"
            return shown(box) == contents and sorted(stored(id_of(box)).values()) == sorted(
                contents.values()
            )

        eventually(is_so)
        assert sorted(shown(mounted.remount(ttl=0) / "box")) == sorted(contents)
        assert is_so()

    return settled_in


@pytest.fixture
def settled(settled_in, mounted):
    """`settled_in` of `mounted`."""
    return partial(settled_in, mounted)


CALLS = {
    "rm": lambda box: os.remove(box / "file"),
    "mv over": lambda box: os.rename(box / "other", box / "file"),
    "mv away": lambda box: os.rename(box / "file", box / "new"),
    "mv to stay here": lambda box: os.rename(box / "file", box / "file~"),
}


def after(call, box, content):
    """What is left after *call* on a file of *content*; what stays here is checked, and removed."""
    if call == "mv to stay here":
        assert (box / "file~").read_bytes() == content
        os.remove(box / "file~")
    return {
        "rm": {"other": b"other"},
        "mv over": {"file": b"other"},
        "mv away": {"new": content, "other": b"other"},
        "mv to stay here": {"other": b"other"},
    }[call]


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_it_keeps_its_name_while_nobody_can_ask(
    server, box, lose, write, errno_of, settled, call, existed
):
    if existed:
        write(box / "file", b"old")
    write(box / "other", b"other")
    lose(box / "file", b"lost")
    assert errno_of(CALLS[call], box) == "EIO"
    assert (box / "file").read_bytes() == b"lost"
    server.set_faults()
    settled({"file": b"lost", "other": b"other"})


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_it_gets_another_name_or_none_once_the_server_answers(
    server, mounted, box, lose, write, stored, id_of, settled, call, killed
):
    write(box / "other", b"other")
    lose(box / "file", b"lost")
    if killed:
        mounted.kill()
        mounted.remount()
    server.set_faults()
    assert sorted(stored(id_of(box)).values()) == [b"lost", b"other"]  # it has arrived
    CALLS[call](box)
    settled(after(call, box, b"lost"))


@pytest.mark.parametrize("call", CALLS)
def test_it_is_known_by_what_was_sent_though_it_was_written_to_since(
    server, box, lose, write, errno_of, settled, call
):
    write(box / "other", b"other")
    lose(box / "file", b"lost")
    server.set_faults()
    with (box / "file").open("r+b", buffering=0) as file:
        file.write(b"LO")
        CALLS[call](box)
    settled(after(call, box, b"LOst"))


def test_what_was_written_over_it_takes_it_along(server, box, lose, write, settled):
    lose(box / "file", b"lost")
    server.set_faults()
    write(box / "file", b"written over it")
    os.remove(box / "file")
    settled({})


# Of a rename: its caller is told that nothing has changed.


@pytest.fixture
def looking(mount):
    """A mount that asks for each listing anew."""
    mounted = mount(timeout=2, ttl=0)
    mounted.expect(
        "stale listing", "has arrived is not known", "is not on the server", "taken back"
    )
    mounted.expect("replaced, though")
    (mounted / "box").mkdir()
    return mounted


@pytest.fixture
def fail(server, errno_of):
    """`fail(box)`: `mv file new` arrives, and nobody here knows."""

    def fail(box):
        server.set_faults(*LOST)
        assert errno_of(os.rename, box / "file", box / "new") == "EIO"

    return fail


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("is_sent", [True, False])
def test_what_arrives_of_a_rename_that_failed_is_never_seen_and_goes(
    server, looking, fail, write, errno_of, shown, id_of, settled_in, is_sent, existed
):
    box = looking / "box"
    if not is_sent:
        server.set_faults({"kind": "status", "status": 403, "operation": "create_file"})
    assert errno_of(write, box / "file", b"content") == (None if is_sent else "EACCES")
    server.set_faults()
    before = {"file": b"content"}
    if existed:
        write(box / "new", b"older one")
        before["new"] = b"older one"
    fail(box)
    server.set_faults({"kind": "status", "status": 500, "operation": "content"})  # lists come
    assert len(server.files(id_of(box))) > len(before) - (not is_sent)  # it has arrived
    assert shown(box) == before
    server.set_faults()
    settled_in(looking, before)


@pytest.mark.parametrize("is_killed", [True, False])
def test_what_arrives_of_a_rename_whose_source_is_removed_then_goes_too(
    server, looking, fail, write, errno_of, settled_in, is_killed
):
    box = looking / "box"
    write(box / "file", b"content")
    fail(box)
    assert errno_of(os.remove, box / "file") == "EIO"  # nobody knows what is there besides
    server.set_faults()
    if is_killed:
        looking.kill()
        looking.remount()
    os.remove(box / "file")
    settled_in(looking, {})


def test_what_arrives_of_a_rename_whose_source_is_written_to_then_goes_too(
    server, looking, fail, write, errno_of, settled_in
):
    box = looking / "box"
    write(box / "file", b"content")
    fail(box)
    server.set_faults(*SILENT)
    assert errno_of(write, box / "file", b"another") == "EIO"  # what was written is kept
    looking.kill()
    server.set_faults()
    looking.remount()
    settled_in(looking, {"file": b"another"})


USES = {
    "write": lambda box: (box / "new").write_bytes(b"content"),
    "write something else": lambda box: (box / "new").write_bytes(b"another"),
    "rename again": lambda box: os.rename(box / "file", box / "new"),
    "rename another": lambda box: os.rename(box / "other", box / "new"),
    "make a directory": lambda box: (box / "new").mkdir(),
}
USED = {
    "write": {"file": b"content", "new": b"content", "other": b"content"},
    "write something else": {"file": b"content", "new": b"another", "other": b"content"},
    "rename again": {"new": b"content", "other": b"content"},
    "rename another": {"file": b"content", "new": b"content"},
    "make a directory": {"file": b"content", "other": b"content"},
}


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("use", USES)
def test_who_uses_the_name_after_a_rename_that_failed_keeps_what_is_there(
    server, looking, fail, write, settled_in, use, existed
):
    box = looking / "box"
    for name in ("file", "other"):
        write(box / name, b"content")
    if existed and use != "make a directory":
        write(box / "new", b"older one")
    fail(box)
    server.set_faults()
    USES[use](box)
    settled_in(looking, USED[use])


def test_nothing_is_lost_where_a_rename_that_failed_has_overwritten_its_target(
    server, looking, fail, write, settled_in
):
    server.set_behaviours(same_name="overwrite")
    box = looking / "box"
    write(box / "file", b"content")
    write(box / "new", b"older one")
    fail(box)
    server.set_faults()
    settled_in(looking, {"file": b"content", "new": b"content"})


def test_who_removes_the_target_of_a_rename_that_failed_has_it_removed(
    server, looking, fail, write, settled_in
):
    box = looking / "box"
    write(box / "file", b"content")
    write(box / "new", b"older one")
    fail(box)
    server.set_faults()
    os.remove(box / "new")
    settled_in(looking, {"file": b"content"})


# Of a container.

MAKING = {
    "reset": {"kind": "reset-after", "operation": "create_container"},
    "cut": {"kind": "cut", "at": 10, "operation": "create_container"},
    "status": {"kind": "status", "status": 503, "done": True, "operation": "create_container"},
}


@pytest.mark.parametrize("how", MAKING)
def test_a_container_is_made_once_though_nobody_was_told(server, mount, how):
    mounted = mount(ttl=3600)
    (mounted / "other").mkdir()
    server.set_faults(MAKING[how])
    (mounted / "box").mkdir()
    server.set_faults()
    (mounted / "box" / "file").write_bytes(b"content")
    assert sorted(os.listdir(mounted.path)) == ["box", "other"]
    made = server.call("GET", "/v1/containers")["data"]
    assert sorted(each["name"] for each in made) == ["box", "other"]


def test_a_container_that_may_have_been_made_is_not_asked_for_twice(server, mount, errno_of):
    server.set_faults({"kind": "status", "status": 503, "operation": "create_container"})
    mounted = mount(ttl=3600)
    mounted.expect("it may have been done")
    assert errno_of(os.mkdir, mounted / "box") == "EIO"
    assert len(server.requests("create_container")) == 1
    server.set_faults()
    (mounted / "box").mkdir()
    assert os.listdir(mounted.path) == ["box"]


def test_another_container_of_the_name_is_not_taken_for_one_that_was_not_made(
    server, mount, errno_of
):
    """That there was one, and was expired, is no sign of another."""
    server.expire(server.new_container("box"))
    server.set_faults({"kind": "reset", "operation": "create_container"})
    mounted = mount(ttl=3600)
    mounted.expect("it may have been done", "answer was lost")
    assert errno_of(os.mkdir, mounted / "box") in ("EIO", "EHOSTUNREACH")
    assert os.listdir(mounted.path) == []


def test_what_somebody_else_has_made_before_is_not_taken_for_one_that_was_not_made(
    server, mount, errno_of
):
    mounted = mount(ttl=3600)
    mounted.expect("it may have been done", "answer was lost")
    assert os.listdir(mounted.path) == []
    server.new_container("box")
    server.stop()
    with closing(sqlite3.connect(server.data / "containers.sqlite")) as database:
        database.execute("UPDATE containers SET created = created - 10")
        database.commit()
    server.start()
    server.set_faults({"kind": "reset", "operation": "create_container"})
    assert errno_of(os.mkdir, mounted / "box") in ("EIO", "EHOSTUNREACH")
    server.set_faults()
    assert os.listdir(mounted.path) == ["box"]  # as the list says by now
