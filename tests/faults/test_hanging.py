"""Every call is answered in time, whatever the server does."""

import http.server
import itertools
import json
import os
import socket
import threading

import pytest

FAULTS = {
    "stalls": {"kind": "stall"},
    "stalls before the body": {"kind": "stall-body", "at": 0},
    "stalls in the body": {"kind": "stall-body", "at": 10},
    "drips": {"kind": "drip", "seconds": 0.7},
    "is endless": {"kind": "endless"},
    "resets": {"kind": "reset"},
    "resets after": {"kind": "reset-after"},
    "is cut": {"kind": "cut", "at": 5},
    "redirects": {
        "kind": "answer",
        "status": 307,
        "headers": {"Location": "/v1/containers"},
    },
    "asks to wait": {
        "kind": "status",
        "status": 429,
        "header": "retry-after",
        "value": "100",
    },
}
IN_EACH_RUN = {"stalls", "stalls in the body", "is endless", "resets after", "asks to wait"}


def boxes(server):
    """Containers with files that the mount has not read."""
    id = server.new_container("box")
    for name in ("read", "removed", "renamed", "kept", "last"):
        server.write(id, f"/mnt/data/{name}", b"0123456789" * 10)
    server.new_container("empty")
    server.write(server.new_container("unseen"), "/mnt/data/file", b"x")
    return id


def change(path):
    with path.open("r+b") as writer:
        writer.write(b"changed")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=name, marks=[] if name in IN_EACH_RUN else pytest.mark.deep)
        for name, fault in FAULTS.items()
    ],
)
def test_every_call_is_answered_whatever_the_server_does(server, mount, short, together, fault):
    boxes(server)
    mounted = mount(ttl=0, **short)
    mounted.expect("")
    box = mounted / "box"
    os.listdir(mounted.path)
    os.listdir(box)
    os.listdir(mounted / "empty")
    server.set_faults(fault)
    answers = together(
        {
            "listing the top": lambda: os.listdir(mounted.path),
            "listing": lambda: os.listdir(box),
            "listing what was never seen": lambda: os.listdir(mounted / "unseen"),
            "asking": lambda: os.stat(box / "read"),
            "asking for what is absent": lambda: os.stat(box / "absent"),
            "reading": lambda: (box / "read").read_bytes(),
            "closing": lambda: (box / "written").write_bytes(b"written"),
            "changing": lambda: change(box / "kept"),
            "removing": lambda: os.unlink(box / "removed"),
            "renaming": lambda: os.rename(box / "renamed", box / "new"),
            "making a container": lambda: os.mkdir(mounted / "made"),
            "removing a container": lambda: os.rmdir(mounted / "empty"),
            "asking for space": lambda: os.statvfs(mounted.path),
        }
    )
    hanging = [name for name, answer in answers.items() if answer == "HANGS"]
    assert hanging == []
    assert answers["asking for space"] is None
    assert answers["listing"] is None, "what was listed before is listed again"
    assert answers["listing the top"] is None
    server.set_faults()
    if fault["kind"] != "status":  # the server is still left alone for as long as it asked
        assert (box / "last").read_bytes() == b"0123456789" * 10
        (box / "last").write_bytes(b"last")


def test_a_hung_transfer_does_not_block_another_file(server, mount, together, eventually):
    id = boxes(server)
    hung = next(file["id"] for file in server.files(id) if file["path"].endswith("/read"))
    mounted = mount(op_timeout=10, timeout=10, transfer_timeout=10)
    mounted.expect("not on the server", "no answer within")
    box = mounted / "box"
    os.listdir(box)
    server.set_faults(
        {"kind": "stall", "operation": "content", "match": hung},
        {"kind": "stall", "operation": "create_file", "count": 1},
    )
    hangs = [
        threading.Thread(target=together, args=({"": call},))
        for call in (
            lambda: (box / "read").read_bytes(),
            lambda: (box / "written").write_bytes(b"written"),
        )
    ]
    for thread in hangs:
        thread.start()
    eventually(lambda: all(fault["fired"] for fault in server.admin("GET", "/admin/faults")))
    (box / "other").write_bytes(b"other")
    assert (box / "kept").read_bytes() == b"0123456789" * 10
    assert all(thread.is_alive() for thread in hangs)
    server.set_faults()
    for thread in hangs:
        thread.join()


