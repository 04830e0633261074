"""The Containers API: one method for each of its operations.

All methods raise only errors of `containerfs.errors`; each message ends with the server's request
id. What is not certain about the live service is not assumed: ids are opaque, a file's path is
what the answer says, and every field but the ids may be missing.
"""

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

import httpx
import trio

from containerfs.api.call import Call
from containerfs.api.connection import Connection
from containerfs.api.content import ContentRequest, Part, Ranges
from containerfs.api.exchange import Exchange
from containerfs.api.limits import Limiter
from containerfs.api.multipart import SMALL, FilePart
from containerfs.api.parsing import container, page, remote_file, tells_id_alone
from containerfs.api.retry import http_date
from containerfs.api.session import Answer, Session
from containerfs.api.small import SmallContents
from containerfs.api.tls import ssl_context
from containerfs.api.transport import Transport
from containerfs.api.types import Container, Page, RemoteFile
from containerfs.api.uploads import SmallUploads
from containerfs.errors import FileSystemError, NotFound, ServerFault, Uncertain

log = logging.getLogger(__name__)

Order = Literal["asc", "desc"]
T = TypeVar("T")


@asynccontextmanager
async def connect(connection: Connection) -> AsyncIterator["Client"]:
    """A client of *connection*; nothing is sent before its first method is called.

    Raises:
        Invalid: A certificate file of the connection cannot be used.
    """
    transport = Transport(
        httpx.URL(connection.base_url),
        ssl_context=ssl_context(connection),
        uds=connection.uds,
        max_idle=connection.max_connections,
    )
    async with transport:
        exchange = Exchange(connection, transport=transport)
        limiter = Limiter(maximum=connection.max_connections)
        session = Session(exchange=exchange, limiter=limiter, timeout=connection.timeout)
        ranges = Ranges()
        small = SmallContents(
            transport=transport,
            exchange=exchange,
            session=session,
            limiter=limiter,
            ranges=ranges,
            timeout=connection.timeout,
        )
        uploads = SmallUploads(transport=transport, exchange=exchange, limiter=limiter)
        open_ahead = partial(transport.open_ahead, connection.timeout)
        yield Client(session, small=small, uploads=uploads, ranges=ranges, open_ahead=open_ahead)


