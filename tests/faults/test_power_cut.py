"""The power fails at every durable call: what was acknowledged is there afterwards, once.

One life of a real mount and its server is traced; what the disk may hold after each call follows
from that (see `power.py`), and the next mount has to live with it. The server is another machine:
it has what it had at that moment.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from containerfs import mountpoint

STORY = Path(__file__).with_name("power_story.py")
POWER = Path(__file__).with_name("power.py")
PATIENCE = 300
HELD = ("~", ".swp")  # what stays on this machine
NOTHING, TORN = "-", "*"  # as in STORY
KINDS = ("strict", "newest", "empty", "mixed", "zeros")


def call(*words):
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout else None


class Life:
    """A story that was traced to its end."""

    def __init__(self, directory, story):
        self._directory, self._story = directory, story
        self._trace = directory / "trace"
        command = call(POWER, "command", self._trace)
        process = subprocess.Popen(
            [*command, sys.executable, str(STORY), "live", str(directory), story],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what is traced goes on when the tracer ends
            raise
        assert process.returncode == 0, f"{output.decode()}{(directory / 'log').read_text()}"
        self.count, self.durable, self._notes = call(POWER, self._trace, directory, "steps")
        self.acknowledged = [step for step, _ in self._notes]

    def cuts(self, steps, *, first=0):
        """What is wrong after power cuts at these steps, each of another kind."""
        kinds = itertools.islice(itertools.cycle(KINDS), first, None)
        return [
            wrong for at, kind in zip(steps, kinds, strict=False) for wrong in self.cut(at, kind)
        ]

    def cut(self, at, kind):
        """What is wrong after a power cut *at* that step."""
        target = self._directory / "left"
        call(POWER, self._trace, self._directory, at, kind, at, target)
        try:
            found = call(STORY, "look", self._directory, self._story, target)
            facts = [json.loads(note) for step, note in self._notes if step <= at]
            wrong = compared(found, facts[-1] if facts else {"may": {}, "somewhere": []})
        except AssertionError as exc:
            log = target / "log"
            wrong, found = ["it failed"], {"log": f"{exc}{log.read_text() if log.exists() else ''}"}
        shutil.rmtree(target)
        return [f"{self._story}, {kind} at {at}: {each}\n{found['log']}" for each in wrong]

    def model_is_true(self):
        """What the trace says of the disk is what is there."""
        target = self._directory / "left"
        call(POWER, self._trace, self._directory, self.count, "all", 0, target)
        for part in ("disk", "data"):
            real = contents(self._directory / part)
            assert punched(contents(target / part), real) == real
        shutil.rmtree(target)


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def punched(modelled, real):
    """*modelled* with the holes of the packs: the range of an ioctl is not in the trace."""
    found = dict(modelled)
    for name in modelled:
        if name.endswith(("/pack", ".pack")) and name in real:  # the server's, and the cache's
            pairs = zip(modelled[name], real[name], strict=True)
            found[name] = bytes(byte if is_there else 0 for byte, is_there in pairs)
    return found


def compared(found, facts):
    """What is not as it must be."""
    first, sent = found["first"], found["sent"]
    for name, may in facts["may"].items():
        shown = first.get(name, NOTHING)
        if shown not in may and TORN not in may:
            yield f"{name} is {shown}, not one of {may}"
    for names, data in facts["somewhere"]:
        if not any(first.get(name) == data for name in names):
            yield f"none of {names} is {data}: {first}"
    held = {name for name in first if name.endswith(HELD)}
    for name in first.keys() - facts["may"].keys() - held:
        if facts["may"]:
            yield f"where does {name} come from?"
    once = {name: [data] for name, data in first.items() if name not in held}
    if sent != once:
        yield f"the server has {sent}, shown was {first}"
    if len(found["here"]) != len(held):
        yield f"in the spool is {found['here']}"
    if "ERROR" in found["log"] or "Traceback" in found["log"]:
        yield "an error was logged"


@pytest.fixture
def live(tmp_path):
    """`live(story)`: plays it, traced, to its end."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace here")
    if subprocess.run(["strace", "-qq", "-e", "none", "true"], capture_output=True).returncode:
        pytest.skip("no process may be traced here")
    if os.geteuid():
        pytest.skip("fusermount3 is set-uid, which it can't be while it is traced: only for root")
    yield lambda story: Life(tmp_path, story)
    while mountpoint.at(tmp_path / "mnt"):
        mountpoint.detach(tmp_path / "mnt")


STORIES = ("everyday", "late", "refused", "staying")
FEW = 2  # cuts of each story where there is little time


@pytest.mark.parametrize("story", STORIES)
def test_a_power_cut_now_and_then_loses_nothing_that_was_acknowledged(live, story):
    life = live(story)
    life.model_is_true()
    few = [life.acknowledged[len(life.acknowledged) * n // (FEW + 1)] for n in range(1, FEW + 1)]
    assert life.cuts(few, first=STORIES.index(story)) == []


@pytest.mark.deep
@pytest.mark.parametrize("story", STORIES)
def test_a_power_cut_at_any_durable_call_loses_nothing_that_was_acknowledged(live, story):
    life = live(story)
    between = range(1, life.count + 1, 20)
    before = [at - 1 for at in life.durable]
    assert life.cuts(sorted({*life.durable, *before, *life.acknowledged, *between})) == []
