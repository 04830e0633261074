"""Odd names, and servers that are down, foreign, or locked."""

import os
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

ODD = {
    "newline": b"two\nlines",
    "255 bytes": b"n" * 255,
    "255 bytes of umlauts": ("ü" * 127 + "x").encode(),
    "emoji": "🦀 naïve.txt".encode(),
    "leading dash": b"-rf",
    "percent": b"a%2Fb",
    "percent percent": b"a%252Fb 100%",
    "quotes": b'say "hi".txt',
    "backslash": b"back\\slash",
    "glob": b"*?[x]{a,b}$HOME`id`;&|<>",
    "blanks": b"  spaced  ",
    "colon": b"c:file",
    "combining": "e\u0301".encode(),
    "right to left": "\u202egnp.exe".encode(),
}


@pytest.fixture
def listed(server, api):
    """The paths that the server has, whatever the container, without their prefix."""

    def listed():
        return {
            file.path.removeprefix("/mnt/data/")[33:]
            for container in api.containers.list()
            for file in api.containers.files.list(container.id)
        }

    return listed


def beside(name):
    """A name for a directory that is as odd."""
    return (b"d" + name)[:255].decode("utf-8", "ignore").encode()


def test_odd_names_of_files_are_read_back_as_they_were_written(mount, api, run):
    mounted = mount()
    box = os.fsencode(mounted / "box")
    os.mkdir(box)
    for name in ODD.values():
        with open(os.path.join(box, name), "wb") as writer:
            writer.write(name)
        os.mkdir(os.path.join(box, beside(name)))
        with open(os.path.join(box, beside(name), name), "wb") as writer:
            writer.write(name)
    names = sorted([*ODD.values(), *(beside(name) for name in ODD.values())])

    def check(each, written):
        for name in written:
            for path in ((name,), (beside(name), name)):
                with open(os.path.join(os.fsencode(each / "box"), *path), "rb") as reader:
                    assert reader.read() == name

    check(mounted, ODD.values())
    assert sorted(os.listdir(box)) == names
    check(mounted.remount(), ODD.values())
    assert sorted(os.listdir(box)) == names
    check(mount(), [name for name in ODD.values() if b"%" not in name and b"\n" not in name])
    os.rename(os.path.join(box, b"-rf"), os.path.join(box, b"--"))
    run("rm", "-r", "--", mounted / "box")
    assert list(api.containers.list()) == []


def test_the_server_gets_names_as_they_were_meant(server, mount, listed):
    mounted = mount()
    box = os.fsencode(mounted / "box")
    os.mkdir(box)
    for name in (b'say "hi".txt', b"back\\slash", b"-rf", "🦀 naïve.txt".encode(), b"100%"):
        with open(os.path.join(box, name), "wb") as writer:
            writer.write(b"content")
        assert listed() == {name.decode()}
        os.remove(os.path.join(box, name))


