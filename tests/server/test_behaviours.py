"""Each behaviour, as a client sees it."""

import json
import re

import pytest

from containerfs.server.behaviours import BehaviourError, Behaviours, parse_behaviours


def test_behaviours_are_parsed_from_words():
    parsed = parse_behaviours(
        ["naming=plain", "range=off", "phantom=on", "max-file-size=10", "minute=0.5", "expiry=no"]
    )
    assert parsed == Behaviours(
        naming="plain", range=False, phantom=True, max_file_size=10, minute=0.5, expiry=False
    )
    assert parsed.changed({"max_file_size": None, "range": True}).max_file_size is None


@pytest.mark.parametrize(
    "text",
    [
        "naming",
        "naming=other",
        "colour=red",
        "range=maybe",
        "latency=-1",
        "latency=nan",
        "minute=inf",
        "max_file_size=1.5",
        "delete_lag_lists=x",
    ],
)
def test_a_behaviour_nobody_knows_is_refused(text):
    with pytest.raises(BehaviourError):
        parse_behaviours([text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour=red", "no behaviour is called 'colour': naming, prefix,"),
        ("naming=odd", "'odd' is no value of the behaviour 'naming': hash, plain, file_id$"),
        ("range=odd", "'odd' is no value of the behaviour 'range': on, off$"),
        ("latency=odd", "'odd' is no value of the behaviour 'latency'$"),
    ],
)
def test_what_a_behaviour_may_be_is_told(text, said):
    with pytest.raises(BehaviourError, match=said):
        parse_behaviours([text])


def test_behaviours_change_while_the_server_runs(server):
    assert server.admin("GET", "/admin/behaviours")["naming"] == "hash"
    changed = server.admin("PUT", "/admin/behaviours", {"naming": "plain", "range": False})
    assert (changed["naming"], changed["range"], changed["phantom"]) == ("plain", False, False)
    for bad in ({"naming": "x"}, {"colour": 1}, []):
        answer = server.exchange("PUT", "/admin/behaviours", json.dumps(bad).encode())
        assert answer[0] == 400
    assert server.admin("GET", "/admin/behaviours") == changed


@pytest.mark.parametrize(
    ("behaviours", "pattern"),
    [
        ({}, r"/mnt/data/src/[0-9a-f]{32}-a\.py"),
        ({"prefix": "front"}, r"/mnt/data/[0-9a-f]{32}-src/a\.py"),
        ({"naming": "plain"}, r"/mnt/data/src/a\.py"),
        ({"naming": "file_id"}, r"/mnt/data/src/file-[0-9a-f]{24}-a\.py"),
        ({"slashes": "flatten"}, r"/mnt/data/[0-9a-f]{32}-a\.py"),
        ({"relative_paths": True}, r"src/[0-9a-f]{32}-a\.py"),
    ],
)
def test_the_path_of_an_upload(server_factory, behaviours, pattern):
    server = server_factory(behaviours=behaviours)
    container = server.new_container()
    file = server.upload(container, "src/a.py", b"x")
    assert re.fullmatch(pattern, file["path"])
    assert server.files(container) == [file]


def upload_status(server, container, name, data):
    body = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    path = f"/v1/containers/{container}/files"
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    return server.exchange("POST", path, body.encode() + data + b"\r\n--B--", kind)


@pytest.mark.parametrize(
    ("behaviours", "name", "data", "status"),
    [
        ({"slashes": "refuse"}, "a/b", b"x", 400),
        ({"slashes": "refuse"}, "a", b"x", 200),
        ({"refuse_empty": True}, "a", b"", 400),
        ({"refuse_empty": True}, "a", b"x", 200),
        ({}, "a", b"", 200),
        ({"refuse_svg": True}, "a.txt", b'<?xml version="1.0"?>\n<SVG width="1">', 400),
        ({"refuse_svg": True}, "a.svg", b"just text", 200),
        ({}, "a.svg", b"<svg/>", 200),
        ({"max_file_size": 5}, "a", b"123456", 413),
        ({"max_file_size": 5}, "a", b"12345", 200),
        ({"max_file_size": 5}, "a", b"x" * 4_000_000, 413),
        ({"full": True}, "a", b"x", 507),
        ({"read_only": True}, "a", b"x", 405),
    ],
)
def test_what_a_server_refuses_to_store(server_factory, behaviours, name, data, status):
    server = server_factory(behaviours=behaviours)
    container = server.new_container()
    answer = upload_status(server, container, name, data)
    assert answer[0] == status
    assert len(server.files(container)) == (status == 200)
    if behaviours.get("refuse_svg") and status == 400:
        assert json.loads(answer[2])["error"]["message"] == "You uploaded an invalid file"


def test_a_read_only_server_lists_and_reads_but_changes_no_file(server):
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    server.set_behaviours(read_only=True)
    status, headers, _ = server.exchange("DELETE", f"/v1/containers/{container}/files/{file['id']}")
    assert (status, headers["allow"]) == (405, "GET")
    assert server.content(container, file["id"]) == b"x"


