"""One request as the API describes it, before it has an address or a key."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from containerfs.api.multipart import FilePart
from containerfs.errors import NotFound

IDEMPOTENT = frozenset({"GET", "HEAD", "DELETE"})

_PLAIN = re.compile(r"[0-9A-Za-z_-]+")  # a segment that needs no escape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Call:
    """A method, a path below the base URL, and what goes with it.

    Args:
        path: The segments, unescaped: ids are opaque and may hold anything.
        json: The body, where it is JSON.
        part: Makes the body of an upload, once for each attempt.
    """

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    part: Callable[[], FilePart] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_content: bool = False  # the answer is a file's bytes, not JSON
    accepted: frozenset[int] = frozenset(range(200, 300))  # statuses that are no failure

    def __str__(self) -> str:
        text = f"{self.method} /{self.target}"
        return text if len(text) <= 400 else f"{text[:400]}…"

    @property
    def target(self) -> str:
        """The path, escaped, without a leading slash."""
        return "/".join(segment(text) for text in self.path)

    @property
    def is_idempotent(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.method in IDEMPOTENT

    @property
    def is_transfer(self) -> bool:
        """Whether it carries a file, one way or the other."""
        return self.part is not None or self.is_content

    def body(self) -> "FilePart | PlainBody":
        """A fresh body for one attempt."""
        if self.part is not None:
            return self.part()
        if self.json is None:
            return PlainBody(b"", content_type=None)
        return PlainBody(json.dumps(self.json).encode(), content_type="application/json")


class PlainBody(httpx.AsyncByteStream):
    """A body that is at hand, sent in one piece."""

    def __init__(self, content: bytes, *, content_type: str | None) -> None:
        self._content = content
        self.content_type = content_type
        self.is_whole = not content  # the last byte has been handed out

    def __len__(self) -> int:
        return len(self._content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.is_whole:
            raise StopAsyncIteration
        self.is_whole = True
        return self._content


def segment(text: str) -> str:
    """*text* as one segment of a path, which no server can take for two, or for none.

    Raises:
        NotFound: It is empty, and an empty id names nothing.
    """
    if _PLAIN.fullmatch(text):
        return text
    if not text:
        raise NotFound("an empty id names nothing")
    if text in (".", ".."):
        return text.replace(".", "%2E")
    return quote(text, safe="", errors="surrogatepass")
