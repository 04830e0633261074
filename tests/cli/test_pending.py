"""`queue`, `sync` and `recover`: with a mount, without one, and after much was lost."""

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest

HOSTILE = "new\nline\x1b[31mred\u202egnp"

# In a mount name space of its own: nobody else sees the directory read-only, or needs to be root.
READ_ONLY = """
set -e
mount --bind "$CACHE" "$CACHE"
mount -o remount,ro,bind "$CACHE"
"$COMMAND" queue --cache-dir "$CACHE" "$DIR"
"$COMMAND" recover --cache-dir "$CACHE" --export "$TARGET" "$DIR" >/dev/null
"$COMMAND" recover --cache-dir "$CACHE" --discard --yes "$DIR" 2>/dev/null || echo '"refused"'
"""


@pytest.fixture
def told(run, command):
    """`told("queue", path)`: what a command prints, each line of JSON parsed."""

    def told(*words, **more):
        return [json.loads(line) for line in run(command, *words, **more).splitlines()]

    return told


@pytest.fixture
def where(kept, server):
    """The options that lead to the killed mount's files, and to its server."""
    return [kept.path, "--cache-dir", kept.cache], ["--uds", server.uds]


def paths(entries):
    return {entry["path"]: entry["state"] for entry in entries}


def files_below(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


UNSENT = {"box/a": "waiting", "box/b": "waiting"}
CONTENT = {"box/a": b"first", "box/b": b"second"}


def test_sync_finds_a_running_mount_through_a_symbolic_link(mount, run, command, tmp_path, told):
    mounted = mount(write_back=600)
    (mounted / "box").mkdir()
    (mounted / "box" / "a").write_bytes(b"first")
    (tmp_path / "link").symlink_to(mounted.path)
    assert paths(told("queue", mounted.path)) == {"box/a": "waiting"}
    run(command, "sync", tmp_path / "link" / "box" / "a")
    assert told("queue", mounted.path) == []


def test_queue_works_beside_a_mount_after_its_death_and_without_one(kept, told, server):
    assert paths(told("queue", kept.path)) == UNSENT  # its cache directory is on record
    server.set_faults({"kind": "status", "operation": "create_file", "status": 403})
    kept.expect("not on the server", "is kept here", "not everything")
    kept.remount()
    assert paths(told("queue", kept.path)).keys() == UNSENT.keys()
    assert paths(told("queue", kept / "box")).keys() == UNSENT.keys()
    kept.stop()
    entries = told("queue", kept.path, "--cache-dir", kept.cache)
    assert paths(entries) == dict.fromkeys(UNSENT, "failed")
    assert "403" in entries[0]["error"]


def test_a_directory_where_nothing_was_mounted_is_told(run, command, tmp_path):
    done = run(command, "queue", tmp_path, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(f"containerfs: {tmp_path}: nothing was mounted here")


def test_names_are_shown_safely_and_exported_as_they_are(mount, run, command, told, tmp_path):
    mounted = mount(write_back=600)
    (mounted / "box").mkdir()
    (mounted / "box" / HOSTILE).write_bytes(b"x")
    for form in ("table", "jsonl", "json", "yaml"):
        shown = run(command, "queue", mounted.path, "--format", form)
        assert "red" in shown
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert told("queue", mounted.path)[0]["path"] == f"box/{HOSTILE}"
    said = run(command, "recover", mounted.path, "--export", tmp_path / "out")
    assert said.isprintable() or said.rstrip("\n").isprintable()
    assert files_below(tmp_path / "out") == {f"box/{HOSTILE}": b"x"}


def test_without_a_mount_sync_sends(run, command, where, stored, api):
    directory, server = where
    assert run(command, "sync", *directory, *server) == ""
    (box,) = api.containers.list()
    assert stored(box.id) == {"a": b"first", "b": b"second"}
    assert run(command, "queue", *directory) == ""


def test_sync_ends_a_rename_that_was_cut_off(
    mount, server, run, command, stored, eventually, errno_of
):
    mounted = mount()
    box = mounted / "box"
    box.mkdir()
    (box / "old").write_bytes(b"content")
    id = os.getxattr(box, "user.containerfs.id").decode()
    server.set_faults({"kind": "stall", "operation": "delete_file"})
    renaming = threading.Thread(target=errno_of, args=(os.rename, box / "old", box / "new"))
    renaming.start()
    eventually(lambda: server.admin("GET", "/admin/faults")[0]["fired"])
    mounted.kill()
    renaming.join()
    server.set_faults()
    assert stored(id) == {"old": b"content", "new": b"content"}
    run(command, "sync", mounted.path, "--cache-dir", mounted.cache, "--uds", server.uds)
    (remaining,) = stored(id).values()
    assert remaining == b"content"


def test_sync_names_what_it_could_not_send(run, command, where, server):
    server.set_faults({"kind": "status", "operation": "create_file", "status": 403})
    done = run(command, "sync", *where[0], *where[1], check=False)
    assert done.returncode == 7
    assert done.stderr.endswith("not on the server, and kept here: box/a, box/b\n")


def test_sync_sends_nothing_with_another_key(run, command, where, server):
    done = run(command, "sync", *where[0], *where[1], check=False, OPENAI_API_KEY="sk-other")
    assert done.returncode == 4
    assert "another server, account or key" in done.stderr
    assert server.requests("create_file") == []


def test_sync_of_a_mount_that_runs_waits_for_the_server(kept, run, command, stored, api):
    kept.remount()
    run(command, "sync", kept / "box")
    (box,) = api.containers.list()
    assert stored(box.id) == {"a": b"first", "b": b"second"}


@pytest.mark.parametrize("below", ["", "box", "box/a"])
def test_sync_of_a_mount_names_what_the_server_refuses_and_why(mount, run, command, server, below):
    mounted = mount(write_back=600)
    (mounted / "box").mkdir()
    (mounted / "box" / "a").write_bytes(b"content")
    server.set_faults({"kind": "status", "operation": "create_file", "status": 403})
    mounted.expect("not on the server", "is kept here", "not everything")
    done = run(command, "sync", mounted / below, check=False)
    assert (done.returncode, done.stderr) == (
        7,
        "containerfs: not on the server, and kept here: box/a"
        f" ({mounted / below}: Permission denied)\n",
    )


def test_sync_of_a_mount_names_what_is_unsent_and_unknown_to_the_mount(mount, run, command):
    mounted = mount()
    for name in ("box", "other"):
        (mounted / name).mkdir()
    id = os.getxattr(mounted / "box", "user.containerfs.id").decode()
    (database,) = mounted.cache.glob("*/state.sqlite")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "INSERT INTO journal(container, path, spool, state, replaces, held) "
            "VALUES(?, ?, 'lost', 'dirty', '[]', 0)",
            (id, b"lost"),
        )
        connection.commit()
    for below in (mounted.path, mounted / "box"):
        done = run(command, "sync", below, check=False)
        assert done.returncode == 7
        assert done.stderr.endswith("not on the server, and kept here: box/lost\n")
    run(command, "sync", mounted / "other")


def test_all_accounts_that_were_mounted_here_are_shown_and_sent(
    kept, run, command, told, server, stored, api
):
    words = ["--uds", server.uds, "--cache-dir", kept.cache, "--write-back", "600"]
    run(command, "mount", "-d", kept.path, *words, OPENAI_API_KEY="sk-other")
    (kept / "other").mkdir()
    (kept / "other" / "c").write_bytes(b"third")
    server.set_faults({"kind": "status", "operation": "create_file", "status": 403})
    assert run(command, "umount", kept.path, check=False).returncode == 7
    server.set_faults()
    assert paths(told("queue", kept.path, "--cache-dir", kept.cache)) == {
        "other/c": "failed",
        **UNSENT,
    }
    run(command, "recover", kept.path, "--cache-dir", kept.cache, "--discard", "--yes")
    assert told("queue", kept.path, "--cache-dir", kept.cache) == []


def test_recover_exports_and_overwrites_nothing(run, command, where, tmp_path):
    out = tmp_path / "out"
    (out / "box").mkdir(parents=True)
    (out / "box" / "a").write_bytes(b"mine")
    done = run(command, "recover", *where[0], "--export", out, check=False)
    assert done.returncode == 1
    assert "a: is there already; nothing is overwritten" in done.stderr
    assert files_below(out) == {"box/a": b"mine", "box/b": b"second"}


def test_recover_exports_the_others_when_a_spool_is_lost(run, command, where, kept, told, tmp_path):
    (lost,) = [path for path in kept.cache.glob("*/spool/*") if path.read_bytes() == b"first"]
    lost.unlink()
    entries = told("recover", *where[0])
    assert {entry["path"]: entry["size"] for entry in entries} == {"box/a": None, "box/b": 6}
    done = run(command, "recover", *where[0], "--export", tmp_path / "out", check=False)
    assert done.returncode == 1
    assert "a: its content is not here any more" in done.stderr
    assert files_below(tmp_path / "out") == {"box/b": b"second"}


def test_recover_gives_up_only_when_told_to(run, command, where, kept):
    done = run(command, "recover", *where[0], "--discard", check=False)
    assert "box/a (5 bytes)" in done.stderr
    assert run(command, "queue", *where[0]) != ""
    done = run(command, "recover", *where[0], "--discard", "--yes", check=False)
    assert (done.returncode, done.stderr) == (0, "given up: 2 files\n")
    assert run(command, "queue", *where[0]) == ""
    assert [path for path in kept.cache.glob("*/spool/*") if path.stat().st_size] == []


def test_recover_gives_up_nothing_of_a_mount_that_runs(kept, run, command):
    kept.remount()
    done = run(command, "recover", kept.path, "--discard", "--yes", check=False)
    assert done.returncode == 1
    assert done.stderr == f"containerfs: {kept.path} is mounted: unmount it first\n"


def test_a_cache_directory_that_is_read_only_can_be_looked_at_and_exported(
    kept, run, command, tmp_path
):
    words = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
    said = run(
        *(*words, "sh", "-c", READ_ONLY),
        COMMAND=command,
        CACHE=str(kept.cache),
        DIR=str(kept.path),
        TARGET=str(tmp_path / "out"),
    )
    *entries, refused = map(json.loads, said.splitlines())
    assert paths(entries) == UNSENT
    assert refused == "refused"
    assert files_below(tmp_path / "out") == CONTENT


def lose_the_state(mounted):
    for path in mounted.cache.glob("*/state.sqlite*"):
        path.unlink()


@pytest.mark.parametrize("way", ["looking", "sync", "mount"])
def test_what_lost_its_name_is_kept_until_it_is_exported(
    kept, run, command, where, told, tmp_path, way
):
    lose_the_state(kept)
    assert set(paths(told("queue", *where[0])).values()) == {"nameless"}
    assert list(kept.cache.glob("*/state.sqlite*")) == []
    if way == "sync":
        run(command, "sync", *where[0], *where[1])
    elif way == "mount":
        kept.expect("the state was lost")
        kept.remount()
        kept.stop()
    entries = told("recover", *where[0])
    assert [entry["state"] for entry in entries] == ["nameless", "nameless"]
    run(command, "recover", *where[0], "--export", tmp_path / "out")
    assert sorted(files_below(tmp_path / "out").values()) == [b"first", b"second"]
    run(command, "recover", *where[0], "--discard", "--yes")
    assert told("recover", *where[0]) == []


def test_a_cache_directory_that_is_gone_is_told(kept, run, command, where):
    shutil.rmtree(kept.cache)
    done = run(command, "queue", *where[0], check=False)
    assert (done.returncode, done.stdout) in ((0, ""), (3, ""))
    assert not kept.cache.exists()
