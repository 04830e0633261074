"""Closing sends what was written, once: counted at the server, however programs do it."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def shell(run, box):
    """A shell in the container: `shell(script)`."""

    def shell(script, **options):
        return run("bash", "-c", script, cwd=box, **options)

    return shell


def test_a_program_that_writes_and_closes_causes_one_upload(uploads, shell, sent, box):
    shell("echo one > f")
    assert uploads() == (1, 0)
    shell("echo two > f")
    assert uploads() == (1, 1)
    shell("echo three >> f")
    assert uploads() == (1, 1)
    assert sent(box) == {"f": b"two\nthree\n"}


def test_three_commands_into_one_redirection_cause_at_most_two_uploads(uploads, shell, sent, box):
    shell("(echo a; /bin/echo b; echo c) > f")
    assert sent(box) == {"f": b"a\nb\nc\n"}
    created, deleted = uploads()
    assert created <= 2
    assert deleted == created - 1
    shell("{ /bin/echo a; /bin/echo b; /bin/echo c; } > g")
    assert uploads()[0] <= 2
    shell("exec > h; /bin/echo a; /bin/echo b; /bin/echo c")
    assert uploads()[0] <= 2
    shell("for i in 1 2 3 4 5 6; do /bin/echo $i; done > loop")
    assert uploads()[0] <= 2
    shell("(/bin/echo a | cat; echo b | tr b c) > pipes")
    assert uploads()[0] <= 2
    assert sent(box)["loop"] == b"1\n2\n3\n4\n5\n6\n"
    assert sent(box)["h"] == b"a\nb\nc\n"
    assert sent(box)["pipes"] == b"a\nc\n"


@pytest.mark.parametrize("conversion", ["fsync", "fdatasync", "notrunc"])
def test_dd_causes_one_upload(uploads, run, sent, box, conversion):
    run("dd", "if=/dev/zero", f"of={box}/f", "bs=100k", "count=5", f"conv={conversion}")
    assert uploads() == (1, 0)
    assert sent(box) == {"f": bytes(512_000)}


def test_touch_of_a_new_file_causes_one_upload_at_most(uploads, run, box, eventually, sent):
    run("touch", box / "f")
    eventually(lambda: sent(box) == {"f": b""})
    assert uploads() == (1, 0)
    run("touch", box / "f")
    run("touch", "-d", "2001-01-01", box / "f")
    assert uploads() == (0, 0)


def test_an_emptied_file_that_is_filled_at_once_is_sent_once(uploads, shell, sent, box):
    shell(": > f; echo content >> f")
    assert uploads() == (1, 0)
    shell(": > f; /bin/echo more >> f")
    assert uploads() == (1, 1)
    shell("truncate -s 0 f; echo last >> f")
    assert uploads() == (1, 1)
    assert sent(box) == {"f": b"last\n"}


def test_closing_what_was_not_written_sends_nothing(uploads, box):
    (box / "f").write_bytes(b"content")
    uploads()
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND):
        fd = os.open(box / "f", flags)
        os.close(os.dup(fd))
        os.fsync(fd)
        os.close(fd)
    assert uploads() == (0, 0)


def test_closing_a_duplicate_before_anything_is_written_sends_nothing(uploads, box, sent):
    fd = os.open(box / "f", os.O_WRONLY | os.O_CREAT)
    for _ in range(3):
        os.close(os.dup(fd))
    assert uploads() == (0, 0)
    os.write(fd, b"content")
    os.close(fd)
    assert uploads() == (1, 0)
    assert sent(box) == {"f": b"content"}


def test_a_file_that_is_written_on_after_a_close_is_sent_when_it_is_released(
    uploads, box, sent, eventually
):
    fd = os.open(box / "f", os.O_WRONLY | os.O_CREAT)
    other = os.dup(fd)
    os.write(fd, b"one")
    os.close(fd)
    assert sent(box) == {"f": b"one"}
    os.write(other, b"two")
    os.close(other)
    eventually(lambda: sent(box) == {"f": b"onetwo"})
    assert uploads() == (2, 1)


def test_a_child_that_inherits_an_open_file_does_not_send_it_again_and_again(uploads, box, sent):
    with (box / "log").open("wb", buffering=0) as log:
        for number in range(8):
            log.write(b"%d begins\n" % number)
            subprocess.run(["/bin/echo", "child"], stdout=log, check=True)
    assert uploads()[0] <= 2
    expected = b"".join(b"%d begins\nchild\n" % number for number in range(8))
    assert sent(box) == {"log": expected}


def test_a_program_that_becomes_another_one_while_it_has_a_file_open_does_not_wait_for_itself(
    mount, stored
):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    script = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)\n"
        "os.write(fd, b'one ')\n"
        "os.close(os.dup(fd))\n"
        "os.write(fd, b'two')\n"
        "os.execvp('true', ['true'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, box / "file"]) as program:
        try:
            assert program.wait(10) == 0
        except subprocess.TimeoutExpired:
            mounted.kill()  # or nobody on this machine can list its processes any more
            raise
    assert stored(os.getxattr(box, "user.containerfs.id").decode()) == {"file": b"one two"}


def test_fsync_sends_once_and_the_close_after_it_nothing(uploads, box, sent):
    with (box / "f").open("wb", buffering=0) as file:
        file.write(b"content")
        os.fsync(file.fileno())
        assert sent(box) == {"f": b"content"}
        assert uploads() == (1, 0)
        os.fdatasync(file.fileno())
    assert uploads() == (0, 0)


def test_an_unlinked_file_is_never_sent(uploads, box):
    with (box / "f").open("wb", buffering=0) as file:
        file.write(b"content")
        os.unlink(box / "f")
        file.write(b"more")
        os.fsync(file.fileno())
        os.close(os.dup(file.fileno()))
    assert uploads() == (0, 0)


def test_changing_attributes_sends_nothing(uploads, box):
    (box / "f").write_bytes(b"content")
    uploads()
    os.chmod(box / "f", 0o600)
    os.utime(box / "f", ns=(1, 1))
    os.setxattr(box / "f", "user.a", b"b")
    os.mkdir(box / "dir")
    os.symlink("f", box / "link")
    os.truncate(box / "f", 7)
    assert uploads() == (0, 0)


def test_a_process_that_dies_with_a_file_open_has_written_it(uploads, box, sent, eventually):
    script = "import os, sys; f = open(sys.argv[1], 'wb', 0); f.write(b'written'); os.abort()"
    subprocess.run([sys.executable, "-c", script, box / "f"], check=False)
    eventually(lambda: sent(box) == {"f": b"written"})
    assert uploads() == (1, 0)


def test_many_files_closed_at_once_are_sent_once_each(uploads, box, sent, shell):
    shell("for i in $(seq 40); do echo $i > $i & done; wait")
    assert uploads() == (40, 0)
    assert sent(box) == {str(number): b"%d\n" % number for number in range(1, 41)}


def test_a_name_that_programs_soon_rename_waits_a_moment(
    uploads, run, box, tmp_path, sent, eventually
):
    source = tmp_path / "source"
    source.mkdir()
    content = {f"copy/{name}": name.encode() for name in ("a", "b.txt", ".hidden")}
    for name, data in content.items():
        (source / name.removeprefix("copy/")).write_bytes(data)
    run("rsync", "-a", f"{source}/", f"{box}/copy/")
    assert uploads() == (3, 0)
    assert sent(box) == content
    (box / ".kept.AbC123").write_bytes(b"kept")
    eventually(lambda: sent(box).get(".kept.AbC123") == b"kept")
    assert uploads() == (1, 0)


def test_git_sends_each_of_its_files_about_once(uploads, run, box, sent):
    run("git", "init", "-q", cwd=box)
    (box / "file").write_bytes(b"content")
    run("git", "add", "file", cwd=box)
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one", cwd=box)
    created, deleted = uploads()
    files = len(sent(box))
    assert created - deleted == files
    assert created <= files + 4  # .git/config and the index are written more than once
