"""One request out, one answer in: addresses, the key, redirects, and bounded bodies.

The key goes to the base URL's origin and nowhere else: a redirect is followed for GET only, and
only within that origin.
"""

import math

import httpx

import containerfs
from containerfs.api.call import Call, PlainBody
from containerfs.api.connection import Connection
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
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # Content-Length is to mean the content's bytes
            "User-Agent": f"containerfs/{containerfs.__version__}",
            **connection.sent_headers(),
        }

    async def send(self, call: Call, body: FilePart | PlainBody) -> httpx.Response:
        """Send *call* once and return its answer, whatever the status, with its body unread.

        Raises:
            httpx.TransportError: No answer came.
            ServerFault: The answer is a redirect that is not followed.
        """
        url = self._address(call)
        for _ in range(MOST_REDIRECTS + 1):
            request = httpx.Request(
                call.method,
                url,
                headers=self._all_headers(call, body),
                stream=body,
                extensions={"timeout": self._time_limits(call)},
            )
            response = await self._transport.handle_async_request(request)
            if response.status_code not in _REDIRECTS:
                self._clear(response)
                return response
            await close(response)
            url = self._next_address(call, url, response)
        raise ServerFault(f"{call}: more than {MOST_REDIRECTS} redirects", retriable=False)

    def redacted(self, text: str) -> str:
        """*text* without the key, should the server have repeated it."""
        return self._connection.redacted(text)

    def _clear(self, response: httpx.Response) -> None:
        """Take the key out of the headers, which messages quote."""
        for name in ("x-request-id", "content-encoding"):
            if name in response.headers:
                response.headers[name] = self.redacted(response.headers[name])

    def _address(self, call: Call) -> httpx.URL:
        base = self._base.raw_path.split(b"?", 1)[0].rstrip(b"/")
        path = base + b"/" + call.target.encode()
        query = self._base.params.merge(dict(self._connection.query)).merge(dict(call.query))
        full = path + b"?" + str(query).encode() if query else path
        return self._base.copy_with(raw_path=full)

    def _all_headers(self, call: Call, body: FilePart | PlainBody) -> dict[str, str]:
        headers = {**self._headers, **call.headers, "Host": self._base.netloc.decode()}
        if call.method == "POST":
            headers["Content-Length"] = str(len(body))
        if body.content_type is not None:
            headers["Content-Type"] = body.content_type
        return headers

    def _time_limits(self, call: Call) -> dict[str, float]:
        limit = self._connection.transfer_timeout if call.is_transfer else math.inf
        return {"connect": limit, "read": limit, "write": limit}

    def _next_address(self, call: Call, url: httpx.URL, response: httpx.Response) -> httpx.URL:
        status = response.status_code
        if call.method != "GET":
            raise ServerFault(f"{call}: {status}: a redirect", retriable=False)
        try:
            target = url.join(response.headers.get("location", ""))
        except httpx.InvalidURL as exc:
            raise ServerFault(f"{call}: {status}: a redirect to no URL", retriable=False) from exc
        if _origin(target) != _origin(self._base):
            where = self.redacted(repr(str(target.copy_with(query=None))[:200]))
            raise ServerFault(f"{call}: {status}: a redirect elsewhere: {where}", retriable=False)
        return target


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


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return (url.scheme, url.host, url.port)  # httpx leaves a scheme's default port out
