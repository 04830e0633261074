"""Open files behave as on a local disk, whatever is written where and by whom."""

import fcntl
import mmap
import os
import random
import subprocess
import sys
import threading

import pytest


def test_random_overlapping_writes_are_kept_byte_for_byte(box, sent):
    rng = random.Random(7)
    expected = bytearray()
    with (box / "file").open("wb+", buffering=0) as file:
        for _ in range(400):
            offset, data = rng.randrange(300_000), rng.randbytes(rng.randrange(1, 20_000))
            if len(expected) < offset + len(data):
                expected += bytes(offset + len(data) - len(expected))
            expected[offset : offset + len(data)] = data
            assert os.pwrite(file.fileno(), data, offset) == len(data)
            start = rng.randrange(len(expected))
            assert os.pread(file.fileno(), 5000, start) == expected[start : start + 5000]
    assert (box / "file").read_bytes() == expected
    assert sent(box) == {"file": expected}


def test_a_file_that_was_written_before_is_changed_in_its_middle(box, sent, counted):
    (box / "file").write_bytes(b"0123456789" * 1000)
    counted(box)
    with (box / "file").open("r+b") as file:
        file.seek(5000)
        file.write(b"changed")
    expected = b"0123456789" * 500 + b"changed" + b"789" + b"0123456789" * 499
    assert (box / "file").read_bytes() == expected
    requests = counted(box)
    assert requests.get("content", 0) == 0
    assert requests["create_file"] == requests["delete_file"] == 1
    assert sent(box) == {"file": expected}


def test_reading_and_writing_a_file_downloads_it_once(box, sent, counted, shared_server):
    data = random.Random(1).randbytes(3_000_000)
    id = os.getxattr(box, "user.containerfs.id").decode()
    shared_server.write(id, "/mnt/data/file", data)
    counted(box)
    with (box / "file").open("r+b", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 1_000_000) == data[1_000_000:1_001_000]
        os.pwrite(file.fileno(), b"changed", 2_000_000)
        assert os.pread(file.fileno(), 7, 2_000_000) == b"changed"
        assert os.pread(file.fileno(), 10, 2_999_990) == data[-10:]
    assert counted(box)["content"] == 1
    assert sent(box) == {"file": data[:2_000_000] + b"changed" + data[2_000_007:]}


def test_appending_goes_to_the_end(box, sent):
    (box / "log").write_bytes(b"first\n")
    with (box / "log").open("ab") as file:
        file.write(b"second\n")
    with (box / "log").open("ab", buffering=0) as file, (box / "log").open("ab") as other:
        file.write(b"third\n")
        other.write(b"fourth\n")
        other.flush()
        os.pwrite(file.fileno(), b"fifth\n", 0)  # Linux appends, wherever that is
    expected = b"first\nsecond\nthird\nfourth\nfifth\n"
    assert (box / "log").read_bytes() == expected
    assert sent(box) == {"log": expected}


def test_processes_that_append_to_one_file_lose_no_record(box, sent):
    script = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "for number in range(200):\n"
        "    os.write(fd, b'%s %03d ' % (sys.argv[2].encode(), number) + b'.' * 90 + b'\\n')\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, box / "log", str(number)])
        for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    lines = (box / "log").read_bytes().splitlines()
    expected = [b"%d %03d " % (who, n) + b"." * 90 for who in range(4) for n in range(200)]
    assert sorted(lines) == expected
    assert sorted(sent(box)["log"].splitlines()) == expected


