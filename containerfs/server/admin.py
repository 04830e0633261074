"""Routes below /admin that change a running server and show what it was asked.

They exist only when asked for. They play the model's code too: it writes, rewrites and leaves
phantoms. What a test passes in is shown as it is, however odd.
"""

import base64
import binascii
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from containerfs.server import refusals
from containerfs.server.answers import json_answer
from containerfs.server.behaviours import BehaviourError
from containerfs.server.bodies import read_json
from containerfs.server.conduct import Conduct
from containerfs.server.containers import Container
from containerfs.server.faults import FaultError, Faults, fault_from_json
from containerfs.server.files import File, NewFile
from containerfs.server.forms import read_form
from containerfs.server.refusals import Refusal
from containerfs.server.requestlog import RequestLog
from containerfs.server.store import Store

_WRITTEN = ("path", "content_base64", "bytes", "phantom", "id", "created_at", "source")
_REWRITTEN = ("path", "content_base64", "bytes", "same_id", "created_at")


class Admin:
    """The admin routes."""

    def __init__(self, *, store: Store, conduct: Conduct, log: RequestLog) -> None:
        self._store = store
        self._conduct = conduct
        self._log = log

    async def answer(self, request: Request, words: tuple[str, ...]) -> Response:
        """Answer a request for the path of *words* below /admin; raises Refusal."""
        match request.method, *words:
            case "GET", "behaviours":
                return json_answer(self._conduct.behaviours.as_json())
            case "PUT", "behaviours":
                return await self._change_behaviours(request)
            case "GET", "faults":
                return json_answer(self._conduct.faults.as_json())
            case "PUT" | "DELETE", "faults":
                return await self._change_faults(request)
            case "GET", "requests":
                return json_answer(self._log.as_json())
            case "DELETE", "requests":
                self._log.clear()
                return json_answer([])
            case "POST", "expire":
                return await self._expire(request)
            case "POST", "age":
                return await self._age(request)
            case "POST", "registry":
                return await self._register(request)
            case "POST", "files", container_id:
                return await self._write(request, self._alive(container_id))
            case "PUT", "files", container_id, file_id:
                return await self._rewrite(request, self._alive(container_id), file_id)
        raise Refusal(404, f"Invalid URL ({request.method} /admin/{'/'.join(words)})")

    async def _change_behaviours(self, request: Request) -> Response:
        values = _object(await read_json(request))
        try:
            self._conduct.behaviours = self._conduct.behaviours.changed(values)
        except BehaviourError as exc:
            raise Refusal(400, str(exc)) from exc
        return json_answer(self._conduct.behaviours.as_json())

    async def _change_faults(self, request: Request) -> Response:
        told = await read_json(request) if request.method == "PUT" else []
        if not isinstance(told, list):
            raise refusals.wrong_type("body", expected="an array", value=told)
        try:
            faults = Faults([fault_from_json(_object(fault)) for fault in told])
        except FaultError as exc:
            raise Refusal(400, str(exc)) from exc
        self._conduct.faults = faults
        return json_answer(faults.as_json())

    async def _expire(self, request: Request) -> Response:
        container = self._find(_object(await read_json(request)).get("container_id"))
        self._store.containers.expire(container)
        return json_answer(self._find(container.id).as_json())

    async def _age(self, request: Request) -> Response:
        told = _object(await read_json(request))
        container = self._find(told.get("container_id"))
        if not isinstance(told.get("seconds"), int | float):
            raise refusals.missing("seconds")
        self._store.containers.age(container, seconds=told["seconds"])
        return json_answer(self._find(container.id).as_json())

    async def _register(self, request: Request) -> Response:
        incoming = self._store.contents.receive()
        try:
            form = await read_form(request, incoming, check_size=lambda _size: None)
            if form.filename is None:
                raise refusals.missing("file")
            file = self._store.registry.register(incoming, name=form.filename)
        finally:
            incoming.discard()
        return json_answer({"id": file.id})

    async def _write(self, request: Request, container: Container) -> Response:
        told = await read_json(request)
        files = [_checked(file, _WRITTEN) for file in (told if isinstance(told, list) else [told])]
        new = [await self._new_file(container, file) for file in files]
        added = self._store.files.add(container, new, behaviours=self._conduct.behaviours)
        answers = [self._shown(file) for file in added]
        return json_answer(answers if isinstance(told, list) else answers[0])

    async def _rewrite(self, request: Request, container: Container, file_id: str) -> Response:
        told = _checked(await read_json(request), _REWRITTEN)
        old = self._store.files.find(container, file_id)
        told = {"path": old.path, **told, "id": old.id if told.get("same_id") else None}
        new = await self._new_file(container, told)
        added = self._store.files.add(
            container, [new], behaviours=self._conduct.behaviours, instead_of=[old]
        )
        return json_answer(self._shown(added[0]))

    async def _new_file(self, container: Container, told: dict[str, Any]) -> NewFile:
        if not isinstance(told.get("path"), str):
            raise refusals.missing("path")
        content, size = None, 0
        if not told.get("phantom"):
            data = _decoded(told.get("content_base64", ""))
            content, size = await self._kept(container, data), len(data)
        tells_bytes = "bytes" in told or told.get("phantom")
        return NewFile(
            name=told["path"],
            path=told["path"],
            source=told.get("source", "assistant"),
            size=size,
            content=content,
            id=told.get("id"),
            created=told.get("created_at"),
            told_bytes=json.dumps(told.get("bytes")) if tells_bytes else None,
        )

    async def _kept(self, container: Container, data: bytes) -> str:
        incoming = self._store.contents.receive()
        try:
            await incoming.write(data)
            return self._store.contents.keep(incoming, place=container.seq)
        finally:
            incoming.discard()

    def _find(self, container_id: Any) -> Container:
        if not isinstance(container_id, str):
            raise refusals.missing("container_id")
        behaviours = self._conduct.behaviours
        return self._store.containers.find(container_id, behaviours=behaviours)

    def _alive(self, container_id: str) -> Container:
        behaviours = self._conduct.behaviours
        return self._store.containers.alive(container_id, behaviours=behaviours)

    def _shown(self, file: File) -> dict[str, Any]:
        return file.as_json(behaviours=self._conduct.behaviours)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refusals.wrong_type("body", expected="an object", value=value)
    return value


def _checked(value: Any, members: tuple[str, ...]) -> dict[str, Any]:
    for member in _object(value):
        if member not in members:
            raise refusals.unknown(member)
    return _object(value)


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as exc:
        raise refusals.invalid("content_base64", "not valid base64.") from exc
