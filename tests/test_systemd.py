"""Notifications arrive as sd_notify(3) describes them."""

import logging
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from containerfs import systemd

ROOT = Path(__file__).parent.parent


@pytest.fixture
def receiver():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(10)
        yield channel


def test_facts_arrive_as_one_datagram(receiver, tmp_path):
    receiver.bind(str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    systemd.notify(systemd.READY, systemd.status("3 files\nwait"), environ=environ)
    assert receiver.recv(4096) == b"READY=1\nSTATUS=3 files wait"


def test_an_abstract_socket_is_reached(receiver):
    name = f"containerfs-test-{os.getpid()}"
    receiver.bind("\0" + name)
    systemd.notify(systemd.STOPPING, environ={"NOTIFY_SOCKET": "@" + name})
    assert receiver.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_socket_nothing_happens(environ, caplog):
    systemd.notify(systemd.READY, environ=environ)
    assert not caplog.records


def test_a_socket_that_is_gone_is_only_logged(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        systemd.notify(systemd.READY, environ={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert "READY=1" in caplog.text


def test_the_unit_is_one_that_systemd_understands(tmp_path):
    unit = ROOT / "systemd" / "containerfs@.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert unit.name not in done.stderr  # else it may say that there is no bus here


def test_the_commands_of_the_readme_put_everything_where_the_unit_looks_for_it(tmp_path):
    text = (ROOT / "README.md").read_text().partition("\nA mount at each login")[2]
    block = text.partition("```console\n")[2].partition("```")[0]
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    assert len(commands) == 3
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        cwd=ROOT,
        env={
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "OPENAI_API_KEY": "a key",
        },
        check=True,
    )
    unit = (tmp_path / ".config/systemd/user/containerfs@.service").read_text()
    (credential,) = re.findall(r"^LoadCredential=\w+:(.+)$", unit, re.MULTILINE)
    key = Path(credential.replace("%h", str(tmp_path)))
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("a key\n", 0o600)
    *words, instance = (tmp_path / "asked").read_text().split()
    assert words == ["--user", "enable", "--now"]
    escaped = str(tmp_path / "containers").lstrip("/").replace("-", "\\x2d").replace("/", "-")
    assert instance == f"containerfs@{escaped}"
