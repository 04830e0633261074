"""Where an answer ends, judged by h11: what is read here h11 reads the same way, or it is refused.

The other way round there is a margin: where h11 guesses, an error is as good.
"""

import random
from collections.abc import Iterator

import h11
import httpx
import pytest

from containerfs.api.framing import LONGEST_LINE, framing
from containerfs.api.head import LONGEST_HEAD, answer_head, end_of_head, request_head

ROUNDS = 4000  # of each test with made-up answers, about a second

Reading = tuple[int, list[tuple[bytes, bytes]], bytes]

LINES = [
    b"Content-Length: 5",
    b"content-length:5",
    b"Content-Length: 5, 5",
    b"Content-Length: 5, 6",
    b"Content-Length: +5",
    b"Content-Length: 0x5",
    b"Content-Length: -1",
    b"Content-Length: ",
    b"Content-Length: 7",
    b"Content-Length: 000000005",
    b"Content-Length: 99999999999999999999999",
    b"Content-Length : 5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked ",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding:\x0bchunked",
    b"Connection: close",
    b"Connection: keep-alive, Close",
    b"X: a\x00b",
    b"X: a\rb",
    b"X: \xff\xfe",
    b"X:",
    b": x",
    b"X y: z",
    b" folded",
    b"\tfolded",
    b"no colon",
]
STARTS = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 404 ",
    b"HTTP/1.1 206",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1  200 OK",
    b"http/1.1 200 OK",
    b"\r\nHTTP/1.1 200 OK",
    b"ICY 200 OK",
]
BODIES = [
    b"hello",
    b"hellohello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"2\r\nhe\r\n3 \r\nllo\r\n00\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello\n\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhel",
    b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
    b"fffffffffffffffffffff\r\nhello",
    b"A\r\n0123456789\r\n0\r\n\r\n",
    b"",
]


def cut(data: bytes, dice: random.Random) -> list[bytes]:
    """*data* as a connection may bring it."""
    pieces = []
    while data:
        size = dice.choice((1, 2, 3, 7, 64, 4096))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def read(pieces: list[bytes]) -> Reading:
    came = iter(pieces)
    data = b""
    while (end := end_of_head(data, 0)) < 0:
        piece = next(came, None)
        if piece is None:
            raise httpx.RemoteProtocolError("ended")
        data += piece
    head = answer_head(data[:end])
    if head.status < 200:  # passed over by the link, which has its own tests
        raise httpx.RemoteProtocolError("in between")
    frames = framing(head)
    body = frames.take(data[end:])
    while frames.wanted:
        piece = next(came, None)
        if piece is None:
            frames.end()
        else:
            body += frames.take(piece)
    return head.status, head.fields, body


def read_by_h11(pieces: list[bytes]) -> Reading:
    judge = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
    judge.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    judge.send(h11.EndOfMessage())
    came = iter([*pieces, b""])
    status, fields, body = 0, [], b""
    while True:
        event = judge.next_event()
        if event is h11.NEED_DATA:
            judge.receive_data(next(came))
        elif isinstance(event, h11.Response):
            status, fields = event.status_code, event.headers.raw_items()
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, [(bytes(name), bytes(value)) for name, value in fields], body


def plain(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without what h11 tidies: headers that tell a length, spaces where lines were folded."""
    tidied = (b"content-length", b"transfer-encoding")
    kept = [(name, value) for name, value in fields if name.lower() not in tidied]
    return [(name, b" ".join(value.split())) for name, value in kept]


def answers(dice: random.Random) -> Iterator[bytes]:
    for _ in range(ROUNDS):
        lines = dice.choices(LINES, k=dice.randrange(4))
        end = dice.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
        head = end.join([dice.choice(STARTS), *lines, b"", b""])
        data = head + dice.choice(BODIES)
        if dice.random() < 0.3:
            at = dice.randrange(len(data))
            data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        yield data


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_is_what_h11_reads(seed: int) -> None:
    dice = random.Random(seed)
    taken = 0
    for data in answers(dice):
        pieces = cut(data, dice)
        try:
            ours = read(pieces)
        except httpx.RemoteProtocolError:
            continue
        taken += 1
        status, fields, body = read_by_h11([data])
        assert ours[0] == status, data
        assert ours[2] == body, data
        assert plain(ours[1]) == plain(fields), data
    assert taken > ROUNDS / 20


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"Server: x", b"Date: today", b'ETag: "a"'],
        [b"Connection: keep-alive", b"X-Empty:"],
        [b"X-Latin: \xe9", b"X-Tab: a\tb"],
        [b"X-Folded: a", b"  b"],
    ],
)
@pytest.mark.parametrize("body", ["measured", "chunked", "unmeasured"])
@pytest.mark.parametrize("seed", range(5))
def test_a_sound_answer_is_read_however_it_is_cut(
    fields: list[bytes], body: str, seed: int
) -> None:
    dice = random.Random(seed)
    content = dice.randbytes(5000)
    sent = content
    lines = [b"HTTP/1.1 200 OK", *fields]
    if body == "measured":
        lines.append(b"Content-Length: 5000")
    if body == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        chunks = [content[at : at + 700] for at in range(0, 5000, 700)]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        sent += b"0\r\nX-Trailer: y\r\n\r\n"
    data = b"\r\n".join([*lines, b"", sent])
    assert read(cut(data, dice))[2] == content
    assert read([data]) == read_by_h11([data])


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * (LONGEST_LINE + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"
        + b"x" * LONGEST_LINE
        + b"\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"X: y\r\n" * LONGEST_LINE
        + b"\r\n",
    ],
)
def test_lines_between_chunks_are_bounded(data: bytes) -> None:
    for pieces in ([data], [data[at : at + 100] for at in range(0, len(data), 100)]):
        with pytest.raises(httpx.RemoteProtocolError):
            read(pieces)


def request(**headers: str) -> httpx.Request:
    return httpx.Request("GET", "http://x/path", headers={"Host": "x", **headers})


def test_a_request_is_what_h11_reads() -> None:
    head, length = request_head(request(**{"X-One": "1", "Content-Length": "3"}))
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (b"GET", b"/path")
    assert (b"x-one", b"1") in list(event.headers)
    assert length == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X": "a\nb"},
        {"X": "a\x00"},
        {"X Y": "a"},
        {"X:": "a"},
        {"Content-Length": "5x"},
        {"Content-Length": ""},
        {"content-length": "5", "Content-Length": "5"},
        {"Transfer-Encoding": "chunked"},
        {"host": "other"},
    ],
)
def test_headers_that_would_be_another_request_are_not_sent(headers: dict[str, str]) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_head(request(**headers))


@pytest.mark.parametrize("target", [b"/a b", b"/a\r\nX: y", b"/\xff", b"/\x00"])
def test_a_target_is_one_word(target: bytes) -> None:
    asked = httpx.Request("GET", "http://x/", extensions={"target": target})
    with pytest.raises(httpx.LocalProtocolError):
        request_head(asked)
