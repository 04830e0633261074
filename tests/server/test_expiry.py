"""The expiry clock: what ends a container, what keeps it alive, what is left of it."""

import json

import pytest


def listed(server, container):
    containers = server.call("GET", "/v1/containers")["data"]
    return next(item for item in containers if item["id"] == container)


def test_an_idle_container_expires_and_its_data_is_gone(server):
    container = server.new_container(expires_after={"anchor": "last_active_at", "minutes": 5})
    file = server.upload(container, "a", b"secret")
    server.age(container, 4 * 60)
    assert listed(server, container)["status"] == "running"
    server.age(container, 60)
    assert listed(server, container)["status"] == "expired"
    assert not [path for path in (server.data / "content").rglob("*") if path.is_file()]
    assert server.call("GET", f"/v1/containers/{container}")["status"] == "expired"
    for method, path in [
        ("GET", "/files"),
        ("POST", "/files"),
        ("GET", f"/files/{file['id']}"),
        ("DELETE", f"/files/{file['id']}"),
        ("GET", f"/files/{file['id']}/content"),
    ]:
        status, _, body = server.exchange(method, f"/v1/containers/{container}{path}")
        assert status == 400
        assert json.loads(body)["error"]["message"] == "Container is expired."
    server.call("DELETE", f"/v1/containers/{container}")
    assert server.call("GET", "/v1/containers")["data"] == []


def test_what_lives_for_ever_says_no_time_when_it_ends(server):
    container = server.new_container(expires_after={"anchor": "last_active_at", "minutes": 5})
    assert listed(server, container)["expires_after"]["minutes"] == 5
    server.set_behaviours(expiry=False)
    assert "expires_after" not in listed(server, container)


def test_an_expired_container_never_comes_back(server):
    container = server.new_container()
    server.age(container, 20 * 60)
    assert listed(server, container)["status"] == "expired"
    server.set_behaviours(expiry=False)
    assert listed(server, container)["status"] == "expired"
    server.restart()
    server.set_behaviours(minute=1000)
    assert listed(server, container)["status"] == "expired"


def test_an_expired_container_can_answer_as_if_it_never_was(server):
    container = server.new_container()
    server.set_behaviours(expired_as="404")
    server.expire(container)
    status, _, body = server.exchange("GET", f"/v1/containers/{container}/files")
    assert status == 404
    message = json.loads(body)["error"]["message"]
    assert message == f"Container with id '{container}' not found."
    assert listed(server, container)["status"] == "expired"


@pytest.mark.parametrize(
    ("method", "path", "keeps_alive"),
    [
        ("GET", "", True),
        ("GET", "/files", True),
        ("GET", "/files/{file}", True),
        ("GET", "/files/{file}/content", True),
        ("DELETE", "/files/{file}", True),
        ("GET", "/files/unknown", True),
        ("LIST", "", False),
    ],
)
def test_what_keeps_a_container_alive(server, method, path, keeps_alive):
    container = server.new_container()
    file = server.upload(container, "a", b"x")
    server.age(container, 19 * 60)
    before = listed(server, container)["last_active_at"]
    if method != "LIST":
        server.exchange(method, f"/v1/containers/{container}" + path.format(file=file["id"]))
    after = listed(server, container)["last_active_at"]
    assert (after > before) is keeps_alive


def test_an_upload_keeps_a_container_alive(server):
    container = server.new_container()
    server.age(container, 19 * 60)
    before = listed(server, container)["last_active_at"]
    server.upload(container, "a", b"x")
    assert listed(server, container)["last_active_at"] > before


def test_listing_files_may_keep_nothing_alive(server):
    container = server.new_container()
    server.set_behaviours(list_files_is_activity=False)
    server.age(container, 19 * 60)
    before = listed(server, container)["last_active_at"]
    server.files(container)
    assert listed(server, container)["last_active_at"] == before


def test_activity_is_known_after_a_restart(server):
    container = server.new_container()
    server.age(container, 10 * 60)
    server.call("GET", f"/v1/containers/{container}")
    before = listed(server, container)["last_active_at"]
    server.restart()
    assert listed(server, container)["last_active_at"] == before


def test_a_minute_can_last_as_long_as_a_test_likes(server):
    container = server.new_container()
    server.set_behaviours(minute=0)
    assert listed(server, container)["status"] == "expired"


def test_containers_can_live_for_ever(server_factory):
    server = server_factory(behaviours={"expiry": "off"})
    container = server.new_container()
    server.age(container, 10**9)
    assert listed(server, container)["status"] == "running"
