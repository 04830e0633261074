"""How much is logged."""

import logging

import pytest

from containerfs.cli.logvolume import BURST, FORGOTTEN, VolumeLimit


class Told(logging.Handler):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def limit(told, clock):
    limit = VolumeLimit(told, clock=clock)
    yield limit
    limit.close()


def record(text, *args, level=logging.WARNING, exc_info=None):
    return logging.LogRecord("containerfs.x", level, "x.py", 1, text, args, exc_info)


def raised(text, call):
    try:
        call()
    except ZeroDivisionError as exc:
        return record(text, level=logging.ERROR, exc_info=(type(exc), exc, exc.__traceback__))
    raise AssertionError


def test_what_comes_again_is_told_once_a_second_in_all_with_a_count(limit, told, clock):
    for step in range(10_000):
        clock.now = step / 100
        limit.handle(record(f"{'abcde'[step % 5]} %r failed", step))
    assert len(told.lines) <= BURST + 100
    limit.close()
    counts = [int(line.split("(")[1].split()[0]) for line in told.lines if "more like" in line]
    assert len(told.lines) + sum(counts) == 10_000


def test_every_kind_has_its_turn(limit, told, clock):
    for step in range(10_000):
        clock.now = step / 100
        limit.handle(record("often %r" if step % 100 else "seldom %r", step))
    seldom = [line for line in told.lines if line.startswith("seldom")]
    assert len(seldom) > 20


def test_what_is_new_is_told_at_once(limit, told):
    for _ in range(BURST + 5):
        limit.handle(record("again"))
    limit.handle(record("something else"))
    assert told.lines == ["again"] * BURST + ["something else"]


def test_what_did_not_come_for_a_while_is_new(limit, told, clock):
    for _ in range(BURST):
        limit.handle(record("often"))
    limit.handle(record("seldom"))
    clock.now = FORGOTTEN + 1
    for _ in range(BURST):
        limit.handle(record("often"))
    limit.handle(record("seldom"))
    assert told.lines[-1] == "seldom"


def test_the_last_of_each_kind_is_told_in_the_end(limit, told):
    for number in range(BURST + 5):
        limit.handle(record("%d failed", number))
    limit.handle(record("%d is back", 1))
    limit.handle(record("%d is back", 2))
    limit.close()
    assert told.lines[BURST:] == [
        "1 is back",
        f"{BURST + 4} failed (4 more like this were not logged)",
        "2 is back",
    ]


def test_an_error_that_is_not_told_yet_is_told_at_once(limit, told):
    for _ in range(BURST + 5):
        limit.handle(record("again"))
    for number in range(5):
        limit.handle(record("the spool of %d is lost", number, level=logging.ERROR))
    for _ in range(2):
        limit.handle(raised("read failed", lambda: 1 / 0))
        limit.handle(raised("read failed", lambda: 1 % 0))
    assert [line for line in told.lines if "is lost" in line] == [
        f"the spool of {number} is lost" for number in range(5)
    ]
    assert sum("Traceback" in line for line in told.lines) == 2
    limit.close()
    assert sum("Traceback" in line for line in told.lines) == 4


def test_too_many_errors_at_once_are_not_all_told(limit, told):
    for number in range(10_000):
        limit.handle(record("%d", number, level=logging.ERROR))
    assert len(told.lines) <= 2 * BURST


def test_what_informs_takes_no_turn_of_what_warns(limit, told):
    for number in range(BURST + 5):
        limit.handle(record("%d sent", number, level=logging.INFO))
    for number in range(BURST):
        limit.handle(record("%d failed", number))
    assert len([line for line in told.lines if "failed" in line]) == BURST


def test_what_debugs_has_no_limit(limit, told):
    for number in range(1000):
        limit.handle(record("%d", number, level=logging.DEBUG))
    assert len(told.lines) == 1000
