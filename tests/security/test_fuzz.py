"""Real answers of the server, mutated: whatever comes, each call ends in one of its own errors."""

import json
import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.api.listing import all_containers, all_files
from containerfs.assembly import Mount
from containerfs.cache.state import open_state
from containerfs.errors import FileSystemError
from containerfs.fs.tree.inodes import ROOT_INO
from containerfs.options import Options

WHO = SimpleNamespace(uid=os.getuid(), gid=os.getgid(), pid=0, umask=0o022)
CASES = 300
DEEP_CASES = 10_000
TREE_CASES = 25
DEEP_TREE_CASES = 2_000
NAMES = (
    "..",
    ".",
    "",
    "/",
    "/mnt/data/../../etc/passwd",
    "/mnt/data//a///b",
    "/mnt/data/./../.",
    "/etc/shadow",
    "/mnt/data/a\x00b",
    "/mnt/data/\x1b]0;owned\x07\x1b[2J",
    "/mnt/data/\u202egnp.exe",
    "/mnt/data/" + "a/" * 10_000 + "b",
    "/mnt/data/" + "x" * 1_000_000,
    "/mnt/data/a\r\nb",
    "/mnt/data/\ud800\udfff",
    "/mnt/data/%2F%2e%2E",
    "/mnt/data/a.csv/b",
    ".by-id",
    "%2E%2E",
    "cfile/../../x?y=z#w",
)
NUMBERS = (-1, 0, 2**31, 2**63 - 1, 2**63, 2**64, 1.5, -0.0, 1e300, float("inf"), float("nan"))
OTHERS = (None, True, False, [], {}, [[]], {"id": {}}, [None] * 100)


def mutated(answer: bytes, chance: random.Random) -> bytes:
    """An answer with a few changes: of its JSON, in its headers, or of any bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    for _ in range(chance.randint(1, 3)):
        way = chance.random()
        if way < 0.6:
            body = _mutated_json(body, chance)
        elif way < 0.7:
            body = _mutated_bytes(body, chance)
        elif way < 0.8:
            head = _mutated_bytes(head, chance)
        elif way < 0.9:
            head = _mutated_head(head, chance)
        else:
            return _mutated_bytes(_framed(head, body), chance)
    return _framed(head, body)


def _framed(head: bytes, body: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]) + body


def _mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((0, 1, 1, 10, 1000)))
    new = chance.choice((b"", chance.randbytes(1), chance.randbytes(20), data[at:end] * 3))
    return data[:at] + new + data[end:]


def _mutated_head(head: bytes, chance: random.Random) -> bytes:
    line, *headers = head.split(b"\r\n")
    status = chance.choice((100, 101, 199, 204, 206, 301, 304, 307, 404, 416, 429, 500, 503, 999))
    new = chance.choice(
        (
            b"Content-Encoding: gzip",
            b"Transfer-Encoding: chunked",
            b"Content-Range: bytes 0-9223372036854775807/99999999999999999999",
            b"Content-Range: bytes */0",
            b"Location: file:///etc/passwd",
            b"Location: ",
            b"Retry-After: Mon, 01 Jan 99999999999 00:00:00 GMT",
            b"X-Request-Id: " + b"x" * 10_000,
            b"Connection: close, upgrade",
        )
    )
    if chance.random() < 0.5:
        line = b"HTTP/1.1 %d X" % status
    return b"\r\n".join([line, *headers, new])


def _mutated_json(body: bytes, chance: random.Random) -> bytes:
    try:
        data = json.loads(body)
    except ValueError:
        return body
    places = list(_places(data))
    if not places:
        return body
    holder, key = chance.choice(places)
    way = chance.random()
    if way < 0.45:
        holder[key] = chance.choice(NAMES)
    elif way < 0.65:
        holder[key] = chance.choice(NUMBERS)
    elif way < 0.85:
        holder[key] = chance.choice(OTHERS)
    elif way < 0.95:
        other, name = chance.choice(places)
        holder[key] = other[name] if other[name] is not data else None
    elif isinstance(holder, dict):
        del holder[key]
    else:
        holder.extend(holder[:50])
    try:
        return json.dumps(data).encode()
    except (ValueError, RecursionError):  # it came to hold itself
        return body


def _places(data: Any) -> Any:
    items = data.items() if isinstance(data, dict) else enumerate(data) if data else ()
    for key, value in list(items):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


def answering(answers: dict[str, bytes], seed: int) -> Callable[[Any], list[bytes]]:
    """The real service, but each answer is mutated with some probability, always alike."""
    chance = random.Random(seed)

    def answer(request: Any) -> list[bytes]:
        path = request.target.partition("?")[0].rstrip("/")
        parts = path.split("/")[2:]
        if path.endswith("/content"):
            found = answers["content"]
        elif len(parts) == 1:
            found = answers["list_containers"]
        elif len(parts) == 2:
            found = answers["retrieve_container"]
        elif parts[2:] == ["files"]:
            found = answers["list_files"]
        else:
            found = answers["retrieve_file"]
        return [mutated(found, chance) if chance.random() < 0.8 else found]

    return answer


def connection(hostile: Any) -> Connection:
    return Connection(base_url=hostile.base_url, timeout=0.1, transfer_timeout=0.1)


async def download(client: Client) -> bytes:
    async with client.download_file("c", "f") as body:
        assert body.size is None or 0 <= body.size < 2**63
        assert body.total is None or 0 <= body.total < 2**63
        return b"".join([piece async for piece in body])


async def try_client(hostile: Any, answers: dict[str, bytes], seed: int) -> None:
    hostile.answer = answering(answers, seed)
    async with connect(connection(hostile)) as client:
        for call in (
            lambda: all_containers(client),
            lambda: all_files(client, "c"),
            lambda: client.retrieve_container("c"),
            lambda: client.retrieve_file("c", "f"),
            lambda: download(client),
            lambda: client.delete_file("c", "f"),
        ):
            found: Any = ()
            try:
                found = await call()
            except FileSystemError as exc:
                said = str(exc)
            else:
                said = ""
            assert len(said) < 2_000
            assert said == "" or said.isprintable()
            for entry in found if type(found) is tuple else ():
                assert entry.id.encode()
                assert 0 <= entry.created < 2**34
                assert getattr(entry, "size", None) in (None, 0) or 0 < entry.size < 2**63


async def try_mount(hostile: Any, answers: dict[str, bytes], seed: int, directory: Path) -> None:
    """Look at everything in a mount that no kernel is near."""
    hostile.answer = answering(answers, seed)
    options = Options(cache_dir=directory, op_timeout=5, ttl=0)
    with open_state(directory / f"{seed}.sqlite") as state:
        async with connect(connection(hostile)) as client, trio.open_nursery() as nursery:
            mount = Mount(
                client=client,
                state=state,
                directory=directory,
                options=options,
                mountpoint=directory / "mnt",
                nursery=nursery,
            )
            for _ in range(2):  # the second time it differs from what is known
                await _look(mount.operations, ROOT_INO, mount)
            await mount.stop()
            nursery.cancel_scope.cancel()


async def _look(operations: Any, ino: int, mount: Mount, depth: int = 0) -> None:
    ctx: Any = WHO
    try:
        entry = await operations.getattr(ino, ctx)
        for name in await operations.listxattr(ino, ctx):
            assert len(await operations.getxattr(ino, name, ctx)) <= 65536
        if stat.S_ISDIR(entry.st_mode):
            await operations.releasedir(await operations.opendir(ino, ctx))
        elif stat.S_ISLNK(entry.st_mode):
            target = await operations.readlink(ino, ctx)
            assert target.startswith(b"../")
            assert target.count(b"/") == 1
            assert target != b"../.."
        else:
            info = await operations.open(ino, os.O_RDONLY, ctx)
            try:
                await operations.read(info.fh, 0, 1 << 17)
            finally:
                await operations.release(info.fh)
    except pyfuse3.FUSEError:
        return
    node: Any = mount.tree.inodes[ino]
    for name in list(getattr(node, "children", {}))[:10]:
        raw = os.fsencode(name)
        assert 0 < len(raw) <= 255
        assert raw not in (b".", b"..")
        assert b"/" not in raw
        assert b"\0" not in raw
        assert all(char >= " " for char in name)
        try:
            child = await operations.lookup(ino, raw, ctx)
        except pyfuse3.FUSEError:
            continue
        if child.st_ino and depth < 4:
            await _look(operations, child.st_ino, mount, depth + 1)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a boundary caught that nobody expected."""
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_the_client_takes_any_answer(hostile, real_answers, caplog) -> None:
    for seed in range(CASES):
        await try_client(hostile, real_answers, seed)
        assert not errors(caplog), seed


