"""One request and its answer as the server sees them pass: counted, logged, with a request id."""

from starlette.types import Message, Receive, Send

from containerfs.server.requestlog import Entry


class Exchange:
    """Stands between an application and the connection."""

    def __init__(self, entry: Entry, receive: Receive, send: Send) -> None:
        self._entry = entry
        self._receive = receive
        self._send = send
        self._id_header = (b"x-request-id", entry.request_id.encode())

    @property
    def is_answered(self) -> bool:
        """Whether the answer has begun."""
        return self._entry.status is not None

    async def receive(self) -> Message:
        """The next message from the client."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._entry.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """The next message to the client."""
        if message["type"] == "http.response.start":
            self._entry.status = message["status"]
            message["headers"] = [*message["headers"], self._id_header]
        else:
            self._entry.bytes_out += len(message.get("body", b""))
        await self._send(message)
