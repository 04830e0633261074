"""What the README promises of names."""

import json
import os
from pathlib import Path

import pytest


def xattr(path, name):
    return os.getxattr(path, f"user.containerfs.{name}").decode()


def test_a_container_is_a_directory(server, mount, errno_of):
    server.new_container("alpha")
    server.write(server.new_container("beta"), "/mnt/data/file", b"content")
    server.expire(server.new_container("gamma"))
    mounted = mount()
    assert sorted(os.listdir(mounted.path)) == ["alpha", "beta"]
    assert (mounted / "alpha").is_dir()
    assert (mounted / "beta" / "file").read_bytes() == b"content"
    assert errno_of(os.stat, mounted / "gamma") == "ENOENT"
    assert errno_of(Path.write_bytes, mounted / "file", b"") == "EPERM"
    assert errno_of(os.symlink, "alpha", mounted / "link") == "EPERM"
    assert errno_of(os.mknod, mounted / "node") == "EPERM"
    assert errno_of(os.rename, mounted / "beta" / "file", mounted / "file") == "EPERM"
    assert sorted(os.listdir(mounted.path)) == ["alpha", "beta"]
    assert (mounted / "beta" / "file").read_bytes() == b"content"


def test_a_container_is_found_by_its_id(server, mount, run):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content")
    mounted = mount()
    assert os.listdir(mounted.path) == ["box"]
    assert os.readlink(mounted / ".by-id" / id) == "../box"
    assert (mounted / ".by-id" / id / "file").read_bytes() == b"content"
    assert (
        run("sh", "-c", f"cd .by-id && ls && cat {id}/file", cwd=mounted.path) == f"{id}\ncontent"
    )
    (mounted / "made").mkdir()
    made = xattr(mounted / "made", "id")
    assert os.readlink(mounted / ".by-id" / made) == "../made"


def test_making_and_removing_a_top_level_directory_makes_and_deletes_a_container(
    server, mount, api, errno_of, run
):
    mounted = mount(memory_limit="4g", expires_after=10, network_policy="disabled")
    (mounted / "box").mkdir()
    (made,) = api.containers.list()
    assert (made.name, made.memory_limit) == ("box", "4g")
    assert made.expires_after is not None
    assert made.expires_after.minutes == 10
    assert made.network_policy is not None
    assert made.network_policy.type == "disabled"

    (mounted / "box" / "dir").mkdir()
    (mounted / "box" / "dir" / "file").write_bytes(b"content")
    assert errno_of(os.rmdir, mounted / "box") == "ENOTEMPTY"
    assert len(list(api.containers.files.list(made.id))) == 1
    server.forget_requests()
    run("rm", "-r", mounted / "box")
    done = [entry["operation"] for entry in server.requests()]
    assert done.index("delete_file") < done.index("delete_container")
    assert (list(api.containers.list()), os.listdir(mounted.path)) == ([], [])

    (mounted / "empty").mkdir()
    os.rmdir(mounted / "empty")
    assert list(api.containers.list()) == []


def test_a_container_that_got_files_from_elsewhere_is_not_deleted_by_rmdir(
    server, mount, api, errno_of
):
    mounted = mount()
    (mounted / "box").mkdir()
    assert os.listdir(mounted / "box") == []
    (made,) = api.containers.list()
    server.write(made.id, "/mnt/data/file", b"content")
    assert errno_of(os.rmdir, mounted / "box") == "ENOTEMPTY"
    assert len(list(api.containers.files.list(made.id))) == 1


def test_two_containers_of_one_name_are_told_apart(server, mount, eventually, api):
    first = server.new_container("box")
    created = api.containers.retrieve(first).created_at
    eventually(lambda: server.call("POST", "/v1/containers", {"name": "x"})["created_at"] > created)
    second = server.new_container("box")
    for container in list(api.containers.list()):
        if container.name == "x":
            api.containers.delete(container.id)
    third = f"box~{server.new_container('box')[-8:]}"
    tail = f"box~{second[-8:]}"
    mounted = mount()
    assert sorted(os.listdir(mounted.path)) == sorted(["box", tail, third])
    assert xattr(mounted / "box", "id") == first
    assert xattr(mounted / tail, "id") == second
    assert xattr(mounted / tail, "name") == "box"
    mounted.remount()
    assert xattr(mounted / "box", "id") == first
    assert xattr(mounted / tail, "id") == second
    os.rmdir(mounted / "box")
    assert sorted(os.listdir(mounted.path)) == sorted([tail, third])
    mounted.remount()
    assert sorted(os.listdir(mounted.path)) == sorted([tail, third])


