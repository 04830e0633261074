"""A request for a file's content, or for a part of it."""

from typing import NamedTuple

import httpx

from containerfs.api.body import Body, opened, range_header
from containerfs.api.call import Call
from containerfs.api.session import Attempt, Session

_WHOLE = frozenset({200, 204})  # statuses that answer a request for a file
_PARTS = _WHOLE | {206, 416}  # and for a part of one


class Part(NamedTuple):
    """Which bytes are wanted: *length* of them (None: all that follow) from *offset* on."""

    offset: int
    length: int | None

    @property
    def is_whole(self) -> bool:
        """It is all of the file."""
        return not self.offset and self.length is None


class Ranges:
    """Whether the server grants ranges, as its latest answer showed.

    Attributes:
        are_granted: None before a part was asked for.
    """

    def __init__(self) -> None:
        self.are_granted: bool | None = None

    def note(self, status: int, part: Part, body: Body) -> None:
        """An answer to a request for *part* came."""
        if status in (206, 416):
            self.are_granted = True
        elif part.offset or (part.length is not None and _is_more(body.total, part.length)):
            self.are_granted = False  # else the part is all there is, which proves nothing


class ContentRequest:
    """A file's content, open inside `async with`.

    Not a generator, which trio would have to keep track of for each small file.

    Args:
        path: Of the content, below the base URL.
        ranges: Told whether the part was granted.
        first: An attempt that has been made already, and holds its place.
    """

    def __init__(
        self,
        session: Session,
        path: tuple[str, ...],
        *,
        part: Part,
        ranges: Ranges,
        first: Attempt | None = None,
    ) -> None:
        self._session = session
        self._part = part
        self._ranges = ranges
        self._call = Call(
            method="GET",
            path=path,
            headers=range_header(part.offset, part.length),
            is_content=True,
            accepted=_WHOLE if part.is_whole else _PARTS,
        )
        self._first = first
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> Body:
        """The body, its bytes still to come.

        Raises:
            FileSystemError: As every operation of the client.
        """
        self._response = response = await self._session.open(self._call, first=self._first)
        offset, length = self._part
        try:
            body = opened(response, what=str(self._call), offset=offset, length=length)
        except BaseException:
            await self._session.close(response)
            raise
        if not self._part.is_whole:
            self._ranges.note(response.status_code, self._part, body)
        return body

    async def __aexit__(self, *_: object) -> None:
        assert self._response is not None  # noqa: S101 - tells mypy
        await self._session.close(self._response)


def _is_more(total: int | None, length: int) -> bool:
    return total is not None and total > length
