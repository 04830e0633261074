"""What tests of the file system below the kernel share.

`service`
    The module's server with its default behaviours, no faults and an empty request log. Beside
    what a server offers: `truth(container_id)`, the content of every object by its name without
    the server's prefix, as a sorted list of pairs.

`box`
    The id of a new container there; it is shown as `box.name`.

`mounting`
    `async with mounting(directory=None, server=None, recover=False, **options) as tree:` builds the
    parts of a mount and lets no kernel near them. It ends as if the process had been killed;
    `await tree.stop()` before that is a clean stop. The same directory is the same machine.

`tree`
    One such mount of `service`.

A tree is used by paths like `box/dir/file`:

* `await tree.write(path, data)`: as `cp` writes; `.read(path)`; `.append(path, data)`.
* `.open(path, flags)`, `.create(path)`: a handle, with `await read(size, offset)`,
  `await write(data, offset)`, `await flush()`, `await fsync()`, `await close()`.
* `.names(path)`: what a directory shows; `.all(path)`: every file below it with its content.
* `.unlink(path)`, `.mkdir(path)`, `.rmdir(path)`, `.rename(old, new, flags=0)`,
  `.truncate(path, size)`, `.node(path)`, `.size(path)`.
* `.refresh(name)`: ask the server now, whatever is believed.
* `.journal()`: the journal as a crash right now would leave it; `.renames()`: the renames that are
  not over then.
* `await .until(condition)`: wait for what another process, or a task of the mount, brings about.
* `.mount`: the parts. Failures are raised as this project's own errors.
"""

import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pyfuse3
import pytest
import trio

from containerfs.api.client import connect
from containerfs.api.connection import Connection
from containerfs.assembly import Mount
from containerfs.cache.state import open_state
from containerfs.errors import FileSystemError, NotFound
from containerfs.fs.names.names import stripped
from containerfs.fs.tree.inodes import ROOT_INO
from containerfs.fs.tree.nodes import Directory, File, Node
from containerfs.options import Options
from containerfs.upload.intents import Intents, Rename
from containerfs.upload.journal import Journal

T = TypeVar("T")
WHO = SimpleNamespace(uid=os.getuid(), gid=os.getgid(), pid=0, umask=0o022)


async def ours(answer: Awaitable[T]) -> T:
    """What a handler answers; its errno as the error that it came from."""
    try:
        return await answer
    except pyfuse3.FUSEError as exc:
        if isinstance(exc.__cause__, FileSystemError):
            raise exc.__cause__ from None
        raise


class Handle:
    def __init__(self, operations: Any, fh: int) -> None:
        self._operations = operations
        self.fh = fh

    async def read(self, size: int = 1 << 30, offset: int = 0) -> bytes:
        return await ours(self._operations.read(self.fh, offset, size))

    async def write(self, data: bytes, offset: int = 0) -> None:
        assert await ours(self._operations.write(self.fh, offset, data)) == len(data)

    async def flush(self) -> None:
        await ours(self._operations.flush(self.fh))

    async def fsync(self) -> None:
        await ours(self._operations.fsync(self.fh, False))

    async def release(self) -> None:
        await self._operations.release(self.fh)

    async def close(self) -> None:
        try:
            await self.flush()
        finally:
            await self.release()


