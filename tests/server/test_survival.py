"""What a server keeps: through stops, through kill -9 at any moment, and from many at once."""

import hashlib
import http.client
import os
import threading
import time

import pytest

from containerfs.server.database import open_database
from containerfs.server.listing import Collection, Query


def test_everything_is_there_after_a_restart(server):
    container = server.new_container("kept", memory_limit="4g")
    file = server.upload(container, "dir/a", b"bytes")
    registered = server.register("r", b"registered")
    gone = server.new_container("gone")
    server.call("DELETE", f"/v1/containers/{gone}")
    before = server.call("GET", "/v1/containers")
    server.restart()
    assert server.call("GET", "/v1/containers") == before
    assert server.files(container) == [file]
    assert server.content(container, file["id"]) == b"bytes"
    assert server.new_container(file_ids=[registered])


@pytest.mark.parametrize("ends", ["stop", "kill"])
def test_a_listed_file_that_is_not_there_keeps_no_server_from_starting(server, ends):
    container = server.new_container()
    file = server.upload(container, "a", b"bytes")
    phantom = server.write(container, "/mnt/data/a /mnt/data/b", phantom=True)
    getattr(server, ends)()
    server.start()
    assert server.files(container) == [phantom, file]
    assert server.content(container, file["id"]) == b"bytes"


@pytest.mark.parametrize("ends", ["stop", "kill"])
def test_what_a_power_cut_has_cut_off_is_not_where_new_content_goes(server, ends):
    container = server.new_container()
    lost = server.upload(container, "lost", b"a" * 5_000)["id"]
    getattr(server, ends)()
    (pack,) = server.data.glob("content/*/pack")
    os.truncate(pack, 0)  # its row was on the disk, and it was not
    server.start()
    kept = server.upload(container, "kept", b"b" * 6_000)["id"]
    assert server.content(container, lost) == bytes(5_000)
    server.call("DELETE", f"/v1/containers/{container}/files/{lost}")
    assert server.content(container, kept) == b"b" * 6_000


class Uploader(threading.Thread):
    """Uploads one file after another until the server is gone; remembers what was acknowledged."""

    def __init__(self, server, container, number, *, enough):
        super().__init__()
        self.acknowledged = {}
        self._server = server
        self._container = container
        self._number = number
        self._enough = enough

    def run(self):
        for count in range(10_000):
            data = f"{self._number}/{count}".encode() * (40_000 if count % 5 == 0 else 20)
            try:
                file = self._server.upload(self._container, f"{self._number}-{count}", data)
            except (OSError, http.client.HTTPException):
                return
            self.acknowledged[file["id"]] = hashlib.sha256(data).digest()
            self._enough.release()


@pytest.mark.parametrize("enough", [0, 1, 17, 60])
def test_killed_during_uploads_it_keeps_each_that_was_acknowledged_and_no_half_file(
    server, contents_of, enough
):
    container = server.new_container()
    counted = threading.Semaphore(0)
    uploaders = [Uploader(server, container, number, enough=counted) for number in range(3)]
    for uploader in uploaders:
        uploader.start()
    for _ in range(enough):
        counted.acquire()
    server.kill()
    for uploader in uploaders:
        uploader.join()
    server.start()

    found = {file["id"]: file for file in server.files(container)}
    acknowledged = {key: value for item in uploaders for key, value in item.acknowledged.items()}
    assert set(acknowledged) <= set(found)
    for file_id, file in found.items():
        content = server.content(container, file_id)
        assert len(content) == file["bytes"]
        if file_id in acknowledged:
            assert hashlib.sha256(content).digest() == acknowledged[file_id]
        else:
            # Done, but its answer was lost.
            _, number, count = file["path"].split("-")
            assert content.startswith(f"{number}/{count}".encode())
    assert len(contents_of(server)) == len(found)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline


