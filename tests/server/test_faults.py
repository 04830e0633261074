"""Each fault, as it looks at the socket, and which requests suffer it."""

import email.utils
import json
import socket
import time

import pytest

from containerfs.server.faults import OPERATIONS, Fault, FaultError, fault_from_json, parse_fault


def test_a_fault_is_parsed_from_words():
    assert parse_fault("operation=content,kind=cut,at=1000,count=1") == Fault(
        operation="content", kind="cut", at=1000, count=1
    )
    assert parse_fault("kind=status,status=429,header=retry-after,value=2,probability=0.5,seed=7")
    assert parse_fault("kind=stall,seconds=1.5").seconds == 1.5


@pytest.mark.parametrize(
    "text",
    [
        "cut",
        "at=5",
        "kind=explode",
        "kind=cut,at=many",
        "kind=cut,operation=lists",
        "kind=status,header=retry-soon",
        "kind=cut,colour=red",
        "kind=cut,at=-1",
        "kind=cut,probability=2",
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(text):
    with pytest.raises(FaultError):
        parse_fault(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind=odd", "'odd' is no kind of a fault: status, rate-limit,"),
        ("kind=cut,operation=odd", "'odd' is no operation of a fault: [*], list_containers,"),
        ("kind=status,header=odd", "'odd' is no header of a fault: none, retry-after,"),
        ("kind=cut,odd=1", "a fault has no 'odd': it has kind, operation,"),
        ("kind=cut,count=odd", "'odd' is no count of a fault$"),
        ("count=1", "a fault needs a kind: status,"),
    ],
)
def test_what_a_fault_may_be_is_told(text, said):
    with pytest.raises(FaultError, match=said):
        parse_fault(text)


def test_a_fault_from_json_has_the_same_members():
    assert fault_from_json({"kind": "cut", "at": 5}) == parse_fault("kind=cut,at=5")
    with pytest.raises(FaultError):
        fault_from_json({"kind": "cut", "at": [5]})


@pytest.fixture
def file_path(server):
    """The path of a file of 1000 bytes."""
    container = server.new_container()
    file = server.upload(container, "a", b"0123456789" * 100)
    server.forget_requests()
    return f"/v1/containers/{container}/files/{file['id']}"


def statuses(server, path, count):
    return [server.exchange("GET", path)[0] for _ in range(count)]


def test_a_fault_given_at_the_start_strikes(server_factory):
    server = server_factory(
        admin=False, faults=[{"kind": "status", "status": 500, "count": 1}, {"kind": "latency"}]
    )
    assert statuses(server, "/v1/containers", 2) == [500, 200]


def test_faults_strike_by_operation_count_and_start(server):
    server.set_faults(
        {"kind": "status", "status": 503, "operation": "list_containers", "after": 1, "count": 2}
    )
    assert server.exchange("GET", "/v1/containers/none")[0] == 404
    assert statuses(server, "/v1/containers", 5) == [200, 503, 503, 200, 200]
    (fault,) = server.admin("GET", "/admin/faults")
    assert (fault["seen"], fault["fired"]) == (5, 2)
    server.admin("DELETE", "/admin/faults")
    assert server.admin("GET", "/admin/faults") == []


def test_faults_strike_by_probability_and_the_same_way_for_one_seed(server):
    fault = {"kind": "status", "status": 500, "probability": 0.5, "seed": 3}
    server.set_faults(fault)
    first = statuses(server, "/v1/containers", 20)
    assert set(first) == {200, 500}
    server.set_faults(fault)
    assert statuses(server, "/v1/containers", 20) == first


def test_faults_strike_by_a_part_of_the_path_or_query(server):
    server.set_faults({"kind": "status", "status": 500, "match": "limit=7"})
    assert statuses(server, "/v1/containers?limit=7", 1) == [500]
    assert statuses(server, "/v1/containers?limit=8", 1) == [200]


def test_the_first_fault_that_fires_decides(server):
    server.set_faults(
        {"kind": "latency", "seconds": 0.001},
        {"kind": "status", "status": 500, "count": 1},
        {"kind": "status", "status": 502, "count": 1},
    )
    assert statuses(server, "/v1/containers", 3) == [500, 502, 200]


def test_bad_faults_are_refused_and_change_nothing(server):
    server.set_faults({"kind": "cut", "at": 5})
    for bad in ([{"kind": "x"}], {"kind": "cut"}, [5]):
        answer = server.exchange("PUT", "/admin/faults", json.dumps(bad).encode())
        assert answer[0] == 400
    assert len(server.admin("GET", "/admin/faults")) == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_can_be_struck(server, file_path, operation):
    container = file_path.rpartition("/files/")[0]
    requests = {
        "list_containers": ("GET", "/v1/containers"),
        "create_container": ("POST", "/v1/containers"),
        "retrieve_container": ("GET", container),
        "delete_container": ("DELETE", container),
        "list_files": ("GET", f"{container}/files"),
        "create_file": ("POST", f"{container}/files"),
        "retrieve_file": ("GET", file_path),
        "delete_file": ("DELETE", file_path),
        "content": ("GET", f"{file_path}/content"),
    }
    server.set_faults({"kind": "status", "status": 500, "operation": operation})
    assert server.exchange(*requests[operation])[0] == 500
    (entry,) = server.requests()
    assert (entry["operation"], entry["status"]) == (operation, 500)


@pytest.mark.parametrize(
    ("header", "value", "name"),
    [
        ("retry-after", "7", "retry-after"),
        ("retry-after-ms", "1500", "retry-after-ms"),
        ("x-should-retry", "false", "x-should-retry"),
    ],
)
def test_a_429_says_when_to_come_back(server, header, value, name):
    server.set_faults({"kind": "status", "status": 429, "header": header, "value": value})
    status, headers, body = server.exchange("GET", "/v1/containers")
    assert (status, headers[name]) == (429, value)
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    assert headers["x-request-id"].startswith("req_")


def test_a_429_may_tell_a_date_or_nothing(server):
    server.set_faults(
        {
            "kind": "status",
            "status": 429,
            "header": "retry-after-date",
            "value": "3600",
            "count": 1,
        },
        {"kind": "status", "status": 429},
    )
    when = server.exchange("GET", "/v1/containers")[1]["retry-after"]
    assert email.utils.parsedate_to_datetime(when).timestamp() > time.time() + 1800
    assert server.exchange("GET", "/v1/containers")[1]["retry-after"] is None


@pytest.mark.parametrize(
    ("status", "kind"), [(500, "application/json"), (502, "text/html"), (503, "text/html")]
)
def test_a_failing_server_answers_like_one(server, status, kind):
    server.set_faults({"kind": "status", "status": status, "header": "retry-after", "value": "3"})
    answer = server.exchange("GET", "/v1/containers")
    assert (answer[0], answer[1]["retry-after"]) == (status, "3")
    assert answer[1]["content-type"].partition(";")[0] == kind


def test_a_failing_server_may_have_done_it(server):
    server.set_faults({"kind": "status", "status": 500, "done": True, "count": 1})
    answer = server.exchange("POST", "/v1/containers", b'{"name": "made"}')
    assert answer[0] == 500
    assert [item["name"] for item in server.call("GET", "/v1/containers")["data"]] == ["made"]


def test_a_rate_limit_lets_so_many_through(server):
    server.set_faults({"kind": "rate-limit", "limit": 3, "seconds": 60})
    assert statuses(server, "/v1/containers", 5) == [200, 200, 200, 429, 429]
    wait = int(server.exchange("GET", "/v1/containers")[1]["retry-after"])
    assert 1 <= wait <= 60


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(("kind", "is_done"), [("reset", False), ("reset-after", True)])
def test_a_connection_is_reset_before_or_after_the_operation(
    server_factory, connect, tcp, kind, is_done
):
    server = server_factory(tcp=tcp)
    server.set_faults({"kind": kind, "count": 1})
    connection = connect(server)
    connection.request("POST", "/v1/containers", b'{"name": "made"}')
    if tcp:
        with pytest.raises(ConnectionResetError):
            connection.read_all()
    else:
        assert connection.read_all() == b""
    assert [entry["status"] for entry in server.requests()] == [None]
    assert len(server.call("GET", "/v1/containers")["data"]) == is_done


@pytest.mark.parametrize(("at", "sent"), [(0, 0), (1, 1), (999, 999)])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_body_is_cut_at_a_byte(server_factory, connect, tcp, at, sent):
    server = server_factory(tcp=tcp)
    container = server.new_container()
    file = server.upload(container, "a", b"0123456789" * 100)
    server.set_faults({"kind": "cut", "at": at, "operation": "content"})
    connection = connect(server)
    connection.request("GET", f"/v1/containers/{container}/files/{file['id']}/content")
    head = connection.read_head()
    assert head.startswith("HTTP/1.1 200")
    assert "content-length: 1000" in head
    assert connection.read_all() == (b"0123456789" * 100)[:sent]


def test_a_body_is_cut_far_into_a_stream(server, connect):
    container = server.new_container()
    file = server.upload(container, "a", bytes(5_000_000))
    server.set_faults({"kind": "cut", "at": 3_500_000, "operation": "content"})
    connection = connect(server)
    connection.request("GET", f"/v1/containers/{container}/files/{file['id']}/content")
    connection.read_head()
    assert len(connection.read_all()) == 3_500_000


def test_a_cut_beyond_the_end_harms_nothing(server, file_path):
    server.set_faults({"kind": "cut", "at": 5000})
    assert len(server.exchange("GET", f"{file_path}/content")[2]) == 1000


def test_headers_may_never_come(server, file_path, connect):
    server.set_faults({"kind": "stall", "operation": "content", "count": 1})
    stalled = connect(server)
    stalled.request("GET", f"{file_path}/content")
    # Others are served meanwhile.
    assert len(server.exchange("GET", f"{file_path}/content")[2]) == 1000
    assert [entry["status"] for entry in server.requests()] == [None, 200]
    stalled.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        stalled.socket.recv(1)


def test_a_stall_may_end(server, file_path):
    server.set_faults({"kind": "stall", "seconds": 0.01})
    assert len(server.exchange("GET", f"{file_path}/content")[2]) == 1000


def test_a_body_may_stall_at_a_byte(server, file_path, connect):
    server.set_faults({"kind": "stall-body", "at": 300, "operation": "content", "count": 1})
    stalled = connect(server)
    stalled.request("GET", f"{file_path}/content")
    stalled.read_head()
    assert stalled.read(300) == b"0123456789" * 30
    assert len(server.exchange("GET", f"{file_path}/content")[2]) == 1000
    stalled.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        stalled.socket.recv(1)
    server.set_faults({"kind": "stall-body", "at": 300, "seconds": 0.01})
    assert server.exchange("GET", f"{file_path}/content")[2] == b"0123456789" * 100


def test_a_body_may_drip(server, file_path):
    server.set_faults({"kind": "drip", "seconds": 0, "operation": "content"})
    assert server.exchange("GET", f"{file_path}/content")[2] == b"0123456789" * 100


def test_a_body_may_never_end(server, file_path, connect):
    server.set_faults({"kind": "endless", "operation": "content"})
    connection = connect(server)
    connection.request("GET", f"{file_path}/content")
    assert "content-length" not in connection.read_head()
    assert len(connection.read(3_000_000)) == 3_000_000


def test_an_answer_may_be_anything(server):
    server.set_faults(
        {
            "kind": "answer",
            "status": 302,
            "headers": {"location": "http://elsewhere/", "content-type": "text/odd"},
            "body": "{",
        }
    )
    status, headers, body = server.exchange("GET", "/v1/containers")
    assert (status, headers["location"], headers["content-type"], body) == (
        302,
        "http://elsewhere/",
        "text/odd",
        b"{",
    )
    server.set_faults({"kind": "answer", "status": 200, "body_base64": "/wA="})
    assert server.exchange("GET", "/v1/containers")[2] == b"\xff\x00"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "stall"},
        {"kind": "stall", "seconds": 3600},
        {"kind": "latency", "seconds": 3600},
        {"kind": "stall-body", "at": 10},
        {"kind": "drip", "seconds": 3600},
        {"kind": "endless"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_a_struck_request_does_not_keep_the_server_from_stopping(server, file_path, connect, fault):
    server.set_faults(fault)
    connection = connect(server)
    connection.request("GET", f"{file_path}/content")
    assert [entry["operation"] for entry in server.requests()] == ["content"]
    assert server.stop() == 0
    assert server.errors == ""


def test_a_client_that_leaves_a_struck_request_leaves_no_trace(server, file_path, connect):
    server.set_faults({"kind": "stall"})
    connection = connect(server)
    connection.request("GET", f"{file_path}/content")
    connection.socket.shutdown(socket.SHUT_RDWR)
    assert len(server.requests()) == 1
    assert server.stop() == 0
    assert server.errors == ""
