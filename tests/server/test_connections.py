"""What a connection takes and gives, byte by byte."""

import pytest

GET = "GET /v1/containers HTTP/1.1\r\n"


@pytest.mark.parametrize(
    "request_text",
    [
        "nonsense\r\n\r\n",
        f"{GET}\r\n",
        f"{GET}Host: a\r\nHost: b\r\n\r\n",
        f"{GET}Host: a\r\nno header\r\n\r\n",
        f"{GET}Host: a\r\nX: {'x' * 262_144}",
        "GET /v1/containers HTTP/3.0\r\nHost: a\r\n\r\n",
        "POST /v1/containers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /v1/containers HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /v1/containers HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_400_and_the_end(shared_server, connect, request_text):
    connection = connect(shared_server)
    connection.send(request_text.encode())
    head = connection.read_head()
    assert head.startswith("HTTP/1.1 400 ")
    assert "x-request-id: req_" in head
    connection.read_all()


def test_requests_that_are_sent_at_once_are_answered_in_order(shared_server, connect):
    connection = connect(shared_server)
    paths = [f"/v1/containers/none-{number}" for number in range(20)]
    requests = "".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths)
    connection.send(f"{requests}{GET}Host: a\r\nConnection: close\r\n\r\n".encode())
    answers = connection.read_all().decode()
    places = [answers.index(f"'{path.split('/')[-1]}'") for path in paths]
    assert places == sorted(places)
    assert answers.count("HTTP/1.1 404") == 20
    assert answers.count("HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        ({"kind": "answer", "status": 204, "body": "none"}, "GET"),
        ({"kind": "answer", "status": 304, "body": "none"}, "GET"),
        ({"kind": "answer", "status": 200, "body": "none"}, "HEAD"),
    ],
)
def test_an_answer_that_may_have_no_body_has_none(server, connect, fault, method):
    server.set_faults(fault)
    connection = connect(server)
    connection.request(method, "/v1/containers")
    connection.read_head()
    connection.request("GET", "/v1/containers")
    assert connection.read_head().startswith("HTTP/1.1 ")
