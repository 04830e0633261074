"""Temporary files of editors and tools stay on this machine until they get a real name."""

import os

import pytest

NAMES = (
    ".file.swp",
    ".file.swo",
    ".file.swpx",
    "4913",
    "file~",
    ".#file",
    "#file#",
    ".goutputstream-A1B2C3",
    "sedAbC123",
    ".nfs0000000012",
    ".~lock.report.odt#",
    "~$report.docx",
    ".DS_Store",
    "._file",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_scratch_file_costs_no_request_whatever_is_done_to_it(box, counted, sent, name):
    (box / "dir").mkdir()
    os.listdir(box)
    counted(box)
    for path in (box / name, box / "dir" / name):
        path.write_bytes(b"first")
        with path.open("ab") as file:
            file.write(b" second")
            os.fsync(file.fileno())
        assert path.read_bytes() == b"first second"
        os.truncate(path, 5)
        os.chmod(path, 0o600)
        os.utime(path, ns=(1, 2))
        os.setxattr(path, "user.a", b"b")
        os.rename(path, path.with_name(".other.swp"))
        os.rename(path.with_name(".other.swp"), path)
        assert path.read_bytes() == b"first"
        path.write_bytes(b"")
        os.unlink(path)
        assert not path.exists()
    assert counted(box) == {}
    assert sent(box) == {}


def test_a_scratch_file_becomes_real_when_it_is_renamed(box, counted, sent):
    (box / ".goutputstream-X1Y2Z3").write_bytes(b"saved")
    assert "create_file" not in counted(box)
    os.rename(box / ".goutputstream-X1Y2Z3", box / "document")
    assert sent(box) == {"document": b"saved"}
    assert counted(box)["create_file"] == 1
    (box / "#big#").write_bytes(b"x" * 3_000_000)
    os.rename(box / "#big#", box / "document")
    assert sent(box) == {"document": b"x" * 3_000_000}
    requests = counted(box)
    assert (requests["create_file"], requests["delete_file"]) == (1, 1)


def test_an_empty_scratch_file_becomes_real_too(box, sent, eventually):
    (box / ".x.swp").touch()
    os.rename(box / ".x.swp", box / "empty")
    eventually(lambda: sent(box) == {"empty": b""})


def test_a_directory_of_scratch_files_is_renamed_without_a_request(box, counted):
    (box / "dir").mkdir()
    for number in range(20):
        (box / "dir" / f".{number}.swp").write_bytes(b"%d" % number)
    counted(box)
    os.rename(box / "dir", box / "renamed")
    assert (box / "renamed" / ".7.swp").read_bytes() == b"7"
    requests = counted(box)
    assert "create_file" not in requests
    assert "delete_file" not in requests


def test_scratch_files_survive_a_remount_and_a_crash(mount, server):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / ".file.swp").write_bytes(b"recover me")
    (box / "dir").mkdir()
    (box / "dir" / "#auto#").write_bytes(b"")
    os.symlink("me@here.123:456", box / ".#file")

    def check():
        assert sorted(os.listdir(box)) == [".#file", ".file.swp", "dir"]
        assert (box / ".file.swp").read_bytes() == b"recover me"
        assert (box / "dir" / "#auto#").read_bytes() == b""
        assert os.readlink(box / ".#file") == "me@here.123:456"

    mounted.remount()
    check()
    mounted.kill()
    mounted.remount()
    check()
    (box / ".file.swp").unlink()
    mounted.remount()
    assert sorted(os.listdir(box)) == [".#file", "dir"]
    assert server.requests("create_file") == []


def test_scratch_files_are_not_shown_by_another_mount(mount, stored, server, api):
    mounted = mount()
    (mounted / "box").mkdir()
    (mounted / "box" / ".file.swp").write_bytes(b"mine")
    (mounted / "box" / "file").write_bytes(b"everybody's")
    other = mount()
    assert os.listdir(other / "box") == ["file"]
    (container,) = api.containers.list()
    assert stored(container.id) == {"file": b"everybody's"}


def test_a_real_file_renamed_to_a_backup_stays_on_the_server_until_it_is_removed(
    box, counted, sent
):
    (box / "file").write_bytes(b"old")
    counted(box)
    os.rename(box / "file", box / "file~")
    assert (box / "file~").read_bytes() == b"old"
    assert not (box / "file").exists()
    assert sent(box) == {"file": b"old"}
    (box / "file").write_bytes(b"new")
    requests = counted(box)
    assert requests["create_file"] == 1
    assert "delete_file" not in requests
    assert (box / "file~").read_bytes() == b"old"
    assert (box / "file").read_bytes() == b"new"
    os.unlink(box / "file~")
    assert sent(box) == {"file": b"new"}
    assert os.listdir(box) == ["file"]


def test_a_backup_that_is_renamed_back_is_the_file_again(box, counted, sent):
    (box / "file").write_bytes(b"old")
    counted(box)
    os.rename(box / "file", box / "file~")
    os.rename(box / "file~", box / "file")
    assert (box / "file").read_bytes() == b"old"
    requests = counted(box)
    assert "create_file" not in requests
    assert "delete_file" not in requests
    assert sent(box) == {"file": b"old"}


def test_a_backup_is_still_there_after_a_crash_and_becomes_local_at_a_clean_stop(
    mount, server, stored
):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    id = os.getxattr(box, "user.containerfs.id").decode()
    (box / "file").write_bytes(b"old")
    os.rename(box / "file", box / "file~")
    mounted.kill()
    mounted.remount()
    assert (box / "file~").read_bytes() == b"old"
    assert os.listdir(box) == ["file~"]
    (box / "file").write_bytes(b"new")
    mounted.stop()
    assert stored(id) == {"file": b"new"}
    mounted.remount()
    assert (box / "file~").read_bytes() == b"old"
    assert (box / "file").read_bytes() == b"new"


def test_a_backup_whose_file_was_not_saved_again_stays_on_the_server(mount, server, stored):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    id = os.getxattr(box, "user.containerfs.id").decode()
    (box / "file").write_bytes(b"the only copy")
    os.rename(box / "file", box / "file~")
    mounted.stop()
    assert stored(id) == {"file": b"the only copy"}
    mounted.remount()
    assert (box / "file~").read_bytes() == b"the only copy"


def test_other_patterns_can_be_chosen(mount, server, stored, api):
    mounted = mount(scratch="*.tmp:cache-?")
    box = mounted / "box"
    box.mkdir()
    for name in ("a.tmp", "cache-1", "cache-10", "file~"):
        (box / name).write_bytes(b"x")
    assert set(stored(os.getxattr(box, "user.containerfs.id").decode())) == {"cache-10", "file~"}
