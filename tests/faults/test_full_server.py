"""A server that is full, or finds a file too large: close tells, the content is kept, and sent."""

import os

import pytest

REFUSALS = {"full": ({"full": True}, "ENOSPC"), "too large": ({"max_file_size": 10}, "EFBIG")}
ACCEPTED = {"full": False, "max_file_size": None}
CONTENT = b"longer than ten bytes"


def reason(path):
    """Why the file is not on the server, or None."""
    name = "user.containerfs.error"
    return os.getxattr(path, name).decode() if name in os.listxattr(path) else None


@pytest.fixture
def mounted(mount):
    mounted = mount(ttl=0.1)
    mounted.expect("not on the server", "is kept here", "not everything")
    return mounted


@pytest.fixture
def box(mounted, write):
    path = mounted / "box"
    path.mkdir()
    write(path / "old", b"old")
    return path


def check_kept(box, status):
    for name in ("new", "old"):
        assert (box / name).read_bytes() == CONTENT
        assert status in reason(box / name)


@pytest.mark.parametrize(("behaviour", "errno"), REFUSALS.values(), ids=REFUSALS)
def test_what_a_server_does_not_take_is_kept_with_the_reason(
    server, mounted, box, stored, id_of, errno_of, behaviour, errno, write, sync
):
    id = id_of(box)
    status = "507" if "full" in behaviour else "413"
    server.set_behaviours(**behaviour)
    for name in ("new", "old"):
        assert errno_of(write, box / name, CONTENT) == errno
    assert errno_of(sync, box) == errno
    assert stored(id) == {"old": b"old"}
    check_kept(box, status)
    mounted.kill()
    mounted.remount()
    check_kept(box, status)
    server.set_behaviours(**ACCEPTED)
    sync(box)
    assert stored(id) == {"new": CONTENT, "old": CONTENT}
    assert {reason(box / name) for name in ("new", "old")} == {None}


def test_what_a_full_server_did_not_take_is_sent_once_there_is_room(
    server, box, stored, id_of, errno_of, eventually, write
):
    id = id_of(box)
    server.set_behaviours(full=True)
    for name in ("new", "old"):
        assert errno_of(write, box / name, CONTENT) == "ENOSPC"
    server.forget_requests()
    server.set_behaviours(full=False)
    eventually(lambda: stored(id) == {"new": CONTENT, "old": CONTENT})
    assert len(server.requests("create_file")) == 2


def test_a_full_server_still_takes_what_is_removed_and_gives_what_it_has(
    server, box, stored, id_of, errno_of, write
):
    write(box / "other", b"other")
    server.set_behaviours(full=True)
    assert errno_of(write, box / "new", CONTENT) == "ENOSPC"
    assert (box / "old").read_bytes() == b"old"
    assert errno_of(os.rename, box / "old", box / "renamed") == "ENOSPC"
    os.remove(box / "other")
    os.remove(box / "new")
    assert sorted(os.listdir(box)) == ["old"]
    assert stored(id_of(box)) == {"old": b"old"}


def test_under_write_back_the_next_fsync_tells_that_the_server_is_full(
    server, mount, stored, id_of, errno_of, eventually, write, sync
):
    mounted = mount(write_back=0.1)
    mounted.expect("not on the server")
    box = mounted / "box"
    box.mkdir()
    server.set_behaviours(full=True)
    write(box / "new", CONTENT)
    eventually(lambda: reason(box / "new"))
    assert stored(id_of(box)) == {}
    assert errno_of(sync, box) == "ENOSPC"
    server.set_behaviours(full=False)
    sync(box)
    assert stored(id_of(box)) == {"new": CONTENT}
    assert reason(box / "new") is None
