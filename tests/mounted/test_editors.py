"""Saving a file costs one upload and one delete in every editor, and leaves no litter."""

import os
import shlex
import shutil
import subprocess

import pytest


@pytest.fixture
def document(box, uploads):
    (box / "document.txt").write_bytes(b"first line\nsecond line\n")
    (box / "neighbour.txt").write_bytes(b"untouched\n")
    os.chmod(box / "document.txt", 0o640)
    uploads()
    return box / "document.txt"


@pytest.fixture
def saved(box, shared_server, uploads, document):
    """The document was saved as this, for one upload and one delete, and nothing else is there.

    With `backup` the old object is kept under its name until the mount stops.
    """

    def saved(content, *, backup=False, beside=()):
        assert document.read_bytes() == content
        assert uploads() == (1, 0 if backup else 1)
        container = os.getxattr(box, "user.containerfs.id").decode()
        server = sorted(
            (file["path"].partition("-")[2], shared_server.content(container, file["id"]))
            for file in shared_server.files(container)
        )
        expected = [("document.txt", content), ("neighbour.txt", b"untouched\n")]
        if backup:
            expected.append(("document.txt", b"first line\nsecond line\n"))
        assert server == sorted(expected)
        assert sorted(os.listdir(box)) == sorted(["document.txt", "neighbour.txt", *beside])
        assert os.stat(document).st_mode & 0o777 == 0o640

    return saved


@pytest.fixture
def terminal(environ, tmp_path, eventually):
    """A program in a terminal: `terminal(*words)`; `.keys(...)`, `.shows(text)`, `.wait()`."""
    server = str(tmp_path / "tmux")

    def tmux(*words, **options):
        return subprocess.run(
            ["tmux", "-S", server, "-f", "/dev/null", *words],
            env=environ,
            capture_output=True,
            text=True,
            **options,
        )

    class Terminal:
        def __init__(self, *words, cwd):
            command = shlex.join(map(str, words)) + f"; echo $? > {tmp_path / 'status'}"
            tmux("new-session", "-d", "-x", "100", "-y", "30", "-c", str(cwd), command, check=True)

        def keys(self, *keys):
            tmux("send-keys", *keys, check=True)

        def shows(self, *texts):
            """Wait for one of these, which differ between the versions of a program."""
            eventually(lambda: any(map(tmux("capture-pane", "-p").stdout.count, texts)))

        def wait(self):
            status = tmp_path / "status"
            eventually(lambda: status.exists() and status.read_text())
            assert status.read_text() == "0\n"

    yield Terminal
    tmux("kill-server")


def test_vim_saves(box, document, saved, terminal):
    vim = terminal("vim", "-u", "NONE", "-N", "document.txt", cwd=box)
    vim.shows("second line")
    vim.keys("G", "o", "from vim", "Escape")
    vim.shows("from vim")
    vim.keys(":wq", "Enter")
    vim.wait()
    saved(b"first line\nsecond line\nfrom vim\n")


@pytest.mark.parametrize(
    "setting", ["backupcopy=auto", "backupcopy=yes", "backupcopy=no", "nobackup nowritebackup"]
)
def test_vim_saves_however_it_makes_its_backup(box, document, saved, run, setting):
    words = ["vim", "-u", "NONE", "-N", "-es", "-c", f"set {setting}", "-c", "%s/first/1st/"]
    run(*words, "-c", "wq", document, cwd=box)
    saved(b"1st line\nsecond line\n")


@pytest.mark.parametrize(("how", "is_renamed"), [("yes", False), ("no", True)])
def test_vim_saves_and_keeps_a_backup(box, document, saved, run, how, is_renamed):
    setting = f"set backup backupskip= backupcopy={how}"  # by itself it makes none below /tmp
    words = ["vim", "-u", "NONE", "-N", "-es", "-c", setting, "-c", "%s/first/1st/", "-c", "wq"]
    run(*words, document, cwd=box)
    saved(b"1st line\nsecond line\n", backup=is_renamed, beside=["document.txt~"])