def test_names_that_are_not_text_are_read_back_as_they_were_written(mount):
    mounted = mount()
    box = os.fsencode(mounted / "box")
    os.mkdir(box)
    names = [b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80"]
    for name in names:
        with open(os.path.join(box, name), "wb") as writer:
            writer.write(name)
    for _ in range(2):
        assert sorted(os.listdir(box)) == sorted(names)
        for name in names:
            with open(os.path.join(box, name), "rb") as reader:
                assert reader.read() == name
        mounted.remount()


def test_odd_names_of_containers_are_read_back_as_they_were_written(mount, api, errno_of):
    mounted = mount()
    root = os.fsencode(mounted.path)
    for name in ODD.values():
        os.mkdir(os.path.join(root, name))
    assert errno_of(os.mkdir, os.path.join(root, b"caf\xe9")) == "EINVAL"
    for _ in range(2):
        assert sorted(os.listdir(os.fsencode(mounted.path))) == sorted(ODD.values())
        mounted.remount()
    elsewhere = {name.replace(b"\n", b"%0A") for name in ODD.values()}  # escaped, not remembered
    assert set(os.listdir(os.fsencode(mount().path))) == elsewhere
    meant = {name.decode() for name in ODD.values()} - {"a%2Fb", "a%252Fb 100%"}
    assert {container.name for container in api.containers.list()} >= meant | {"a/b"}
    for name in ODD.values():
        os.rmdir(os.path.join(root, name))
    assert list(api.containers.list()) == []


@pytest.mark.parametrize("name", [b"n" * 256, ("ü" * 128).encode()], ids=["plain", "umlauts"])
def test_a_name_of_256_bytes_is_too_long(mount, api, errno_of, name):
    mounted = mount()
    (mounted / "box").mkdir()
    (mounted / "box" / "file").write_bytes(b"content")
    for directory in (mounted.path, mounted / "box"):
        path = os.path.join(os.fsencode(directory), name)
        assert errno_of(os.mkdir, path) == "ENAMETOOLONG"
        assert errno_of(os.stat, path) == "ENAMETOOLONG"
        assert errno_of(os.open, path, os.O_CREAT | os.O_WRONLY) == "ENAMETOOLONG"
        assert errno_of(os.rename, mounted / "box" / "file", path) == "ENAMETOOLONG"
        assert errno_of(os.symlink, "x", path) == "ENAMETOOLONG"
    assert [container.name for container in api.containers.list()] == ["box"]


PATHS = [
    "/mnt/data/../../etc/passwd",
    "/mnt/data//etc//passwd",
    "/mnt/data/" + "deep/" * 1500,
    "/mnt/data/" + "n" * 10_000,
    "/mnt/data/a/mnt/data/b",
    "../../x",
    "/",
    "//",
    "",
    ".outside/x",
    "/mnt/data/.outside/x",
    "/mnt/data/.by-id",
    "/mnt/data/nul\0nul/x",
    "/mnt/data/.",
    "/mnt/data/dir/",
]


def test_no_path_of_the_server_escapes_or_breaks_anything(server, mount, run):
    for number, path in enumerate(PATHS):
        id = server.new_container(f"box {number}")
        server.write(id, path, path.encode())
        server.write(id, "/mnt/data/plain", b"plain")
    mounted = mount()
    for number, path in enumerate(PATHS):
        box = mounted / f"box {number}"
        found = run("find", box, "-type", "f", "-print0").split("\0")[:-1]
        assert len(found) == 2, path
        for each in found:
            assert os.path.realpath(each).startswith(f"{box}/"), path
            with open(each, "rb") as reader:
                assert reader.read() == (b"plain" if each == f"{box}/plain" else path.encode())
    run("sh", "-c", "rm -r *", cwd=mounted.path)
    assert os.listdir(mounted.path) == []


# Servers that can't be mounted.


class Html(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html><body>Welcome to nginx!</body></html>")

    def log_message(self, *_):
        pass


@pytest.fixture
def web_server():
    with HTTPServer(("127.0.0.1", 0), Html) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port():
    with socket.socket() as channel:
        channel.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield channel.getsockname()[1]


def told(done):
    """The one line that a failed mount says."""
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("containerfs: ")
    return done.returncode, line


def test_a_server_that_is_down_is_named(try_mount, closed_port, tmp_path):
    url = f"http://127.0.0.1:{closed_port}/v1"
    code, line = told(try_mount("--base-url", url, "--timeout", "1", OPENAI_API_KEY="sk-x"))
    assert code == 1
    assert "connection" in line.lower()
    assert str(closed_port) in line
    code, line = told(try_mount("--uds", tmp_path / "nothing", "--timeout", "1"))
    assert code == 1
    assert str(tmp_path / "nothing") in line


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_cache_directory_that_is_a_file_is_named(server, try_mount, tmp_path, below):
    (tmp_path / "file").touch()
    words = ("--uds", server.uds, "--cache-dir", f"{tmp_path}/file{below}")
    code, line = told(try_mount(*words))
    assert code == 1
    assert f"{tmp_path}/file{below}" in line
    assert "not a directory" in line.lower()
    assert "Errno" not in line


def test_a_second_mount_of_an_account_is_told_where_the_first_is(server, mount, try_mount):
    mounted = mount()
    code, line = told(try_mount("--uds", server.uds, "--cache-dir", mounted.cache))
    assert code == 1
    assert f"mounted last on {mounted.path}" in line
    assert "--cache-dir" in line


def test_a_server_that_answers_html_is_no_containers_api(try_mount, web_server):
    code, line = told(
        try_mount("--base-url", web_server, "--timeout", "2", OPENAI_API_KEY="sk-secret")
    )
    assert code == 1
    assert "JSON" in line
    assert "sk-secret" not in line


def test_a_server_that_stands_still_is_given_up(server, try_mount):
    server.set_faults({"kind": "stall"})
    code, line = told(try_mount("--uds", server.uds, "--timeout", "1"))
    assert code == 1
    assert "in time" in line


@pytest.mark.parametrize("key", ["", "sk-wrong"])
def test_a_missing_or_wrong_key_is_not_allowed(server_factory, try_mount, key):
    server = server_factory(api_key="sk-right")
    code, line = told(try_mount("--uds", server.uds, OPENAI_API_KEY=key))
    assert code == 4
    assert "401" in line
    assert "sk-wrong" not in line


def test_the_right_key_opens(server_factory, mount, tmp_path):
    server = server_factory(api_key="sk-right")
    mounted = mount(server=server, key="sk-right")
    (mounted / "box").mkdir()
    assert os.listdir(mounted.path) == ["box"]
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("sk-right\n")
    assert os.listdir(mount(server=server, api_key_file=key).path) == ["box"]
    assert "sk-right" not in mounted.log
    for file in mounted.cache.rglob("*"):
        assert not file.is_file() or b"sk-right" not in file.read_bytes()


def test_openai_itself_needs_a_key(try_mount):
    code, line = told(try_mount())
    assert code == 4
    assert "OPENAI_API_KEY" in line
    assert "local:" in line
