"""What an end waits for, how long, and what is shown meanwhile."""

import os
import signal
import subprocess
from threading import Thread

import pytest

from containerfs import mountpoint

STALL = {"kind": "stall", "operation": "create_file"}
NAMED = "not on the server, and kept here: box/a, box/b"


@pytest.fixture
def waiting(mount, server):
    """A mount with two files that the server does not take."""
    mounted = mount(write_back=600)
    mounted.expect("is kept here")
    (mounted / "box").mkdir()
    (mounted / "box" / "a").write_bytes(bytes(1_000_000))
    (mounted / "box" / "b").write_bytes(bytes(500_000))
    server.set_faults(STALL)
    return mounted


def test_umount_shows_on_a_terminal_what_is_left_and_names_it_in_the_end(waiting, on_terminal):
    code, shown = on_terminal("umount", waiting.path, "--timeout", "2").end()
    assert "2 files, 1.5 MB left to send" in shown
    assert shown.splitlines()[-1].endswith(NAMED)
    assert code == 7
    assert mountpoint.at(waiting.path) is None


def test_umount_shows_nothing_of_it_elsewhere(waiting, run, command):
    done = run(command, "umount", waiting.path, "--timeout", "1", check=False)
    assert (done.returncode, done.stderr) == (7, f"containerfs: {NAMED}\n")
    assert done.stdout == ""


def test_after_the_timeout_the_process_has_ended_and_the_next_mount_sends(
    waiting, run, command, server, stored, api
):
    assert run(command, "umount", waiting.path, "--timeout", "0", check=False).returncode == 7
    waiting.kill()  # nothing is left to be killed: it waits for what has ended
    assert "is kept here" in waiting.log
    server.set_faults()
    waiting.remount()
    waiting.stop()
    (box,) = api.containers.list()
    assert stored(box.id) == {"a": bytes(1_000_000), "b": bytes(500_000)}


def test_umount_waits_for_what_takes_its_time(waiting, on_terminal, server):
    server.set_faults({**STALL, "seconds": 3})
    code, shown = on_terminal("umount", waiting.path).end()
    assert "2 files, 1.5 MB left to send" in shown
    assert "kept here" not in shown
    assert code == 0


def test_a_directory_in_use_stays_mounted_and_as_patient_as_before(waiting, run, command, server):
    with (waiting / "box" / "a").open("rb"):
        done = run(command, "umount", waiting.path, "--timeout", "0", check=False)
    assert done.returncode == 1
    assert "in use by" in done.stderr
    server.set_faults({**STALL, "seconds": 1})
    waiting.stop()
    assert "is kept here" not in waiting.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of the kernel's")
def test_umount_names_what_is_mounted_below(mount, run, command):
    mounted = mount()
    (mounted / "box").mkdir()
    run("mount", "-t", "tmpfs", "none", mounted / "box")
    try:
        done = run(command, "umount", mounted.path, check=False)
    finally:
        run("umount", mounted / "box")
    assert done.returncode == 1
    assert f"{mounted.path}: in use by the mount on {mounted.path}/box" in done.stderr


def test_what_can_never_be_sent_is_left_to_recover(mount, server):
    mounted = mount(write_back=600)
    mounted.expect("is kept here", "has expired", "not everything could be sent")
    (mounted / "box").mkdir()
    (mounted / "box" / "a").write_bytes(b"content")
    server.expire(os.getxattr(mounted / "box", "user.containerfs.id").decode())
    mounted.stop()
    assert "'a' is kept here for `containerfs recover`: the container has expired" in mounted.log
    assert "sent by the next mount" not in mounted.log


@pytest.fixture
def foreground(on_terminal, server, tmp_path):
    """A mount in the foreground of a terminal, with a file that the server does not take."""
    path = tmp_path / "mnt"
    path.mkdir()
    words = ["--uds", server.uds, "--cache-dir", tmp_path / "cache", "--write-back", "600"]
    process = on_terminal("mount", path, *words, "--log-level", "info")
    process.shown_until("is mounted on")
    yield process, path
    process.kill()
    while mountpoint.at(path):
        mountpoint.detach(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_mount_in_the_foreground_shows_what_it_waits_for_and_a_second_signal_ends_it(
    foreground, server, run, command, tmp_path, number
):
    process, path = foreground
    (path / "box").mkdir()
    (path / "box" / "a").write_bytes(b"content")
    server.set_faults(STALL)
    process.send_signal(number)
    process.shown_until(r"1 file, 7 bytes left to send \(Ctrl-C: leave it to the next mount\)")
    process.send_signal(number)
    code, shown = process.end()
    assert (code, "Traceback" in shown) == (0, False)
    assert "'a' is kept here and sent by the next mount" in " ".join(shown.split())
    assert mountpoint.at(path) is None
    assert "box/a" in run(command, "queue", path, "--cache-dir", tmp_path / "cache")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_mount_whose_call_hangs(
    foreground, server, run, command, eventually, errno_of, tmp_path, number
):
    process, path = foreground
    (path / "box").mkdir()
    (path / "box" / "a").write_bytes(b"content")
    server.set_faults(STALL)
    said = []
    hanging = Thread(target=lambda: said.append(errno_of(sync, path / "box" / "a")))
    hanging.start()
    eventually(lambda: server.admin("GET", "/admin/faults")[0]["fired"])
    process.send_signal(number)
    process.shown_until("stopping at signal")
    process.send_signal(number)
    code, shown = process.end()
    hanging.join()
    assert (code, "Traceback" in shown) == (0, False)
    assert said != [None]
    assert mountpoint.at(path) is None
    assert "box/a" in run(command, "queue", path, "--cache-dir", tmp_path / "cache")


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def test_the_source_is_what_df_and_the_kernel_show(run, command, tmp_path):
    data = tmp_path / "a, b\\c"
    path = tmp_path / "mnt"
    path.mkdir()
    run(command, "mount", "-d", f"local:{data}", path, "--cache-dir", tmp_path / "cache")
    try:
        mounted = mountpoint.at(path)
        assert mounted.source == f"local:{data}"
        assert mounted.is_ours
        assert f"local:{data}" in run("df", path)
    finally:
        assert subprocess.run([command, "umount", path], check=False).returncode in (0, 1)
