"""The heads of HTTP/1.1 messages: requests written, answers read.

Strict both ways: nothing that is written can hold a second header or request, and what an answer's
head leaves in doubt (two lengths, an unknown coding) is an error, not a guess.
"""

import re
from typing import NamedTuple

import httpx

LONGEST_HEAD = 100 * 1024  # bytes of an answer's head

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*+"
_NAME = re.compile(_TOKEN)
_SENT_VALUE = re.compile(_VALUE)
_TARGET = re.compile(rb"[\x21-\x7e]+")
# Possessive (++, *+), so that no input makes them go back and try again.
_ANSWER = re.compile(
    rb"HTTP/1\.([01]) ([1-9]\d\d)(?: %(value)s)?+(\r?\n)(?:%(token)s:%(value)s\r?\n)*+\r?\n"
    % {b"token": _TOKEN, b"value": _VALUE}
)
_FIELD = re.compile(rb"(%s):(%s)\r?\n" % (_TOKEN, _VALUE))
_FOLD = re.compile(rb"[ \t]*+\r?\n[ \t]++")
_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\d{1,20}")
_BODILESS = frozenset({204, 304})

Fields = list[tuple[bytes, bytes]]


class AnswerHead(NamedTuple):
    """What an answer says before its body."""

    status: int
    fields: Fields
    length: int | None  # bytes of the body; None where its end is told otherwise
    is_chunked: bool
    is_last: bool  # the connection carries no other answer after this one


def request_head(request: httpx.Request) -> tuple[bytes, int]:
    """A request's head as it is sent, and the bytes of body that it announces.

    Raises:
        httpx.LocalProtocolError: It cannot be sent as one request.
    """
    method = request.method.encode("ascii")
    target = request.extensions.get("target") or request.url.raw_path
    if not (_NAME.fullmatch(method) and _TARGET.fullmatch(target)):
        raise httpx.LocalProtocolError("not a method and a target")
    lines = [method + b" " + target + b" HTTP/1.1"]
    hosts = 0
    lengths: list[bytes] = []
    for name, value in request.headers.raw:
        if not (_NAME.fullmatch(name) and _SENT_VALUE.fullmatch(value)):
            raise httpx.LocalProtocolError("a header is not one line")
        lines.append(name + b": " + value)
        match name.lower():
            case b"host":
                hosts += 1
            case b"content-length":
                lengths.append(value)
            case b"transfer-encoding" | b"upgrade" | b"expect":
                raise httpx.LocalProtocolError(f"the header {name.decode()} cannot be sent")
    if hosts != 1 or len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise httpx.LocalProtocolError("there must be one Host and at most one Content-Length")
    return b"\r\n".join([*lines, b"", b""]), int(lengths[0]) if lengths else 0


def fields_of(headers: httpx.Headers) -> bytes:
    """The lines of *headers* and the empty line, for `get_head` and `post_head`.

    Raises:
        httpx.LocalProtocolError: They cannot be sent.
    """
    request = httpx.Request("GET", "http://host/", headers=headers)
    return request_head(request)[0].partition(b"\r\n")[2]


def get_head(target: bytes, fields: bytes) -> bytes:
    """The head of a GET.

    Raises:
        httpx.LocalProtocolError: *target* is none.
    """
    if not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError("not a target")
    return b"GET %b HTTP/1.1\r\n%b" % (target, fields)


def post_head(target: bytes, fields: bytes, *, length: int, kind: bytes) -> bytes:
    """The head of a POST.

    Args:
        fields: Those that all have, without a length.
        length: Bytes of the body.
        kind: Its content type.

    Raises:
        httpx.LocalProtocolError: *target* is none, or *kind* is not one line.
    """
    if not (_TARGET.fullmatch(target) and _SENT_VALUE.fullmatch(kind)):
        raise httpx.LocalProtocolError("not a target and a content type")
    line = b"POST %b HTTP/1.1\r\nContent-Length: %d\r\nContent-Type: %b\r\n%b"
    return line % (target, length, kind, fields)


def end_of_head(data: bytes | bytearray, start: int) -> int:
    """Where the empty line that ends a head is over, or -1 where it has not come.

    Args:
        start: Bytes that an earlier look has seen.
    """
    match = _END.search(data, max(0, start - 3))
    return match.end() if match else -1


def is_field(line: bytes) -> bool:
    """Whether a line, its end included, is one header."""
    return _FIELD.fullmatch(line) is not None


def answer_head(data: bytes) -> AnswerHead:
    """What a whole head says, its empty line included.

    Raises:
        httpx.RemoteProtocolError: It is no HTTP/1 answer, or leaves in doubt where its body ends.
    """
    match = _ANSWER.fullmatch(_unfolded(data))
    if match is None:
        raise httpx.RemoteProtocolError("the answer is not HTTP/1.1")
    status = int(match[2])
    fields = [
        (name, value.strip(b" \t")) for name, value in _FIELD.findall(match.string, match.end(3))
    ]
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    is_last = match[1] == b"0"
    for name, value in fields:
        match name.lower():
            case b"content-length":
                lengths.update(part.strip(b" \t") for part in value.split(b","))
            case b"transfer-encoding":
                codings.append(value.lower())
            case b"connection":
                is_last = is_last or b"close" in re.split(rb"[ \t]*,[ \t]*", value.lower())
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise httpx.RemoteProtocolError("the answer's length is in doubt")
    if codings and codings != [b"chunked"]:
        raise httpx.RemoteProtocolError("the answer has an unknown transfer coding")
    length = int(lengths.pop()) if lengths else None
    if status in _BODILESS or status < 200:
        return AnswerHead(status, fields, 0, is_chunked=False, is_last=is_last)
    if codings:
        # A length beside the coding is wrong; what follows on this connection is not believed.
        return AnswerHead(status, fields, None, True, is_last or length is not None)
    return AnswerHead(status, fields, length, False, is_last or length is None)


def _unfolded(data: bytes) -> bytes:
    """The head with each header on one line, as RFC 9112 5.2 asks a client to read it."""
    if b"\n " not in data and b"\n\t" not in data:
        return data
    first = data.index(b"\n") + 1
    if data[first : first + 1] in (b" ", b"\t"):
        raise httpx.RemoteProtocolError("the answer begins with half a header")
    return _FOLD.sub(b" ", data)
