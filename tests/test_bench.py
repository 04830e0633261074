"""The benchmarks: that they run to the end, on what every machine has."""

import json
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "run.py"
LINE = SCRIPT.with_name("delay.py")
PIECE = bytes(1 << 20)
MORE = 20  # pieces that are sent when a line has begun to take what it was too full for
METRICS = {
    "a": {"cold read"},
    "b": {"warm re-read"},
    "c": {f"{state} {tool}" for state in ("cold", "warm") for tool in ("cat *", "grep -r")}
    | {"cold cp -r"},
    "d": {"cold ls -l", "warm ls -l", "first name", "ls -l after the TTL"},
    "e": {
        f"{work}: {moment}"
        for work in ("cp -r", "16 writers")
        for moment in ("returns", "uploaded")
    },
    "f": {"cp: returns", "cp: uploaded"},
    "h": {"spawn to first ls"},
    "i": {"random reads"},
    "j": {"save: returns", "save: uploaded"},
    "k": {"cold ls -l", "cold cat *"},
}
# What the server is asked for in the quick sizes, by metric and contestant: 40 files, pages of 100.
REQUESTS = {
    ("a", "cold read", "containerfs"): 2,
    ("b", "warm re-read", "containerfs"): 0,
    ("c", "cold cat *", "containerfs"): 41,
    ("c", "warm cat *", "containerfs"): 0,
    ("d", "warm ls -l", "containerfs"): 0,
    ("e", "cp -r: uploaded", "containerfs"): 41,
    ("e", "cp -r: uploaded", "containerfs write_back"): 41,
    ("i", "random reads", "containerfs"): 0,
}


@pytest.fixture
def bench(tmp_path):
    def bench(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return bench


def test_every_job_is_measured_without_a_peer(bench, tmp_path):
    told = tmp_path / "told.json"
    done = bench("--quick", *METRICS, "--rtt", 0, "--no-peer", "--json", told)
    assert done.returncode == 0, done.stderr
    rows = json.loads(told.read_text())["rows"]
    for job, metrics in METRICS.items():
        found = {row["metric"] for row in rows if row["job"] == job}
        assert found == metrics, done.stderr
    assert all(row["ours"]["seconds"] > 0 for row in rows)
    asked = {
        (row["job"], row["metric"], row["ours"]["contestant"]): row["ours"]["requests"]
        for row in rows
    }
    assert asked | REQUESTS == asked
    assert "0 ms round trip" in done.stdout


def test_a_job_that_does_not_exist_is_a_usage_error(bench):
    assert bench("z").returncode == 2


@pytest.mark.parametrize("option", ["--json", "--markdown", "--plot"])
def test_a_file_that_can_not_be_written_is_told_before_anything_is_measured(bench, option):
    done = bench("k", "--quick", "--no-peer", "--rtt", 0, option, "nowhere/file")
    assert done.returncode != 0
    assert not done.stdout
    assert "Error: " in done.stderr


def test_a_picture_of_what_is_not_measured_is_refused(bench):
    done = bench("j", "--quick", "--no-peer", "--rtt", 0, "--plot", "picture.png")
    assert done.returncode != 0
    assert not done.stdout


@pytest.fixture
def line():
    """A line to nobody yet: its near end, and who listens at its far end."""
    with socket.create_server(("127.0.0.1", 0)) as far:
        words = [sys.executable, str(LINE), str(far.getsockname()[1]), "0.001"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                port = int(process.stdout.readline().split()[-1])
                with socket.create_connection(("127.0.0.1", port)) as near:
                    yield near, far
            finally:
                process.kill()


def test_a_line_that_was_full_goes_on_when_its_far_end_reads_again(line):
    near, listener = line
    far, _ = listener.accept()
    sent = 0
    near.setblocking(False)
    while select.select([], [near], [], 1)[1]:  # until it takes nothing for a second
        sent += near.send(PIECE)
    near.settimeout(60)

    def send_on():
        for _ in range(MORE):
            near.sendall(PIECE)
        near.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send_on)
    sender.start()
    received = 0
    with far:
        far.settimeout(60)
        while piece := far.recv(len(PIECE)):
            received += len(piece)
    sender.join()
    assert received == sent + MORE * len(PIECE)