class Tree:
    def __init__(self, mount: Mount, directory: Path) -> None:
        self.mount = mount
        self._operations: Any = mount.operations
        self._directory = directory

    async def node(self, path: str) -> Node:
        """The node at *path*; NotFound where there is none."""
        node: Node = self.mount.tree.root
        for name in filter(None, path.split("/")):
            assert isinstance(node, Directory)
            node = await self.mount.namespace.lookup(node, name)
        return node

    async def file(self, path: str) -> File:
        node = await self.node(path)
        assert isinstance(node, File)
        return node

    async def _parent(self, path: str) -> tuple[int, bytes]:
        parent, _, name = path.rpartition("/")
        ino = (await self.node(parent)).ino if parent else ROOT_INO
        return ino, os.fsencode(name)

    async def open(self, path: str, flags: int = os.O_RDONLY) -> Handle:
        ino = (await self.node(path)).ino
        return Handle(self._operations, (await ours(self._operations.open(ino, flags, WHO))).fh)

    async def create(self, path: str, flags: int = os.O_RDWR) -> Handle:
        parent, name = await self._parent(path)
        await ours(self._operations.lookup(parent, name, WHO))  # as the kernel does
        flags |= os.O_CREAT | os.O_EXCL
        info, _ = await ours(self._operations.create(parent, name, 0o644, flags, WHO))
        return Handle(self._operations, info.fh)

    async def read(self, path: str) -> bytes:
        handle = await self.open(path)
        try:
            parts = []
            while part := await handle.read(1 << 20, sum(map(len, parts))):
                parts.append(part)
            return b"".join(parts)
        finally:
            await handle.close()

    async def write(self, path: str, data: bytes) -> None:
        try:
            handle = await self.open(path, os.O_WRONLY | os.O_TRUNC)
        except NotFound:
            handle = await self.create(path, os.O_WRONLY)
        try:
            if data:
                await handle.write(data)
        finally:
            await handle.close()

    async def append(self, path: str, data: bytes) -> None:
        end = await self.size(path)
        handle = await self.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            await handle.write(data, end)
        finally:
            await handle.close()

    async def truncate(self, path: str, size: int) -> None:
        fields = SimpleNamespace(
            update_size=True,
            update_mode=False,
            update_uid=False,
            update_gid=False,
            update_atime=False,
            update_mtime=False,
            update_ctime=False,
        )
        ino, attributes = (await self.node(path)).ino, pyfuse3.EntryAttributes()
        attributes.st_size = size
        await ours(self._operations.setattr(ino, attributes, fields, None, WHO))

    async def size(self, path: str) -> int:
        ino = (await self.node(path)).ino
        return (await ours(self._operations.getattr(ino, WHO))).st_size

    async def unlink(self, path: str) -> None:
        await ours(self._operations.unlink(*await self._parent(path), WHO))

    async def rmdir(self, path: str) -> None:
        await ours(self._operations.rmdir(*await self._parent(path), WHO))

    async def mkdir(self, path: str) -> None:
        await ours(self._operations.mkdir(*await self._parent(path), 0o755, WHO))

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        ends = (*await self._parent(old), *await self._parent(new))
        await ours(self._operations.rename(*ends, flags, WHO))

    async def names(self, path: str) -> list[str]:
        node = await self.node(path)
        assert isinstance(node, Directory)
        await self.mount.namespace.refresh(node)
        return sorted(node.children)

    async def all(self, path: str) -> dict[str, bytes]:
        """Every file below *path* with its content."""
        found: dict[str, bytes] = {}
        for name in await self.names(path):
            below = f"{path}/{name}"
            if isinstance(await self.node(below), Directory):
                found |= {f"{name}/{rest}": data for rest, data in (await self.all(below)).items()}
            else:
                found[name] = await self.read(below)
        return found

    async def refresh(self, path: str = "") -> None:
        node = await self.node(path) if path else self.mount.tree.root
        await self.mount.namespace.refresh(node, fresh=True)

    def journal(self) -> Journal:
        connection = sqlite3.connect(self._directory / "state.sqlite", isolation_level=None)
        try:
            return Journal(connection)
        finally:
            connection.close()

    def renames(self) -> list[Rename]:
        connection = sqlite3.connect(self._directory / "state.sqlite", isolation_level=None)
        try:
            return list(Intents(connection).all.values())
        finally:
            connection.close()

    @staticmethod
    async def until(condition: Callable[[], object]) -> None:
        with trio.fail_after(60):
            while not condition():  # noqa: ASYNC110 - another process can only be asked
                await trio.sleep(0.01)

    async def stop(self) -> None:
        await self.mount.stop()


@asynccontextmanager
async def _mounted(
    directory: Path, server: Any, *, recover: bool, options: dict[str, Any]
) -> AsyncIterator[Tree]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = Connection(base_url=server.base_url, uds=server.uds, timeout=5, transfer_timeout=5)
    values = {"ttl": 60.0, "empty_delay": 0.0, "cache_dir": directory, "prefetch_small": 0}
    async with AsyncExitStack() as stack:
        state = stack.enter_context(open_state(directory / "state.sqlite"))
        client = await stack.enter_async_context(connect(connection))
        nursery = await stack.enter_async_context(trio.open_nursery())
        mount = Mount(
            client=client,
            state=state,
            directory=directory,
            options=Options(**(values | options)),
            mountpoint=directory / "mountpoint",
            nursery=nursery,
        )
        await mount.check()
        nursery.start_soon(mount.outstanding.run)
        if recover:
            nursery.start_soon(mount.recovery.recover)
        yield Tree(mount, directory)
        nursery.cancel_scope.cancel()


def truth(server: Any, container_id: str) -> list[tuple[str, bytes]]:
    found = []
    for file in server.files(container_id):
        name = "/".join(stripped(file["path"], id="") or ()) or file["path"]
        found.append((name.removeprefix("/mnt/data/"), server.content(container_id, file["id"])))
    return sorted(found)


@pytest.fixture
def service(service: Any) -> Any:
    service.truth = lambda container_id: truth(service, container_id)
    service.fired = lambda number: service.admin("GET", "/admin/faults")[number]["fired"]
    return service


class ContainerId(str):
    """An id that knows the container's name."""

    name: str


@pytest.fixture
def new_box(service: Any) -> Callable[[str], ContainerId]:
    def make(name: str) -> ContainerId:
        # The server is shared by a module: each test has its own names.
        name = f"{name}-{secrets.token_hex(4)}"
        id = ContainerId(service.new_container(name))
        id.name = name
        return id

    return make


@pytest.fixture
def box(new_box: Callable[[str], ContainerId]) -> ContainerId:
    return new_box("box")


@pytest.fixture
def mounting(service: Any, tmp_path: Path) -> Callable[..., Any]:
    def mount(
        directory: Path | None = None, server: Any = None, *, recover: bool = False, **options: Any
    ) -> Any:
        directory = directory or tmp_path / "machine"
        return _mounted(directory, server or service, recover=recover, options=options)

    return mount


@pytest.fixture
async def tree(mounting: Callable[..., Any], box: ContainerId) -> AsyncIterator[Tree]:
    async with mounting() as opened:
        yield opened
