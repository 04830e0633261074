"""The answers of operations: JSON, or a content that streams from disk."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from containerfs.server.contents import INLINE
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
    """The bytes *start* to *stop* of a descriptor, which it closes. Memory: one chunk."""

    def __init__(
        self,
        fd: int,
        *,
        start: int,
        stop: int,
        status: int,
        headers: Mapping[str, str],
        tells_length: bool,
    ) -> None:
        super().__init__(None, status, dict(headers), media_type="application/octet-stream")
        self._fd = fd
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
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            offset = self._start
            more = True
            while more:
                if wire.is_closing:
                    raise WireGone
                data = await self._read(offset, min(_CHUNK, self._stop - offset))
                offset += len(data)
                more = offset < self._stop
                await send({"type": "http.response.body", "body": data, "more_body": more})
        finally:
            os.close(self._fd)

    async def _read(self, offset: int, size: int) -> bytes:
        if self._stop - self._start <= INLINE:
            return os.pread(self._fd, size, offset)
        return await asyncio.to_thread(os.pread, self._fd, size, offset)
