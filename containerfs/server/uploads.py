"""New files from users: uploaded as a form or as JSON, or attached from the registry."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from containerfs.server import paths, refusals
from containerfs.server.behaviours import Behaviours
from containerfs.server.bodies import read_json
from containerfs.server.conduct import Conduct
from containerfs.server.containers import Container
from containerfs.server.contents import Contents, Incoming
from containerfs.server.creation import text
from containerfs.server.files import File, NewFile
from containerfs.server.forms import read_form
from containerfs.server.refusals import Refusal
from containerfs.server.registry import RegisteredFile
from containerfs.server.store import Store

_TEXT_NAME = "file"  # of an upload that came as a JSON string, without a name
_SVG_SIGNS = (b"<svg", b"<!doctype svg")


class Uploads:
    """Takes new files in; a file is listed only when all of it is in place."""

    def __init__(self, *, store: Store, conduct: Conduct) -> None:
        self._store = store
        self._conduct = conduct

    async def create(self, request: Request, container_id: str) -> File:
        """The file that the request brings, added to the container.

        Raises:
            Refusal: The request breaks the contract, or the behaviours refuse the file.
            ClientDisconnect: The client went away.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._create_from_form(request, container_id)
        if kind == "application/json":
            return await self._create_from_json(request, container_id)
        raise Refusal(415, f"Unsupported content type '{kind}'; use multipart/form-data.")

    def attached(self, container: Container, file: RegisteredFile) -> NewFile:
        """A registered file as a new one of the container; its content is there already."""
        path = paths.prefixed_path(file.name, f"{file.id}-", behaviours=self._conduct.behaviours)
        return NewFile(
            name=file.name,
            path=path,
            source="user",
            size=file.size,
            content=self._store.registry.copy(file, place=container.seq),
        )

    async def _create_from_form(self, request: Request, container_id: str) -> File:
        async with _receiving(self._store.contents) as incoming:
            form = await read_form(request, incoming, check_size=self._check_size)
            if form.filename is not None and form.file_id is not None:
                raise _one_of_two()
            if form.file_id is not None:
                return self._attach(container_id, form.file_id)
            if form.filename is None:
                raise refusals.missing("file")
            return self._keep(container_id, incoming, name=form.filename)

    async def _create_from_json(self, request: Request, container_id: str) -> File:
        body = await read_json(request)
        if not isinstance(body, dict):
            raise refusals.wrong_type("body", expected="an object", value=body)
        for member in body:
            if member not in ("file", "file_id"):
                raise refusals.unknown(member)
        if len(body) > 1:
            raise _one_of_two()
        if "file_id" in body:
            return self._attach(container_id, text(body["file_id"], "file_id", low=1))
        if "file" not in body:
            raise refusals.missing("file")
        async with _receiving(self._store.contents) as incoming:
            await incoming.write(text(body["file"], "file").encode())
            return self._keep(container_id, incoming, name=_TEXT_NAME)

    def _attach(self, container_id: str, file_id: str) -> File:
        behaviours = self._conduct.behaviours
        container = self._store.containers.alive(container_id, behaviours=behaviours)
        registered = self._store.registry.find(file_id, param="file_id")
        new = [self.attached(container, registered)]
        return self._store.files.add(container, new, behaviours=behaviours)[0]

    def _keep(self, container_id: str, incoming: Incoming, *, name: str) -> File:
        behaviours = self._conduct.behaviours
        name = paths.clean_name(name, behaviours=behaviours)
        self._check_size(incoming.size)
        _check_content(incoming, behaviours)
        # The container may have ended while the content was arriving.
        container = self._store.containers.alive(container_id, behaviours=behaviours)
        self._store.containers.touch(container)
        return self._store.files.upload(container, incoming, name=name, behaviours=behaviours)

    def _check_size(self, size: int) -> None:
        largest = self._conduct.behaviours.max_file_size
        if largest is not None and size > largest:
            raise Refusal(413, f"File is too large: the maximum is {largest} bytes.", param="file")


@asynccontextmanager
async def _receiving(contents: Contents) -> AsyncIterator[Incoming]:
    incoming = contents.receive()
    try:
        yield incoming
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full() from exc
        raise
    finally:
        incoming.discard()


def _check_content(incoming: Incoming, behaviours: Behaviours) -> None:
    if behaviours.full:
        raise _full()
    if behaviours.refuse_empty and not incoming.size:
        raise refusals.invalid("file", "the file is empty.", code="empty_file")
    if behaviours.refuse_svg and any(sign in incoming.head.lower() for sign in _SVG_SIGNS):
        raise Refusal(400, refusals.INVALID_FILE, param="file")


def _full() -> Refusal:
    return Refusal(507, "There is no space left for files.", kind="server_error")


def _one_of_two() -> Refusal:
    return refusals.invalid("file_id", "give either a file or a file_id.")
