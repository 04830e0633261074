"""A mount of a server that wants out: nothing is written elsewhere, little is kept, it lives on."""

import itertools
import os
from pathlib import Path
from typing import Any

PWNED = "containerfs-was-here"


def everything(top: Path) -> set[str]:
    """All files below *top*, by path."""
    return {os.path.join(d, name) for d, _, names in os.walk(top) for name in names}


def read_all(top: Path) -> None:
    """Look at everything that is shown, and read it."""
    for directory, _, names in os.walk(os.fsencode(top)):
        for name in names:
            try:
                with open(os.path.join(directory, name), "rb") as file:
                    file.read()
            except OSError:
                continue


def names_below(top: Path) -> list[bytes]:
    return [name for _, folders, files in os.walk(os.fsencode(top)) for name in folders + files]


def file(number: int, path: str, **members: Any) -> dict[str, Any]:
    return {"id": f"f{number}", "path": path, "bytes": 5, "created_at": number, **members}


def test_no_path_and_no_id_leads_out_of_the_mount(hostile, mount) -> None:
    up = "../" * 20
    mounted = mount(hostile)
    places = [f"{mounted.home}/{PWNED}", f"/tmp/{PWNED}", f"/{PWNED}", f"{mounted.cache}/{PWNED}"]
    paths = [form + place for place in places for form in ("", up, "/mnt/data/" + up, f"{up}.{up}")]
    ids = [up + place for place in places] + places
    hostile.content = b"owned"
    hostile.files = [file(n, path) for n, path in enumerate(paths)]
    hostile.files += [file(0, "/mnt/data/x") | {"id": id} for id in ids]
    hostile.containers += [{"id": id, "name": id} for id in (*ids, "..", ".", "/", "\u202e")]
    before = everything(mounted.home)
    read_all(mounted.path)
    for name in names_below(mounted.path):
        assert name not in (b".", b"..")
    assert everything(mounted.home) == before
    assert not any(os.path.lexists(place) for place in places)
    for account in mounted.cache.iterdir():
        kept = everything(account)
        allowed = {str(account / "content"), str(account / "spool"), str(account)}
        assert {os.path.dirname(path) for path in kept} <= allowed
        assert not any(PWNED in path for path in kept)


def test_ids_that_look_alike_are_containers_of_their_own(hostile, mount) -> None:
    stem = "x" * 300
    ids = [".", "%2E", "..", "%2E%2E", "/", "%2F", *(f"{stem}{n}{stem}" for n in range(20))]
    hostile.containers = [{"id": id, "name": "n"} for id in ids]
    mounted = mount(hostile, "--ttl=0")
    assert len(os.listdir(mounted.path)) == len(ids)
    hostile.containers = hostile.containers[:3]
    assert len(os.listdir(mounted.path)) == 3
    hostile.containers = []
    assert os.listdir(mounted.path) == []


def test_control_characters_reach_neither_names_nor_the_log(hostile, mount) -> None:
    bad = "a\x1b]0;owned\x07\r\n2026-01-01 ERROR forged\x9b2J\x7f"
    hostile.files = [file(1, f"/mnt/data/{bad}"), file(2, f"/mnt/data/{bad}/{bad}")]
    hostile.containers = [{"id": bad, "name": bad}]
    mounted = mount(hostile)
    read_all(mounted.path)
    for name in names_below(mounted.path):
        assert all(char.isprintable() for char in name.decode())
    assert all(char.isprintable() for char in mounted.log.replace("\n", ""))
    assert "\n2026-01-01 ERROR forged" not in mounted.log


def test_attributes_of_absurd_objects_can_be_read(hostile, mount) -> None:
    hostile.containers = [
        {
            "id": "c",
            "name": "box",
            "created_at": 2**33,
            "last_active_at": 2**33,
            "expires_after": {"anchor": "last_active_at", "minutes": 2**33},
            "status": "\ud800",
            "memory_limit": "x" * 100_000,
            "network_policy": {"type": "\ud800", "allowed_domains": ["\ud800"] * 1000},
        },
        {
            "id": "d",
            "name": "late",
            "last_active_at": 2**33,
            "expires_after": {"minutes": 2**31},
        },
    ]
    long = "/mnt/data/" + "x" * 1_000_000
    hostile.files = [file(1, "/mnt/data/\ud800\udfff"), file(2, long, source="y" * 100_000)]
    mounted = mount(hostile)
    seen = 0
    for directory, folders, files in os.walk(mounted.path):
        for name in folders + files:
            path = os.path.join(directory, name)
            for attribute in os.listxattr(path):
                seen += len(os.getxattr(path, attribute))
    assert seen > 100_000


def test_a_lying_size_is_an_error_and_never_content(hostile, mount) -> None:
    hostile.content = b"0123456789"
    sizes = [0, 1, 9, 10, 11, 2**31, 2**63 - 1, 2**63, -1, 1.5, "7", None]
    hostile.files = [file(n, f"/mnt/data/{n}") | {"bytes": size} for n, size in enumerate(sizes)]
    box = mount(hostile).path / "box"
    for number, size in enumerate(sizes):
        try:
            with open(box / str(number), "rb") as opened:
                data = opened.read(100)
        except OSError:
            data = None
        told = size if type(size) is int and 0 <= size < 2**63 else 10
        if told == 10:
            assert data == hostile.content
        elif told == 0:
            assert data == b""
        else:
            assert data in (None, b""), size


def test_a_body_that_never_ends_is_given_up(hostile, mount) -> None:
    hostile.files = [file(1, "/mnt/data/x") | {"bytes": None}]
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    def answer(request: Any) -> Any:
        if request.target.endswith("/content"):
            return itertools.chain([head], itertools.repeat(chunk))
        return hostile.serve(request)

    hostile.answer = answer
    mounted = mount(hostile, "--max-file-size=8MiB", "--cache-size=8MiB")
    try:
        with open(mounted.path / "box" / "x", "rb") as opened:
            opened.read()
        error = None
    except OSError as exc:
        error = exc
    assert error is not None
    assert sum(os.stat(path).st_blocks * 512 for path in everything(mounted.cache)) < 64 << 20
    assert hostile.sent < 1 << 30


def test_a_mount_of_an_endless_server_stays_small(hostile, mount) -> None:
    pages = itertools.count()

    def page(_: Any) -> bytes:
        start = 1000 * next(pages)
        path = "/mnt/data/" + "d/" * 500
        data = [{"id": f"i{start + n}", "name": "n", "path": path} for n in range(100)]
        return hostile.json(
            {"object": "list", "data": data, "has_more": True, "last_id": data[-1]["id"]}
        )

    def answer(request: Any) -> Any:
        if "/files" not in request.target:
            return hostile.serve(request)
        return page(request)

    mounted = mount(hostile)
    hostile.answer = answer
    try:
        found = os.listdir(mounted.path / "box")
    except OSError:
        found = []
    assert found == []
    assert peak(mounted.pid) < 700  # MiB
    hostile.answer = hostile.serve
    assert os.listdir(mounted.path) == ["box"]


def peak(pid: int) -> float:
    """Most memory that a process had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
