"""What the README promises of failures: of the server, the network, this machine, and the mount."""

import os
import resource
import threading
from pathlib import Path

import pytest


def xattr(path, name):
    return os.getxattr(path, f"user.containerfs.{name}").decode()


def write(path, data):
    """Write and close, the error of either being the call's."""
    with path.open("wb", buffering=0) as writer:
        writer.write(data)


def status(number, **members):
    return {"kind": "status", "status": number, **members}


AT_ONCE = {"header": "x-should-retry", "value": "false"}
ERRNOS = [
    (status(404), "ENOENT"),
    (status(401), "EACCES"),
    (status(403), "EACCES"),
    (status(400), "EINVAL"),
    (status(415), "EINVAL"),
    (status(422), "EINVAL"),
    (status(405), "EROFS"),
    (status(501, **AT_ONCE), "EROFS"),
    (status(409, **AT_ONCE), "EBUSY"),
    (status(413), "EFBIG"),
    (status(507, **AT_ONCE), "ENOSPC"),
    (status(429, **AT_ONCE), "EIO"),
    (status(500, **AT_ONCE), "EIO"),
    (status(502, **AT_ONCE), "EIO"),
    (status(503, **AT_ONCE), "EIO"),
    ({"kind": "answer", "status": 200, "body": "<html>Hello</html>"}, "EIO"),
    ({"kind": "answer", "status": 200, "body": '{"error": {"message": "no"}}'}, "EIO"),
    ({"kind": "stall"}, "ETIMEDOUT"),
    (status(429, header="retry-after", value="110"), "EIO"),  # the last: nothing is asked after it
]


def test_each_failure_has_its_errno(server, mount, errno_of, run, tmp_path, environ):
    """Every row of the table, of every operation that it can happen to."""
    box_id = server.new_container("box")
    for name in ("read", "kept"):
        server.write(box_id, f"/mnt/data/{name}", b"content")
    server.new_container("empty")
    mounted = mount(timeout=1, transfer_timeout=1)
    mounted.expect("not on the server", "is kept here", "stale listing", "not everything")
    box = mounted / "box"
    assert sorted(os.listdir(box)) == ["kept", "read"]
    assert os.listdir(mounted / "empty") == []
    calls = {
        "content": lambda: (box / "read").read_bytes(),
        "create_container": lambda: os.mkdir(mounted / "made"),
        "delete_container": lambda: os.rmdir(mounted / "empty"),
        "create_file": lambda: write(box / "written", b"content"),
        "delete_file": lambda: os.remove(box / "kept"),
    }
    wrong = []
    for fault, expected in ERRNOS:
        for operation, call in calls.items():
            if fault.get("status") == 404 and operation != "create_file":
                continue  # what is to be deleted is gone: that is no failure
            if fault.get("status") == 200 and operation == "content":
                continue  # that would be content, had it the right length
            server.set_faults({"operation": operation, **fault})
            told = errno_of(call)
            if told != expected:
                wrong.append((operation, fault, told, expected))
            server.set_faults()
            if operation == "create_file":
                os.remove(box / "written")
    assert wrong == [], "\n".join(map(str, wrong))
    assert sorted(os.listdir(box)) == ["kept", "read"]
    assert sorted(os.listdir(mounted.path)) == ["box", "empty"]
    content = {file["path"]: server.content(box_id, file["id"]) for file in server.files(box_id)}
    assert content == {"/mnt/data/kept": b"content", "/mnt/data/read": b"content"}


def test_a_listed_file_that_the_server_does_not_have_is_not_there(server, mount, errno_of):
    id = server.new_container("box")
    file = server.write(id, "/mnt/data/file", b"content")["id"]
    mounted = mount()
    assert os.listdir(mounted / "box") == ["file"]
    server.call("DELETE", f"/v1/containers/{id}/files/{file}")
    assert errno_of((mounted / "box" / "file").read_bytes) == "ENOENT"
    assert os.listdir(mounted / "box") == []


