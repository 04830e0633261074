"""What the README promises of time: whose changes are seen when, and what is asked for."""

import base64
import os

import pytest

from containerfs.options import OPTIONS


def operations(server):
    return [entry["operation"] for entry in server.requests()]


@pytest.fixture
def rewrite(server):
    """A file is written anew by the model's code: `rewrite(container, id, data, same_id=True)`."""

    def rewrite(container_id, file_id, data, **members):
        body = {"content_base64": base64.b64encode(data).decode(), **members}
        return server.admin("PUT", f"/admin/files/{container_id}/{file_id}", body)["id"]

    return rewrite


def test_own_changes_are_seen_at_once(server, mount):
    server.set_behaviours(list_lag_lists=1000, delete_lag_lists=1000)
    mounted = mount(ttl=0)
    box = mounted / "box"
    box.mkdir()
    assert os.listdir(mounted.path) == ["box"]
    (box / "dir").mkdir()
    (box / "dir" / "kept").write_bytes(b"first")
    (box / "dir" / "kept").write_bytes(b"second")
    (box / "removed").write_bytes(b"removed")
    (box / "old").write_bytes(b"renamed")
    os.remove(box / "removed")
    os.rename(box / "old", box / "new")
    (mounted / "gone").mkdir()
    os.rmdir(mounted / "gone")

    def check():
        assert os.listdir(mounted.path) == ["box"]
        assert sorted(os.listdir(box)) == ["dir", "new"]
        assert os.listdir(box / "dir") == ["kept"]
        assert (box / "dir" / "kept").read_bytes() == b"second"
        assert (box / "new").read_bytes() == b"renamed"
        assert os.stat(box / "new").st_size == 7
        assert not (box / "removed").exists()
        assert not (box / "old").exists()

    server.forget_requests()
    for _ in range(3):
        check()
    assert "list_files" in operations(server)  # it was the server's list that lagged behind


def test_what_was_removed_at_once_is_not_shown_by_a_list_that_is_behind(server, mount):
    server.set_behaviours(list_lag_lists=4, delete_lag_lists=12)
    box = mount(ttl=0) / "box"
    box.mkdir()
    (box / "removed").write_bytes(b"removed")
    os.remove(box / "removed")
    seen = [os.listdir(box) for _ in range(20)]
    assert seen == [[]] * 20


def test_what_was_deleted_stays_away_after_a_remount_while_the_list_lags(server, mount):
    server.set_behaviours(delete_lag_lists=1000)
    mounted = mount(ttl=0)
    box = mounted / "box"
    box.mkdir()
    (box / "file").write_bytes(b"first")
    (box / "file").write_bytes(b"second")
    (box / "removed").write_bytes(b"removed")
    os.remove(box / "removed")
    (mounted / "gone").mkdir()
    os.rmdir(mounted / "gone")
    mounted.remount()
    assert os.listdir(mounted.path) == ["box"]
    assert os.listdir(box) == ["file"]
    assert (box / "file").read_bytes() == b"second"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_made_stays_after_a_remount_while_the_list_lags(server, mount, end):
    server.set_behaviours(list_lag_lists=1000, slashes="flatten")
    mounted = mount(ttl=0)
    box = mounted / "box"
    (box / "dir").mkdir(parents=True)
    (box / "dir" / "file").write_bytes(b"content")
    os.chmod(box / "dir" / "file", 0o640)
    getattr(mounted, end)()
    for _ in range(2):
        mounted.remount()
        assert os.listdir(mounted.path) == ["box"]
        assert os.listdir(box / "dir") == ["file"]
        assert (box / "dir" / "file").read_bytes() == b"content"
        assert os.stat(box / "dir" / "file").st_mode & 0o777 == 0o640


def test_what_was_made_stays_where_its_content_is_not_to_be_had_yet(server, mount):
    data = b"content" * 100_000
    mounted = mount(ttl=0, cache_size=1000)
    box = mounted / "box"
    box.mkdir()
    (box / "file").write_bytes(data)
    mounted.remount()  # the kernel has its pages no more
    server.set_faults({"kind": "status", "operation": "content", "status": 404})
    with pytest.raises(FileNotFoundError):
        (box / "file").read_bytes()
    server.set_faults()
    assert os.listdir(box) == ["file"]
    assert (box / "file").read_bytes() == data


