"""What a mount logs while its server fails, for many files and for long."""

import re
import time

from containerfs.cli.logvolume import BURST

FILES = 300
ENTRY = re.compile(r"^\d{4}-\d\d-\d\d \S+ (WARNING|ERROR) ", re.MULTILINE)
MORE = re.compile(r"\((\d+) more like this were not logged\)")


def test_a_failing_server_is_told_of_once_a_second_and_nothing_last_is_lost(
    mount, server, eventually, run, command
):
    begin = time.monotonic()
    mounted = mount(write_back=0, ttl=0.1)
    mounted.expect("")
    box = mounted / "box"
    box.mkdir()
    server.set_faults({"kind": "status", "operation": "create_file", "status": 403})
    for number in range(FILES):
        (box / f"file{number:03}").write_bytes(b"%d" % number)
    failed = run(command, "queue", mounted.path, "--format", "jsonl")
    eventually(lambda: len(server.requests("create_file")) >= FILES)
    mounted.stop()
    told = len(ENTRY.findall(mounted.log))
    assert told <= 2 * BURST + (time.monotonic() - begin)
    assert told + sum(map(int, MORE.findall(mounted.log))) >= FILES
    (kept,) = re.findall(".* is kept here and sent by the next mount", mounted.log)
    assert "'file000'" in kept
    assert f"and {FILES - 100} more" in kept
    # The last word of them, of whichever file was answered last.
    assert re.search(
        r"'file\d+' is not on the server.* more like this were not logged", mounted.log
    )
    assert len(failed.splitlines()) == FILES


def test_why_a_program_is_told_eio_is_logged(mount, server, errno_of):
    id = server.new_container("box")
    server.write(id, "/mnt/data/file", b"content")
    mounted = mount()
    fault = {"kind": "status", "status": 500, "header": "x-should-retry", "value": "false"}
    server.set_faults(*({**fault, "operation": each} for each in ("content", "create_file")))
    assert errno_of((mounted / "box" / "file").read_bytes) == "EIO"
    assert errno_of((mounted / "box" / "new").write_bytes, b"new") == "EIO"
    server.set_faults()
    assert re.search(r" WARNING .* (open|read): GET \S+/content: 500", mounted.log)
    assert re.search(r" WARNING .* flush: POST \S+/files: 500", mounted.log)
