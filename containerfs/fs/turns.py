"""Long work on the tree, in pieces small enough that others are not kept waiting.

Such work is a generator that yields where a pause does no harm, and returns its result.
"""

import time
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import trio

T = TypeVar("T")
R = TypeVar("R")

PIECE = 500  # items of a loop between two places for a pause
TURN = 0.01  # seconds of work before a pause

Work = Generator[None, None, R]


def pieces(items: Iterable[T]) -> Iterator[list[T]]:
    """*items*, in lists of a length that takes a small part of a turn."""
    iterator = iter(items)
    while piece := list(islice(iterator, PIECE)):
        yield piece


def at_once(work: Work[R]) -> R:
    """Do *work* without a pause."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: R = end.value
            return result


async def in_turns(work: Work[R]) -> R:
    """Do *work* while others have their turns too."""
    until = time.perf_counter() + TURN
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: R = end.value
            return result
        if time.perf_counter() > until:
            await trio.lowlevel.checkpoint()
            until = time.perf_counter() + TURN
