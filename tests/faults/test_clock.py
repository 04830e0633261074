"""The clock of the machine, or the server's, is wrong, and steps while the mount runs.

`libfaketime` is the mount's clock of the day, as the clock that time passes by goes on.
"""

import os
import time
from pathlib import Path

import pytest

HOUR, YEAR = 3600, 365 * 24 * 3600
STEPS = (-5, HOUR, -YEAR, 20 * YEAR, -30 * YEAR, 0)  # seconds that the clock is wrong by, in turn


class Clock:
    """What the mount takes for the time of the day."""

    def __init__(self, path):
        self._path = path
        self.error = 0
        self.step(0)

    def step(self, error):
        """It is wrong by *error* seconds from now on."""
        draft = self._path.with_suffix(".new")
        draft.write_text(f"{error:+d}\n")
        draft.replace(self._path)
        self.error = error

    @property
    def now(self):
        return time.time() + self.error


@pytest.fixture
def clock(environ, tmp_path):
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    environ |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "time"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
        "NO_FAKE_STAT": "1",
    }
    return Clock(tmp_path / "time")


def test_a_clock_that_steps_under_a_mount_changes_nothing_but_times(
    server, clock, mount, stored, id_of, eventually, write
):
    mounted = mount(ttl=0.2)
    box = mounted / "box"
    box.mkdir()
    id = id_of(box)
    expected = {}
    for number, error in enumerate(STEPS):
        clock.step(error)
        write(box / f"new{number}", b"new %d" % number)
        write(box / "same", b"overwritten %d" % number)
        with (box / "log").open("ab") as log:
            log.write(b"%d," % number)
        os.rename(box / f"new{number}", box / f"renamed{number}")
        assert abs(os.stat(box / "same").st_mtime - clock.now) < HOUR / 2
        server.write(id, f"/mnt/data/model{number}", b"by the model")
        eventually(lambda number=number: (box / f"model{number}").exists())
        assert (box / f"model{number}").read_bytes() == b"by the model"
        expected |= {f"renamed{number}": b"new %d" % number, f"model{number}": b"by the model"}
        expected |= {"same": b"overwritten %d" % number}
        expected["log"] = expected.get("log", b"") + b"%d," % number
        assert stored(id) == expected
        assert {path.name: path.read_bytes() for path in box.iterdir()} == expected


@pytest.mark.parametrize(
    "steps",
    [
        (0, -YEAR),
        (0, YEAR),
        pytest.param((YEAR, 0), marks=pytest.mark.deep),
        pytest.param((-YEAR, 0), marks=pytest.mark.deep),
    ],
)
def test_a_clock_that_was_set_between_two_mounts_loses_nothing(
    server, clock, mount, stored, id_of, eventually, errno_of, steps, write
):
    before, after = steps
    clock.step(before)
    mounted = mount(ttl=0.2)
    mounted.expect("not on the server")
    box = mounted / "box"
    box.mkdir()
    id = id_of(box)
    write(box / "sent", b"sent")
    os.utime(box / "sent", (1, 2**33))
    server.set_faults({"kind": "status", "status": 403, "operation": "create_file"})
    errno_of(write, box / "refused", b"refused")
    writer = (box / "open").open("wb", buffering=0)
    writer.write(b"open")
    mounted.kill()
    errno_of(writer.close)
    clock.step(after)
    server.set_faults()
    mounted.remount()
    expected = {"sent": b"sent", "refused": b"refused", "open": b"open"}
    assert {path.name: path.read_bytes() for path in box.iterdir()} == expected
    assert os.stat(box / "sent").st_mtime == 2**33
    eventually(lambda: stored(id) == expected)
    write(box / "sent", b"again")
    assert stored(id) == expected | {"sent": b"again"}


def test_a_date_to_come_back_at_holds_though_the_clocks_differ(
    server, clock, mount, id_of, stored, write
):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    for error in (-YEAR, YEAR):
        clock.step(error)
        server.set_faults(
            {
                "kind": "status",
                "status": 429,
                "header": "retry-after-date",
                "value": "3",
                "operation": "create_file",
                "count": 1,
            }
        )
        server.forget_requests()
        write(box / "file", b"%d" % error)
        refused, taken = [each["at"] for each in server.requests("create_file")]
        assert taken - refused >= 2  # a date has no fractions
        assert stored(id_of(box)) == {"file": b"%d" % error}


CREATED = {"zero": 0, "one": 1, "year 2106": 2**32, "far": 2**40}


@pytest.mark.parametrize("created", CREATED.values(), ids=CREATED)
def test_a_server_whose_clock_is_wrong_is_used_like_any_other(
    server, mount, stored, id_of, eventually, created, write
):
    """Its files come from whatever time: what is written here replaces them all the same."""
    id = server.new_container("box")
    for name in ("read", "changed", "renamed", "removed"):
        server.write(id, f"/mnt/data/{name}", b"old", created_at=created)
    mounted = mount(ttl=0.1)
    box = mounted / "box"
    assert (box / "read").read_bytes() == b"old"
    write(box / "changed", b"new")
    os.rename(box / "renamed", box / "other")
    os.remove(box / "removed")
    expected = {"read": b"old", "changed": b"new", "other": b"old"}
    assert stored(id) == expected
    assert {path.name: path.read_bytes() for path in box.iterdir()} == expected
    old = next(file for file in server.files(id) if file["path"].endswith("/read"))
    server.call("DELETE", f"/v1/containers/{id}/files/{old['id']}")
    server.write(id, "/mnt/data/read", b"NEW", created_at=max(0, created - 1))  # its clock steps
    eventually(lambda: (box / "read").read_bytes() == b"NEW")