def test_a_container_that_is_gone_is_not_there(server, mount, errno_of, api):
    id = server.new_container("box")
    mounted = mount()
    mounted.expect(
        "'file' is not on the server", "'file' is kept here", "not everything", "has expired"
    )
    assert os.listdir(mounted / "box") == []
    api.containers.delete(id)
    assert errno_of(write, mounted / "box" / "file", b"content") == "ENOENT"


def test_a_refused_file_is_invalid(server, mount, errno_of):
    server.set_behaviours(refuse_svg=True)
    mounted = mount()
    mounted.expect("not on the server", "is kept here", "not everything")
    (mounted / "box").mkdir()
    assert errno_of(write, mounted / "box" / "file", b"<svg/>") == "EINVAL"
    assert "invalid file" in xattr(mounted / "box" / "file", "error")
    server.set_behaviours(read_only=True)
    assert errno_of(write, mounted / "box" / "other", b"text") == "EROFS"
    server.set_behaviours(read_only=False, max_file_size=10)
    assert errno_of(write, mounted / "box" / "other", b"a longer text") == "EFBIG"
    server.set_behaviours(max_file_size=None, full=True)
    assert errno_of(write, mounted / "box" / "other", b"text") == "ENOSPC"


def test_more_than_max_file_size_is_too_large(server, mount, errno_of, stored):
    mounted = mount(max_file_size="1000")
    box = mounted / "box"
    box.mkdir()
    write(box / "file", bytes(1000))
    with (box / "file").open("ab", buffering=0) as writer:
        assert errno_of(writer.write, b"x") == "EFBIG"
    assert errno_of(os.truncate, box / "file", 1001) == "EFBIG"
    assert stored(xattr(box, "id")) == {"file": bytes(1000)}


def test_more_files_than_the_mount_may_have_open_are_too_many(server, mount, errno_of, fd):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    soft, hard = resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE, (100, hard))
    opened: list[int] = []

    def open_many():
        for number in range(100):
            opened.append(fd(box / f"file{number}", os.O_CREAT | os.O_WRONLY))
            os.write(opened[-1], b"content")

    assert errno_of(open_many) == "ENFILE"
    resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert len(opened) > 10
    for number in opened[:-1]:
        os.fsync(number)
    assert (box / "file0").read_bytes() == b"content"


def test_no_connection_is_no_route_to_the_server(server, mount, errno_of):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content")
    mounted = mount(timeout=2)
    mounted.expect("stale listing", "not on the server", "not everything", "is kept here")
    assert os.listdir(mounted / "box") == ["file"]
    server.kill()
    assert errno_of((mounted / "box" / "file").read_bytes) == "EHOSTUNREACH"
    assert errno_of(os.mkdir, mounted / "made") == "EHOSTUNREACH"
    assert errno_of(write, mounted / "box" / "new", b"new") == "EHOSTUNREACH"
    server.start()


# In mount name spaces of their own: nobody else sees the small disk, or needs to be root.
SMALL_DISK = """
set -e
mount -t tmpfs -o size=4m tmpfs "$CACHE"
chmod 700 "$CACHE"
"$COMMAND" mount -d --uds "$SOCKET" --cache-dir "$CACHE" --log-file "$LOG" "$DIR"
trap '"$COMMAND" umount "$DIR"' EXIT
mkdir "$DIR/box"
"""
FULL = """
head -c 1M /dev/zero > "$CACHE/other"
dd if=/dev/zero of="$DIR/box/file" bs=1M count=8 2>&1 | head -1
rm "$CACHE/other" "$DIR/box/file"
echo small > "$DIR/box/small"
cat "$DIR/box/small"
"""
# `big~` stays here by its name; what was cached before has made room for it.
FULL_FOR_LONG = """
echo small > "$DIR/box/small"
dd if=/dev/zero of="$DIR/box/big~" bs=64k count=1000 2>/dev/null || echo refused
cat "$DIR/box/small"
echo new 2>/dev/null > "$DIR/box/new" || echo refused
rm "$DIR/box/big~"
echo new > "$DIR/box/new"
cat "$DIR/box/new"
"""


