"""The nine operations, as the contract describes them."""

import json
import re
import time

import pytest

CONTAINER_ID = re.compile(r"cntr_[0-9a-f]{48}")
FILE_ID = re.compile(r"cfile_[0-9a-f]{32}")


def error_of(answer):
    status, _, body = answer
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return status, error


def test_a_new_container_is_described_as_the_contract_says(server):
    before = int(time.time())
    made = server.call("POST", "/v1/containers", {"name": "My Container"})
    assert CONTAINER_ID.fullmatch(made["id"])
    assert int(made["id"][5:13], 16) == made["created_at"]
    assert before <= made["created_at"] <= time.time()
    assert made == {
        "id": made["id"],
        "object": "container",
        "created_at": made["created_at"],
        "status": "running",
        "expires_after": {"anchor": "last_active_at", "minutes": 20},
        "last_active_at": made["created_at"],
        "memory_limit": "1g",
        "name": "My Container",
    }


def test_a_container_keeps_what_it_was_created_with_and_tells_no_secret(server):
    made = server.call(
        "POST",
        "/v1/containers",
        {
            "name": "ünïcode/\n",
            "memory_limit": "16g",
            "expires_after": {"anchor": "last_active_at", "minutes": 5},
            "network_policy": {
                "type": "allowlist",
                "allowed_domains": ["a.com", "b.com"],
                "domain_secrets": [{"domain": "a.com", "name": "K", "value": "very-secret"}],
            },
            "skills": [{"type": "skill_reference", "skill_id": "s", "version": "latest"}],
        },
    )
    found = server.call("GET", f"/v1/containers/{made['id']}")
    assert found["name"] == "ünïcode/\n"
    assert found["memory_limit"] == "16g"
    assert found["expires_after"]["minutes"] == 5
    assert found["network_policy"] == {
        "type": "allowlist",
        "allowed_domains": ["a.com", "b.com"],
    }
    assert "very-secret" not in json.dumps([made, found])
    server.stop()
    for path in server.data.rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes()


def test_a_deleted_container_is_gone_with_its_files(server):
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    deleted = server.call("DELETE", f"/v1/containers/{container}")
    assert deleted == {"id": container, "object": "container.deleted", "deleted": True}
    assert server.call("GET", "/v1/containers")["data"] == []
    for method, path in [
        ("GET", f"/v1/containers/{container}"),
        ("DELETE", f"/v1/containers/{container}"),
        ("GET", f"/v1/containers/{container}/files"),
        ("GET", f"/v1/containers/{container}/files/{file['id']}/content"),
    ]:
        status, error = error_of(server.exchange(method, path))
        assert status == 404
        assert error["message"] == f"Container with id '{container}' not found."
        assert error["type"] == "invalid_request_error"
    contents = [path for path in (server.data / "content").rglob("*") if path.is_file()]
    assert contents == []


def test_containers_are_listed_newest_first_or_oldest_first(server):
    ids = [server.new_container(str(n)) for n in range(5)]
    newest = server.call("GET", "/v1/containers")
    assert [item["id"] for item in newest["data"]] == ids[::-1]
    assert newest["object"] == "list"
    assert (newest["first_id"], newest["last_id"]) == (ids[-1], ids[0])
    assert newest["has_more"] is False
    oldest = server.call("GET", "/v1/containers?order=asc")
    assert [item["id"] for item in oldest["data"]] == ids


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_join_whatever_their_size(server, order):
    ids = [server.new_container(str(n)) for n in range(7)]
    expected = ids if order == "asc" else ids[::-1]
    for limit in (1, 2, 3, 7, 100):
        found, after = [], ""
        while True:
            page = server.call("GET", f"/v1/containers?order={order}&limit={limit}{after}")
            found += [item["id"] for item in page["data"]]
            assert len(page["data"]) <= limit
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert found == expected


def test_a_page_has_twenty_entries_unless_asked_otherwise(server):
    container = server.new_container()
    server.admin("POST", f"/admin/files/{container}", [{"path": f"/mnt/{n}"} for n in range(101)])
    assert len(server.call("GET", f"/v1/containers/{container}/files")["data"]) == 20
    page = server.call("GET", f"/v1/containers/{container}/files?limit=100")
    assert len(page["data"]) == 100
    assert page["has_more"] is True
    assert len(server.files(container)) == 101


def test_the_name_filter_matches_whole_names_also_across_pages(server):
    wanted = [server.new_container("a") for _ in range(3)]
    server.new_container("ab")
    first = server.call("GET", "/v1/containers?name=a&limit=2")
    assert [item["id"] for item in first["data"]] == [wanted[2], wanted[1]]
    rest = server.call("GET", f"/v1/containers?name=a&limit=2&after={first['last_id']}")
    assert [item["id"] for item in rest["data"]] == [wanted[0]]
    assert rest["has_more"] is False