class Client:
    """The nine operations."""

    def __init__(
        self,
        session: Session,
        *,
        small: SmallContents,
        uploads: SmallUploads,
        ranges: Ranges,
        open_ahead: Callable[..., Awaitable[None]],
    ) -> None:
        self._session = session
        self._small = small
        self._uploads = uploads
        self._ranges = ranges
        self._open_ahead = open_ahead
        self._told: tuple[str | None, float] = None, 0.0  # the server's time, and trio's then

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._session.is_busy

    async def open_ahead(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Connect before there is anything to send, so that the first call need not wait for it.

        Once it has started, calls wait for it. Where it fails nothing is raised: a call tells.
        """
        await self._open_ahead(task_status=task_status)

    def on_pause(self, tell: Callable[[float], None]) -> None:
        """Have *tell* called with the seconds of each pause that the server asks for (429)."""
        self._session.on_pause(tell)

    @property
    def grants_ranges(self) -> bool | None:
        """Whether the server sends parts of files when asked to, as its latest answer showed.

        None before the first download of a part. To find out costs nothing: ask for the first part
        of a large file; a server that sends the whole instead has sent what was wanted anyway.
        """
        return self._ranges.are_granted

    async def list_containers(
        self,
        *,
        limit: int = 100,
        order: Order = "desc",
        after: str | None = None,
        name: str | None = None,
    ) -> Page[Container]:
        """One page of the account's containers, expired ones included.

        Args:
            limit: Entries, 1 to 100.
            order: By the time of creation.
            after: The id that the page follows.
            name: Only containers of this name; whether a prefix matches is up to the server.
        """
        query = _paging(limit, order, after)
        if name is not None:
            query["name"] = name
        call = Call(method="GET", path=("containers",), query=query)
        answer = await self._session.send(call)
        self._told = answer.response.headers.get("date"), trio.current_time()
        return _page(call, answer, container)

    def server_time(self, at: float) -> float | None:
        """What the server's clock showed at the earliest, in Unix seconds, by its latest list of
        containers; None where that did not tell.

        Args:
            at: Trio's clock.
        """
        text, told = self._told
        date = http_date(text)
        return None if date is None else date.timestamp() + at - told

    async def create_container(
        self,
        *,
        name: str,
        memory_limit: str | None = None,
        expires_after: int | None = None,
        network_policy: Mapping[str, Any] | None = None,
        file_ids: Sequence[str] = (),
        skills: Sequence[Mapping[str, Any]] = (),
    ) -> Container:
        """Create a container; it costs money from now on until it expires or is deleted.

        Args:
            memory_limit: "1g", "4g", "16g" or "64g".
            expires_after: Idle minutes, 1 to 20.
            network_policy: As the API has it: `{"type": "disabled"}`, or
                `{"type": "allowlist", "allowed_domains": […]}`.
            file_ids: Files of the account's Files API to copy into it.
            skills: As the API has them.

        Raises:
            Uncertain: The answer was lost; the container may exist.
        """
        body: dict[str, Any] = {"name": name}
        if memory_limit is not None:
            body["memory_limit"] = memory_limit
        if expires_after is not None:
            body["expires_after"] = {"anchor": "last_active_at", "minutes": expires_after}
        if network_policy is not None:
            body["network_policy"] = dict(network_policy)
        if file_ids:
            body["file_ids"] = list(file_ids)
        if skills:
            body["skills"] = [dict(skill) for skill in skills]
        call = Call(method="POST", path=("containers",), json=body)
        return _read(call, await self._session.send(call), container)

    async def retrieve_container(self, container_id: str) -> Container:
        """One container. Asking may count as activity, which keeps it alive."""
        call = Call(method="GET", path=("containers", container_id))
        return _read(call, await self._session.send(call), container)

    async def delete_container(self, container_id: str) -> None:
        """Delete a container and all its files; lists may show it for a while."""
        await self._delete(Call(method="DELETE", path=("containers", container_id)))

    async def list_files(
        self,
        container_id: str,
        *,
        limit: int = 100,
        order: Order = "desc",
        after: str | None = None,
        known: Mapping[str, RemoteFile] | None = None,
    ) -> Page[RemoteFile]:
        """One page of a container's files; arguments as for `list_containers`.

        Args:
            known: Files of it by id, as they were described before. What has not changed is given
                as the same object.
        """
        query = _paging(limit, order, after)
        call = Call(method="GET", path=("containers", container_id, "files"), query=query)
        return _page(call, await self._session.send(call), _file_of(container_id, known))

    async def upload_file(
        self,
        container_id: str,
        *,
        name: str,
        fd: int,
        size: int,
        progress: Callable[[int], None] | None = None,
    ) -> RemoteFile:
        """Upload exactly *size* bytes of *fd*, a regular file, read from its start.

        Args:
            name: The file name in the request; the path it gets is in the answer only.
            fd: Stays open; its position is neither used nor moved.
            progress: Told the bytes sent so far; it starts anew when the upload is repeated.

        Returns:
            What the server says of it; its path is a guess where the server does not tell that.

        Raises:
            Uncertain: The answer was lost after the whole file was sent; it may exist.
            LocalFault: The file is shorter than *size*, or cannot be read.
        """
        part = partial(FilePart, name=name, fd=fd, size=size, progress=progress)
        call = Call(method="POST", path=("containers", container_id, "files"), part=part)
        file = _file_of(container_id)
        first = await self._uploads.send(call, part(), file) if size <= SMALL else None
        if isinstance(first, RemoteFile):
            return first
        answer = await self._session.upload(call, first=first)
        if tells_id_alone(answer.data):
            return await self._looked_up(call, container_id, answer, name=name)
        return _read(call, answer, file)

    async def _looked_up(
        self, call: Call, container_id: str, answer: Answer, *, name: str
    ) -> RemoteFile:
        """What was just uploaded as *name*, where the answer has its id and no path."""
        data = answer.data
        try:
            return await self.retrieve_file(container_id, data["id"])
        except NotFound as exc:
            text = f"{call}: there is nothing with the id in the answer"
            raise Uncertain(text, request_id=answer.request_id) from exc
        except FileSystemError as exc:  # it is certain even so; the next listing tells its path
            log.info("file %s is not described: %s", data["id"], exc)
            return remote_file({**data, "path": f"/mnt/data/{name}"}, container_id=container_id)

    async def attach_file(self, container_id: str, *, file_id: str) -> RemoteFile:
        """Copy a file of the account's Files API into a container.

        Raises:
            Uncertain: The answer was lost; the copy may exist.
        """
        path = ("containers", container_id, "files")
        call = Call(method="POST", path=path, json={"file_id": file_id})
        return _read(call, await self._session.send(call), _file_of(container_id))

    async def retrieve_file(self, container_id: str, file_id: str) -> RemoteFile:
        """One file's description."""
        call = Call(method="GET", path=("containers", container_id, "files", file_id))
        return _read(call, await self._session.send(call), _file_of(container_id))

    async def delete_file(
        self, container_id: str, file_id: str, *, patience: float = math.inf
    ) -> None:
        """Delete a file; lists may show it for a while.

        Args:
            patience: Seconds that may pass between its attempts, all waits together.
        """
        path = ("containers", container_id, "files", file_id)
        await self._delete(Call(method="DELETE", path=path), patience=patience)

    def download_file(
        self, container_id: str, file_id: str, *, offset: int = 0, length: int | None = None
    ) -> ContentRequest:
        """A file's content, open inside.

        Args:
            offset: The first byte wanted; the server may send the whole file nevertheless.
            length: Bytes wanted, 1 or more; None for all that follow. Where the file ends before
                *offset*, the body is empty.

        The body's `offset`, `size` and `total` tell what came; see also `grants_ranges`.
        """
        path = _content_path(container_id, file_id)
        part = Part(offset=offset, length=length)
        return ContentRequest(self._session, path, part=part, ranges=self._ranges)

    async def fetch_file(
        self, container_id: str, file_id: str, *, most: int
    ) -> bytes | ContentRequest:
        """The content of a small file, which costs less than `download_file`.

        Args:
            most: Bytes; once there are more, what follows is left out.

        Returns:
            Where it does not come at once, what `download_file` returns, to be opened before
            anything else is done.
        """
        return await self._small.fetch(_content_path(container_id, file_id), most=most)

    async def _delete(self, call: Call, *, patience: float = math.inf) -> None:
        answer = await self._session.send(call, patience=patience)
        if isinstance(answer.data, dict) and answer.data.get("deleted") is False:
            raise ServerFault(f"{call}: not deleted", request_id=answer.request_id)


def _content_path(container_id: str, file_id: str) -> tuple[str, ...]:
    return ("containers", container_id, "files", file_id, "content")


def _paging(limit: int, order: Order, after: str | None) -> dict[str, str]:
    query = {"limit": str(limit), "order": order}
    if after is not None:
        query["after"] = after
    return query


def _file_of(
    container_id: str, known: Mapping[str, RemoteFile] | None = None
) -> Callable[[Any], RemoteFile]:
    numbers: dict[int, int] = {}
    return lambda data: remote_file(data, container_id, known, numbers)


def _page(call: Call, answer: Answer, entry: Callable[[Any], T]) -> Page[T]:
    return replace(_read(call, answer, lambda data: page(data, entry)), size=answer.size)


def _read(call: Call, answer: Answer, parse: Callable[[Any], T]) -> T:
    try:
        return parse(answer.data)
    except ServerFault as exc:
        kind = ServerFault if call.is_idempotent else Uncertain
        raise kind(f"{call}: {exc}", request_id=answer.request_id) from exc
