"""Faults carried out: answers replaced, held back, cut, or stretched, connections reset."""

import asyncio
import base64
import email.utils
import math
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from containerfs.server.answers import refusal_answer
from containerfs.server.faults import Fault, Rule
from containerfs.server.refusals import Refusal
from containerfs.server.wire import Wire, WireGone, until_gone

_FILLER = bytes(64 * 1024)
_BODILESS = (204, 304)  # statuses; what came after such an answer would be the next one
_SHAPED = ("cut", "stall-body", "drip", "endless")


async def disturb(rule: Rule, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request as the fault wants it; *app* is what it would have been answered by.

    Raises:
        WireGone: The fault has ended the connection.
    """
    fault, wire = rule.fault, Wire.of(scope)
    if fault.kind == "reset":
        await wire.reset(receive)
        raise WireGone
    if fault.kind == "stall":
        await _hold(fault, wire, receive)
        await app(scope, receive, send)
    elif fault.kind == "reset-after":
        await app(scope, receive, _swallow)
        await wire.reset(receive)
        raise WireGone
    elif fault.kind in _SHAPED:
        await app(scope, receive, _Shaped(fault, wire, receive, send))
    else:
        if fault.done:
            await app(scope, receive, _swallow)
        await _replacement(rule)(scope, receive, send)


async def _hold(fault: Fault, wire: Wire, receive: Receive) -> None:
    if fault.seconds is None:
        await until_gone(receive)
        raise WireGone
    await wire.pause(fault.seconds)


async def _swallow(message: Message) -> None:
    pass


def _replacement(rule: Rule) -> Response:
    fault = rule.fault
    if fault.kind == "answer":
        body = fault.body.encode() if fault.body_base64 is None else _decoded(fault.body_base64)
        response = Response(b"" if fault.status in _BODILESS else body, fault.status)
        for name, value in fault.headers:
            response.headers[name] = value
        return response
    if fault.kind == "rate-limit":
        wait = math.ceil(rule.wait)
        return _too_many({"retry-after": str(max(1, wait))})
    headers = _retry_headers(fault)
    if fault.status == 429:
        return _too_many(headers)
    if fault.status in (502, 503, 504):
        page = f"<html><body><h1>{fault.status}</h1>upstream failed</body></html>"
        return Response(page, fault.status, headers, media_type="text/html")
    message = "The server had an error while processing your request."
    return refusal_answer(Refusal(fault.status, message, kind="server_error", headers=headers))


def _decoded(text: str) -> bytes:
    return base64.b64decode(text)


def _too_many(headers: dict[str, str]) -> Response:
    message = "Rate limit reached for requests."
    return refusal_answer(
        Refusal(429, message, kind="requests", code="rate_limit_exceeded", headers=headers)
    )


def _retry_headers(fault: Fault) -> dict[str, str]:
    if fault.header == "none":
        return {}
    if fault.header == "retry-after-date":
        when = email.utils.formatdate(time.time() + float(fault.value), usegmt=True)
        return {"retry-after": when}
    return {fault.header: fault.value}


class _Shaped:
    """A `send` that lets an answer through only as the fault wants it."""

    def __init__(self, fault: Fault, wire: Wire, receive: Receive, send: Send) -> None:
        self._fault = fault
        self._wire = wire
        self._receive = receive
        self._send = send
        self._sent = 0  # bytes of the body
        self._is_over = False
        shapes: dict[str, Callable[[Message], Awaitable[None]]] = {
            "cut": self._cut,
            "stall-body": self._stall,
            "drip": self._drip,
            "endless": self._endless,
        }
        self._shape = shapes[fault.kind]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self._shape(message)
        elif self._fault.kind == "endless":
            headers = [pair for pair in message["headers"] if pair[0] != b"content-length"]
            await self._send({**message, "headers": headers})
        else:
            await self._send(message)

    async def _cut(self, message: Message) -> None:
        rest = await self._up_to_fault(message)
        if rest is not None:
            await self._wire.close(self._receive)
            raise WireGone

    async def _stall(self, message: Message) -> None:
        rest = await self._up_to_fault(message)
        if rest is not None:
            self._is_over = True
            await _hold(self._fault, self._wire, self._receive)
            await self._send(rest)

    async def _up_to_fault(self, message: Message) -> Message | None:
        """Send what comes before the fault's byte; the rest if that byte is in this message."""
        body = message.get("body", b"")
        room = self._fault.at - self._sent
        if self._is_over or len(body) < room:
            self._sent += len(body)
            await self._send(message)
            return None
        await self._send({**message, "body": body[:room], "more_body": True})
        return {**message, "body": body[room:]}

    async def _drip(self, message: Message) -> None:
        body = message.get("body", b"")
        for index in range(len(body)):
            await self._send({**message, "body": body[index : index + 1], "more_body": True})
            await self._wire.pause(1.0 if self._fault.seconds is None else self._fault.seconds)
        if not message.get("more_body", False):
            await self._send({**message, "body": b""})

    async def _endless(self, message: Message) -> None:
        await self._send({**message, "more_body": True})
        while not message.get("more_body", False) and not self._wire.is_closing:
            body = {"type": "http.response.body", "body": _FILLER, "more_body": True}
            await self._send(body)
            await asyncio.sleep(0)
        if self._wire.is_closing:
            raise WireGone
