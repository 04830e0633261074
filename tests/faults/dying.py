"""Lives through a story of file system calls, is killed at a durable step, and looks what is left.

Run by a test: `dying.py SOCKET DIRECTORY STORY EVERY`. Durable steps are SQL statements, files
made, renamed and removed, and requests, before and after. For each EVERY-th of them one process
lives the story and kills itself there; another then does what the next mount does, and tells what
it shows and what the server has. Both are compared with what may be there: what every finished
call left, or that and what the call under way does. What is wrong is printed as JSON, a line each.
"""

import contextlib
import inspect
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.api.listing import all_files
from containerfs.assembly import Mount
from containerfs.cache.state import State, open_state
from containerfs.fs.names.names import stripped
from containerfs.fs.tree.nodes import File
from containerfs.options import Options

Model = dict[str, str]

NOBODY = SimpleNamespace(uid=0, gid=0, pid=1, umask=0)
CHANGES = ("os.rename", "os.remove", "os.link", "os.truncate", "os.mkdir")
UNFINISHED = """
SELECT (SELECT count(*) FROM journal WHERE NOT held) + (SELECT count(*) FROM deletions)
    + (SELECT count(*) FROM intents)
"""
PATIENCE = 60  # seconds in which everything must be over


class Death:
    """Kills this process at the n-th step from now."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._is_near = False

    def near(self) -> None:
        """Count from now on."""
        self._is_near = True

    def step(self) -> None:
        if self._is_near:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """Listen to what Python does."""
        is_made = event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT
        if is_made or event in CHANGES:
            self.step()


class DyingClient:
    """A client, each request of which is two steps: before it is sent, and once it is answered."""

    def __init__(self, client: Client, death: Death) -> None:
        self._client = client
        self._death = death

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._death.step()
            answer = await method(*args, **kwargs)
            self._death.step()
            return answer

        return call


class Story:
    """Calls into one container, each noted with what may be there if it is cut off."""

    def __init__(self, mount: Mount, container_id: str, notes: Path) -> None:
        self._fs = mount.operations
        self._container = mount.tree.containers[container_id].ino
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._model: Model = {}

    def note(self, *models: Model) -> None:
        os.write(self._notes, json.dumps(models).encode() + b"\n")

    async def _do(self, after: Model, call: Awaitable[Any]) -> Any:
        self.note(self._model, after)
        result = await call
        self._model = after
        self.note(after)
        return result

    async def create(self, name: str, text: str) -> int:
        """Make a file, and write to it."""
        flags = os.O_RDWR | os.O_CREAT
        after = {**self._model, name: ""}
        made = self._fs.create(self._container, name.encode(), 0o644, flags, NOBODY)
        info, _ = await self._do(after, made)
        await self.write(info.fh, name, text)
        return info.fh

    async def open(self, name: str) -> int:
        node = await self._fs.lookup(self._container, name.encode(), NOBODY)
        info = await self._fs.open(node.st_ino, os.O_RDWR, NOBODY)
        return info.fh

    async def write(self, fh: int, name: str, text: str, at: int = 0) -> None:
        before = self._model[name]
        whole = before[:at] + text + before[at + len(text) :]
        await self._do({**self._model, name: whole}, self._fs.write(fh, at, text.encode()))

    async def close(self, fh: int) -> None:
        await self._do(self._model, self._fs.flush(fh))
        await self._fs.release(fh)

    async def save(self, name: str, text: str) -> None:
        """Make a file with this content, and close it."""
        await self.close(await self.create(name, text))

    async def rename(self, old: str, new: str) -> None:
        after = {name: text for name, text in self._model.items() if name != old}
        after[new] = self._model[old]
        await self._do(after, self._fs.rename(*self._at(old), *self._at(new), 0, NOBODY))

    async def exchange(self, one: str, other: str) -> None:
        after = {**self._model, one: self._model[other], other: self._model[one]}
        flags = 2  # RENAME_EXCHANGE
        await self._do(after, self._fs.rename(*self._at(one), *self._at(other), flags, NOBODY))

    def _at(self, name: str) -> tuple[int, bytes]:
        return self._container, name.encode()

    async def sync(self) -> None:
        """As `sync DIRECTORY` does."""
        fh = await self._fs.opendir(self._container, NOBODY)
        await self._do(self._model, self._fs.fsyncdir(fh, False))
        await self._fs.releasedir(fh)

    async def unlink(self, name: str) -> None:
        after = {other: text for other, text in self._model.items() if other != name}
        await self._do(after, self._fs.unlink(*self._at(name), NOBODY))


async def writing(story: Story) -> None:
    await story.save("a", "one")
    fh = await story.create("open", "never closed")
    again = await story.open("a")
    await story.write(again, "a", "two, longer")
    await story.close(again)
    await story.write(fh, "open", "NEVER")


async def overwriting(story: Story) -> None:
    """Written again while it is being sent: each upload has one content."""
    await story.save("a", "first content")
    fh = await story.open("a")
    await story.write(fh, "a", "SECOND")
    story.note(story._model, {"a": "SECONDTHIRDnt"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(story._fs.flush, fh)
        nursery.start_soon(story._fs.write, fh, 6, b"THIRD")
    story._model = {"a": "SECONDTHIRDnt"}
    story.note(story._model)
    await story.close(fh)


async def removing(story: Story) -> None:
    await story.save("a", "one")
    await story.save("b", "other")
    await story.unlink("a")
    fh = await story.create("c", "never sent")
    await story.unlink("c")
    await story._fs.release(fh)
    await story.save("a", "anew")


async def renaming(story: Story) -> None:
    await story.save("a", "one")
    await story.save("b", "other")
    await story.rename("a", "c")
    await story.rename("c", "b")


async def saving_as_editors_do(story: Story) -> None:
    await story.save("a", "one")
    await story.save(".a.swp", "swap")
    await story.save(".goutputstream-X", "two")
    await story.rename(".goutputstream-X", "a")
    await story.rename("a", "a~")
    await story.save("a", "three")
    await story.unlink(".a.swp")


async def renaming_the_unsent(story: Story) -> None:
    fh = await story.create("a", "not sent")
    await story.rename("a", "b")
    await story.close(fh)
    other = await story.create("c", "not sent either")
    await story._fs.release(other)
    await story.rename("c", "b")


async def syncing(story: Story) -> None:
    """Several are sent side by side, and what is recorded of them is together."""
    handles = {name: await story.create(name, f"one of {name}") for name in "abc"}
    await story.sync()
    for name in "ab":
        await story.write(handles[name], name, "two")
    await story.create("d", "one of d")
    await story.sync()


async def exchanging(story: Story) -> None:
    await story.save("a", "one")
    await story.save("b", "other")
    await story.exchange("a", "b")
    await story.exchange("b", "a")


async def exchanging_the_unsent(story: Story) -> None:
    await story.save("a", "one")
    await story.save(".b.swp", "swap")
    await story.save("c", "other")
    fh = await story.open("a")
    await story.write(fh, "a", "ONE")
    await story.exchange("a", "c")
    await story.close(fh)
    await story.exchange("a", ".b.swp")


STORIES = (
    writing,
    overwriting,
    removing,
    renaming,
    saving_as_editors_do,
    renaming_the_unsent,
    syncing,
    exchanging,
    exchanging_the_unsent,
)


def connection(socket: str) -> Connection:
    return Connection(base_url="http://localhost/v1", uds=socket, timeout=5)


@contextlib.asynccontextmanager
async def mounted(client: Any, state: State, directory: Path) -> AsyncIterator[Mount]:
    """All parts of a mount, but for the kernel's."""
    options = Options(cache_dir=directory, empty_delay=0.0, op_timeout=10.0, ttl=0.0)
    async with trio.open_nursery() as nursery:
        mount = Mount(
            client=client,
            state=state,
            directory=directory,
            options=options,
            mountpoint=directory,
            nursery=nursery,
        )
        await mount.check()
        yield mount
        nursery.cancel_scope.cancel()