def test_a_directory_that_was_seen_is_listed_at_once_while_the_server_hangs(server, mount):
    """The first who asks notices; nobody after."""
    boxes(server)
    mounted = mount(ttl=0)
    mounted.expect("stale listing")
    before = sorted(os.listdir(mounted / "box"))
    os.listdir(mounted.path)
    server.set_faults({"kind": "stall"})
    assert sorted(os.listdir(mounted / "box")) == before
    for _ in range(100):
        assert sorted(os.listdir(mounted / "box")) == before
    assert "stale listing" in mounted.log
    assert len(server.requests("list_files")) < 10


class EndlessPages(http.server.BaseHTTPRequestHandler):
    """Every page of files has new ones, and more to come."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_GET(self):
        number = next(self.numbers)
        created = number + 1 if "order=asc" in self.path else 10**9 - number
        entry = {"id": f"cfile_{number}", "created_at": created, "bytes": 1, "source": "user"}
        entry |= {"object": "container.file", "container_id": "c", "path": f"/mnt/data/{number}"}
        if "files" not in self.path:
            entry = {"id": "c", "object": "container", "created_at": 1, "name": "box"}
            entry |= {"status": "running"}
        page = {"object": "list", "data": [entry], "has_more": "files" in self.path}
        page |= {"first_id": entry["id"], "last_id": entry["id"]}
        body = json.dumps(page).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Elsewhere:
    """A server that is none of ours, as `mount` takes one."""

    uds = None

    def __init__(self, base_url):
        self.base_url = base_url


@pytest.fixture
def endless():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EndlessPages) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Elsewhere(f"http://127.0.0.1:{server.server_port}/v1")
        server.shutdown()
        thread.join()


def test_a_list_that_never_ends_is_given_up(mount, short, together, endless):
    mounted = mount(server=endless, key="sk-x", **short)
    mounted.expect("no answer within")
    answers = together(
        {
            "listing": lambda: os.listdir(mounted / "box"),
            "asking": lambda: os.stat(mounted / "box" / "file"),
            "listing the top": lambda: os.listdir(mounted.path),
        }
    )
    assert answers == {"listing": "ETIMEDOUT", "asking": "ETIMEDOUT", "listing the top": None}


@pytest.fixture
def silent():
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/v1",
        "http://no-such-host.invalid/v1",
        "https://127.0.0.1:{silent}/v1",
        "http://127.0.0.1:{silent}/v1",
    ],
)
def test_a_mount_of_what_can_not_be_reached_fails_in_time(try_mount, silent, short, url):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in short.items()]
    done = try_mount(f"--base-url={url.format(silent=silent)}", *words, OPENAI_API_KEY="sk-x")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_while_the_server_asks_for_silence_it_is_left_alone(
    server, mount, together, eventually, stored, id_of
):
    mounted = mount(ttl=0.1)
    mounted.expect("stale listing")
    box = mounted / "box"
    box.mkdir()
    server.set_faults({"kind": "rate-limit", "limit": 5, "seconds": 3})
    server.forget_requests()
    contents = {f"file{number}": b"%d" % number for number in range(16)}
    answers = together(
        {
            name: lambda name=name, content=content: (box / name).write_bytes(content)
            for name, content in contents.items()
        }
    )
    assert set(answers.values()) == {None}
    refused = [each for each in server.requests() if each["status"] == 429]
    assert len(refused) < 64
    server.set_faults()
    assert stored(id_of(box)) == contents