@pytest.mark.parametrize(
    ("same_name", "count", "keeps_id"),
    [("add", 2, False), ("overwrite", 1, False), ("overwrite_keep_id", 1, True)],
)
def test_an_upload_of_a_known_name(server_factory, contents_of, same_name, count, keeps_id):
    server = server_factory(behaviours={"same_name": same_name})
    container = server.new_container()
    old = server.upload(container, "a", b"old")
    server.upload(container, "b", b"other")
    new = server.upload(container, "a", b"newer")
    files = [file for file in server.files(container) if file["path"].endswith("-a")]
    assert len(files) == count
    assert files[0] == new
    assert (new["id"] == old["id"]) is keeps_id
    assert (new["path"] == old["path"]) is keeps_id
    assert server.content(container, new["id"]) == b"newer"
    assert len(contents_of(server)) == count + 1


@pytest.mark.parametrize(
    ("null_bytes", "user", "assistant"),
    [("never", 1, 2), ("assistant", 1, None), ("always", None, None)],
)
def test_sizes_that_are_not_told(server_factory, null_bytes, user, assistant):
    server = server_factory(behaviours={"null_bytes": null_bytes})
    container = server.new_container()
    uploaded = server.upload(container, "a", b"1")
    written = server.write(container, "/mnt/data/b", b"12")
    assert (uploaded["bytes"], written["bytes"]) == (user, assistant)
    assert {file["bytes"] for file in server.files(container)} == {user, assistant}


def test_a_phantom_is_listed_and_can_not_be_read(server):
    server.set_behaviours(naming="plain", phantom=True)
    container = server.new_container()
    assert server.files(container) == []
    server.upload(container, "a", b"x")
    server.upload(container, "b", b"x")
    phantom = server.files(container)[0]
    assert len(server.files(container)) == 3
    assert phantom["path"] == "/mnt/data/a/mnt/data/b"
    assert phantom["bytes"] is None
    path = f"/v1/containers/{container}/files/{phantom['id']}"
    assert server.exchange("GET", f"{path}/content")[0] == 404
    server.call("DELETE", path)


def test_a_deleted_object_is_listed_for_a_number_of_lists(server):
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    server.set_behaviours(delete_lag_lists=2)
    path = f"/v1/containers/{container}/files/{file['id']}"
    server.call("DELETE", path)
    assert server.exchange("GET", f"{path}/content")[0] == 404
    assert server.exchange("DELETE", path)[0] == 404
    assert [len(server.files(container)) for _ in range(4)] == [1, 1, 0, 0]
    server.call("DELETE", f"/v1/containers/{container}")
    assert server.exchange("GET", f"/v1/containers/{container}")[0] == 404
    assert [len(server.call("GET", "/v1/containers")["data"]) for _ in range(3)] == [1, 1, 0]


def test_a_deletion_is_answered_with_nothing(server):
    container = server.new_container()
    path = f"/v1/containers/{container}/files/{server.upload(container, 'a', b'x')['id']}"
    server.set_behaviours(empty_deletes=True)
    for each in (path, path, f"/v1/containers/{container}", f"/v1/containers/{container}"):
        status, _, body = server.exchange("DELETE", each)
        assert (status, body) == (204, b"")
    assert server.call("GET", "/v1/containers")["data"] == []


def test_a_deleted_object_is_listed_for_a_time_also_after_a_restart(server):
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    server.set_behaviours(delete_lag=3600)
    server.call("DELETE", f"/v1/containers/{container}/files/{file['id']}")
    server.restart()
    assert server.files(container) == [file]


def test_a_new_object_is_listed_late(server):
    server.set_behaviours(list_lag_lists=2)
    container = server.new_container()
    assert [len(server.call("GET", "/v1/containers")["data"]) for _ in range(3)] == [0, 0, 1]
    file = server.upload(container, "a", b"x")
    assert server.content(container, file["id"]) == b"x"
    assert [len(server.files(container)) for _ in range(3)] == [0, 0, 1]
    server.set_behaviours(list_lag_lists=0, list_lag=3600)
    server.upload(container, "b", b"x")
    assert server.files(container) == [file]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_empty_pages_promise_more_and_lead_on(server, limit):
    ids = [server.new_container(str(n)) for n in range(3)]
    server.set_behaviours(empty_pages=True)
    found, after, empty = [], "", 0
    while True:
        page = server.call("GET", f"/v1/containers?limit={limit}{after}")
        found += [item["id"] for item in page["data"]]
        empty += not page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert found == ids[::-1]
    assert empty >= 1


def test_a_server_that_ignores_cursors_gives_its_first_page_for_ever(server):
    ids = [server.new_container(str(n)) for n in range(3)]
    server.set_behaviours(ignore_cursor=True)
    first = server.call("GET", "/v1/containers?limit=2")
    assert [item["id"] for item in first["data"]] == [ids[2], ids[1]]
    assert first["has_more"] is True
    assert server.call("GET", f"/v1/containers?limit=2&after={first['last_id']}") == first
    assert server.call("GET", "/v1/containers?limit=100&after=whatever")["has_more"] is True