def test_a_descriptor_that_appends_no_more_writes_where_it_is_told_to(box, fd, sent):
    log = fd(box / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(log, b"appended")
    flags = fcntl.fcntl(log, fcntl.F_GETFL)
    fcntl.fcntl(log, fcntl.F_SETFL, flags & ~os.O_APPEND)
    os.pwrite(log, b"beyond", 10)
    os.pwrite(log, b"A", 0)
    fcntl.fcntl(log, fcntl.F_SETFL, flags)
    os.pwrite(log, b"!", 0)
    os.fsync(log)
    assert sent(box) == {"log": b"Appended\0\0beyond!"}


@pytest.mark.parametrize("mapped_by", [os.O_RDWR, os.O_RDWR | os.O_APPEND])
def test_append_and_a_shared_mapping_do_not_double_bytes(box, fd, sent, mapped_by):
    path = box / "file"
    path.write_bytes(b"a" * 10_000)
    mapped = fd(path, mapped_by)
    appender = fd(path, os.O_WRONLY | os.O_APPEND)
    with mmap.mmap(mapped, 0) as mapping:
        mapping[5000:5003] = b"XYZ"
        mapping.flush()
        os.write(appender, b"tail")
        mapping[0:3] = b"ABC"
        mapping.flush()
    os.fsync(appender)
    expected = b"ABC" + b"a" * 4997 + b"XYZ" + b"a" * 4997 + b"tail"
    assert path.read_bytes() == expected
    assert sent(box) == {"file": expected}


@pytest.mark.parametrize("size", [0, 3, 10, 70_000])
def test_truncate_cuts_and_grows_with_zeros(box, sent, size, eventually):
    path = box / "file"
    path.write_bytes(b"0123456789")
    os.truncate(path, size)
    expected = (b"0123456789" + bytes(70_000))[:size]
    assert os.stat(path).st_size == size
    assert path.read_bytes() == expected
    eventually(lambda: sent(box) == {"file": expected})


def test_ftruncate_cuts_and_grows_an_open_file(box, sent):
    with (box / "file").open("wb+", buffering=0) as file:
        file.write(b"0123456789")
        os.ftruncate(file.fileno(), 4)
        assert os.fstat(file.fileno()).st_size == 4
        os.ftruncate(file.fileno(), 8)
        assert os.pread(file.fileno(), 100, 0) == b"0123\0\0\0\0"
        os.pwrite(file.fileno(), b"x", 9)
    assert sent(box) == {"file": b"0123\0\0\0\0\0x"}


def test_what_was_cut_does_not_come_back_when_the_file_grows(box):
    path = box / "file"
    path.write_bytes(b"secret" * 5000)
    with path.open("r+b") as reader, path.open("r+b", buffering=0) as file:
        assert reader.read() == b"secret" * 5000
        file.truncate(3)
        file.truncate(20_000)
        assert os.pread(reader.fileno(), 20_000, 0) == b"sec" + bytes(19_997)


def test_o_trunc_empties_the_file(box, fd, sent, eventually):
    path = box / "file"
    path.write_bytes(b"old content")
    opened = fd(path, os.O_RDWR | os.O_TRUNC)
    assert os.fstat(opened).st_size == 0
    assert path.read_bytes() == b""
    os.write(opened, b"new")
    os.fsync(opened)
    assert sent(box) == {"file": b"new"}
    path.write_bytes(b"")
    eventually(lambda: sent(box) == {"file": b""})


def test_o_trunc_of_a_file_only_read_before_shows_nothing_of_it(box, fd):
    path = box / "file"
    path.write_bytes(b"x" * 9000)
    reader = fd(path, os.O_RDONLY)
    assert len(os.pread(reader, 9000, 0)) == 9000
    writer = fd(path, os.O_WRONLY | os.O_TRUNC)
    assert os.pread(reader, 9000, 0) == b""
    os.write(writer, b"y")
    assert os.pread(reader, 9000, 0) == b"y"


def test_o_excl_makes_a_file_once(box, errno_of):
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    won, lost = [], []

    def attempt(number):
        try:
            won.append(os.open(box / f"lock{number % 5}", flags))
        except FileExistsError:
            lost.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in won:
        os.close(opened)
    assert (len(won), len(lost)) == (5, 15)
    (box / "dir").mkdir()
    os.symlink("nowhere", box / "link")
    assert errno_of(os.open, box / "dir", flags) == "EEXIST"
    assert errno_of(os.open, box / "link", flags) == "EEXIST"
    assert errno_of(os.open, box / "lock0", flags) == "EEXIST"


def test_opening_refuses_what_a_disk_refuses(box, fd, errno_of):
    (box / "dir").mkdir()
    (box / "file").write_bytes(b"x")
    assert errno_of(os.open, box / "dir", os.O_WRONLY) == "EISDIR"
    assert errno_of(os.open, box / "dir", os.O_RDWR | os.O_CREAT) == "EISDIR"
    assert errno_of(os.open, box / "absent", os.O_RDWR) == "ENOENT"
    assert errno_of(os.open, box / "file" / "below", os.O_RDWR | os.O_CREAT) == "ENOTDIR"
    assert errno_of(os.open, box / "file", os.O_RDONLY | os.O_DIRECTORY) == "ENOTDIR"
    assert errno_of(os.write, fd(box / "file", os.O_RDONLY), b"x") == "EBADF"
    assert errno_of(os.read, fd(box / "file", os.O_WRONLY), 1) == "EBADF"


def test_a_new_file_may_be_opened_for_reading_only(box, fd):
    opened = fd(box / "file", os.O_CREAT | os.O_RDONLY)
    assert os.read(opened, 10) == b""
    assert os.stat(box / "file").st_size == 0


def test_a_new_file_without_permissions_can_be_written_by_who_made_it(box, fd, sent):
    opened = fd(box / "file", os.O_CREAT | os.O_WRONLY, 0)
    os.write(opened, b"written")
    os.fsync(opened)
    assert os.stat(box / "file").st_mode & 0o777 == 0
    assert sent(box) == {"file": b"written"}


def test_gaps_read_as_zeros(box, fd, sent):
    opened = fd(box / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(opened, b"end", 1_000_000)
    assert os.pread(opened, 10, 500_000) == bytes(10)
    assert os.fstat(opened).st_size == 1_000_003
    os.lseek(opened, 10, os.SEEK_END)
    os.write(opened, b"!")
    os.fsync(opened)
    assert sent(box) == {"file": bytes(1_000_000) + b"end" + bytes(10) + b"!"}


def test_offsets_past_4_gib_work_and_what_is_beyond_the_limit_is_refused(mount, errno_of):
    mounted = mount(max_file_size="6GiB")
    (mounted / "box").mkdir()
    path = mounted / "box" / ".big.swp"  # stays on this machine
    with path.open("wb+", buffering=0) as file:
        fd = file.fileno()
        os.pwrite(fd, b"far", 5 << 30)
        assert os.fstat(fd).st_size == (5 << 30) + 3
        assert os.pread(fd, 5, (5 << 30) - 1) == b"\0far"
        assert os.pwrite(fd, b"x", (6 << 30) - 1) == 1
        assert errno_of(os.pwrite, fd, b"x", 6 << 30) == "EFBIG"
        assert errno_of(os.ftruncate, fd, (6 << 30) + 1) == "EFBIG"
        assert errno_of(os.truncate, path, 7 << 30) == "EFBIG"
        assert os.fstat(fd).st_size == 6 << 30
    path.unlink()


def test_a_shared_mapping_reads_and_writes_the_file(box, sent):
    path = box / "file"
    path.write_bytes(b"." * 20_000)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        assert mapping[:4] == b"...."
        mapping[4094:4098] = b"page"
        mapping.flush()
        assert path.read_bytes()[4090:4100] == b"....page.."
        os.pwrite(file.fileno(), b"write", 10)
        assert mapping[8:17] == b"..write.."
        mapping[19_999:] = b"!"
    expected = bytearray(b"." * 20_000)
    expected[10:15], expected[4094:4098], expected[19_999:] = b"write", b"page", b"!"
    assert path.read_bytes() == expected
    os.sync()
    assert sent(box) == {"file": expected}


def test_what_a_mapping_wrote_is_sent_after_its_descriptor_was_closed(box, sent, eventually):
    path = box / "file"
    path.write_bytes(b"." * 5000)
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    mapping[:5] = b"later"
    mapping.close()
    expected = b"later" + b"." * 4995
    assert path.read_bytes() == expected
    eventually(lambda: sent(box) == {"file": expected})


def test_a_mapping_can_be_read_while_the_file_is_sent(box):
    path = box / "file"
    path.write_bytes(b"a" * 8192)
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    path.write_bytes(b"b" * 8192)
    assert mapping[:] == b"b" * 8192
    mapping.close()


def test_an_unlinked_file_lives_until_its_last_close(box, fd, sent, counted):
    path = box / "file"
    opened = fd(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.write(opened, b"unsent")
    os.unlink(path)
    assert not path.exists()
    os.pwrite(opened, b"more", 6)
    assert os.pread(opened, 100, 0) == b"unsentmore"
    os.ftruncate(opened, 3)
    assert os.pread(opened, 100, 0) == b"uns"
    status = os.fstat(opened)
    assert (status.st_nlink, status.st_size) == (0, 3)
    os.setxattr(opened, "user.note", b"kept while it is open")
    assert os.getxattr(opened, "user.note") == b"kept while it is open"
    os.fsync(opened)
    again = os.dup(opened)
    os.close(again)
    assert os.listdir(box) == []
    assert sent(box) == {}
    assert "create_file" not in counted(box)


def test_an_unlinked_file_that_was_sent_can_be_read_and_written_on(box, fd, sent, counted):
    path = box / "file"
    path.write_bytes(b"sent before" * 1000)
    opened = fd(path, os.O_RDWR)
    os.unlink(path)
    assert sent(box) == {}
    counted(box)
    assert os.pread(opened, 11, 10_989) == b"sent before"
    os.pwrite(opened, b"SENT", 0)
    assert os.pread(opened, 12, 0) == b"SENT beforese"[:12]
    os.fsync(opened)
    assert "create_file" not in counted(box)
    assert sent(box) == {}


@pytest.mark.parametrize("gone_by", ["unlink", "rename"])
def test_a_file_that_was_renamed_while_open_and_is_gone_can_be_written_on(box, fd, sent, gone_by):
    for how in ("read", "written", "neither"):
        (box / "file").write_bytes(b"sent before")
        opened = fd(box / "file", os.O_RDWR)
        if how == "read":
            assert os.pread(opened, 4, 0) == b"sent"
        elif how == "written":
            os.pwrite(opened, b"SENT", 0)
            os.fsync(opened)
        os.rename(box / "file", box / "renamed")
        if gone_by == "unlink":
            os.unlink(box / "renamed")
        else:
            (box / "another").write_bytes(b"another")
            os.rename(box / "another", box / "renamed")
        expected = b"SENT" if how == "written" else b"sent"
        again = fd(f"/proc/self/fd/{opened}", os.O_RDONLY)
        assert os.pread(again, 20, 0) == expected + b" before"
        os.pwrite(opened, b"BEFORE", 5)
        assert os.pread(again, 20, 0) == os.pread(opened, 20, 0) == expected + b" BEFORE"
    assert sent(box) == ({} if gone_by == "unlink" else {"renamed": b"another"})


def test_a_file_that_is_replaced_while_open_keeps_its_content_for_who_has_it(box, fd, sent):
    (box / "old").write_bytes(b"old")
    (box / "new").write_bytes(b"new")
    reader = fd(box / "old", os.O_RDWR)
    os.rename(box / "new", box / "old")
    assert os.pread(reader, 10, 0) == b"old"
    assert (box / "old").read_bytes() == b"new"
    os.pwrite(reader, b"OLD and gone", 0)
    os.fsync(reader)
    assert os.pread(reader, 20, 0) == b"OLD and gone"
    assert os.fstat(reader).st_nlink == 0
    assert (box / "old").read_bytes() == b"new"
    assert sent(box) == {"old": b"new"}


def test_a_name_that_is_removed_and_made_again_is_another_file(box, fd, sent):
    path = box / "file"
    first = fd(path, os.O_RDWR | os.O_CREAT)
    os.write(first, b"first")
    os.unlink(path)
    second = fd(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.write(second, b"second")
    assert os.fstat(first).st_ino != os.fstat(second).st_ino
    assert os.pread(first, 10, 0) == b"first"
    assert os.pread(second, 10, 0) == b"second"
    os.write(first, b" more")
    os.fsync(first)
    os.fsync(second)
    assert path.read_bytes() == b"second"
    assert sent(box) == {"file": b"second"}


def test_two_processes_see_each_others_writes_at_once(box):
    script = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "for line in sys.stdin:\n"
        "    print(os.pread(fd, 100, 0).decode(), os.fstat(fd).st_size, flush=True)\n"
        "    os.pwrite(fd, line.strip().encode(), 0)\n"
        "    print('written', flush=True)\n"
    )
    path = box / "file"
    path.write_bytes(b"zero")
    with (
        path.open("r+b", buffering=0) as file,
        subprocess.Popen(
            [sys.executable, "-c", script, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as other,
    ):
        for mine, theirs in (("one", "TWO-"), ("three-", "FOUR---"), ("five----", "SIX------")):
            os.pwrite(file.fileno(), mine.encode(), 0)
            expected = os.pread(file.fileno(), 100, 0)
            other.stdin.write(theirs + "\n")
            assert other.stdout.readline() == f"{expected.decode()} {len(expected)}\n"
            assert other.stdout.readline() == "written\n"
            assert os.pread(file.fileno(), len(theirs), 0) == theirs.encode()
            assert os.fstat(file.fileno()).st_size == os.stat(path).st_size == len(theirs)
        other.stdin.close()


def test_reading_past_the_end_gives_nothing(box, fd):
    (box / "file").write_bytes(b"12345")
    opened = fd(box / "file", os.O_RDONLY)
    assert os.pread(opened, 10, 3) == b"45"
    assert os.pread(opened, 10, 5) == b""
    assert os.pread(opened, 10, 1 << 40) == b""


def test_space_can_be_reserved(box, fd):
    opened = fd(box / "file", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(opened, 0, 10_000)  # the C library writes, where a file system can't
    assert os.fstat(opened).st_size == 10_000


def test_copying_within_the_kernel_copies(box, fd, sent):
    (box / "source").write_bytes(b"copied " * 20_000)
    source = fd(box / "source", os.O_RDONLY)
    with (box / "target").open("wb") as target:
        done = 0
        while count := os.copy_file_range(source, target.fileno(), 1 << 20):
            done += count
        assert done == 140_000
    with (box / "second").open("wb") as target:
        assert os.sendfile(target.fileno(), source, 0, 140_000) == 140_000
    assert len(set(sent(box).values())) == 1


def test_holes_are_data_for_who_seeks_them(box, fd):
    (box / "file").write_bytes(b"x" * 100)
    opened = fd(box / "file", os.O_RDONLY)
    assert os.lseek(opened, 0, os.SEEK_DATA) == 0
    assert os.lseek(opened, 0, os.SEEK_HOLE) == 100