async def live(socket: str, directory: Path, id: str, tell: Any, at: int) -> None:
    death = Death(at)
    with open_state(directory / "state.sqlite") as state:
        async with (
            connect(connection(socket)) as client,
            mounted(DyingClient(client, death), state, directory) as mount,
        ):
            story = Story(mount, id, directory / "notes")
            story.note({})
            sys.addaudithook(death.heard)
            state.connection.set_trace_callback(lambda _: death.step())
            death.near()
            await tell(story)


async def look(socket: str, directory: Path, id: str) -> dict[str, Any]:
    """Do what the next mount does, and tell what is there."""
    with open_state(directory / "state.sqlite") as state:
        async with (
            connect(connection(socket)) as client,
            mounted(client, state, directory) as mount,
        ):
            with trio.fail_after(PATIENCE):
                return await _settled(mount, client, state, directory, id)


async def _settled(
    mount: Mount, client: Client, state: State, directory: Path, id: str
) -> dict[str, Any]:
    container = mount.tree.containers[id]
    await mount.namespace.refresh(container)
    first = await _shown(mount, id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.outstanding.run)
        await mount.recovery.recover()
        await mount.stop()
        nursery.cancel_scope.cancel()
    assert state.connection.execute(UNFINISHED).fetchone() == (0,)
    held = [node.path for node in container.walk() if isinstance(node, File) and node.is_held]
    sent: dict[str, list[str]] = {}
    for file in await all_files(client, id):
        content = b""
        async with client.download_file(id, file.id) as body:
            async for chunk in body:
                content += chunk
        name = "/".join(stripped(file.path, id=file.id) or (file.path.rpartition("/")[2],))
        sent.setdefault(name, []).append(content.decode())
    return {
        "first": first,
        "shown": await _shown(mount, id),
        "sent": sent,
        "held": held,
        "spools": len(os.listdir(directory / "spool")),
    }