def test_an_empty_list_has_no_first_and_no_last(server):
    assert server.call("GET", "/v1/containers") == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_an_uploaded_file_is_described_listed_read_and_deleted(server):
    container = server.new_container()
    made = server.upload(container, "tsconfig.json", b"\x00\r\n--bytes\xff")
    assert FILE_ID.fullmatch(made["id"])
    assert int(made["id"][6:14], 16) == made["created_at"]
    assert re.fullmatch(r"/mnt/data/[0-9a-f]{32}-tsconfig\.json", made["path"])
    assert made == {
        "id": made["id"],
        "object": "container.file",
        "created_at": made["created_at"],
        "bytes": 11,
        "container_id": container,
        "path": made["path"],
        "source": "user",
    }
    assert server.call("GET", f"/v1/containers/{container}/files")["data"] == [made]
    assert server.call("GET", f"/v1/containers/{container}/files/{made['id']}") == made
    assert server.content(container, made["id"]) == b"\x00\r\n--bytes\xff"
    deleted = server.call("DELETE", f"/v1/containers/{container}/files/{made['id']}")
    assert deleted == {"id": made["id"], "object": "container.file.deleted", "deleted": True}
    assert server.files(container) == []
    for method, suffix in [("GET", ""), ("DELETE", ""), ("GET", "/content")]:
        path = f"/v1/containers/{container}/files/{made['id']}{suffix}"
        status, error = error_of(server.exchange(method, path))
        assert status == 404
        assert error["message"] == f"Container file with id '{made['id']}' not found."


def test_a_file_is_found_only_in_its_own_container(server):
    one, other = server.new_container(), server.new_container()
    file = server.upload(one, "a", b"x")
    path = f"/v1/containers/{other}/files/{file['id']}/content"
    assert server.exchange("GET", path)[0] == 404


def test_a_cursor_of_another_list_is_refused(server):
    one, other = server.new_container(), server.new_container()
    file = server.upload(one, "a", b"x")
    path = f"/v1/containers/{other}/files?after={file['id']}"
    status, error = error_of(server.exchange("GET", path))
    assert (status, error["param"]) == (400, "after")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("GET", "/v1", 404, None),
        ("GET", "/v1/", 404, None),
        ("GET", "/v1/containers/", 404, None),
        ("GET", "/v1/containers//files", 404, None),
        ("GET", "/v1/models", 404, None),
        ("GET", "/containers", 404, None),
        ("GET", "/v1/containers/a/files/b/content/c", 404, None),
        ("GET", "/v1/containers/a/other", 404, None),
        ("PUT", "/v1/containers", 405, "GET, POST"),
        ("POST", "/v1/containers/a", 405, "GET, DELETE"),
        ("PATCH", "/v1/containers/a/files", 405, "GET, POST"),
        ("POST", "/v1/containers/a/files/b", 405, "GET, DELETE"),
        ("DELETE", "/v1/containers/a/files/b/content", 405, "GET"),
    ],
)
def test_unknown_routes_and_methods_are_answered_as_errors(
    shared_server, method, path, status, allow
):
    answer = shared_server.exchange(method, path)
    assert error_of(answer)[0] == status
    assert answer[1]["allow"] == allow


def test_every_answer_has_a_request_id_of_its_own(shared_server, connect):
    seen = set()
    for method, path in [("GET", "/v1/containers"), ("GET", "/nowhere"), ("PUT", "/v1/containers")]:
        request_id = shared_server.exchange(method, path)[1]["x-request-id"]
        assert re.fullmatch("req_[0-9a-f]{32}", request_id)
        seen.add(request_id)
    assert len(seen) == 3
    connection = connect(shared_server)
    connection.send(b"this is no HTTP\r\n\r\n")
    head, _, body = connection.read_all().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"x-request-id: req_" in head
    assert json.loads(body)["error"]["message"] == "Invalid HTTP request received."


def test_an_id_may_hold_anything_when_it_is_encoded(server):
    container = server.new_container()
    server.write(container, "/mnt/data/a", b"odd", id="../a/b?c#d\n%2F")
    encoded = "..%2Fa%2Fb%3Fc%23d%0A%252F"
    path = f"/v1/containers/{container}/files/{encoded}/content"
    assert server.exchange("GET", path)[2] == b"odd"


def test_the_request_log_tells_what_was_asked(server):
    container = server.new_container()
    server.forget_requests()
    server.upload(container, "a", b"12345")
    server.call("GET", f"/v1/containers/{container}/files?limit=5")
    server.exchange("GET", "/v1/nothing")
    upload, listing, unknown = server.requests()
    assert (upload["method"], upload["operation"], upload["status"]) == ("POST", "create_file", 200)
    assert upload["bytes_in"] > 5
    assert upload["bytes_out"] > 100
    assert (listing["path"], listing["query"]) == (f"/v1/containers/{container}/files", "limit=5")
    assert (unknown["operation"], unknown["status"]) == (None, 404)
    assert re.fullmatch("req_[0-9a-f]{32}", unknown["request_id"])


def test_admin_routes_exist_only_when_asked_for(server_factory):
    server = server_factory(admin=False)
    for method, path in [("GET", "/admin/behaviours"), ("POST", "/admin/expire")]:
        assert server.exchange(method, path)[0] == 404