@pytest.fixture
def on_small_disk(server, run, tmp_path, command):
    """`on_small_disk(script)`: the lines that it prints."""

    def on_small_disk(script):
        for name in ("cache", "dir"):
            (tmp_path / name).mkdir()
        words = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
        return run(
            *(*words, "sh", "-c", SMALL_DISK + script),
            COMMAND=command,
            SOCKET=server.uds,
            CACHE=str(tmp_path / "cache"),
            DIR=str(tmp_path / "dir"),
            LOG=str(tmp_path / "log"),
        ).splitlines()

    return on_small_disk


def test_a_full_local_disk_is_no_space(on_small_disk, stored, api):
    first, second = on_small_disk(FULL)
    assert first.endswith("No space left on device")
    assert second == "small"
    (box,) = api.containers.list()
    assert stored(box.id) == {"small": b"small\n"}


def test_a_full_cache_disk_refuses_new_content_and_nothing_else(on_small_disk, stored, api):
    assert on_small_disk(FULL_FOR_LONG) == ["refused", "small", "refused", "new"]
    (box,) = api.containers.list()
    assert stored(box.id) == {"small": b"small\n", "new": b"new\n"}


def test_without_a_server_what_is_cached_stays_readable(
    server, mount, errno_of, eventually, stored
):
    id = server.new_container("box")
    for name in ("cached", "other", "dir/below"):
        server.write(id, f"/mnt/data/{name}", name.encode())
    mounted = mount(timeout=2)
    mounted.expect("stale listing", "not on the server", "is kept here", "not everything")
    box = mounted / "box"
    assert (box / "cached").read_bytes() == b"cached"
    (box / "old").write_bytes(b"old")
    server.kill()

    def check():
        assert os.listdir(mounted.path) == ["box"]
        assert sorted(os.listdir(box)) == ["cached", "dir", "new", "old", "other"]
        assert os.listdir(box / "dir") == ["below"]
        assert os.stat(box / "other").st_size == 5
        assert (box / "cached").read_bytes() == b"cached"
        assert (box / "new").read_bytes() == b"new"
        assert (box / "old").read_bytes() == b"overwritten"
        assert errno_of((box / "other").read_bytes) == "EHOSTUNREACH"

    assert errno_of(write, box / "new", b"new") == "EHOSTUNREACH"
    assert errno_of(write, box / "old", b"overwritten") == "EHOSTUNREACH"
    check()
    mounted.remount()
    check()
    assert "serving a stale listing" in mounted.log
    server.start()
    before = {name: name.encode() for name in ("cached", "other", "dir/below")}
    eventually(lambda: stored(id) == before | {"new": b"new", "old": b"overwritten"})
    assert (box / "other").read_bytes() == b"other"


@pytest.mark.parametrize("how", ["400", "404"])
def test_an_expired_container_stays_as_a_snapshot(server, mount, errno_of, eventually, how):
    server.set_behaviours(expired_as=how)
    id = server.new_container("box")
    for name in ("cached", "other"):
        server.write(id, f"/mnt/data/{name}", name.encode())
    mounted = mount(ttl=0.1)
    mounted.expect("has expired", "not on the server", "is kept here", "not everything", "is gone")
    box = mounted / "box"
    assert (box / "cached").read_bytes() == b"cached"
    server.set_faults({"operation": "create_file", **status(403)})
    assert errno_of(write, box / "unsent", b"unsent") == "EACCES"
    server.expire(id)
    eventually(lambda: errno_of((box / "other").read_bytes) == "ESTALE")

    def check():
        assert os.listdir(mounted.path) == ["box"]
        assert sorted(os.listdir(box)) == ["cached", "other", "unsent"]
        assert (box / "cached").read_bytes() == b"cached"
        assert (box / "unsent").read_bytes() == b"unsent"
        assert errno_of((box / "other").read_bytes) == "ESTALE"
        assert errno_of(write, box / "new", b"new") == "EROFS"
        assert errno_of(write, box / "cached", b"new") == "EROFS"
        assert errno_of(write, box / "unsent", b"new") == "EROFS"
        assert errno_of(os.mkdir, box / "dir") == "EROFS"

    eventually(lambda: xattr(box, "status") == "expired")
    check()
    check()
    mounted.remount()
    check()
    assert errno_of(os.remove, box / "unsent") == "EROFS"
    assert errno_of(os.rmdir, box) == "ENOTEMPTY"
    check()