def test_long_ids_work_everywhere(server):
    server.set_behaviours(long_ids=True)
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    server.upload(container, "b", b"x")
    assert len(container) == len(file["id"]) == 237
    assert server.content(container, file["id"]) == b"x"
    page = server.call("GET", f"/v1/containers/{container}/files?limit=1")
    rest = server.call("GET", f"/v1/containers/{container}/files?after={page['last_id']}")
    assert rest["data"] == [file]


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        (None, 200, 0, 100),
        ("bytes=0-9", 206, 0, 10),
        ("bytes=90-", 206, 90, 100),
        ("bytes=90-1000", 206, 90, 100),
        ("bytes=-10", 206, 90, 100),
        ("bytes=-1000", 206, 0, 100),
        ("bytes=99-99", 206, 99, 100),
        ("bytes=9-0", 200, 0, 100),
        ("bytes=0-1,5-6", 200, 0, 100),
        ("bytes=-", 200, 0, 100),
        ("lines=0-1", 200, 0, 100),
    ],
)
def test_ranges_are_granted(shared_server, asked, status, start, stop):
    container = shared_server.new_container()
    data = bytes(range(100))
    file = shared_server.upload(container, "a", data)
    path = f"/v1/containers/{container}/files/{file['id']}/content"
    answer = shared_server.exchange("GET", path, headers={"Range": asked} if asked else {})
    assert (answer[0], answer[2]) == (status, data[start:stop])
    assert answer[1]["content-length"] == str(stop - start)
    expected = f"bytes {start}-{stop - 1}/100" if status == 206 else None
    assert answer[1]["content-range"] == expected


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_the_file_is_refused(shared_server, asked):
    container = shared_server.new_container()
    file = shared_server.upload(container, "a", bytes(100))
    path = f"/v1/containers/{container}/files/{file['id']}/content"
    status, headers, _ = shared_server.exchange("GET", path, headers={"Range": asked})
    assert (status, headers["content-range"]) == (416, "bytes */100")


def test_a_server_without_ranges_sends_everything(server):
    container = server.new_container()
    file = server.upload(container, "a", b"12345")
    server.set_behaviours(range=False)
    path = f"/v1/containers/{container}/files/{file['id']}/content"
    status, headers, body = server.exchange("GET", path, headers={"Range": "bytes=1-2"})
    assert (status, body, headers["accept-ranges"]) == (200, b"12345", None)


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_server_that_tells_no_length_sends_everything_chunked(server, size):
    container = server.new_container()
    file = server.upload(container, "a", b"x" * size)
    server.set_behaviours(content_length=False)
    path = f"/v1/containers/{container}/files/{file['id']}/content"
    status, headers, body = server.exchange("GET", path)
    assert (status, body) == (200, b"x" * size)
    assert headers["content-length"] is None
    assert headers["transfer-encoding"] == "chunked"


def test_errors_with_status_200(server):
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    server.set_behaviours(errors_as_200=True)
    path = f"/v1/containers/{container}/files"
    assert server.content(container, file["id"]) == b"x"
    status, _, body = server.exchange("GET", f"{path}/cfile_gone/content")
    assert status == 200
    assert "not found" in json.loads(body)["error"]["message"]
    assert server.exchange("GET", f"{path}/cfile_gone")[0] == 404


def test_every_request_can_be_slow(server):
    server.set_behaviours(latency=0.01)
    assert server.call("GET", "/v1/containers")["data"] == []


def test_the_model_writes_rewrites_and_leaves_phantoms(server):
    container = server.new_container()
    written = server.write(container, "/mnt/data/out.csv", b"1")
    assert (written["path"], written["source"]) == ("/mnt/data/out.csv", "assistant")
    lying = server.write(container, "../x\n", b"1", bytes=2**63, created_at=5, source="user")
    assert (lying["path"], lying["bytes"], lying["created_at"]) == ("../x\n", 2**63, 5)
    untold = server.write(container, "/mnt/data/untold", b"123", bytes=None)
    assert (untold["bytes"], server.content(container, untold["id"])) == (None, b"123")
    phantom = server.write(container, "/mnt/data/p", phantom=True)
    path = f"/v1/containers/{container}/files/{phantom['id']}/content"
    assert server.exchange("GET", path)[0] == 404

    place = f"/admin/files/{container}/{written['id']}"
    same = server.admin("PUT", place, {"content_base64": "MjI=", "same_id": True})
    assert (same["id"], same["path"], same["bytes"]) == (written["id"], written["path"], 2)
    assert server.content(container, same["id"]) == b"22"
    other = server.admin("PUT", place, {"content_base64": "MzMz"})
    assert other["id"] != same["id"]
    assert server.content(container, other["id"]) == b"333"
    assert len(server.files(container)) == 4
