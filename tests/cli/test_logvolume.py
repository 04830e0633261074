"""How much is logged."""

import logging

from containerfs.cli.logvolume import BURST, VolumeFilter


def record(text, *args, level=logging.WARNING):
    return logging.LogRecord("containerfs.x", level, "x.py", 1, text, args, None)


def test_what_comes_again_and_again_is_told_once_a_second_with_a_count():
    now = 0.0
    volume = VolumeFilter(clock=lambda: now)
    told = 0
    for step in range(10_000):
        now = step / 100
        told += volume.filter(record("%r failed", step))
    assert told <= BURST + 100
    now += 5
    last = record("%r failed", "last")
    assert volume.filter(last)
    assert last.getMessage().startswith("'last' failed (99 more like this")


def test_other_messages_are_told_meanwhile():
    volume = VolumeFilter(clock=lambda: 0.0)
    for _ in range(BURST):
        assert volume.filter(record("again"))
    assert not volume.filter(record("again"))
    assert volume.filter(record("something else"))
    assert volume.filter(record("again", level=logging.ERROR))
