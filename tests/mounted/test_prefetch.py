"""Small files are fetched ahead of who reads through a directory, and of nobody else."""

import os
import shutil

import pytest

from containerfs.fs.prefetch import FIRST_WINDOW, GAP

COUNT = 400


@pytest.fixture
def full(server, mount):
    """A container with many small files that were never read here: its directory."""
    box_id = server.new_container("box")
    files = [
        {"path": f"/mnt/data/f{number:03}", "content_base64": "Y29udGVudA=="}
        for number in range(COUNT)
    ]
    server.admin("POST", f"/admin/files/{box_id}", files)
    directory = mount(ttl=300) / "box"
    assert len(os.listdir(directory)) == COUNT
    server.forget_requests()
    return directory


def contents(server):
    """The files whose content was asked for, one entry a request."""
    return [request["path"].split("/")[-2] for request in server.requests("content")]


@pytest.mark.parametrize("command", ["cat f*", "grep -r content .", "cp -r . ../../copy"])
def test_a_scan_asks_for_each_file_once(full, server, run, command):
    told = run("bash", "-c", command.replace("../../copy", f"{full.parents[1]}/copy"), cwd=full)
    assert "content" in told or "cp" in command
    asked = contents(server)
    assert len(asked) == len(set(asked)) == COUNT


def test_a_scan_that_stops_has_fetched_no_more_than_a_window_ahead(full, server, eventually):
    for number in range(4):
        (full / f"f{number:03}").read_bytes()
    eventually(lambda: len(contents(server)) > 8)  # it was noticed
    assert len(contents(server)) <= 4 + 4 * FIRST_WINDOW


def test_reading_out_of_order_fetches_what_is_read_and_nothing_else(full, server):
    # Too far apart by name to be a scan, and backwards by inode number.
    chosen = [full / f"f{number:03}" for number in range(0, COUNT, GAP + 8)]
    for path in sorted(chosen, key=lambda path: path.stat().st_ino, reverse=True):
        assert path.read_bytes() == b"content"
    assert len(contents(server)) == len(chosen)


def test_nothing_is_fetched_for_an_indexer(full, server, run, tmp_path):
    indexer = tmp_path / "updatedb"
    shutil.copy(shutil.which("cat"), indexer)
    run(indexer, *(full / f"f{number:03}" for number in range(30)))
    assert len(contents(server)) == 30


def test_it_can_be_turned_off(server, mount):
    box_id = server.new_container("box")
    for number in range(20):
        server.write(box_id, f"/mnt/data/{number:02}", b"content")
    directory = mount(prefetch_small=0) / "box"
    for number in range(10):
        (directory / f"{number:02}").read_bytes()
    assert len(contents(server)) == 10
