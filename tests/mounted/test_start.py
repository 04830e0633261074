"""What a mount does from its start to its first listing: no more than that takes."""

import os
import re
import signal
import subprocess

IMPORTED = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)
# Each takes milliseconds, or is for what most mounts never do. Some come with a library that
# a mount needs, unless it is imported with care.
NEEDLESS = {
    *("asyncio", "certifi", "difflib", "h11", "httpcore", "hypothesis", "importlib.metadata"),
    *("multiprocessing", "pygments", "rich", "starlette", "tomllib", "uvicorn", "yaml", "zipfile"),
    *("containerfs.cli.optionstring", "containerfs.cli.output", "containerfs.server"),
}


def test_a_mount_starts_without_what_it_may_never_need(server, environ, command, tmp_path):
    server.new_container("box")
    path = tmp_path / "mnt"
    path.mkdir()
    errors = tmp_path / "errors"
    with (
        errors.open("wb") as log,
        subprocess.Popen(
            [command, "mount", "--base-url", server.base_url, "--uds", server.uds, str(path)],
            env=environ | {"PYTHONPROFILEIMPORTTIME": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdout is not None
        assert b" is mounted on " in process.stdout.readline()
        assert os.listdir(path) == ["box"]
        imported = set(IMPORTED.findall(errors.read_text()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert {"trio", "pyfuse3", "containerfs.daemon"} <= imported
    assert imported & NEEDLESS == set()


def test_a_mount_asks_once_before_its_first_listing(server, mount):
    server.new_container("box")
    server.forget_requests()
    mounted = mount()
    assert os.listdir(mounted.path) == ["box"]
    assert [entry["operation"] for entry in server.requests()] == ["list_containers"]
