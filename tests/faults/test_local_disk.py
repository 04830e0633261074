"""Our own disk fails under the mount: full, gone, read-only, corrupt."""

import os
import shutil
import sqlite3
from contextlib import closing

import pytest

# In a mount name space of its own: nobody else sees the small disk, or needs to be root. The
# program that tries things out is run inside, too, and gets the mount as its first argument.
SMALL_DISK = """
set -e
mount -t tmpfs -o size=$SIZE tmpfs "$CACHE"
chmod 700 "$CACHE"
"$COMMAND" mount -d --uds "$SOCKET" --cache-dir "$CACHE" --log-file "$LOG" --ttl 0.1 "$DIR"
trap '"$COMMAND" umount "$DIR"' EXIT
mkdir "$DIR/box"
echo first > "$DIR/box/first"
{what}
"""
FULL = """
dd if=/dev/zero of="$CACHE/ballast" bs=4k 2>/dev/null || true
cat "$DIR/box/first"
echo second 2>/dev/null > "$DIR/box/second" && echo written || echo refused
for i in $(seq 50); do chmod 600 "$DIR/box/first" 2>/dev/null || true; done
sleep 0.2
ls "$DIR/box" > /dev/null
cat "$DIR/box/first"
rm "$CACHE/ballast"
echo third > "$DIR/box/third"
cat "$DIR/box/third"
rm "$DIR/box/first"
"""
READ_ONLY = """
mount --bind "$CACHE" "$CACHE"
mount -o remount,ro,bind "$CACHE"
cat "$DIR/box/first"
echo second 2>/dev/null > "$DIR/box/second" && echo written || echo refused
ls "$DIR/box"
umount -l "$CACHE"
echo third > "$DIR/box/third"
cat "$DIR/box/third"
"""

# `big~` stays here by its name, and `unsent` because the server refuses it.
FILL = 'dd if=/dev/zero of="$CACHE/ballast" bs=4k 2>/dev/null || true'
FILLED_BY_ONE_FILE = """
head -c 1M /dev/urandom > "$CACHE/../medium"
cp "$CACHE/../medium" "$DIR/box/medium"
dd if=/dev/zero of="$DIR/box/big~" bs=64k count=1000 2>/dev/null && echo written || echo refused
cmp "$CACHE/../medium" "$DIR/box/medium" && echo same
cmp "$GIVEN" "$DIR/given/large" && echo same
tail -c 4096 "$GIVEN" | cmp - "$DIR/given/tail" && echo same
echo small 2>/dev/null > "$DIR/box/small" && echo written || echo refused
chmod 600 "$DIR/box/medium" && echo changed
rm "$DIR/box/big~" && echo removed
ls "$DIR/box"
echo small > "$DIR/box/small" && echo written
"""
FILLED_BY_OTHERS = """
head -c 300k /dev/zero > "$DIR/box/unsent~"
{fill}
rm "$DIR/box/unsent~" && echo removed
ls "$DIR/box"
cat "$DIR/given/tail" | wc -c
rm "$CACHE/ballast"
echo small > "$DIR/box/small" && echo written
"""
GIVEN_UP = """
head -c 300k /dev/zero > "$DIR/box/unsent~"
"$COMMAND" umount "$DIR"
{fill}
"$COMMAND" mount -d --uds "$SOCKET" --cache-dir "$CACHE" --log-file "$LOG" --ttl 0.1 "$DIR"
ls "$DIR/box"
"$COMMAND" umount "$DIR"
trap - EXIT
dd if=/dev/zero of="$CACHE/more" bs=4k 2>/dev/null || true
"$COMMAND" recover --discard --yes --cache-dir "$CACHE" "$DIR" && echo discarded
"$COMMAND" queue --cache-dir "$CACHE" --format json "$DIR"
ls "$CACHE"/*/spool
"""