def test_killed_while_a_body_arrives_it_leaves_nothing_of_it(server, contents_of, connect):
    container = server.new_container()
    kept = server.upload(container, "kept", b"x")
    connection = connect(server)
    connection.send(
        f"POST /v1/containers/{container}/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    connection.read_head()
    connection.send(
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + b"x" * 3_000_000
    )
    until(lambda: len(contents_of(server)) == 2)
    server.kill()
    server.start()
    assert len(contents_of(server)) == 1
    assert server.files(container) == [kept]


def test_killed_between_deleting_the_row_and_the_content_it_cleans_up_at_the_next_start(
    server, contents_of
):
    container = server.new_container()
    file = server.upload(container, "a", b"kept")
    server.kill()
    (place,) = [path for path in (server.data / "content").iterdir() if path.name.isdecimal()]
    (place / "0123").write_bytes(b"left over")
    with (place / "pack").open("r+b") as pack:
        pack.seek(1 << 20)
        pack.write(b"left over")
    (server.data / "content" / "incoming" / "4567").write_bytes(b"half")
    server.start()
    assert len(contents_of(server)) == 1
    assert server.content(container, file["id"]) == b"kept"


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_large_container_that_was_deleted_leaves_nothing_however_the_server_ends(
    server, contents_of, is_killed
):
    container = server.new_container()
    server.admin("POST", f"/admin/files/{container}", [{"path": f"{n}"} for n in range(3000)])
    server.call("DELETE", f"/v1/containers/{container}")
    if is_killed:
        server.kill()
    else:
        server.stop()
    server.start()
    assert contents_of(server) == set()


def test_killed_at_rest_it_keeps_deletions_and_expiry(server):
    container, gone, expired = (server.new_container(name) for name in "abc")
    file = server.upload(container, "a", b"x")
    server.call("DELETE", f"/v1/containers/{container}/files/{file['id']}")
    server.call("DELETE", f"/v1/containers/{gone}")
    server.expire(expired)
    server.kill()
    server.start()
    states = {item["id"]: item["status"] for item in server.call("GET", "/v1/containers")["data"]}
    assert states == {container: "running", expired: "expired"}
    assert server.files(container) == []


def test_many_clients_at_once_get_what_is_theirs(server):
    container = server.new_container()
    failures, made = [], []

    def work(number):
        try:
            own = server.new_container(str(number))
            for count in range(10):
                data = f"{number}-{count}".encode() * 5000
                for place in (container, own):
                    file = server.upload(place, f"{number}-{count}", data)
                    assert server.content(place, file["id"]) == data
                    made.append((place, file["id"]))
            assert len(server.files(own)) == 10
            server.call("DELETE", f"/v1/containers/{own}")
        except BaseException as exc:
            failures.append(exc)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    files = server.files(container)
    assert len(files) == 80
    assert {file["id"] for file in files} == {key for place, key in made if place == container}
    ages = [(file["created_at"], file["id"]) for file in files]
    assert [age for age, _ in ages] == sorted((age for age, _ in ages), reverse=True)


def test_pages_stay_right_while_files_come_and_go(server):
    container = server.new_container()
    server.admin("POST", f"/admin/files/{container}", [{"path": f"{n}"} for n in range(30)])
    staying = {file["id"] for file in server.files(container)}
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            file = server.write(container, "passing")
            server.call("DELETE", f"/v1/containers/{container}/files/{file['id']}")

    worker = threading.Thread(target=disturb)
    worker.start()
    try:
        for _ in range(10):
            found, after = [], ""
            while True:
                path = f"/v1/containers/{container}/files?order=asc&limit=7{after}"
                page = server.call("GET", path)
                found += [file["id"] for file in page["data"] if file["path"] != "passing"]
                if not page["has_more"]:
                    break
                last = [file for file in page["data"] if file["path"] != "passing"][-1]
                after = f"&after={last['id']}"
            assert len(found) == len(set(found))
            assert set(found) == staying
    finally:
        stop.set()
        worker.join()


def test_a_long_list_costs_no_more_a_page_than_a_short_one(server):
    container = server.new_container("one")
    files = [server.upload(container, str(number), b"x")["id"] for number in range(2)]
    server.stop()
    database = open_database(server.data / "containers.sqlite")
    statements = []
    database.set_trace_callback(statements.append)
    page = {"containers": Collection(database, table="containers")}
    page["files"] = Collection(database, table="files", scope="container")
    for order in ("asc", "desc"):
        page["containers"].page(Query(order=order, after=container), now=2e9)
        page["containers"].page(Query(order=order, after=container, name="one"), now=2e9)
        page["files"].page(Query(order=order, after=files[0]), now=2e9, scope=1)
    database.set_trace_callback(None)
    plans = [
        " ".join(row["detail"] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}"))
        for statement in statements
    ]
    database.close()
    assert len(plans) == 3 * 6
    # The last page is found through an index: SQLite plans a search, never a scan or a sort.
    assert [plan for plan in plans if "SCAN" in plan or "TEMP B-TREE" in plan] == []
    assert len([plan for plan in plans if "created=? AND rowid" in plan]) == 6
