"""Notifications arrive as sd_notify(3) describes them."""

import logging
import os
import socket
import subprocess
from pathlib import Path

import pytest

from containerfs import systemd


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
    unit = Path(__file__).parent.parent / "systemd" / "containerfs@.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(unit)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
