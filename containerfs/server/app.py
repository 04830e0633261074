"""The server as an ASGI application: route, log, check the key, apply faults, answer.

Every answer has an `x-request-id`; every failure is an answer with the documented error body.
"""

import logging

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from containerfs.server.access import Access
from containerfs.server.admin import Admin
from containerfs.server.answers import refusal_answer
from containerfs.server.conduct import Conduct
from containerfs.server.disturbances import disturb
from containerfs.server.exchange import Exchange
from containerfs.server.faults import Rule
from containerfs.server.ids import new_request_id
from containerfs.server.operations import Operations
from containerfs.server.refusals import Refusal
from containerfs.server.requestlog import Entry, RequestLog
from containerfs.server.routes import BASE, Route, find_route, split_path
from containerfs.server.wire import Wire, WireGone

log = logging.getLogger(__name__)


class Application:
    """All routes of one server.

    Args:
        admin: The admin routes; None where they don't exist.
    """

    def __init__(
        self,
        *,
        operations: Operations,
        admin: Admin | None,
        access: Access,
        conduct: Conduct,
        requests: RequestLog,
    ) -> None:
        self._operations = operations
        self._admin = admin
        self._access = access
        self._conduct = conduct
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        words = split_path(scope["raw_path"])
        entry = Entry(
            method=scope["method"],
            path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            operation=None,
            request_id=new_request_id(),
        )
        exchange = Exchange(entry, receive, send)
        try:
            if self._admin is not None and words[:1] == ("admin",):
                await self._administer(self._admin, words[1:], scope, exchange)
            else:
                self._requests.add(entry)
                await self._serve(entry, words, scope, exchange)
        except (WireGone, ClientDisconnect):
            await Wire.of(scope).gone.wait()  # or uvicorn would call it an unfinished answer
        except Exception:
            log.exception("request %s failed", entry.request_id)
            if exchange.is_answered:
                raise
            broken = Refusal(500, "The server had an error.", kind="server_error")
            await refusal_answer(broken)(scope, exchange.receive, exchange.send)

    async def _administer(
        self, admin: Admin, words: tuple[str, ...], scope: Scope, exchange: Exchange
    ) -> None:
        request = Request(scope, exchange.receive)
        try:
            self._access.check(request.headers)
            response = await admin.answer(request, words)
        except Refusal as refusal:
            response = refusal_answer(refusal)
        await response(scope, exchange.receive, exchange.send)

    async def _serve(
        self, entry: Entry, words: tuple[str, ...], scope: Scope, exchange: Exchange
    ) -> None:
        request = Request(scope, exchange.receive)
        try:
            self._access.check(request.headers)
            if words[:1] != (BASE,):
                raise Refusal(404, f"Invalid URL ({entry.method} {entry.path})")
            route = find_route(entry.method, words[1:], path=entry.path)
        except Refusal as refusal:
            await refusal_answer(refusal)(scope, exchange.receive, exchange.send)
            return
        entry.operation = route.operation
        rule = await self._wait(route, scope, target=f"{entry.path}?{entry.query}")

        async def carry_out(scope: Scope, receive: Receive, send: Send) -> None:
            response = await self._answer(route, Request(scope, receive))
            await response(scope, receive, send)

        if rule is None:
            await carry_out(scope, exchange.receive, exchange.send)
        else:
            await disturb(rule, carry_out, scope, exchange.receive, exchange.send)

    async def _wait(self, route: Route, scope: Scope, *, target: str) -> Rule | None:
        verdict = self._conduct.faults.judge(route.operation, target)
        latency = verdict.latency + self._conduct.behaviours.latency
        if latency:
            await Wire.of(scope).pause(latency)
        return verdict.rule

    async def _answer(self, route: Route, request: Request) -> Response:
        try:
            response: Response = await getattr(self._operations, route.operation)(
                request, *route.ids
            )
        except Refusal as refusal:
            return refusal_answer(refusal)
        return response
