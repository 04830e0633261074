"""Two mounts on machines of their own change one file: one of the contents wins, whole and once."""

# ruff: noqa: B023 - what a loop makes is called before its next turn

import os
import random
import re
import threading

import pytest

LOST = {"kind": "reset-after", "operation": "create_file"}
SOME = [
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500, "done": True},
    {"kind": "status", "status": 429, "header": "retry-after", "value": "0.1"},
    {"kind": "reset"},
    {"kind": "reset-after"},
]
FAILURES = ("not on the server", "is kept here", "not everything", "stale listing", "deleted later")


def append(path, data):
    with path.open("ab", buffering=0) as file:
        file.write(data)


@pytest.fixture
def id(server):
    return server.new_container("box")


@pytest.fixture
def mounts(mount, id):
    """Two mounts that see at once what the other changes; conflicts are expected."""
    mounts = [mount(ttl=0.1, empty_delay=0.1) for _ in range(2)]
    for each in mounts:
        each.expect("wins over")
    return mounts


@pytest.fixture
def at_once(errno_of):
    """Makes calls at the same moment; the errno, or None, of each."""

    def at_once(*calls):
        answers = {}
        barrier = threading.Barrier(len(calls))

        def make(number, call):
            barrier.wait()
            answers[number] = errno_of(call)

        threads = [threading.Thread(target=make, args=pair) for pair in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[number] for number in range(len(calls))]

    return at_once


def shown(mounted):
    """Every file of the container with its content; None while it changes."""
    try:
        return {path.name: path.read_bytes() for path in (mounted / "box").iterdir()}
    except OSError:
        return None


@pytest.fixture
def agree(mounts, stored, id, eventually):
    """Waits until both mounts show what the server has, each file once, and returns it."""

    def agree():
        eventually(lambda: shown(mounts[0]) == shown(mounts[1]) == stored(id))
        return stored(id)

    return agree


def test_two_who_write_one_file_at_once_leave_one_whole_version(mounts, id, agree, at_once, write):
    one, two = (each / "box" / "file" for each in mounts)
    for number in range(5):
        contents = [b"%d" % number * 200_000, b"%d!" % number * 90_000]
        answers = at_once(lambda: write(one, contents[0]), lambda: write(two, contents[1]))
        assert answers == [None, None]
        assert agree()["file"] in contents
        assert len(agree()) == 1


def test_two_who_open_the_same_version_and_close_after_each_other_keep_the_last(
    server, mounts, id, agree
):
    server.write(id, "/mnt/data/file", b"old")
    writers = [(each / "box" / "file").open("r+b", buffering=0) for each in mounts]
    for number, writer in enumerate(writers):
        writer.write(b"by %d" % number)
    for writer in writers:
        writer.close()
    assert agree() == {"file": b"by 1"}


def test_a_conflict_is_told_with_both_ids_and_what_was_read_stays_in_the_cache(
    server, mounts, id, agree, write
):
    server.write(id, "/mnt/data/file", b"old")
    one, two = (each / "box" / "file" for each in mounts)
    writer = one.open("r+b", buffering=0)
    writer.write(b"mine")
    write(two, b"somebody else's version")
    (other,) = server.files(id)
    assert two.read_bytes() == b"somebody else's version"
    writer.close()
    assert agree() == {"file": b"mine"}
    (winner,) = server.files(id)
    assert re.search(f"{winner['id']} wins over {other['id']}", mounts[0].log)
    cached = mounts[1].cache.glob("*/content/*")
    assert b"somebody else's version" in b"".join(path.read_bytes() for path in cached)


def test_appends_of_two_at_once_never_mix(mounts, id, agree, at_once, write):
    """The last close wins with all that it had read: lines may be missing, none is torn."""
    one, two = (each / "box" / "log" for each in mounts)
    write(one, b"begin\n")
    agree()
    for number in range(5):
        lines = [b"%d by %d\n" % (number, who) * 1000 for who in range(2)]
        before = agree()["log"]
        answers = at_once(lambda: append(one, lines[0]), lambda: append(two, lines[1]))
        assert answers == [None, None]
        orders = [lines[:1], lines[1:], lines, lines[::-1]]
        assert agree()["log"] in [before + b"".join(order) for order in orders]


def test_one_removes_what_the_other_writes(mounts, id, agree, at_once, write):
    one, two = (each / "box" / "file" for each in mounts)
    for number in range(5):
        write(one, b"old")
        agree()
        content = b"new %d" % number
        written, removed = at_once(lambda: write(one, content), lambda: os.unlink(two))
        assert written is None
        assert removed in (None, "ENOENT")
        assert agree() in ({}, {"file": content})


def test_one_renames_what_the_other_writes(mounts, id, agree, at_once, write):
    one, two = (each / "box" / "file" for each in mounts)
    for number in range(5):
        write(one, b"old")
        agree()
        content = b"new %d" % number
        other = mounts[1] / "box" / f"other{number}"
        written, renamed = at_once(lambda: write(one, content), lambda: os.rename(two, other))
        assert written is None
        assert renamed in (None, "ENOENT", "ESTALE")
        found = agree()
        assert found.pop("file", content) == content
        assert found.pop(other.name, b"old") in (b"old", content)
        found_others = [name for name in found if not name.startswith("other")]
        assert found_others == []


def test_answers_lost_to_one_of_two_leave_no_second_object(
    server, mounts, id, agree, at_once, write
):
    server.write(id, "/mnt/data/file", b"old")
    one, two = (each / "box" / "file" for each in mounts)
    for number in range(5):
        contents = [b"one %d" % number, b"two, %d" % number]
        server.set_faults({**LOST, "count": 1})
        answers = at_once(lambda: write(one, contents[0]), lambda: write(two, contents[1]))
        assert answers == [None, None]
        assert agree()["file"] in contents
        assert len(agree()) == 1


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(2, 12))]
)
def test_two_who_write_while_requests_fail_agree_in_the_end(
    server, mounts, id, agree, at_once, seed, write, sync
):
    for each in mounts:
        each.expect(*FAILURES)
    chance = random.Random(seed)
    names = ["a", "b", "c"]
    written = {name: [] for name in names}
    server.set_faults(*({**fault, "probability": 0.2 / len(SOME), "seed": seed} for fault in SOME))

    def life(mounted, who):
        for number in range(20):
            name = chance.choice(names)
            content = b"%s by %d, %d" % (name.encode(), who, number) * chance.choice((1, 5000))
            written[name].append(content)
            try:
                write(mounted / "box" / name, content)
            except OSError:
                continue  # it is kept, and sent later

    at_once(*(lambda who=who, each=each: life(each, who) for who, each in enumerate(mounts)))
    server.set_faults()
    for each in mounts:
        sync(each / "box")
    found = agree()
    assert set(found) == {name for name in names if written[name]}
    assert all(found[name] in written[name] for name in found)
