"""Multipart uploads, parsed as they arrive: the file goes to disk, nothing gathers in memory."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from starlette.requests import Request

from containerfs.server import refusals
from containerfs.server.contents import Incoming
from containerfs.server.refusals import Refusal

_MAX_HEADER = 1024 * 1024  # bytes of one part header; names may be long
_MAX_FIELD = 64 * 1024  # bytes of a part that is no file
_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+.^`|~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Form:
    """What came in: a file's name, its content being in the Incoming, or a file_id, or neither."""

    filename: str | None
    file_id: str | None


async def read_form(
    request: Request, incoming: Incoming, *, check_size: Callable[[int], None]
) -> Form:
    """Read a multipart body, its part `file` into *incoming*.

    Args:
        check_size: Called with the file's size so far; may refuse it.

    Raises:
        Refusal: The body is no multipart form, is cut short, or has parts nobody knows.
        ClientDisconnect: The client went away.
    """
    boundary = parameters(request.headers.get("content-type", "")).get("boundary", "")
    if not boundary:
        raise _malformed("it has no boundary")
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary.encode("latin-1", "replace"),
            reader.callbacks,  # type: ignore[arg-type]  # a TypedDict that can't be built by name
            max_header_size=_MAX_HEADER,
        )
        async for chunk in request.stream():
            parser.write(chunk)
            for data in reader.taken():
                await incoming.write(data)
                check_size(incoming.size)
    except FormParserError as exc:
        raise _malformed(str(exc)) from exc
    return reader.form()


def parameters(header: str) -> dict[str, str]:
    """The parameters of a header value, quoted strings unquoted, `name*` decoded (RFC 8187)."""
    found = {}
    for name, value in _PARAMETER.findall(header):
        unquoted = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
        found[name.lower()] = unquoted
    for name in [name for name in found if name.endswith("*")]:
        charset, _, text = found[name].partition("'")
        found[name[:-1]] = unquote(text.partition("'")[2], charset or "utf-8", "replace")
    return found


def _malformed(why: str) -> Refusal:
    return Refusal(400, f"Could not parse multipart form: {why}.")


class _Reader:
    """Takes the parser's callbacks, keeps the file's pieces until they are fetched."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._finish_headers,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        self._field = self._value = b""
        self._disposition = ""
        self._part = ""
        self._filename: str | None = None
        self._file_id: bytes | None = None
        self._pieces: list[bytes] = []
        self._is_over = False

    def taken(self) -> list[bytes]:
        """The file's bytes since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def form(self) -> Form:
        """The form, when the body is over; raises Refusal."""
        if not self._is_over:
            raise _malformed("it ends before its closing boundary")
        file_id = None if self._file_id is None else self._file_id.decode("utf-8", "replace")
        return Form(self._filename, file_id)

    def _begin_part(self) -> None:
        self._part = self._disposition = ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value.decode("utf-8", "replace")
        self._field = self._value = b""

    def _finish_headers(self) -> None:
        told = parameters(self._disposition)
        self._part = told.get("name", "")
        if self._part == "file":
            if self._filename is not None:
                raise refusals.invalid("file", "expected one file, but got several.")
            if not told.get("filename"):
                raise refusals.invalid("file", "expected a file with a name.")
            self._filename = told["filename"]
        elif self._part == "file_id":
            self._file_id = b""
        else:
            raise refusals.unknown(self._part)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._pieces.append(data[start:end])
        elif self._file_id is not None:
            self._file_id += data[start:end]
            if len(self._file_id) > _MAX_FIELD:
                raise refusals.invalid("file_id", "string too long.")

    def _end(self) -> None:
        self._is_over = True
