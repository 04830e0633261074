"""The answers of operations: JSON, or a content that streams from disk."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from containerfs.server.contents import INLINE, Opened
from containerfs.server.refusals import Refusal
from containerfs.server.wire import Wire, WireGone

_CHUNK = 1024 * 1024  # bytes


def json_answer(value: Any, *, status: int = 200) -> Response:
    """*value* as JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")


def refusal_answer(refusal: Refusal, *, status: int | None = None) -> Response:
    """A refusal's documented body, with its own status or another."""
    return Response(
        refusal.body, status or refusal.status, refusal.headers, media_type="application/json"
    )


class ContentAnswer(Response):
    """The bytes *start* to *stop* of a content, which it closes. Memory: one chunk."""

    def __init__(
        self,
        opened: Opened,
        *,
        start: int,
        stop: int,
        status: int,
        headers: Mapping[str, str],
        tells_length: bool,
    ) -> None:
        super().__init__(None, status, dict(headers), media_type="application/octet-stream")
        self._opened = opened
        self._start = start
        self._stop = stop
        # Starlette counts the body it was given, which is none.
        if tells_length:
            self.headers["content-length"] = str(stop - start)
        elif "content-length" in self.headers:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; raises WireGone if the client goes away."""
        wire = Wire.of(scope)
        try:
            # What is small is read before anything else can happen: then it may be removed.
            data = await self._read(self._start)
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            offset = self._start + len(data)
            while offset < self._stop:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                if wire.is_closing:
                    raise WireGone
                data = await self._read(offset)
                offset += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": False})
        finally:
            os.close(self._opened.fd)

    async def _read(self, offset: int) -> bytes:
        fd, at = self._opened.fd, self._opened.start + offset
        size = min(_CHUNK, self._stop - offset)
        if self._stop - self._start <= INLINE:
            data = os.pread(fd, size, at)
        else:
            data = await asyncio.to_thread(os.pread, fd, size, at)
        if size and not data:
            raise OSError(f"a content ends after {offset} bytes")
        return data