@pytest.mark.deep
async def test_the_client_takes_ten_thousand_answers(hostile, real_answers, caplog) -> None:
    for seed in range(DEEP_CASES):
        await try_client(hostile, real_answers, seed)
        assert not errors(caplog), seed
        caplog.clear()


async def test_the_tree_takes_any_answer(hostile, real_answers, tmp_path, caplog) -> None:
    for seed in range(TREE_CASES):
        await try_mount(hostile, real_answers, seed, tmp_path)
        assert not errors(caplog), seed
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"content", "spool"}


@pytest.mark.deep
async def test_the_tree_takes_two_thousand_answers(hostile, real_answers, tmp_path, caplog) -> None:
    for seed in range(DEEP_TREE_CASES):
        await try_mount(hostile, real_answers, seed, tmp_path)
        assert not errors(caplog), seed
        caplog.clear()


def look_at_all(top: Path) -> int:
    """Stat, list, read and ask for the attributes of everything; returns how much there was."""
    seen = 0
    for directory, folders, files in os.walk(os.fsencode(top)):
        if directory.count(b"/") > 30:
            folders.clear()
        for name in [*folders, *files]:
            path = os.path.join(directory, name)
            seen += 1
            try:
                os.lstat(path)
                for attribute in os.listxattr(path):
                    os.getxattr(path, attribute)
                if name in files:
                    with open(path, "rb") as file:
                        file.read(1 << 20)
            except OSError:
                continue
    return seen


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.deep)])
def test_a_mount_takes_any_answer(hostile, real_answers, mount, count) -> None:
    hostile.answer = honest = _honest(real_answers)
    mounted = mount(hostile, "--ttl=0.2", "--timeout=0.2", "--transfer-timeout=0.2")
    for seed in range(count):
        hostile.answer = answering(real_answers, seed)
        look_at_all(mounted.path)
    hostile.answer = honest
    deadline = time.monotonic() + 60
    while look_at_all(mounted.path) <= 3:  # the short limits may pass once more on a busy machine
        assert time.monotonic() < deadline


def _honest(answers: dict[str, bytes]) -> Callable[[Any], list[bytes]]:
    def answer(request: Any) -> list[bytes]:
        path = request.target.partition("?")[0]
        if path.endswith("/content"):
            return [answers["content"]]
        return [answers["list_files" if path.endswith("/files") else "list_containers"]]

    return answer
