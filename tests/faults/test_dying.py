"""Killed at every durable step, a mount loses nothing, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

DYING = Path(__file__).with_name("dying.py")

STORIES = (
    "writing",
    "overwriting",
    "removing",
    "renaming",
    "saving_as_editors_do",
    "renaming_the_unsent",
    "syncing",
    "exchanging",
    "exchanging_the_unsent",
)
OVERWRITING = {  # where one content can take the place of another
    "exchanging": "overwrite",
    "exchanging_the_unsent": "overwrite_keep_id",
}
SPARED = 7  # steps from one death to the next where there is little time


def wrongs(server, tmp_path, story, every):
    if story in OVERWRITING:
        server.set_behaviours(naming="plain", same_name=OVERWRITING[story])
    done = subprocess.run(
        [sys.executable, str(DYING), server.uds, str(tmp_path), story, str(every)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    *wrong, last = done.stdout.splitlines()
    assert last.startswith('{"steps"'), done.stdout + done.stderr
    return wrong


@pytest.mark.parametrize("story", STORIES)
def test_a_death_now_and_then_loses_nothing(server, tmp_path, story):
    assert wrongs(server, tmp_path, story, SPARED) == []


@pytest.mark.deep
@pytest.mark.parametrize("story", STORIES)
def test_a_death_at_any_step_loses_nothing(server, tmp_path, story):
    assert wrongs(server, tmp_path, story, 1) == []