@pytest.fixture
def on_small_disk(server, run, tmp_path, command):
    """`on_small_disk(script)`: what it prints; `size` is that of the disk."""

    def on_small_disk(script, *, size="3m"):
        for name in ("cache", "dir"):
            (tmp_path / name).mkdir()
        words = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
        said = run(
            *(*words, "sh", "-c", SMALL_DISK.replace("{what}", script)),
            COMMAND=command,
            SOCKET=server.uds,
            CACHE=str(tmp_path / "cache"),
            DIR=str(tmp_path / "dir"),
            LOG=str(tmp_path / "log"),
            GIVEN=str(tmp_path / "given"),
            SIZE=size,
        )
        assert "Traceback" not in (tmp_path / "log").read_text()
        return said.split()

    return on_small_disk


def test_a_full_disk_refuses_writes_and_the_mount_lives_on(on_small_disk, stored, api):
    said = on_small_disk(FULL)
    assert said in (
        ["first", "refused", "first", "third"],
        ["first", "written", "first", "third"],
    )
    (box,) = api.containers.list()
    expected = {"third": b"third\n"} | ({"second": b"second\n"} if "written" in said else {})
    assert stored(box.id) == expected


@pytest.fixture
def given(api, tmp_path):
    """A container with a file of 17 MiB, and its last 4 KiB as another."""
    data = os.urandom(17 << 20)
    (tmp_path / "given").write_bytes(data)
    box = api.containers.create(name="given")
    api.containers.files.create(box.id, file=("large", data))
    api.containers.files.create(box.id, file=("tail", data[-4096:]))


def test_a_disk_that_one_file_has_filled_is_freed_by_removing_it(on_small_disk, given):
    said = on_small_disk(FILLED_BY_ONE_FILE)
    assert said == [
        "refused",
        *("same", "same", "same"),
        *("refused", "changed", "removed"),
        *("first", "medium"),
        "written",
    ]


def test_on_a_disk_that_others_have_filled_files_are_read_and_removed(on_small_disk, given):
    said = on_small_disk(FILLED_BY_OTHERS.replace("{fill}", FILL))
    assert said == ["removed", "first", "4096", "written"]


def test_on_a_full_disk_a_mount_starts_and_what_is_unsent_can_be_given_up(on_small_disk):
    said = on_small_disk(GIVEN_UP.replace("{fill}", FILL))
    assert said == ["first", "unsent~", "discarded", "[]"]


def test_a_read_only_disk_refuses_writes_and_the_mount_lives_on(on_small_disk, stored, api):
    said = on_small_disk(READ_ONLY)
    assert said == ["first", "refused", "first", "third"]
    (box,) = api.containers.list()
    assert stored(box.id) == {"first": b"first\n", "third": b"third\n"}


def test_a_cache_directory_deleted_under_the_mount_costs_nothing_that_was_sent(
    mount, errno_of, stored, id_of
):
    mounted = mount(ttl=0.1)
    mounted.expect("")
    box = mounted / "box"
    box.mkdir()
    id = id_of(box)
    (box / "sent").write_bytes(b"sent")
    writer = (box / "open").open("wb", buffering=0)
    writer.write(b"open")
    shutil.rmtree(mounted.cache)
    assert errno_of(writer.close) is None
    assert stored(id) == {"sent": b"sent", "open": b"open"}
    assert sorted(os.listdir(box)) == ["open", "sent"]
    assert errno_of((box / "new").write_bytes, b"new") == "EIO"
    assert sorted(os.listdir(box)) == ["open", "sent"]
    assert "Traceback" not in mounted.log
    mounted.remount()
    assert (box / "sent").read_bytes() == b"sent"
    (box / "new").write_bytes(b"new")
    assert stored(id) == {"sent": b"sent", "open": b"open", "new": b"new"}


def test_a_corrupt_database_is_refused_with_its_name(mount, try_mount, server):
    mounted = mount()
    (mounted / "box").mkdir()
    mounted.stop()
    (database,) = mounted.cache.glob("*/state.sqlite")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for other in mounted.cache.glob("*/state.sqlite-*"):
        other.unlink()
    with database.open("r+b") as file:
        file.write(b"not a database" * 1000)
    done = try_mount(f"--uds={server.uds}", f"--cache-dir={mounted.cache}")
    assert done.returncode == 1
    assert f"{database}: the state database" in done.stderr
    assert "moved away" in done.stderr
    assert "Traceback" not in done.stderr