def test_vim_makes_a_file(box, run, sent, uploads):
    words = ["vim", "-u", "NONE", "-N", "-i", "NONE", "-es", "-c", "normal inew", "-c", "wq"]
    run(*words, box / "made", cwd=box)
    assert sent(box) == {"made": b"new\n"}
    assert uploads() == (1, 0)
    assert os.listdir(box) == ["made"]


def test_vim_is_not_told_that_the_file_has_changed(box, document, terminal, sent, uploads):
    vim = terminal("vim", "-u", "NONE", "-N", "document.txt", cwd=box)
    vim.shows("second line")
    for number in range(3):
        vim.keys("G", "o", f"save {number}", "Escape", ":w", "Enter")
        vim.shows("written")
        vim.keys(":checktime", "Enter", ":echo 'checked'", "Enter")
        vim.shows("checked")
    vim.keys(":wq", "Enter")
    vim.wait()
    assert sent(box)["document.txt"].endswith(b"save 0\nsave 1\nsave 2\n")
    assert uploads() == (4, 4)


def test_vim_finds_its_swap_file_after_a_crash(mount, stored, run, environ, eventually):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    id = os.getxattr(box, "user.containerfs.id").decode()
    (box / "document.txt").write_bytes(b"first\n")
    words = ["-c", "normal ounsaved words", "-c", "preserve", "-c", "!touch preserved~; read x"]
    with subprocess.Popen(
        ["vim", "-u", "NONE", "-N", "-i", "NONE", "-es", *words, "document.txt"],
        cwd=box,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as vim:
        eventually((box / "preserved~").exists)
        vim.kill()
    assert stored(id) == {"document.txt": b"first\n"}
    mounted.remount()
    assert ".document.txt.swp" in os.listdir(box)
    run("vim", "-u", "NONE", "-N", "-es", "-r", "document.txt", "-c", "wq! recovered", cwd=box)
    assert (box / "recovered").read_bytes() == b"first\nunsaved words\n"
    assert stored(id).keys() == {"document.txt", "recovered"}


def test_nano_saves(box, document, saved, terminal):
    nano = terminal("nano", "--ignorercfiles", "document.txt", cwd=box)
    nano.shows("second line")
    nano.keys("from nano ", "C-o")
    nano.shows("File Name to Write", "Write to File")
    nano.keys("Enter")
    nano.shows("Wrote")
    nano.keys("C-x")
    nano.wait()
    saved(b"from nano first line\nsecond line\n")


def test_nano_saves_with_a_backup(box, document, saved, terminal):
    nano = terminal("nano", "--ignorercfiles", "--backup", "document.txt", cwd=box)
    nano.shows("second line")
    nano.keys("from nano ", "C-s")
    nano.shows("Wrote")
    nano.keys("C-x")
    nano.wait()
    saved(b"from nano first line\nsecond line\n", beside=["document.txt~"])


def test_emacs_saves_and_its_backup_leaves_the_server_at_the_stop(mount, stored, terminal, server):
    if not shutil.which("emacs"):
        pytest.skip("there is no emacs")
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    id = os.getxattr(box, "user.containerfs.id").decode()
    (box / "document.txt").write_bytes(b"first line\n")
    server.forget_requests()
    always = "(setq backup-enable-predicate (lambda (_) t))"  # also below /tmp
    emacs = terminal("emacs", "-nw", "-Q", "--eval", always, "document.txt", cwd=box)
    emacs.shows("first line")
    emacs.keys("from emacs ")
    emacs.shows("from emacs")
    emacs.keys("C-x", "C-s")
    emacs.shows("Wrote")
    emacs.keys("more ", "C-x", "C-s")
    emacs.shows("more")
    emacs.keys("C-x", "C-c")
    emacs.wait()
    expected = b"from emacs more first line\n"
    assert sorted(os.listdir(box)) == ["document.txt", "document.txt~"]
    assert (box / "document.txt").read_bytes() == expected
    assert (box / "document.txt~").read_bytes() == b"first line\n"
    mounted.stop()
    assert stored(id) == {"document.txt": expected}
    assert len(server.requests("create_file")) == len(server.requests("delete_file")) == 2
    mounted.remount()
    assert (box / "document.txt~").read_bytes() == b"first line\n"


def test_ed_saves(box, document, saved, environ):
    script = "1s/first/1st/\nw\nq\n"
    done = subprocess.run(
        ["ed", "-s", "document.txt"],
        cwd=box,
        env=environ,
        input=script,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    saved(b"1st line\nsecond line\n")


def test_sed_saves(box, document, saved, run):
    run("sed", "-i", "s/first/1st/", document)
    saved(b"1st line\nsecond line\n")


def test_sed_saves_with_a_backup(box, document, saved, run):
    run("sed", "-i~", "s/first/1st/", document)
    saved(b"1st line\nsecond line\n", backup=True, beside=["document.txt~"])


def test_perl_saves(box, document, run, sent, uploads):
    """Its temporary file has a random name that no pattern tells from a real one's."""
    run("perl", "-pi", "-e", "s/first/1st/", document)
    assert sent(box) == {
        "document.txt": b"1st line\nsecond line\n",
        "neighbour.txt": b"untouched\n",
    }
    assert uploads() in ((1, 1), (2, 2))
    assert sorted(os.listdir(box)) == ["document.txt", "neighbour.txt"]


@pytest.mark.parametrize("tool", [["sed", "-i.orig"], ["perl", "-pi.orig", "-e"]], ids=" ".join)
def test_a_backup_of_an_ordinary_name_is_sent_too(box, document, run, sent, tool):
    run(*tool, "s/first/1st/", document, box / "neighbour.txt")
    assert sent(box) == {
        "document.txt": b"1st line\nsecond line\n",
        "document.txt.orig": b"first line\nsecond line\n",
        "neighbour.txt": b"untouched\n",
        "neighbour.txt.orig": b"untouched\n",
    }


def test_an_editor_that_truncates_and_writes_saves(document, saved):
    """As VS Code: open without O_TRUNC, ftruncate, write in pieces, fdatasync, close."""
    fd = os.open(document, os.O_WRONLY)
    os.ftruncate(fd, 0)
    os.write(fd, b"from ")
    os.write(fd, b"code\n")
    os.fdatasync(fd)
    os.close(fd)
    saved(b"from code\n")


def test_an_editor_that_opens_with_o_trunc_saves(document, saved):
    """As VS Code before it flushes, and most simple editors."""
    fd = os.open(document, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(fd, b"from code\n")
    os.close(fd)
    os.utime(document)
    saved(b"from code\n")


def test_an_editor_that_replaces_the_file_saves(box, document, saved):
    """As gedit: a temporary file beside it, given the mode and owner, renamed over it."""
    temporary = box / ".goutputstream-AB12CD"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    status = os.stat(document)
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode)
    os.write(fd, b"from gedit\n")
    os.fsync(fd)
    os.close(fd)
    os.rename(temporary, document)
    saved(b"from gedit\n")


def test_an_editor_that_keeps_a_backup_and_replaces_the_file_saves(box, document, saved):
    """As gedit with backups: the old file becomes `name~`, which stays."""
    temporary = box / ".goutputstream-AB12CD"
    temporary.write_bytes(b"from gedit\n")
    os.chmod(temporary, 0o640)
    os.rename(document, f"{document}~")
    os.rename(temporary, document)
    saved(b"from gedit\n", backup=True, beside=["document.txt~"])


def test_an_office_program_saves(box, document, saved):
    """As LibreOffice: a lock file, the new content in a temporary file, copied over the old one."""
    lock = box / ".~lock.document.txt#"
    lock.write_bytes(b",me,here,;")
    document.write_bytes(b"from office\n")
    lock.unlink()
    saved(b"from office\n")
