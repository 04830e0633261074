"""New files, however their bytes and names arrive."""

import json
import time

import pytest


def form(*parts, boundary="B", end="--\r\n"):
    text = b"".join(
        f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    )
    return text + f"--{boundary}{end}".encode()


def disposition(filename, name="file"):
    return f'Content-Disposition: form-data; name="{name}"; filename={filename}'


def post(server, container, body, kind="multipart/form-data; boundary=B"):
    path = f"/v1/containers/{container}/files"
    status, _, answer = server.exchange("POST", path, body, {"Content-Type": kind})
    return status, json.loads(answer)


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ('"a b.txt"', "a b.txt"),
        ("plain.txt", "plain.txt"),
        (r'"q\"uo\\te"', 'q"uo\\te'),
        ('"semi; filename=x"', "semi; filename=x"),
        ('"ünï-😀.txt"', "ünï-😀.txt"),
        ("\"ascii\"; filename*=UTF-8''%C3%BC%2Ftxt", "ü/txt"),
        ('"100%25"', "100%25"),
        ('"-dash"', "-dash"),
        ('"a\tb"', "a\tb"),
        ('"src/deep/a.py"', "src/deep/a.py"),
        ('"../../etc/passwd"', "etc/passwd"),
        ('"/abs//./x/.."', "abs/x"),
        (f'"{"n" * 5000}"', "n" * 5000),
    ],
)
def test_the_name_is_the_one_that_was_sent_and_stays_below_mnt_data(
    server_factory, filename, expected
):
    server = server_factory(behaviours={"naming": "plain"})
    container = server.new_container()
    status, file = post(server, container, form((disposition(filename), b"x")))
    assert (status, file.get("path")) == (200, f"/mnt/data/{expected}")


@pytest.mark.parametrize(
    ("data", "step"),
    [
        *(
            (data, step)
            for data in (b"", b"\r\n", b"--B", b"\r\n--B", b"\r\n--", b"\r\n--C\r\n" * 300)
            for step in (1, 7, 65536)
        ),
        (b"\r" * 70_000, 1000),
        (bytes(range(256)) * 20_000, 65536),
    ],
)
def test_every_byte_arrives_wherever_the_body_is_split(shared_server, connect, data, step):
    container = shared_server.new_container()
    body = form((disposition("a"), data), boundary="Boundary")
    connection = connect(shared_server)
    connection.send(
        f"POST /v1/containers/{container}/files HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: multipart/form-data; boundary=Boundary\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    connection.send(b"0\r\n\r\n")
    assert connection.read_head().startswith("HTTP/1.1 200")
    (file,) = shared_server.files(container)
    assert file["bytes"] == len(data)
    assert shared_server.content(container, file["id"]) == data


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (form(), 400, "file", "missing_required_parameter"),
        (form((disposition('""'), b"x")), 400, "file", "invalid_value"),
        (form((disposition('".."'), b"x")), 400, "file", "invalid_value"),
        (form(('Content-Disposition: form-data; name="file"', b"x")), 400, "file", "invalid_value"),
        (form((disposition("a", name="upload"), b"x")), 400, "upload", "unknown_parameter"),
        (
            form((disposition("a"), b"x"), (disposition("b"), b"y")),
            400,
            "file",
            "invalid_value",
        ),
        (
            form(
                (disposition("a"), b"x"),
                ('Content-Disposition: form-data; name="file_id"', b"file-1"),
            ),
            400,
            "file_id",
            "invalid_value",
        ),
        (form((disposition("a"), b"x"), end="\r\n"), 400, None, None),
        (form((disposition("a"), b"x"))[:-8], 400, None, None),
        (b"", 400, None, None),
        (b"no form at all", 400, None, None),
    ],
)
def test_a_bad_form_is_refused_and_leaves_nothing(shared_server, body, status, param, code):
    container = shared_server.new_container()
    answer_status, answer = post(shared_server, container, body)
    error = answer["error"]
    assert (answer_status, error["param"], error["code"]) == (status, param, code)
    assert shared_server.files(container) == []
    assert list((shared_server.data / "content" / "incoming").iterdir()) == []


@pytest.mark.parametrize("kind", ["multipart/form-data", "text/plain", ""])
def test_a_body_of_another_kind_is_refused(shared_server, kind):
    status, _ = post(shared_server, shared_server.new_container(), b"x", kind)
    assert status in (400, 415)


def test_a_registered_file_is_attached_under_its_id(server):
    container = server.new_container()
    file_id = server.register("data.csv", b"1,2,3")
    status, file = post(
        server, container, json.dumps({"file_id": file_id}).encode(), "application/json"
    )
    assert status == 200
    assert file["path"] == f"/mnt/data/{file_id}-data.csv"
    assert (file["bytes"], file["source"]) == (5, "user")
    assert server.content(container, file["id"]) == b"1,2,3"
    form_body = form(('Content-Disposition: form-data; name="file_id"', file_id.encode()))
    assert post(server, container, form_body)[0] == 200
    server.call("DELETE", f"/v1/containers/{container}")
    other = server.new_container(file_ids=[file_id])
    (copied,) = server.files(other)
    assert server.content(other, copied["id"]) == b"1,2,3"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"file_id": "file-unknown"}, 404, "file_id"),
        ({"file_id": ""}, 400, "file_id"),
        ({"file_id": 5}, 400, "file_id"),
        ({"file": 5}, 400, "file"),
        ({}, 400, "file"),
        ({"file": "a", "file_id": "b"}, 400, "file_id"),
        ({"name": "a"}, 400, "name"),
        ([], 400, "body"),
    ],
)
def test_a_bad_json_upload_is_refused(shared_server, body, status, param):
    container = shared_server.new_container()
    answer = post(shared_server, container, json.dumps(body).encode(), "application/json")
    assert (answer[0], answer[1]["error"]["param"]) == (status, param)
    assert shared_server.files(container) == []


def test_a_file_given_as_a_json_string_is_stored_as_its_text(shared_server):
    container = shared_server.new_container()
    status, file = post(
        shared_server, container, json.dumps({"file": "grüße\n"}).encode(), "application/json"
    )
    assert status == 200
    assert shared_server.content(container, file["id"]) == "grüße\n".encode()


def test_an_upload_that_the_client_gives_up_leaves_nothing(server, connect):
    container = server.new_container()
    connection = connect(server)
    head = f"--B\r\n{disposition('a')}\r\n\r\n".encode()
    connection.send(
        f"POST /v1/containers/{container}/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert connection.read_head().startswith("HTTP/1.1 100")
    incoming = server.data / "content" / "incoming"
    connection.send(head + b"x" * 3_000_000)
    deadline = time.monotonic() + 60
    while not list(incoming.iterdir()):
        assert time.monotonic() < deadline
    connection.close()
    # The next stop waits for what is under way.
    assert server.stop() == 0
    assert list(incoming.iterdir()) == []
    server.start()
    assert server.files(container) == []


def test_a_container_that_is_deleted_during_an_upload_takes_no_file(server, connect):
    container = server.new_container()
    connection = connect(server)
    body = form((disposition("a"), b"x" * 10))
    connection.send(
        f"POST /v1/containers/{container}/files HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        "\r\nContent-Type: multipart/form-data; boundary=B\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    connection.read_head()
    server.call("DELETE", f"/v1/containers/{container}")
    connection.send(body)
    assert connection.read_head().startswith("HTTP/1.1 404")
    assert not [path for path in (server.data / "content").rglob("*") if path.is_file()]
