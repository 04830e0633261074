"""Notices programs that open one small file after the other, and tells what they open next.

Their opens come in one of three orders: by name, (GNU cp and others, for the sake of disks) by
inode number, or as the directory was read while its first listing was on its way. Who goes from
one directory to the next of the same parent is followed there.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from os.path import splitext
from typing import Any

from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node

GAP = 32  # places that a program may skip and still be reading in order (`grep --include`)
DIRECTORIES_GAP = 8  # directories that it may skip
NEAR = 16  # a step past no more than this fraction of all files is hardly an accident
RUN = 4  # before anything is fetched: near steps in order count 2, far ones 1, neighbours as many
FIRST_WINDOW = 8  # files ahead; doubles with each further step in order
LAST_WINDOW = 256


def _suffix(file: File) -> str:
    return splitext(file.name)[1]


def _by_name(node: Node) -> Any:
    return node.name


def _by_number(node: Node) -> Any:
    return node.ino


def _as_they_came(_: Node) -> Any:
    return 0  # a sort is stable, and a directory keeps the order in which its entries came


KEYS: tuple[Callable[[Node], Any], ...] = (_by_name, _by_number, _as_they_came)


class Siblings:
    """The directories of one parent, in each order."""

    __slots__ = ("_count", "_parent", "_places", "orders")

    def __init__(self, parent: Directory) -> None:
        directories = [node for node in parent.children.values() if isinstance(node, Directory)]
        self.orders = tuple(sorted(directories, key=key) for key in KEYS)
        self._places = tuple(
            {directory.ino: place for place, directory in enumerate(order)} for order in self.orders
        )
        self._parent, self._count = parent, len(parent.children)

    def are_of(self, parent: Directory) -> bool:
        return parent is self._parent and len(parent.children) == self._count

    def follows(self, directory: Directory, other: Directory) -> bool:
        """Whether *directory* comes soon after *other* in one of the orders."""
        return any(
            0 < places.get(directory.ino, 0) - places.get(other.ino, len(places)) <= DIRECTORIES_GAP
            for places in self._places
        )

    def after(self, directory: Directory, order: int) -> Iterator[Directory]:
        """Those that come after *directory*."""
        place = self._places[order].get(directory.ino, len(self.orders[order]))
        return islice(self.orders[order], place + 1, None)


class Order:
    """Small files in one order, and how far a program got in it."""

    __slots__ = (
        "_ahead",
        "_begun",
        "_budget",
        "_files",
        "_following",
        "_is_choosy",
        "_is_small",
        "_key",
        "_known",
        "_largest",
        "_opens",
        "_place",
        "_places",
        "_suffix",
        "run",
    )

    def __init__(
        self,
        directory: Directory,
        *,
        key: Callable[[Node], Any],
        following: Iterator[Directory],
        is_small: Callable[[File], bool],
        budget: int,
    ) -> None:
        """Args:
        directory: The one that is read first.
        following: Those that would be next.
        budget: Bytes that may be ahead of the program.
        """
        self._budget = budget
        self._largest = 1  # bytes
        self._key = key
        self._following = following
        self._is_small = is_small
        self._files: list[File] = []
        self._places: dict[int, int] = {}
        self._known: set[int] = set()
        self._place = -1
        self._ahead = 0  # files before this place were looked at
        self._begun = self._opens = 0  # the place of the run's first one, and how many followed
        self._suffix: str | None = None  # of all that was opened so far
        self._is_choosy: bool | None = None  # it skips all others; None where it skipped none
        self.run = 0
        self._add(directory)

    def __contains__(self, file: File) -> bool:
        return file.ino in self._places

    def lacks(self, file: File) -> bool:
        """Whether *file* is one to be fetched ahead that was not there when this was made."""
        return file not in self and self._is_small(file)

    def grow(self, directory: Directory) -> None:
        """More of *directory* is known by now, as its first listing comes."""
        if directory.ino in self._known:
            self._add(directory)

    def _add(self, directory: Directory) -> None:
        files = (
            node
            for node in directory.children.values()
            if isinstance(node, File) and node not in self
        )
        found = sorted(filter(self._is_small, files), key=self._key)
        self._largest = max([self._largest, *(file.size or 0 for file in found)])
        start = len(self._files)
        self._places.update({file.ino: place for place, file in enumerate(found, start)})
        self._files += found
        self._known.add(directory.ino)

    def reach(self, directory: Directory) -> None:
        """*directory* is read now, which comes soon."""
        for each in islice(self._following, DIRECTORIES_GAP):
            if directory.ino in self._known:
                break
            self._add(each)

    def opened(self, file: File) -> None:
        place = self._places.get(file.ino)
        if place is None:
            return
        if self._place >= 0 and 0 < place - self._place <= GAP:
            step = place - self._place
            is_near = step * NEAR <= len(self._files)
            # Two neighbours are no accident.
            self.run = max(self.run + 1 + is_near, RUN if step == 1 else 0)
            self._opens += 1
        elif place != self._place:
            self.run, self._ahead = 0, place + 1
            self._begun, self._opens = place, 0
        self._learn_choice(file, self._files[self._place + 1 : place] if self.run else [])
        self._place = place

    def _learn_choice(self, file: File, skipped: list[File]) -> None:
        """Whether the program is one that opens the files of one suffix (`grep --include`)."""
        suffix = _suffix(file)
        self._suffix = suffix if self._suffix is None else self._suffix
        if self._is_choosy is False:
            return
        if suffix != self._suffix or any(_suffix(each) == suffix for each in skipped):
            if self._is_choosy:
                self.forget_ahead()
            self._is_choosy = False
        elif skipped:
            self._is_choosy = True

    def forget_ahead(self) -> None:
        """What was given and is not here is to be given again."""
        self._ahead = 0

    def next_files(self, *, crosses: bool) -> list[File]:
        """Those to be fetched now, each given once.

        Args:
            crosses: The program goes on from directory to directory.
        """
        if self.run < RUN:
            return []
        window = min(FIRST_WINDOW << min((self.run - RUN) // 2, 8), LAST_WINDOW)
        window = min(window, self._budget // self._largest)
        if self._is_choosy:  # as many places further on as it takes to find so many
            window *= -(-(self._place - self._begun) // max(1, self._opens))
        start, end = max(self._ahead, self._place + 1), self._place + 1 + window
        if crosses and end > len(self._files):
            for directory in islice(self._following, LAST_WINDOW):
                self._add(directory)
                if end <= len(self._files):
                    break
        end = min(end, len(self._files))  # more may follow there
        self._ahead = max(end, self._ahead)
        found = self._files[start:end]
        return (
            [file for file in found if _suffix(file) == self._suffix] if self._is_choosy else found
        )


class Scan:
    """The opens of files of one directory, or of several that follow one another.

    Attributes:
        directory: The one that was read last.
        last: When the last one was.
        crosses: It went from one directory to the next.
        orders: The orders that it may have; none before it was noticed.
    """

    __slots__ = ("_first", "crosses", "directory", "last", "orders")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._first: File | None = None
        self.last = 0.0
        self.crosses = False
        self.orders: tuple[Order, ...] = ()

    def is_first(self, file: File) -> bool:
        """Whether *file* is the first that was opened, or the only one again; it is remembered."""
        self._first = self._first or file
        return file is self._first

    def begin(
        self, siblings: Siblings | None, is_small: Callable[[File], bool], *, budget: int
    ) -> None:
        """It is noticed from now on; *budget* bytes may be ahead of it."""
        self.orders = tuple(
            Order(
                self.directory,
                key=key,
                following=iter(()) if siblings is None else siblings.after(self.directory, number),
                is_small=is_small,
                budget=budget,
            )
            for number, key in enumerate(KEYS)
        )
        if self._first is not None:
            for order in self.orders:
                order.opened(self._first)

    def cross(self, directory: Directory) -> None:
        """It goes on in *directory*."""
        self.directory, self.crosses = directory, True
        for order in self.orders:
            order.reach(directory)

    def forget_ahead(self) -> None:
        """What was told to be fetched, and was not, is told again with the next open."""
        for order in self.orders:
            order.forget_ahead()

    def opened(self, file: File, *, is_elsewhere: bool) -> list[File]:
        """It opened *file*; returns what is to be fetched now.

        Args:
            is_elsewhere: Its content is not here; what is here need not be looked for.
        """
        for order in self.orders:
            if is_elsewhere and order.lacks(file):
                order.grow(self.directory)
            order.opened(file)
        leading = max(self.orders, key=lambda order: order.run)
        return leading.next_files(crosses=self.crosses)


def parent_of(directory: Directory) -> Directory | None:
    """Where the directories are that a program may go on to; it stays in its container."""
    return None if isinstance(directory, ContainerDirectory) else directory.parent
