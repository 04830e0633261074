"""One request out, one answer in: addresses, the key, redirects, and bounded bodies.

The key goes to the base URL's origin and nowhere else: a redirect is followed for GET only, and
only within that origin.
"""

import math
from functools import cached_property

import httpx

import containerfs
from containerfs.api.call import Call, PlainBody
from containerfs.api.connection import Connection
from containerfs.api.head import fields_of, get_head, post_head
from containerfs.api.multipart import FilePart
from containerfs.errors import ServerFault

MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Exchange:
    """Puts calls on the wire of one connection.

    Args:
        transport: What carries the requests; closed by whoever opened it.
    """

    def __init__(self, connection: Connection, *, transport: httpx.AsyncBaseTransport) -> None:
        self._connection = connection
        self._transport = transport
        self._base = httpx.URL(connection.base_url)
        self._path = self._base.raw_path.split(b"?", 1)[0].rstrip(b"/") + b"/"
        self._query = self._base.params.merge(dict(connection.query))
        self._headers = httpx.Headers(
            {
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # Content-Length is to mean the content's bytes
                "User-Agent": f"containerfs/{containerfs.__version__}",
            }
        )
        self._headers.update(connection.sent_headers())
        self._headers["Host"] = self._base.netloc.decode()
        self._content_headers = self._headers.copy()
        self._content_headers["Accept"] = "application/binary"
        self._transfer_limits = _limits(connection.transfer_timeout)
        self._other_limits = _limits(math.inf)  # a deadline of their own covers them

    async def send(
        self, call: Call, body: FilePart | PlainBody, *, first: httpx.Response | None = None
    ) -> httpx.Response:
        """Send *call* once and return its answer, whatever the status, with its body unread.

        Args:
            first: The answer to it that has come already.

        Raises:
            httpx.TransportError: No answer came.
            ServerFault: The answer is a redirect that is not followed.
        """
        target = self._target(call)
        limits = self._transfer_limits if call.is_transfer else self._other_limits
        response = first
        for _ in range(MOST_REDIRECTS + 1):
            if response is None:
                # The target is an extension of httpx: building a URL takes as long as the rest.
                request = httpx.Request(
                    call.method,
                    self._base,
                    headers=self._all_headers(call, body),
                    stream=body,
                    extensions={"timeout": limits, "target": target},
                )
                response = await self._transport.handle_async_request(request)
            if response.status_code not in _REDIRECTS:
                self._clear(response)
                return response
            await close(response)
            target = self._next_target(call, target, response)
            response = None
        raise ServerFault(f"{call}: more than {MOST_REDIRECTS} redirects", retriable=False)

    @cached_property
    def _content_fields(self) -> bytes:
        return fields_of(self._content_headers)

    def head(self, call: Call) -> bytes:
        """The head of a call for content, as `send` sends it.

        Raises:
            httpx.LocalProtocolError: A header of ours cannot be sent.
        """
        return get_head(self._target(call), self._content_fields)

    @cached_property
    def _fields(self) -> bytes:
        return fields_of(self._headers)

    def upload_head(self, call: Call, part: FilePart) -> bytes:
        """The head of a call that carries *part*, as `send` sends it.

        Raises:
            httpx.LocalProtocolError: A header of ours cannot be sent.
        """
        kind = part.content_type.encode("ascii")
        return post_head(self._target(call), self._fields, length=len(part), kind=kind)

    @property
    def transfer_limit(self) -> float:
        """Seconds that a transfer may stand still."""
        return self._transfer_limits["read"]

    def redacted(self, text: str) -> str:
        """*text* without the key, should the server have repeated it."""
        return self._connection.redacted(text)

    def _clear(self, response: httpx.Response) -> None:
        """Take the key out of the headers, which messages quote."""
        for name in ("x-request-id", "content-encoding"):
            value = response.headers.get(name)
            if value is not None:
                response.headers[name] = self.redacted(value)

    def _target(self, call: Call) -> bytes:
        path = self._path + call.target.encode("ascii")
        if not (self._query or call.query):
            return path
        return path + b"?" + str(self._query.merge(dict(call.query))).encode("ascii")

    def _all_headers(self, call: Call, body: FilePart | PlainBody) -> httpx.Headers:
        headers = self._content_headers if call.is_content else self._headers
        if not call.headers and call.method != "POST":
            return headers  # the request copies them
        headers = headers.copy()
        headers.update(call.headers)
        if call.method == "POST":
            headers["Content-Length"] = str(len(body))
        if body.content_type is not None:
            headers["Content-Type"] = body.content_type
        return headers

    def _next_target(self, call: Call, target: bytes, response: httpx.Response) -> bytes:
        status = response.status_code
        if call.method != "GET":
            raise ServerFault(f"{call}: {status}: a redirect", retriable=False)
        try:
            here = self._base.copy_with(raw_path=target)
            there = here.join(response.headers.get("location", ""))
        except httpx.InvalidURL as exc:
            raise ServerFault(f"{call}: {status}: a redirect to no URL", retriable=False) from exc
        if _origin(there) != _origin(self._base):
            where = self.redacted(repr(str(there.copy_with(query=None))[:200]))
            raise ServerFault(f"{call}: {status}: a redirect elsewhere: {where}", retriable=False)
        return there.raw_path


async def read_body(response: httpx.Response, *, most: int) -> bytes:
    """The whole body of an answer.

    Raises:
        ServerFault: It is longer than *most* bytes, or encoded although nobody asked for that.
        httpx.TransportError: It was cut.
    """
    check_encoding(response)
    pieces = []
    size = 0
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - tells mypy
    async for piece in stream:
        size += len(piece)
        if size > most:
            raise ServerFault(f"the answer is longer than {most} bytes", retriable=False)
        pieces.append(piece)
    return b"".join(pieces)


def check_encoding(response: httpx.Response) -> None:
    """Refuse a compressed body: its length would mean nothing, and it may be a bomb.

    Raises:
        ServerFault: The body is encoded.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise ServerFault(f"the answer is encoded as {encoding[:40]!r}", retriable=False)


async def close(response: httpx.Response) -> None:
    """Give the connection of *response* back; what is unread of it is dropped."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - tells mypy
    await stream.aclose()


def request_id(response: httpx.Response) -> str | None:
    """The server's name for the exchange, fit for a message."""
    text = response.headers.get("x-request-id", "")[:200]
    return "".join(char for char in text if "!" <= char <= "~") or None


def _limits(seconds: float) -> dict[str, float]:
    return {"connect": seconds, "read": seconds, "write": seconds}


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return (url.scheme, url.host, url.port)  # httpx leaves a scheme's default port out
