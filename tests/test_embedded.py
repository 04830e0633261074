"""The embedded server as a child: it runs for as long as it is needed, and no longer."""

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

from containerfs import embedded
from containerfs.api.client import connect
from containerfs.api.connection import Connection
from containerfs.api.environment import SOCKET_BASE_URL
from containerfs.errors import Uncertain, Unreachable
from containerfs.mountpoint import MountError

HOLDER = """
import sys
from pathlib import Path
import trio
from containerfs import embedded

async def hold():
    async with embedded.running(data=Path(sys.argv[1]), runtime_dir=Path(sys.argv[2])) as address:
        print(address, flush=True)
        await trio.sleep_forever()

trio.run(hold)
"""


def children() -> list[Path]:
    """The processes this one has started."""
    lists = Path("/proc/self/task").glob("*/children")
    return [Path("/proc", pid) for pids in lists for pid in pids.read_text().split()]


def is_listening(path) -> bool:
    with socket.socket(socket.AF_UNIX) as channel:
        return channel.connect_ex(str(path)) == 0


async def test_it_listens_on_a_private_socket_while_it_is_needed(tmp_path):
    async with embedded.running(data=tmp_path / "data", runtime_dir=tmp_path) as address:
        assert is_listening(address)
        assert address.stat().st_mode & 0o777 == 0o600
        assert address.parent.stat().st_mode & 0o777 == 0o700
    assert not address.parent.exists()


async def test_a_long_runtime_directory_still_gives_a_socket(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    async with embedded.running(data=tmp_path / "data", runtime_dir=long) as address:
        assert is_listening(address)
    assert list(long.iterdir()) == []


async def test_its_last_words_are_the_reason_when_it_does_not_start(tmp_path):
    async with embedded.running(data=tmp_path / "data", runtime_dir=tmp_path):
        with pytest.raises(MountError, match=r"did not start: another server uses .*data"):
            async with embedded.running(data=tmp_path / "data", runtime_dir=tmp_path):
                pass


async def test_data_that_is_no_directory_is_refused(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(MountError, match="data: not a directory"):
        async with embedded.running(data=tmp_path / "data", runtime_dir=tmp_path):
            pass


async def test_it_is_given_no_keys_and_no_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("CONTAINERFS_TTL", "5")
    async with embedded.running(data=tmp_path / "data", runtime_dir=tmp_path):
        commands = {pid: (pid / "cmdline").read_bytes() for pid in children()}
        (server,) = (pid for pid, command in commands.items() if b"serve" in command)
        environ = (server / "environ").read_bytes()
    assert b"sk-secret" not in environ
    assert b"CONTAINERFS_" not in environ


@pytest.mark.parametrize("name", ["run", "x" * 100])
async def test_it_ends_when_its_holder_is_killed(tmp_path, name):
    runtime_dir = tmp_path / name
    runtime_dir.mkdir()
    holder = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDER, str(tmp_path / "data"), str(runtime_dir)],
        stdout=subprocess.PIPE,
    )
    async with holder.stdout:
        address = (await holder.stdout.receive_some()).decode().strip()
        channel = await trio.open_unix_socket(address)
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
        # An idle connection ends with the server.
        with trio.fail_after(60), contextlib.suppress(trio.BrokenResourceError):
            assert await channel.receive_some() == b""
        await channel.aclose()
    async with embedded.running(data=tmp_path / "data", runtime_dir=runtime_dir) as new_address:
        assert is_listening(new_address)
        assert not Path(address).parent.exists()  # what the killed one left has been cleared


async def test_what_was_left_where_paths_are_short_is_cleared_by_who_needs_no_such(tmp_path):
    ended = await trio.lowlevel.open_process(["true"])
    await ended.wait()
    left = Path(tempfile.mkdtemp(prefix=f"containerfs-server-{ended.pid}-", dir="/tmp"))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        async with embedded.running(data=tmp_path / "data", runtime_dir=Path(short)) as address:
            assert Path(short) in address.parents
            assert not left.exists()


async def test_its_containers_do_not_expire(tmp_path):
    data = tmp_path / "data"

    @contextlib.asynccontextmanager
    async def client():
        async with embedded.running(data=data, runtime_dir=tmp_path) as address:
            connection = Connection(base_url=SOCKET_BASE_URL, uds=str(address))
            async with connect(connection) as connected:
                yield connected

    async with client() as before:
        await before.create_container(name="old")
    with contextlib.closing(sqlite3.connect(data / "containers.sqlite")) as database, database:
        database.execute("UPDATE containers SET last_active = 0")
    async with client() as after:
        page = await after.list_containers()
        assert [container.status for container in page.data] == ["running"]


class Entries(logging.Handler):
    """The log, to be waited for."""

    def __init__(self):
        super().__init__()
        self._sent, self._received = trio.open_memory_channel(100)

    def emit(self, record):
        self._sent.send_nowait(record)

    async def next(self):
        return await self._received.receive()


@pytest.fixture
def logged():
    entries = Entries()
    log = logging.getLogger("containerfs.embedded")
    log.addHandler(entries)
    yield entries.next
    log.removeHandler(entries)


async def test_each_failure_of_its_own_is_one_entry_of_the_log(tmp_path, logged):
    data = tmp_path / "data"
    async with embedded.running(data=data, runtime_dir=tmp_path) as address:
        connection = Connection(base_url=SOCKET_BASE_URL, uds=str(address))
        async with connect(connection) as client:
            box = await client.create_container(name="box")
            shutil.rmtree(data / "content")
            with (tmp_path / "file").open("w+b") as file:
                for _ in range(2):
                    with pytest.raises(Uncertain):
                        await client.upload_file(box.id, name="a", fd=file.fileno(), size=0)
        with trio.fail_after(60):
            records = [await logged() for _ in range(2)]
    for record in records:
        assert record.getMessage() == "embedded server: FileNotFoundError"
        text = logging.Formatter().format(record)
        assert re.search(r"request req_\w+ failed\nTraceback .*\n(  .*\n)+FileNotFound", text)


async def test_it_is_started_again_where_it_was_killed(tmp_path, logged):
    async with embedded.running(data=tmp_path / "data", runtime_dir=tmp_path) as address:
        connection = Connection(base_url=SOCKET_BASE_URL, uds=str(address))
        async with connect(connection) as client:
            await client.create_container(name="box")
            for _ in range(2):
                (server,) = children()
                os.kill(int(server.name), signal.SIGKILL)
                with trio.fail_after(60):
                    message = (await logged()).getMessage()
                assert message == "the embedded server has ended with code -9; it is started again"
                page = await patiently(client.list_containers)
                assert [container.name for container in page.data] == ["box"]
    assert children() == []


async def patiently(call):
    """The answer, once there is a server to give it."""
    with trio.fail_after(60):
        while True:
            with contextlib.suppress(Unreachable):
                return await call()