async def _shown(mount: Mount, id: str) -> Model:
    fs, shown = mount.operations, {}
    container = mount.tree.containers[id]
    for name in list(container.children):
        node = await fs.lookup(container.ino, name.encode(), NOBODY)
        info = await fs.open(node.st_ino, os.O_RDONLY, NOBODY)
        shown[name] = (await fs.read(info.fh, 0, 1 << 20)).decode()
        await fs.release(info.fh)
    return shown


async def new_container(socket: str) -> str:
    async with connect(connection(socket)) as client:
        return (await client.create_container(name="box")).id


def in_a_process(work: Callable[[], None]) -> int:
    """Run *work* in a process of its own; its wait status."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def lives(socket: str, directory: Path, tell: Any, at: int) -> bool:
    """One life, and what is left of it; whether it was cut off."""
    directory.mkdir(mode=0o700)
    id = trio.run(new_container, socket)
    status = in_a_process(lambda: trio.run(live, socket, directory, id, tell, at))
    if status not in (0, signal.SIGKILL):
        print(json.dumps({"at": at, "wrong": f"the story ended with {status}"}))
        return False

    def write_down() -> None:
        found = trio.run(look, socket, directory, id)
        (directory / "found").write_text(json.dumps(found))

    if in_a_process(write_down):
        print(json.dumps({"at": at, "wrong": "the next mount failed"}))
        return bool(status)
    found = json.loads((directory / "found").read_text())
    allowed = json.loads((directory / "notes").read_text().splitlines()[-1])
    for wrong in compared(found, allowed):
        print(json.dumps({"at": at, "wrong": wrong, "allowed": allowed, **found}))
    return bool(status)


def compared(found: dict[str, Any], allowed: list[Model]) -> list[str]:
    wrong = []
    if found["first"] not in allowed:
        wrong.append("what the next mount shows at first is neither before nor after the call")
    if found["shown"] != found["first"]:
        wrong.append("recovery changed what is shown")
    kept = {name: [text] for name, text in found["shown"].items() if name not in found["held"]}
    for name in [name for name in kept if name.endswith("~")]:
        kept[name.removesuffix("~")] = kept.pop(name)  # a temporary name: the server is not told
    if found["sent"] != kept:
        wrong.append("the server has not exactly what is shown")
    if found["spools"] != len(found["held"]):
        wrong.append("spools are left over")
    return wrong


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    socket, directory, name = sys.argv[1:4]
    (tell,) = (story for story in STORIES if story.__name__ == name)
    for at in range(1, 10_000, int(sys.argv[4])):
        if not lives(socket, Path(directory) / str(at), tell, at):
            break
    print(json.dumps({"steps": at}))


if __name__ == "__main__":
    main()
