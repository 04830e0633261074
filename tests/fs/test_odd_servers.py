"""Random changes on servers that treat names and lists in odd ways, compared with a model.

Each story has a server of its own kind, two mounts of one machine after each other, and a model of
what a local disk would hold. Lists are taken in the middle of everything, and others come and go
beside it. Every call must succeed, and in the end the server has each content of the model once.
A failure ends with the calls.
"""

import os
import random
from collections import Counter

import pytest
import trio

from containerfs.errors import Stale

EXCHANGE = 2
NAMES = ("a", "b", "c.txt")
DIRECTORIES = ("d", "e")
STEPS = 40  # of each mount
BEHAVIOURS = {
    "naming": ("hash", "plain", "file_id"),
    "prefix": ("base", "front"),
    "slashes": ("keep", "flatten", "refuse"),
    "same_name": ("add", "overwrite", "overwrite_keep_id"),
    "relative_paths": (False, False, True),
    "null_bytes": ("never", "never", "always"),
    "delete_lag_lists": (0, 0, 2),
    "list_lag_lists": (0, 0, 2),
    "long_ids": (False, False, True),
    "range": (True, False),
}


class Content:
    """What a file holds, whatever its name is, and if it has none."""

    def __init__(self, data=b""):
        self.data = bytearray(data)

    def put(self, data, offset):
        self.data += bytes(max(0, offset - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def cut(self, size):
        del self.data[size:]
        self.data += bytes(size - len(self.data))


class Story:
    """Random calls, and what they must have come to."""

    def __init__(self, box, chance):
        self.box = box
        self.chance = chance
        self.tree = None
        self.files: dict[str, Content] = {}
        self.directories: set[str] = set()
        self.handles = []
        self.told = []

    @property
    def shown(self):
        return {path: bytes(content.data) for path, content in self.files.items()}

    def __str__(self):
        return "\n".join(" ".join(map(str, words)) for words in self.told)

    # Calls, and what they are made with.

    async def call(self, name, path, *rest):
        """As the kernel makes it: once more where the name is another's by now."""
        short = [(each[:4], len(each)) if isinstance(each, bytes) else each for each in rest]
        self.told.append((name, path, *short))
        method = getattr(self, f"_{name}", None) or getattr(self.tree, name)
        if name == "rename":
            rest = (self.at(rest[0]), *rest[1:])
        try:
            return await method(self.at(path), *rest)
        except Stale:
            self.told.append(("again",))
            return await method(self.at(path), *rest)

    def at(self, path):
        return f"{self.box.name}/{path}" if path else self.box.name

    def content(self):
        return self.chance.randbytes(2).hex().encode() * self.chance.choice((1, 1, 1, 3000))

    def file(self):
        return self.chance.choice(sorted(self.files))

    def place(self, names, above):
        above, name = self.chance.choice(["", "", *above]), self.chance.choice(names)
        return f"{above}/{name}" if above else name

    def new_file(self):
        return self.place(NAMES, sorted(self.directories))

    def new_directory(self):
        return self.place(DIRECTORIES, sorted(p for p in self.directories if "/" not in p))

    def below(self, directory):
        return [p for p in (*self.files, *self.directories) if p.startswith(f"{directory}/")]

    async def _change(self, path, data, offset):
        handle = await self.tree.open(path, os.O_RDWR)
        try:
            await handle.write(data, offset)
        finally:
            await handle.close()

    async def _look(self, path):
        found = {}
        for name in await self.tree.names(path):
            if name == "others":
                continue
            below = f"{path}/{name}"
            if hasattr(await self.tree.node(below), "children"):
                inside = await self._look(below)
                found |= {f"{name}/{rest}": data for rest, data in inside.items()}
            else:
                found[name] = await self.tree.read(below)
        return found

    # What is done.

    async def step(self):
        acts = [self.write] * 3 + [self.mkdir] * 2 + [self.rmdir] + [self.rename_directory] * 2
        if self.files:
            acts += [self.append, self.change, self.truncate, self.read, self.exchange, self.look]
            acts += [self.rename] * 4 + [self.unlink] * 2 + [self.open] * 2
        if self.handles:
            acts += [self.write_on, self.read_on, self.fsync, self.close]
        await self.chance.choice(acts)()

    async def look(self):
        assert await self.call("look", "") == self.shown

    async def write(self):
        path, data = self.new_file(), self.content()
        await self.call("write", path, data)
        self.files.setdefault(path, Content()).data[:] = data

    async def append(self):
        path, data = self.file(), self.content()
        await self.call("append", path, data)
        self.files[path].data += data

    async def change(self):
        path, data, offset = self.file(), self.content(), self.chance.choice((0, 3, 5000))
        await self.call("change", path, data, offset)
        self.files[path].put(data, offset)

    async def truncate(self):
        path, size = self.file(), self.chance.choice((1, 3, 5000))
        await self.call("truncate", path, size)
        self.files[path].cut(size)

    async def read(self):
        path = self.file()
        assert await self.call("read", path) == self.files[path].data

    async def rename(self):
        old, new = self.file(), self.new_file()
        await self.call("rename", old, new)
        self.files[new] = self.files.pop(old)

    async def exchange(self):
        one, two = self.file(), self.file()
        await self.call("rename", one, two, EXCHANGE)
        self.files[one], self.files[two] = self.files[two], self.files[one]

    async def unlink(self):
        path = self.file()
        await self.call("unlink", path)
        del self.files[path]

    async def mkdir(self):
        path = self.new_directory()
        if path not in self.directories:
            await self.call("mkdir", path)
            self.directories.add(path)

    async def rmdir(self):
        empty = sorted(path for path in self.directories if not self.below(path))
        if empty:
            path = self.chance.choice(empty)
            await self.call("rmdir", path)
            self.directories.remove(path)

    async def rename_directory(self):
        new = self.new_directory()
        olds = [p for p in sorted(self.directories) if p != new and not new.startswith(f"{p}/")]
        if not olds or self.below(new):
            return
        old = self.chance.choice(olds)
        await self.call("rename", old, new)
        for path in (old, *self.below(old)):
            to = new + path.removeprefix(old)
            if path in self.files:
                self.files[to] = self.files.pop(path)
            else:
                self.directories.remove(path)
                self.directories.add(to)

    # Open files.

    async def open(self):
        if len(self.handles) < 3:
            path = self.file()
            handle = await self.call("open", path, os.O_RDWR)
            self.handles.append((handle, self.files[path]))

    def handle(self, name, *words):
        handle, content = self.chance.choice(self.handles)
        self.told.append((name, handle.fh, *words))
        return handle, content

    async def write_on(self):
        data, offset = self.content(), self.chance.choice((0, 3, 5000))
        handle, content = self.handle("write", (data[:4], len(data)), offset)
        await handle.write(data, offset)
        content.put(data, offset)

    async def read_on(self):
        handle, content = self.handle("read")
        assert await handle.read() == content.data

    async def fsync(self):
        handle, _ = self.handle("fsync")
        await handle.fsync()

    async def close(self):
        handle, _ = each = self.handle("close")
        self.handles.remove(each)
        await handle.close()

    async def end(self):
        while self.handles:
            await self.close()
        await self.look()
        await self.tree.refresh(self.box.name)
        await self.look()


def slow(seed):
    """Faults that let lists be taken before a change, and after it before its answer."""
    pairs = [
        (kind, operation)
        for kind in ("latency", "stall-body")
        for operation in ("create_file", "delete_file", "list_files")
    ]
    fault = {"seconds": 0.01, "at": 1, "probability": 0.3}
    return [
        {**fault, "kind": kind, "operation": operation, "seed": seed + number}
        for number, (kind, operation) in enumerate(pairs)
    ]


async def take_lists(story, chance):
    while True:
        await trio.sleep(chance.uniform(0, 0.02))
        await story.tree.names(story.box.name)


async def be_others(service, story, chance):
    """What the model's code does in a directory of its own."""
    while True:
        await trio.sleep(chance.uniform(0, 0.05))
        path = f"/mnt/data/others/{chance.choice('ab')}"
        await trio.to_thread.run_sync(service.write, story.box, path, chance.randbytes(3))


def stored(service, box):
    """The content of every object that is there, however the lists lag."""
    for _ in range(3):
        files = service.files(box)
    found = Counter()
    for file in files:
        path = f"/v1/containers/{box}/files/{file['id']}/content"
        status, _, body = service.exchange("GET", path)
        if status == 200 and "others/" not in file["path"]:
            found[body] += 1
    return found


async def live(service, mounting, story, *, is_alone, ttl, seed):
    """One mount, from its start to its end."""
    async with mounting(ttl=ttl, recover=True) as story.tree, trio.open_nursery() as nursery:
        await story.look()
        if not is_alone:
            service.set_faults(*slow(seed))
            nursery.start_soon(take_lists, story, random.Random(seed))
            nursery.start_soon(be_others, service, story, random.Random(-seed))
        for _ in range(STEPS):
            await story.step()
        service.set_faults()
        await story.end()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await story.tree.stop()


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "among others"])
@pytest.mark.parametrize(
    "seed",
    [*range(4), *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(4, 100))],
)
async def test_a_server_that_differs_loses_and_mixes_nothing(
    service, box, mounting, tmp_path, seed, is_alone
):
    chance = random.Random(seed)
    behaviours = {name: chance.choice(values) for name, values in BEHAVIOURS.items()}
    service.set_behaviours(**behaviours)
    ttl = chance.choice((0.0, 60.0)) if is_alone else 0.0
    story = Story(box, chance)
    try:
        for _ in range(2):
            await live(service, mounting, story, is_alone=is_alone, ttl=ttl, seed=seed)
            assert stored(service, box) == Counter(story.shown.values())
        async with mounting(tmp_path / "other machine", ttl=0.0) as story.tree:
            found = await story.call("look", "")
            assert sorted(found.values()) == sorted(story.shown.values())
            if behaviours["slashes"] == "keep":
                assert found == story.shown
    except BaseException:
        print(f"{behaviours}, a ttl of {ttl:g} s\n{story}")
        raise