def test_a_path_keeps_its_meaning_when_an_older_container_of_its_name_appears(
    server, mount, eventually
):
    older = server.new_container("other")
    mounted = mount(ttl=0)
    (mounted / "box").mkdir()
    made = xattr(mounted / "box", "id")
    newer = server.new_container("box")
    assert sorted(os.listdir(mounted.path)) == sorted(["box", f"box~{newer[-8:]}", "other"])
    mounted.remount()
    assert xattr(mounted / "box", "id") == made
    assert xattr(mounted / "other", "id") == older


LONG = "n" * 300
ESCAPED = {
    "a/b": "a%2Fb",
    "new\nline": "new%0Aline",
    "tab\tstop": "tab%09stop",
    "nul\0": "nul%00",
    "del\x7f": "del%7F",
    "c1\x85": "c1%C2%85",
    ".": "%2E",
    "..": "%2E%2E",
    "...": "...",
    "100%": "100%",
    "a%2Fb": "a%252Fb",
}


def test_a_name_the_kernel_cant_hold_is_escaped(server, mount, api):
    ids = {name: server.new_container(name) for name in (*ESCAPED, LONG)}
    box = server.new_container("box")
    in_files = {name: shown for name, shown in ESCAPED.items() if "/" not in name}
    for name in in_files:
        server.write(box, f"/mnt/data/{name}", name.encode())
        server.write(box, f"/mnt/data/{name}/below", name.encode())
    long = server.write(box, f"/mnt/data/{LONG}", b"long")["id"]
    mounted = mount()
    cut = f"{'n' * 246}~{ids[LONG][-8:]}"
    assert len(cut) == 255
    assert sorted(os.listdir(mounted.path)) == sorted([*ESCAPED.values(), cut, "box"])
    for name, id in ids.items():
        assert xattr(mounted / ESCAPED.get(name, cut), "id") == id
    for name, shown in in_files.items():
        assert (mounted / "box" / shown / "below").read_bytes() == name.encode()
    assert (mounted / "box" / f"{'n' * 246}~{long[-8:]}").read_bytes() == b"long"
    (mounted / "c%2Fd").mkdir()
    assert "c/d" in {container.name for container in api.containers.list()}


def test_the_servers_prefix_is_hidden(server, mount, stored):
    here = mount()
    (here / "box" / "dir").mkdir(parents=True)
    (here / "box" / "a.csv").write_bytes(b"a")
    (here / "box" / "dir" / "b.csv").write_bytes(b"b")
    id = xattr(here / "box", "id")
    path = xattr(here / "box" / "a.csv", "path")
    assert path.startswith("/mnt/data/")
    assert path.endswith("-a.csv")
    assert len(path) == len("/mnt/data/-a.csv") + 32
    assert path in {file["path"] for file in server.files(id)}

    def check(mounted):
        assert sorted(os.listdir(mounted / "box")) == ["a.csv", "dir"]
        assert (mounted / "box" / "a.csv").read_bytes() == b"a"
        assert os.listdir(mounted / "box" / "dir") == ["b.csv"]
        assert (mounted / "box" / "dir" / "b.csv").read_bytes() == b"b"

    check(here)
    check(here.remount())
    check(mount())
    second = server.upload(id, "a.csv", b"another")["path"].removeprefix("/mnt/data/")
    first = path.removeprefix("/mnt/data/")
    elsewhere = mount()
    assert sorted(os.listdir(elsewhere / "box")) == sorted([first, second, "dir"])
    assert (elsewhere / "box" / first).read_bytes() == b"a"
    assert (elsewhere / "box" / second).read_bytes() == b"another"
    here.remount()
    assert sorted(os.listdir(here / "box")) == sorted(["a.csv", second, "dir"])
    assert (here / "box" / "a.csv").read_bytes() == b"a"


@pytest.mark.parametrize(
    "behaviours",
    [
        {"prefix": "front", "same_name": "overwrite"},
        {"naming": "file_id", "relative_paths": True, "long_ids": True},
        {"naming": "plain", "same_name": "overwrite_keep_id", "empty_pages": True},
    ],
    ids=str,
)
def test_names_are_as_they_were_written_whatever_the_server_does_to_them(server, mount, behaviours):
    server.set_behaviours(**behaviours)
    mounted = mount(ttl=0)
    (mounted / "box" / "dir").mkdir(parents=True)
    for content in (b"first", b"second"):
        (mounted / "box" / "a.csv").write_bytes(content)
        (mounted / "box" / "dir" / "b.csv").write_bytes(content)
    os.rename(mounted / "box" / "a.csv", mounted / "box" / "c.csv")
    for each in (mounted, mounted.remount(), mount()):
        assert sorted(os.listdir(each / "box")) == ["c.csv", "dir"]
        assert (each / "box" / "c.csv").read_bytes() == b"second"
        assert os.listdir(each / "box" / "dir") == ["b.csv"]
        assert (each / "box" / "dir" / "b.csv").read_bytes() == b"second"


