"""A server that asks to be left alone is left alone, and has everything in the end."""

import os
import shutil
import threading

import pytest

ASKED = 3  # seconds
SLACK = 1  # seconds after a refusal in which what was on its way may still arrive
PLACES = 64  # requests that can be under way at one time: as many may hear the same refusal


def rounds(requests, *, silence):
    """The requests, grouped by the silences of so many seconds between them."""
    found = []
    last = float("-inf")
    for each in requests:
        if each["at"] - last >= silence:
            found.append([])
        found[-1].append(each)
        last = each["at"]
    return found


def intruders(requests, *, asked):
    """What came although the server had asked for silence, by the time it was refused."""
    refused = [each["at"] for each in requests if each["status"] == 429]
    return [
        each for each in requests if any(at + SLACK < each["at"] < at + asked for at in refused)
    ]


def refusing(**members):
    value = {"kind": "status", "status": 429, "header": "retry-after", "value": str(ASKED)}
    return value | members


@pytest.fixture
def mounted(mount):
    mounted = mount(ttl=0.1)
    mounted.expect("stale listing")
    return mounted


@pytest.fixture
def box(mounted):
    path = mounted / "box"
    path.mkdir()
    return path


def test_a_server_that_refuses_for_a_while_is_asked_once_in_each_round(
    server, box, stored, id_of, together, eventually, write
):
    id = id_of(box)
    contents = {f"file{number}": b"%d" % number for number in range(40)}
    server.forget_requests()
    server.set_faults(refusing())
    is_over = threading.Timer(1.5 * ASKED, server.set_faults)
    is_over.start()

    def write_one(number):
        """Some come only in the middle of the silence."""
        if number % 2:
            threading.Event().wait(ASKED / 2)
        write(box / f"file{number}", contents[f"file{number}"])

    answers = together(
        {str(number): lambda number=number: write_one(number) for number in range(len(contents))}
    )
    is_over.join()
    assert set(answers.values()) == {None}
    assert stored(id) == contents
    asked = [each for each in server.requests() if each["status"] is not None]
    refused = [each for each in asked if each["status"] == 429]
    assert intruders(refused, asked=ASKED) == []
    turns = rounds(refused, silence=ASKED - SLACK)
    assert len(turns) <= 2
    assert max(map(len, turns)) <= PLACES


def test_a_refusal_without_a_time_is_backed_off_from(
    server, box, stored, id_of, together, write, sync
):
    id = id_of(box)
    contents = {f"file{number}": b"%d" % number for number in range(40)}
    server.forget_requests()
    server.set_faults(refusing(header="none"))
    is_over = threading.Timer(5, server.set_faults)
    is_over.start()
    answers = together(
        {name: lambda name=name: write(box / name, contents[name]) for name in contents}
    )
    is_over.join()
    assert set(answers.values()) <= {None, "EIO"}
    sync(box)
    assert stored(id) == contents
    # 0.5, 1, 2 and 4 seconds are waited after the first four attempts at each.
    refused = [each for each in server.requests() if each["status"] == 429]
    assert len(refused) <= 4 * PLACES


def test_what_is_refused_until_the_deadline_is_sent_afterwards(
    server, mount, stored, id_of, errno_of, eventually, write
):
    mounted = mount(timeout=1)
    mounted.expect("not on the server", "stale listing")
    box = mounted / "box"
    box.mkdir()
    assert os.listdir(box) == []
    server.set_faults(refusing(header="none"))
    contents = {f"file{number}": b"%d" % number for number in range(4)}
    answers = {errno_of(write, box / name, data) for name, data in contents.items()}
    assert answers == {"EIO"}
    assert {name: (box / name).read_bytes() for name in contents} == contents
    server.set_faults()
    eventually(lambda: stored(id_of(box)) == contents)


def limited(server, *, limit, seconds):
    server.set_faults({"kind": "rate-limit", "limit": limit, "seconds": seconds})


def copied(server, box, tmp_path, run, *, files, limit, seconds, patience):
    """`cp -r` and `cat *` under a limit of requests; how the server fared."""
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    for number in range(files):
        above = source / "dir" if number % 2 else source
        (above / f"file{number:03}").write_bytes(b"content %d\n" % number)
    server.forget_requests()
    limited(server, limit=limit, seconds=seconds)
    run("cp", "-r", source, box / "copy", patience=patience)
    run("diff", "-r", source, box / "copy", patience=patience)
    return source


def check_limit(server, *, seconds):
    """Nobody came while the server had asked for silence, but for what was on its way."""
    requests = server.requests()
    refused = [each for each in requests if each["status"] == 429]
    assert refused, "the limit was never met"
    assert len(refused) <= len(requests) / 2
    for each in rounds(refused, silence=SLACK):
        assert len(each) <= PLACES


def test_under_a_limit_of_requests_copies_and_reads_complete(
    server, mounted, box, tmp_path, run, stored, id_of, mount
):
    """Twenty in two seconds, that is ten times as many as a hundred a minute."""
    source = copied(server, box, tmp_path, run, files=40, limit=20, seconds=2, patience=60)
    other = mount(ttl=0.1)  # another machine, that has nothing in its cache
    other.expect("stale listing")
    said = run("sh", "-c", "cat *0* dir/*", cwd=other / "box" / "copy", text=False)
    assert said.count(b"content") == len(list((source / "dir").iterdir())) + len(
        list(source.glob("*0*"))
    )
    check_limit(server, seconds=2)
    server.set_faults()
    expected = {
        f"copy/{path.relative_to(source)}": path.read_bytes() for path in source.rglob("file*")
    }
    assert stored(id_of(box)) == expected


@pytest.mark.deep
def test_under_a_hundred_requests_a_minute_copies_and_reads_complete(
    server, mount, tmp_path, run, id_of, stored
):
    """The limit of the service's own tool, with the mount's own limits as they are."""
    mounted = mount(ttl=60)
    mounted.expect("stale listing")
    box = mounted / "box"
    box.mkdir()
    source = copied(server, box, tmp_path, run, files=250, limit=100, seconds=60, patience=400)
    check_limit(server, seconds=60)
    server.set_faults()
    assert len(list(source.rglob("file*"))) == len(server.files(id_of(box)))
    shutil.rmtree(source)
