"""The nine operations of the Containers API, from a request to its answer."""

import dataclasses

from starlette.requests import Request
from starlette.responses import Response

from containerfs.server import listing
from containerfs.server.answers import ContentAnswer, json_answer, refusal_answer
from containerfs.server.behaviours import Behaviours
from containerfs.server.bodies import read_json
from containerfs.server.conduct import Conduct
from containerfs.server.containers import Container
from containerfs.server.creation import parse_creation
from containerfs.server.files import File
from containerfs.server.ranges import parse_range
from containerfs.server.refusals import Refusal
from containerfs.server.store import Store
from containerfs.server.uploads import Uploads


class Operations:
    """Each public method carries out the operation of its name; all raise Refusal."""

    def __init__(self, *, store: Store, conduct: Conduct) -> None:
        self._store = store
        self._conduct = conduct
        self._uploads = Uploads(store=store, conduct=conduct)

    async def list_containers(self, request: Request) -> Response:
        """GET /containers."""
        query = self._listed(request)
        if isinstance(query, Response):
            return query
        containers, has_more = self._store.containers.page(query, behaviours=self._behaviours)
        data = [container.as_json() for container in containers]
        has_more = has_more or self._behaviours.ignore_cursor
        return json_answer(listing.answer(data, has_more=has_more))

    async def create_container(self, request: Request) -> Response:
        """POST /containers."""
        creation = parse_creation(await read_json(request))
        registered = [
            self._store.registry.find(file_id, param="file_ids") for file_id in creation.file_ids
        ]
        container = self._store.containers.create(creation, behaviours=self._behaviours)
        new = [self._uploads.attached(container, file) for file in registered]
        if new:
            self._store.files.add(container, new, behaviours=self._behaviours)
        return json_answer(container.as_json())

    async def retrieve_container(self, request: Request, container_id: str) -> Response:
        """GET /containers/{container_id}."""
        container = self._find(container_id)
        if not container.is_expired:
            self._store.containers.touch(container)
            container = self._find(container_id)
        return json_answer(container.as_json())

    async def delete_container(self, request: Request, container_id: str) -> Response:
        """DELETE /containers/{container_id}."""
        try:
            container = self._find(container_id)
            self._store.containers.delete(container, behaviours=self._behaviours)
        except Refusal as refusal:
            return self._not_deleted(refusal)
        return self._deleted({"id": container.id, "object": "container.deleted", "deleted": True})

    async def list_files(self, request: Request, container_id: str) -> Response:
        """GET /containers/{container_id}/files."""
        container = self._alive(container_id, touch=self._behaviours.list_files_is_activity)
        query = self._listed(request)
        if isinstance(query, Response):
            return query
        query = dataclasses.replace(query, name=None)
        files, has_more = self._store.files.page(container, query, behaviours=self._behaviours)
        data = [file.as_json(behaviours=self._behaviours) for file in files]
        has_more = has_more or self._behaviours.ignore_cursor
        return json_answer(listing.answer(data, has_more=has_more))

    async def create_file(self, request: Request, container_id: str) -> Response:
        """POST /containers/{container_id}/files, multipart or JSON."""
        self._check_writable()
        self._alive(container_id)
        file = await self._uploads.create(request, container_id)
        return json_answer(file.as_json(behaviours=self._behaviours))

    async def retrieve_file(self, request: Request, container_id: str, file_id: str) -> Response:
        """GET /containers/{container_id}/files/{file_id}."""
        file = self._store.files.find(self._alive(container_id), file_id)
        return json_answer(file.as_json(behaviours=self._behaviours))

    async def delete_file(self, request: Request, container_id: str, file_id: str) -> Response:
        """DELETE /containers/{container_id}/files/{file_id}."""
        self._check_writable()
        try:
            file = self._store.files.find(self._alive(container_id), file_id)
            self._store.files.delete(file, behaviours=self._behaviours)
        except Refusal as refusal:
            return self._not_deleted(refusal)
        return self._deleted({"id": file.id, "object": "container.file.deleted", "deleted": True})

    async def content(self, request: Request, container_id: str, file_id: str) -> Response:
        """GET /containers/{container_id}/files/{file_id}/content."""
        try:
            file = self._store.files.find(self._alive(container_id), file_id)
            return self._content_answer(request, file)
        except Refusal as refusal:
            if self._behaviours.errors_as_200 and refusal.status != 416:
                return refusal_answer(refusal, status=200)
            raise

    @property
    def _behaviours(self) -> Behaviours:
        return self._conduct.behaviours

    def _deleted(self, data: dict[str, object]) -> Response:
        return Response(status_code=204) if self._behaviours.empty_deletes else json_answer(data)

    def _not_deleted(self, refusal: Refusal) -> Response:
        if self._behaviours.empty_deletes and refusal.status == 404:
            return Response(status_code=204)
        raise refusal

    def _find(self, container_id: str) -> Container:
        return self._store.containers.find(container_id, behaviours=self._behaviours)

    def _alive(self, container_id: str, *, touch: bool = True) -> Container:
        containers = self._store.containers
        container = containers.alive(container_id, behaviours=self._behaviours)
        if touch:
            containers.touch(container)
        return container

    def _check_writable(self) -> None:
        if self._behaviours.read_only:
            raise Refusal(405, "Files can't be changed on this server.", headers={"allow": "GET"})

    def _listed(self, request: Request) -> listing.Query | Response:
        """The query to carry out, or the empty page that comes before the page it asks for."""
        query = listing.parse_query(request.scope["query_string"])
        if self._behaviours.ignore_cursor:
            return dataclasses.replace(query, after=None)
        if not self._behaviours.empty_pages:
            return query
        after = query.after or ""
        if not after.endswith(listing.EMPTY_PAGE):
            return json_answer(listing.empty_answer(query.after))
        return dataclasses.replace(query, after=after.removesuffix(listing.EMPTY_PAGE) or None)

    def _content_answer(self, request: Request, file: File) -> ContentAnswer:
        part = self._granted(request, size=file.size)
        start, stop = part or (0, file.size)
        headers = {"accept-ranges": "bytes"} if self._behaviours.range else {}
        if part:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{file.size}"
        return ContentAnswer(
            self._store.files.open(file),
            start=start,
            stop=stop,
            status=206 if part else 200,
            headers=headers,
            tells_length=self._behaviours.content_length,
        )

    def _granted(self, request: Request, *, size: int) -> tuple[int, int] | None:
        asked = request.headers.get("range")
        # An If-Range can't match: content has neither an ETag nor a Last-Modified.
        if asked is None or not self._behaviours.range or "if-range" in request.headers:
            return None
        return parse_range(asked, size=size)
