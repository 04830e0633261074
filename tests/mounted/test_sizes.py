"""Files whose size the server does not tell, and files that it lists and does not have."""

import mmap
import os

import pytest


@pytest.fixture
def write(shared_server, box):
    """Writes a file of the container, which nobody has looked into yet, as the model does."""

    def write(path, data=b"", **members):
        id = os.getxattr(box, "user.containerfs.id").decode()
        return shared_server.write(id, f"/mnt/data/{path}", data, **members)

    return write


@pytest.fixture
def shown(box, write, counted):
    """A container of files without sizes: "small", "large" and "dir/deep"."""
    for path, data in (
        ("small", b"twelve bytes"),
        ("large", b"0123456789" * 300_000),
        ("dir/deep", b"deep"),
    ):
        assert write(path, data, bytes=None)["bytes"] is None
    counted(box)
    return box


def test_ls_does_not_ask_for_sizes(shown, counted, run):
    assert sorted(os.listdir(shown)) == ["dir", "large", "small"]
    assert run("ls", shown).split() == ["dir", "large", "small"]
    run("find", shown, "-name", "small")
    assert "content" not in counted(shown)


def test_stat_shows_the_true_size_after_one_question(shown, shared_server, run):
    for _ in range(3):
        assert os.stat(shown / "small").st_size == 12
        assert os.stat(shown / "large").st_size == 3_000_000
    assert len(shared_server.requests("content")) <= 2
    assert sum(entry["bytes_out"] for entry in shared_server.requests("content")) < 3_100_000
    sizes = run("find", shown, "-type", "f", "-printf", "%s %f\n").splitlines()
    assert sorted(sizes) == ["12 small", "3000000 large", "4 deep"]
    assert len(shared_server.requests("content")) <= 3


def test_a_probed_size_is_remembered_until_the_version_changes(mount, server, eventually):
    id = server.new_container("box")
    file_id = server.write(id, "/mnt/data/file", b"one", bytes=None)["id"]
    mounted = mount(ttl=0)
    assert os.stat(mounted / "box" / "file").st_size == 3
    assert (mounted / "box" / "file").read_bytes() == b"one"
    server.call("DELETE", f"/v1/containers/{id}/files/{file_id}")
    server.write(id, "/mnt/data/file", b"second", bytes=None)
    assert os.stat(mounted / "box" / "file").st_size == 6
    assert (mounted / "box" / "file").read_bytes() == b"second"


def test_reading_is_whole(shown, run):
    os.listdir(shown)
    assert (shown / "small").read_bytes() == b"twelve bytes"
    assert run("cat", shown / "dir" / "deep") == "deep"
    with (shown / "large").open("rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == 3_000_000
        assert os.pread(file.fileno(), 20, 2_999_990) == b"0123456789"
        assert os.lseek(file.fileno(), 0, os.SEEK_END) == 3_000_000
    assert run("wc", "-c", shown / "large").split()[0] == "3000000"
    assert run("tail", "-c", "3", shown / "large") == "789"


def test_it_can_be_mapped_appended_and_changed(shown):
    os.listdir(shown)
    with (shown / "small").open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 12, access=mmap.ACCESS_READ)
        assert mapping[:] == b"twelve bytes"
        mapping.close()
    with (shown / "dir" / "deep").open("ab") as file:
        file.write(b"er")
    assert (shown / "dir" / "deep").read_bytes() == b"deeper"
    with (shown / "large").open("r+b") as file:
        file.write(b"X")
    assert (shown / "large").read_bytes() == b"X" + (b"0123456789" * 300_000)[1:]
    os.truncate(shown / "small", 6)
    assert (shown / "small").read_bytes() == b"twelve"


def test_appending_at_once_goes_to_the_end(shown):
    os.listdir(shown)
    fd = os.open(shown / "small", os.O_RDWR | os.O_APPEND)
    os.write(fd, b"." * 5000)
    assert os.pread(fd, 20, 0) == b"twelve bytes" + b"." * 8
    os.close(fd)
    assert (shown / "small").read_bytes() == b"twelve bytes" + b"." * 5000
    assert os.stat(shown / "small").st_size == 5012


def test_tools_copy_it_whole(shown, run, tmp_path):
    run("cp", "-r", shown, tmp_path / "copy")
    run("rsync", "-a", f"{shown}/", tmp_path / "synced")
    run("tar", "-cf", tmp_path / "all.tar", "-C", shown, ".")
    for copy in ("copy", "synced"):
        assert (tmp_path / copy / "large").read_bytes() == b"0123456789" * 300_000
        assert (tmp_path / copy / "small").read_bytes() == b"twelve bytes"
    assert run("tar", "-xOf", tmp_path / "all.tar", "./dir/deep") == "deep"


@pytest.mark.parametrize("touch", ["stat", "open", "read", "ls -l", "append", "rename"])
def test_a_phantom_is_absent_when_it_is_touched_and_leaves_the_listing(
    box, write, errno_of, run, touch
):
    write("real", b"real")
    write("phantom", phantom=True, bytes=None)
    assert sorted(os.listdir(box)) == ["phantom", "real"]
    calls = {
        "stat": lambda: errno_of(os.stat, box / "phantom"),
        "open": lambda: errno_of(os.open, box / "phantom", os.O_RDONLY),
        "read": lambda: errno_of((box / "phantom").read_bytes),
        "ls -l": lambda: run("ls", "-l", box, check=False) and "ENOENT",
        "append": lambda: errno_of(os.open, box / "phantom", os.O_WRONLY | os.O_APPEND),
        "rename": lambda: errno_of(os.rename, box / "phantom", box / "new"),
    }
    assert calls[touch]() == "ENOENT"
    assert os.listdir(box) == ["real"]
    assert errno_of(os.stat, box / "phantom") == "ENOENT"
    (box / "phantom").write_bytes(b"made")
    assert (box / "phantom").read_bytes() == b"made"


def test_a_phantom_with_a_size_is_absent_when_it_is_read(box, write, errno_of):
    write("phantom", phantom=True, bytes=100)
    assert os.stat(box / "phantom").st_size == 100
    assert errno_of((box / "phantom").read_bytes) == "ENOENT"
    assert os.listdir(box) == []
