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
