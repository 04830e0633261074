"""The command: how it starts, what it prints, how it ends."""

import os
import signal
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-m", "containerfs.cli.serve")


@pytest.mark.parametrize(
    "options",
    [
        ["--behaviour", "naming=odd"],
        ["--behaviour", "naming"],
        ["--fault", "kind=odd"],
        ["--fault", "cut"],
        ["--port", "70000"],
        ["--api-key-file", "/no/such/file"],
        ["--no-such-option"],
    ],
)
def test_wrong_usage_is_said_with_code_2(tmp_path, options):
    done = subprocess.run(
        [*COMMAND, "--data", str(tmp_path / "data"), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert not (tmp_path / "data").exists()


def test_help_does_not_load_the_server():
    code = "import sys, containerfs.cli.serve; sys.exit('uvicorn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_in_order(tmp_path, number):
    with subprocess.Popen(
        [*COMMAND, "--data", str(tmp_path / "data"), "--host", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        assert line.endswith("/v1\n")
        os.kill(process.pid, number)
        rest, errors = process.communicate(timeout=30)
        assert (process.returncode, rest, errors) == (0, "", "")


def test_it_ends_with_its_standard_input_when_told_to(tmp_path):
    uds = tmp_path / "s"
    with subprocess.Popen(
        [*COMMAND, "--data", str(tmp_path / "data"), "--uds", str(uds), "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == f"listening on unix:{uds}\n"
        rest, errors = process.communicate(timeout=30)
        assert (process.returncode, rest, errors) == (0, "", "")
    assert not uds.exists()


def test_it_ends_in_order_with_connections_open_and_requests_under_way(server, connect):
    container = server.new_container()
    idle, uploading, downloading = (connect(server) for _ in range(3))
    idle.request("GET", "/v1/containers")
    idle.read_head()
    file = server.upload(container, "a", bytes(20_000_000))
    downloading.request("GET", f"/v1/containers/{container}/files/{file['id']}/content")
    downloading.read_head()
    uploading.send(
        f"POST /v1/containers/{container}/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    uploading.read_head()
    assert server.stop() == 0
    assert server.errors == ""
    assert os.path.exists(server.data / "containers.sqlite")
    assert not os.path.exists(server.uds)


def test_a_bug_is_an_answer_with_a_request_id_and_a_line_in_the_log(server):
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    for path in (server.data / "content").rglob("*"):
        if path.is_file():
            path.unlink()
    status, headers, _ = server.exchange(
        "GET", f"/v1/containers/{container}/files/{file['id']}/content"
    )
    assert status == 500
    assert headers["x-request-id"] in server.errors
    assert server.call("GET", "/v1/containers")["data"]
    server.forget_errors()