@pytest.mark.parametrize("slashes", ["flatten", "refuse"])
def test_directories_are_kept_here_where_the_server_has_none(server, mount, slashes):
    server.set_behaviours(slashes=slashes)
    mounted = mount(ttl=0)
    (mounted / "box" / "dir").mkdir(parents=True)
    (mounted / "box" / "dir" / "b.csv").write_bytes(b"content")
    for each in (mounted, mounted.remount()):
        assert os.listdir(each / "box") == ["dir"]
        assert (each / "box" / "dir" / "b.csv").read_bytes() == b"content"


def test_files_outside_the_data_directory_are_in_a_directory_of_their_own(server, mount, errno_of):
    id = server.new_container("box")
    server.write(id, "/tmp/x", b"outside")
    server.write(id, "/mnt/data/x", b"inside")
    mounted = mount()
    assert sorted(os.listdir(mounted / "box")) == [".outside", "x"]
    outside = mounted / "box" / ".outside" / "tmp"
    assert (outside / "x").read_bytes() == b"outside"
    assert xattr(outside / "x", "path") == "/tmp/x"
    assert errno_of(Path.write_bytes, outside / "x", b"new") == "EPERM"
    os.remove(outside / "x")
    assert [file["path"] for file in server.files(id)] == ["/mnt/data/x"]
    assert (mounted / "box" / "x").read_bytes() == b"inside"


def test_rm_r_removes_a_container_with_files_outside_the_data_directory(server, mount, run):
    id = server.new_container("box")
    server.write(id, "/tmp/deep/x", b"outside")
    mounted = mount()
    assert os.listdir(mounted / "box" / ".outside" / "tmp" / "deep") == ["x"]
    run("rm", "-r", mounted / "box")
    assert os.listdir(mounted.path) == []


def test_of_two_files_with_one_path_the_newest_is_shown(server, mount):
    id = server.new_container("box")
    for name in ("removed", "overwritten", "renamed"):
        server.write(id, f"/mnt/data/{name}", b"newer", created_at=2_000)
        server.write(id, f"/mnt/data/{name}", b"older!", created_at=1_000)
    mounted = mount(ttl=0)
    assert sorted(os.listdir(mounted / "box")) == ["overwritten", "removed", "renamed"]
    assert (mounted / "box" / "removed").read_bytes() == b"newer"
    os.remove(mounted / "box" / "removed")
    (mounted / "box" / "overwritten").write_bytes(b"newest")
    os.rename(mounted / "box" / "renamed", mounted / "box" / "r")
    assert sorted(os.listdir(mounted / "box")) == ["overwritten", "r"]
    assert (mounted / "box" / "overwritten").read_bytes() == b"newest"
    assert (mounted / "box" / "r").read_bytes() == b"newer"
    contents = sorted(server.content(id, file["id"]) for file in server.files(id))
    assert contents == [b"newer", b"newest"]


def test_a_directory_keeps_its_name_against_a_file(server, mount):
    id = server.new_container("box")
    file = server.write(id, "/mnt/data/thing", b"file")["id"]
    server.write(id, "/mnt/data/thing/below", b"below")
    mounted = mount()
    shown = f"thing~{file[-8:]}"
    assert sorted(os.listdir(mounted / "box")) == ["thing", shown]
    assert (mounted / "box" / "thing" / "below").read_bytes() == b"below"
    assert (mounted / "box" / shown).read_bytes() == b"file"
    assert xattr(mounted / "box" / shown, "path") == "/mnt/data/thing"


def test_attributes_tell_what_the_server_says(server, mount, run, errno_of):
    policy = {"type": "allowlist", "allowed_domains": ["example.com"]}
    id = server.new_container("box", memory_limit="4g", network_policy=policy)
    written = server.write(id, "/mnt/data/out.csv", b"content")
    mounted = mount()
    file = mounted / "box" / "out.csv"
    assert {name: xattr(file, name) for name in ("id", "path", "source", "container")} == {
        "id": written["id"],
        "path": "/mnt/data/out.csv",
        "source": "assistant",
        "container": id,
    }
    told = run("getfattr", "-d", mounted / "box")
    assert f'user.containerfs.id="{id}"' in told
    assert 'user.containerfs.name="box"' in told
    assert 'user.containerfs.status="running"' in told
    assert 'user.containerfs.memory_limit="4g"' in told
    assert "user.containerfs.expires_at=" in told
    assert json.loads(xattr(mounted / "box", "network_policy")) == policy
