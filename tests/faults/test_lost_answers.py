"""The answer to an upload is lost, and for a while nobody can ask whether it has arrived.

What is done to such a file meanwhile leaves nothing of it on the server that nobody knows of.
"""

import os

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
def settled(eventually, stored, id_of, mounted, box):
    """`settled({name: content})`: the directory and the server come to hold these, and no more."""

    def settled(contents):
        def is_so():
            shown = {path.name: path.read_bytes() for path in box.iterdir()}
            return shown == contents and sorted(stored(id_of(box)).values()) == sorted(
                contents.values()
            )

        eventually(is_so)
        assert sorted(os.listdir(mounted.remount(ttl=0) / "box")) == sorted(contents)
        assert is_so()

    return settled


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