def test_changes_by_others_are_seen_within_the_ttl(server, mount, api, eventually, rewrite):
    assert OPTIONS["ttl"].default == "10"
    id = server.new_container("box")
    kept = server.write(id, "/mnt/data/kept", b"old kept", created_at=1_000)["id"]
    other = server.write(id, "/mnt/data/other", b"old other", created_at=1_000)["id"]
    gone = server.write(id, "/mnt/data/gone", b"gone")["id"]
    removed = server.new_container("removed")
    mounted, believing = mount(ttl=1), mount(ttl=3600)

    def seen(each):
        box = each / "box"
        return {path.name: path.read_bytes() for path in box.iterdir()}, set(os.listdir(each.path))

    before = (
        {"kept": b"old kept", "other": b"old other", "gone": b"gone"},
        {"box", "removed"},
    )
    assert seen(mounted) == seen(believing) == before
    rewrite(id, kept, b"NEW KEPT", same_id=True, created_at=2_000)
    rewrite(id, other, b"a longer other", created_at=2_000)
    api.containers.files.delete(gone, container_id=id)
    server.upload(id, "added", b"added")
    api.containers.delete(removed)
    server.new_container("made")
    after = (
        {"kept": b"NEW KEPT", "other": b"a longer other", "added": b"added"},
        {"box", "made"},
    )

    def is_after():
        try:
            return seen(mounted) == after
        except FileNotFoundError:  # its time came between the listing and the reading
            return False

    eventually(is_after)
    assert seen(believing) == before
    assert os.stat(mounted / "box" / "other").st_size == len(b"a longer other")


def test_what_was_absent_is_seen_within_the_ttl_by_who_knows_its_name(
    server, mount, eventually, errno_of
):
    """A negative entry in the kernel's cache holds no longer than the listing it is from."""
    id = server.new_container("box")
    mounted, believing = mount(ttl=1), mount(ttl=3600)
    for each in (mounted, believing):
        for name in ("box/file", "made"):
            assert errno_of(os.stat, each / name) == "ENOENT"
    server.write(id, "/mnt/data/file", b"content")
    server.new_container("made")
    server.forget_requests()
    for name in ("box/file", "made"):
        assert errno_of(os.stat, believing / name) == "ENOENT"
    assert operations(server) == []
    eventually(lambda: errno_of(os.stat, mounted / "box/file") is None)
    eventually(lambda: errno_of(os.stat, mounted / "made") is None)


def test_a_new_version_of_the_same_second_and_size_is_not_read_from_old_pages(
    server, mount, rewrite
):
    """Only its id tells that it is another: the kernel sees the same time and size."""
    id = server.new_container("box")
    file = server.write(id, "/mnt/data/file", b"old" * 5000, created_at=1_000)["id"]
    path = mount(ttl=0) / "box" / "file"
    assert path.read_bytes() == b"old" * 5000
    rewrite(id, file, b"NEW" * 5000, created_at=1_000)
    assert path.read_bytes() == b"NEW" * 5000


@pytest.mark.parametrize("how", ["read", "append"])
@pytest.mark.parametrize(("before", "after"), [(40, 70_000), (70_000, 40), (4096, 4097)])
def test_a_new_version_is_not_cut_to_the_size_that_the_kernel_still_believes(
    server, mount, rewrite, errno_of, how, before, after
):
    """The mount learns of it before the time for which the kernel was told the old one is over."""
    id = server.new_container("box")
    file = server.write(id, "/mnt/data/file", b"o" * before, created_at=1_000)["id"]
    gone = server.write(id, "/mnt/data/gone", b"gone")["id"]
    box = mount(ttl=3600) / "box"
    # Not read: the kernel would ask for the attributes again, for the time of that.
    assert {path.name: path.stat().st_size for path in box.iterdir()} == {"file": before, "gone": 4}
    rewrite(id, file, b"N" * after, same_id=True, created_at=2_000)
    server.call("DELETE", f"/v1/containers/{id}/files/{gone}")
    assert errno_of((box / "gone").read_bytes) == "ENOENT"  # so what the server has was listed
    if how == "append":
        with (box / "file").open("ab", buffering=0) as end:
            end.write(b"more")
        assert (box / "file").read_bytes() == b"N" * after + b"more"
        return
    with (box / "file").open("rb", buffering=0) as whole:
        assert os.fstat(whole.fileno()).st_size == after
        assert whole.read() == b"N" * after


@pytest.mark.parametrize("how", ["cat", "r+", "append"])
@pytest.mark.parametrize("size", [7, 100_000])
@pytest.mark.parametrize("same_id", [True, False])
def test_what_was_just_replaced_is_read_as_it_is_now(
    server, mount, rewrite, run, how, size, same_id
):
    """Though neither the mount nor the kernel would ask for the listing again for an hour."""
    id = server.new_container("box")
    before, after = b"old" * 100, b"N" * size
    server.write(id, "/mnt/data/kept", b"content", created_at=1_000)
    file = server.write(id, "/mnt/data/file", before, created_at=1_000)["id"]
    box = mount(ttl=3600) / "box"
    assert {path.name: path.stat().st_size for path in box.iterdir()} == {"file": 300, "kept": 7}
    rewrite(id, file, after, same_id=same_id, created_at=2_000)
    if how == "cat":
        assert run("cat", box / "file", text=False) == after
        assert run("stat", "-c", "%s", box / "file").strip() == str(size)
        return
    with (box / "file").open({"r+": "r+b", "append": "ab"}[how], buffering=0) as opened:
        assert os.fstat(opened.fileno()).st_size == size
        opened.seek(0, os.SEEK_END)
        opened.write(b"more")
    assert (box / "file").read_bytes() == after + b"more"
    held = sorted(server.content(id, each["id"]) for each in server.files(id))
    assert held == sorted([b"content", after + b"more"])