def test_a_snapshot_with_nothing_unsent_can_be_removed(server, mount, errno_of, eventually):
    id = server.new_container("box")
    server.write(id, "/mnt/data/read", b"read")
    mounted = mount(ttl=0.1)
    mounted.expect("has expired")
    box = mounted / "box"
    assert (box / "read").read_bytes() == b"read"
    (box / "note~").write_bytes(b"temporary")
    server.expire(id)
    eventually(lambda: xattr(box, "status") == "expired")
    assert sorted(os.listdir(box)) == ["note~", "read"]
    os.rmdir(box)
    assert os.listdir(mounted.path) == []
    box.mkdir()
    assert os.listdir(box) == []
    mounted.remount()
    assert os.listdir(box) == []


def test_a_killed_mount_loses_nothing_that_was_written(
    server, mount, errno_of, eventually, stored, api
):
    mounted = mount()
    mounted.expect("not on the server")
    box = mounted / "box"
    box.mkdir()
    id = xattr(box, "id")
    (box / "changed").write_bytes(b"0123456789")
    (box / "cut").write_bytes(b"0123456789")
    (box / "sent").write_bytes(b"sent")
    server.set_faults({"operation": "create_file", **status(403)})
    assert errno_of(write, box / "refused", b"refused") == "EACCES"
    (box / "note~").write_bytes(b"temporary")
    os.chmod(box / "sent", 0o600)
    (box / "dir" / "empty").mkdir(parents=True)
    writers = [
        (box / "new").open("wb", buffering=0),
        (box / "dir" / "appended").open("ab", buffering=0),
        (box / "changed").open("r+b", buffering=0),
    ]
    for number, writer in enumerate(writers):
        writer.write(b"written %d" % number)
    with (box / "cut").open("r+b", buffering=0) as cut:
        os.ftruncate(cut.fileno(), 5)
        mounted.kill()
        assert errno_of(os.listdir, mounted.path) == "ENOTCONN"
        for writer in (*writers, cut):
            errno_of(writer.close)
    server.set_faults()
    assert stored(id) == {"changed": b"0123456789", "cut": b"0123456789", "sent": b"sent"}

    mounted.remount()
    written = {
        "new": b"written 0",
        "dir/appended": b"written 1",
        "changed": b"written 29",
        "cut": b"01234",
        "sent": b"sent",
        "refused": b"refused",
    }
    assert {name: (box / name).read_bytes() for name in written} == written
    assert (box / "note~").read_bytes() == b"temporary"
    assert os.listdir(box / "dir" / "empty") == []
    assert os.stat(box / "sent").st_mode & 0o777 == 0o600
    eventually(lambda: stored(id) == written)
    mounted.kill()
    mounted.remount()
    assert {name: (box / name).read_bytes() for name in written} == written
    assert stored(id) == written


@pytest.mark.parametrize(
    "fault", [{"kind": "stall"}, {"kind": "stall-body", "at": 0}], ids=["before", "after"]
)
def test_a_mount_killed_while_it_sends_sends_once(
    server, mount, errno_of, eventually, stored, fault
):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    id = xattr(box, "id")
    server.set_faults({"operation": "create_file", **fault})
    writing = threading.Thread(target=errno_of, args=(write, box / "file", b"content"))
    writing.start()
    eventually(lambda: server.admin("GET", "/admin/faults")[0]["fired"])
    if fault["kind"] == "stall-body":
        eventually(lambda: server.files(id))
    mounted.kill()
    writing.join()
    server.set_faults()
    mounted.remount()
    assert (box / "file").read_bytes() == b"content"
    eventually(lambda: stored(id) == {"file": b"content"})
    (box / "other").write_bytes(b"other")
    mounted.stop()
    assert stored(id) == {"file": b"content", "other": b"other"}


def test_a_server_that_was_killed_and_started_again_is_used_again(server, mount, stored):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / "file").write_bytes(b"first")
    server.kill()
    server.start()
    (box / "file").write_bytes(b"second")
    assert stored(xattr(box, "id")) == {"file": b"second"}
    assert Path(box / "file").read_bytes() == b"second"
