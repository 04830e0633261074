"""Random calls with a failing server and a dying mount, compared with a model.

The model knows what each file may hold: what the last call that came back left, and, where a call
failed or the mount died in it, what it would have left. In the end the server works, the mount
has sent everything, and each file has one content that it may have, once.
"""

import os
import random
import signal
import threading
import time

import pytest

NAMES = [f"file{number}" for number in range(6)] + ["dir/one", "dir/two"]
SOME = [
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500, "done": True},
    {"kind": "status", "status": 429, "header": "retry-after", "value": "0.1"},
    {"kind": "reset"},
    {"kind": "reset-after"},
    {"kind": "cut", "at": 3},
    {"kind": "stall-body", "at": 0, "seconds": 0.5},
]
ABSENT = None


class Model:
    """What every file may hold."""

    def __init__(self):
        self.may = {name: {ABSENT} for name in NAMES}

    def did(self, changes, *, certainly):
        """The files are now like this, or, if it is not certain, as they were or in between."""
        for name, contents in changes.items():
            if certainly:
                self.may[name] = {contents[-1]}
            else:
                self.may[name] |= set(contents)

    def only(self, name):
        """The one content it has; for calls that need to know it."""
        (content,) = self.may[name]
        return content


class Life:
    """One mount and those who use it."""

    def __init__(self, mounted, model, chance):
        self.box = mounted / "box"
        self.mounted = mounted
        self.model = model
        self.chance = chance
        self.is_killed = threading.Event()

    def die(self):
        self.is_killed.set()
        os.kill(self.mounted.pid, signal.SIGKILL)

    def content(self):
        size = self.chance.choice((0, 1, 100, 5000, 200_000))
        return self.chance.randbytes(1) * size + self.chance.randbytes(8)

    def step(self):
        name = self.chance.choice(NAMES)
        act = self.chance.choice(
            (
                *(self.write, self.write, self.append, self.change, self.truncate),
                *(self.read, self.read, self.remove, self.rename, self.list),
            )
        )
        act(name)

    def _try(self, call, changes):
        try:
            call()
        except OSError:
            self.model.did(changes, certainly=False)
            return False
        self.model.did(changes, certainly=True)
        return True

    def write(self, name):
        content = self.content()
        self._try(lambda: (self.box / name).write_bytes(content), {name: (b"", content)})

    def _known(self, name):
        may = self.model.may[name]
        return next(iter(may)) if len(may) == 1 else ABSENT

    def append(self, name):
        before = self._known(name)
        if before is ABSENT:
            return
        more = self.content()

        def call():
            with (self.box / name).open("ab", buffering=0) as file:
                file.write(more)

        self._try(call, {name: (before + more,)})

    def change(self, name):
        before = self._known(name)
        if not before:
            return
        at, data = self.chance.randrange(len(before)), self.content()[:1000]
        after = before[:at] + data + before[at + len(data) :]

        def call():
            fd = os.open(self.box / name, os.O_RDWR)
            try:
                os.pwrite(fd, data, at)
            finally:
                os.close(fd)

        self._try(call, {name: (after,)})

    def truncate(self, name):
        before = self._known(name)
        if not before:
            return
        size = self.chance.randrange(2 * len(before))
        after = before[:size] + bytes(max(0, size - len(before)))
        self._try(lambda: os.truncate(self.box / name, size), {name: (after,)})

    def read(self, name):
        try:
            found = (self.box / name).read_bytes()
        except FileNotFoundError:
            found = ABSENT
        except OSError:
            return
        if self.is_killed.is_set():
            return  # the kernel answers of what it believes, and not of what the death cut off
        self.check(name, found)

    def check(self, name, found):
        assert found in self.model.may[name], (
            name,
            found and (found[:9], len(found)),
            [each and (each[:9], len(each)) for each in self.model.may[name]],
        )
        self.model.may[name] = {found}

    def remove(self, name):
        if self._known(name) is ABSENT:
            return
        self._try(lambda: os.unlink(self.box / name), {name: (ABSENT,)})

    def rename(self, name):
        other = self.chance.choice([other for other in NAMES if other != name])
        content = self._known(name)
        if content is ABSENT:
            return
        self._try(
            lambda: os.rename(self.box / name, self.box / other),
            {name: (ABSENT,), other: (content,)},
        )

    def list(self, name):
        try:
            os.listdir(self.box)
        except OSError:
            return


def chaos(server, mount, stored, id_of, eventually, *, seconds, seed):
    chance = random.Random(seed)
    mounted = mount(ttl=0.2, timeout=2, transfer_timeout=2, op_timeout=5, empty_delay=0.1)
    mounted.expect("")
    box = mounted / "box"
    box.mkdir()
    (box / "dir").mkdir()
    id = id_of(box)
    model = Model()
    life = Life(mounted, model, chance)
    end = time.monotonic() + seconds
    steps = deaths = 0
    faults = [
        {**fault, "probability": 0.2 / len(SOME), "seed": seed + number}
        for number, fault in enumerate(SOME)
    ]
    while time.monotonic() < end:
        server.set_faults(*faults)
        life.is_killed.clear()
        death = threading.Timer(chance.uniform(1, 5), life.die)
        death.start()
        while mounted.is_running:
            life.step()
            steps += 1
        death.join()
        mounted.kill()
        deaths += 1
        server.set_faults()
        mounted.remount()
    life.is_killed.clear()
    for name in NAMES:
        life.read(name)
    mounted.stop()
    expected = {name: model.only(name) for name in NAMES if model.only(name) is not ABSENT}
    found = stored(id)
    assert sorted(found) == sorted(expected)
    assert {name for name in found if found[name] != expected[name]} == set()
    assert "Traceback" not in mounted.log
    print(f"{steps} calls, {deaths} deaths")


def test_a_minute_of_chaos_loses_and_mixes_nothing(server, mount, stored, id_of, eventually):
    chaos(server, mount, stored, id_of, eventually, seconds=60, seed=1)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(2, 12))
def test_ten_minutes_of_chaos_lose_and_mix_nothing(server, mount, stored, id_of, eventually, seed):
    chaos(server, mount, stored, id_of, eventually, seconds=60, seed=seed)