@pytest.mark.parametrize(("same_id", "error"), [(True, "EIO"), (False, "ENOENT")])
def test_what_was_just_replaced_and_is_large_is_read_by_who_opens_it_again(
    server, mount, rewrite, errno_of, same_id, error
):
    id = server.new_container("box")
    file = server.write(id, "/mnt/data/file", b"old" * 200_000, created_at=1_000)["id"]
    path = mount(ttl=3600) / "box" / "file"
    assert path.stat().st_size == 600_000
    rewrite(id, file, b"NEW" * 150_000, same_id=same_id, created_at=2_000)
    assert errno_of(path.read_bytes) == error
    assert path.read_bytes() == b"NEW" * 150_000


def test_a_server_that_tells_wrong_lengths_is_not_listed_again_for_each_file(
    server, mount, errno_of
):
    id = server.new_container("box")
    for number in range(20):
        server.write(id, f"/mnt/data/{number}", b"content", bytes=70)
    server.set_faults({"kind": "latency", "operation": "list_files", "seconds": 0.3})
    box = mount(ttl=3600) / "box"
    assert len(os.listdir(box)) == 20
    server.forget_requests()
    for number in range(20):
        assert errno_of((box / str(number)).read_bytes) == "EIO"
    assert operations(server).count("list_files") == 1


def test_an_open_file_keeps_what_it_was_opened_with(server, mount, rewrite):
    id = server.new_container("box")
    file = server.write(id, "/mnt/data/file", b"old content", created_at=1_000)["id"]
    mounted = mount(ttl=0)
    with (mounted / "box" / "file").open("rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        rewrite(id, file, b"NEW", created_at=2_000)
        assert (mounted / "box" / "file").read_bytes() == b"NEW"
        assert reader.read() == b" content"


def test_listing_the_top_level_asks_for_lists_only(server, mount, run, api):
    for name in ("alpha", "beta", "gamma"):
        server.write(server.new_container(name), "/mnt/data/file", b"content")
    idle = {container.id: container.last_active_at for container in api.containers.list()}
    mounted = mount(ttl=0)
    server.forget_requests()
    for words in (["ls"], ["ls", "-la"], ["ls", "-d", "alpha"], ["find", ".", "-maxdepth", "1"]):
        run(*words, cwd=mounted.path)
    run("getfattr", "-d", "alpha", "beta", cwd=mounted.path)
    assert set(operations(server)) == {"list_containers"}
    assert {each.id: each.last_active_at for each in api.containers.list()} == idle
    server.forget_requests()
    run("ls", "-l", "alpha", cwd=mounted.path)
    entered = [entry for entry in server.requests() if entry["operation"] != "list_containers"]
    assert {entry["operation"] for entry in entered} == {"list_files"}
    alpha = os.getxattr(mounted / "alpha", "user.containerfs.id").decode()
    assert {alpha in entry["path"] for entry in entered} == {True}


def test_nothing_is_asked_when_nobody_looks(server, mount, run, eventually):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content")
    watched, other = mount(ttl=0.1, query="who=watched"), mount(ttl=0.1, query="who=other")
    run("ls", "-laR", watched.path)
    assert (watched / "box" / "file").read_bytes() == b"content"
    (watched / "box" / "written").write_bytes(b"written")
    server.forget_requests()
    for turn in range(10):  # each takes the other mount a ttl to see
        server.write(id, f"/mnt/data/{turn}", b"")
        eventually(lambda turn=turn: str(turn) in os.listdir(other / "box"))
    asked = [entry["query"] for entry in server.requests() if "who=" in entry["query"]]
    assert len(asked) >= 10
    assert {"who=watched" in query for query in asked} == {False}


def test_without_a_ttl_one_call_asks_once(server, mount):
    id = server.new_container("box")
    server.write(id, "/mnt/data/dir/file", b"content")
    directory = mount(ttl=0) / "box" / "dir"

    def lists(call, *args):
        server.forget_requests()
        call(*args)
        return operations(server).count("list_files")

    assert lists(lambda: os.close(os.open(directory / "file", os.O_RDONLY))) == 2  # dir, and file
    assert lists(os.listdir, directory) == 1
    assert lists(os.listdir, directory.parent) == 1
    assert lists(os.remove, directory / "file") == 2


def test_without_a_ttl_the_next_call_asks_anew(server, mount, rewrite):
    id = server.new_container("box")
    file = server.write(id, "/mnt/data/file", b"old", created_at=1_000)["id"]
    box = mount(ttl=0) / "box"
    for number in range(5):
        assert len(os.listdir(box)) == 1 + number
        assert os.stat(box / "file").st_size == 3 + number
        assert (box / "file").read_bytes() == b"old" + b"x" * number
        rewrite(id, file, b"old" + b"x" * (number + 1), same_id=True, created_at=2_000 + number)
        server.write(id, f"/mnt/data/{number}", b"")
