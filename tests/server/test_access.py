"""Who may use a server, and who may look at its files."""

import json
import os
import socket
import stat
import subprocess
import sys

import pytest


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def locked(server_factory):
    """A server that asks for a key."""
    return server_factory(api_key="sk-right")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer sk-right"}, 200),
        ({"authorization": "bearer   sk-right"}, 200),
        ({"Authorization": "", "api-key": "sk-right"}, 200),
        ({"Authorization": "Bearer sk-wrong"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Basic sk-right"}, 401),
        ({"Authorization": "sk-right"}, 401),
        ({"Authorization": "Bearer sk-right\u00ff"}, 401),
        ({"Authorization": "Bearer sk-right", "api-key": "sk-wrong"}, 401),
        ({"Authorization": ""}, 401),
    ],
)
def test_a_server_with_a_key_asks_for_it(locked, headers, status):
    answer = locked.exchange("GET", "/v1/containers", headers=headers)
    assert answer[0] == status
    if status == 401:
        error = json.loads(answer[2])["error"]
        assert error["type"] == "invalid_request_error"
        assert "sk-" not in answer[2].decode()
        assert answer[1]["www-authenticate"] == "Bearer"
        assert answer[1]["x-request-id"]


def test_the_key_is_asked_for_everywhere(locked):
    wrong = {"Authorization": "Bearer no"}
    for method, path in [
        ("POST", "/v1/containers"),
        ("GET", "/v1/containers/x/files/y/content"),
        ("GET", "/nowhere"),
        ("GET", "/admin/requests"),
        ("PUT", "/admin/faults"),
    ]:
        assert locked.exchange(method, path, headers=wrong)[0] == 401


def test_a_server_without_a_key_asks_for_none(server):
    for headers in ({}, {"Authorization": "Bearer anything"}):
        assert server.exchange("GET", "/v1/containers", headers=headers)[0] == 200


def test_only_its_owner_can_reach_the_socket_and_the_data(server):
    container = server.new_container()
    server.upload(container, "a", b"x")
    assert mode(server.uds) == 0o600
    assert mode(server.data) == 0o700
    for path in server.data.rglob("*"):
        assert mode(path) & 0o077 == 0 or mode(path.parent) & 0o077 == 0
        if path.is_file():
            assert mode(path) == 0o600


def start_fails(*options):
    done = subprocess.run(
        [sys.executable, "-m", "containerfs.cli.serve", *map(str, options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("content", "file_mode", "words"),
    [("sk-x", 0o640, "chmod 600"), ("sk-x", 0o604, "chmod 600"), (" \n", 0o600, "is empty")],
)
def test_a_key_file_that_is_no_secret_is_refused(tmp_path, content, file_mode, words):
    key = tmp_path / "key"
    key.write_text(content)
    key.chmod(file_mode)
    done = start_fails("--data", tmp_path / "data", "--api-key-file", key)
    assert words in done.stderr
    assert "sk-x" not in done.stderr


def test_data_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "data").touch()
    done = start_fails("--data", tmp_path / "data")
    assert f"{tmp_path / 'data'} is not a directory" in done.stderr


def test_a_data_directory_has_one_server_at_a_time(server, tmp_path):
    assert "another server uses" in start_fails("--data", server.data, "--port", 0).stderr
    server.restart()
    assert server.call("GET", "/v1/containers")["data"] == []


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    before = mode(tmp_path)
    assert "neither empty nor" in start_fails("--data", tmp_path).stderr
    assert mode(tmp_path) == before


def test_data_that_is_no_directory_or_no_database_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    start_fails("--data", tmp_path / "file")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "containers.sqlite").write_bytes(b"no database at all" * 1000)
    assert "can't open the database" in start_fails("--data", broken).stderr


def test_an_address_that_is_taken_is_an_error(server_factory, tmp_path):
    server = server_factory(tcp=True)
    port = server.base_url.split(":")[2].partition("/")[0]
    assert "can't listen" in start_fails("--data", tmp_path / "d", "--port", port).stderr
    other = server_factory()
    assert (
        "another server listens" in start_fails("--data", tmp_path / "d", "--uds", other.uds).stderr
    )
    assert other.call("GET", "/v1/containers")["data"] == []
    missing = tmp_path / "no" / "socket"
    assert "can't listen" in start_fails("--data", tmp_path / "d", "--uds", missing).stderr


def test_a_socket_that_a_killed_server_left_is_replaced(server):
    server.kill()
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(server.uds)
    server.start()
    assert server.call("GET", "/v1/containers")["data"] == []


def test_a_file_in_the_place_of_the_socket_is_left_alone(tmp_path):
    (tmp_path / "s").write_text("mine")
    start_fails("--data", tmp_path / "data", "--uds", tmp_path / "s")
    assert (tmp_path / "s").read_text() == "mine"
