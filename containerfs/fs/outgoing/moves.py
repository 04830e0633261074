"""Which files a rename has the server hold under a new name."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os.path import splitext

from containerfs.api.types import RemoteFile
from containerfs.cache.cachefile import Content
from containerfs.errors import CrossDevice
from containerfs.fs.names.names import components, stripped
from containerfs.fs.names.patterns import NamePatterns
from containerfs.fs.outgoing.flattening import is_sent_as
from containerfs.fs.tree.nodes import ContainerDirectory, Directory, File, Node
from containerfs.upload.fingerprint import Fingerprint
from containerfs.upload.spool import Spool


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Move:
    """One file's way to its new name.

    Attributes:
        content: What to send, where it is here already; pinned until the rename is over.
        copy: The same once more, where what is sent may be all that the server has.
        source: What the file showed when that was read.
        kept: What it showed as the rename began: it stays in its place until that is over.
        remote: The object under the new name, once it is there.
        intent: Number of the record that it is to be sent.
        over: The ids of other files' objects that it may take the place of.
        lost: What may have arrived although it failed: the record stays.
        spool: What was sent, where it was unsent content.
    """

    file: File
    container: ContainerDirectory
    path: str
    content: Content | None = None
    copy: Spool | None = None
    source: tuple[RemoteFile, ...] = ()
    kept: tuple[RemoteFile, ...] = ()
    remote: RemoteFile | None = None
    spool: Spool | None = None
    intent: int | None = None
    over: tuple[str, ...] = ()
    lost: tuple[Fingerprint, ...] = ()

    def begin_reading(self) -> None:
        """What is sent of the file is read now: what others make of it later is not meant."""
        self.source = self.file.versions

    @property
    def replaced(self) -> tuple[str, ...]:
        """The ids of the objects that the new one takes the place of."""
        if self.spool is not None:
            return self.file.own_ids
        now = {each.id: each.version for each in self.file.versions}
        return tuple(
            each.id for each in self.source if now.get(each.id, each.version) == each.version
        )


class Plans:
    """Says which moves a rename takes."""

    def __init__(self, *, scratch: NamePatterns, limit: int, sends_at_once: bool) -> None:
        """Args:
        limit: Files that a directory may hold to be renamed in place.
        sends_at_once: A file that is not on the server yet is to be there under its new name.
        """
        self._scratch = scratch
        self._limit = limit
        self._sends_at_once = sends_at_once

    def plan(self, node: Node, container: ContainerDirectory, base: str) -> list[Move]:
        """The files that the server must get under a new name.

        Raises:
            CrossDevice: There are too many, or one that is being written has an old object in
                another container, which must stay until the new content is sent.
        """
        found = list(_files(node, base))
        moves = [
            Move(file=file, container=container, path=path)
            for file, path in found
            if self._must_be_sent(file, container, path, alone=file is node)
        ]
        sent = {move.file.ino for move in moves}
        for file, _ in found:
            is_elsewhere = file.container is not container and file.ino not in sent
            if is_elsewhere and (file.remote_ids or (file.entry and file.entry.replaces)):
                raise CrossDevice(f"{file.path!r} has changes that are not sent yet")
        if len(moves) > self._limit:
            raise CrossDevice(f"{len(moves)} files are more than rename_limit ({self._limit})")
        return moves

    def late(
        self, node: Node, container: ContainerDirectory, base: str, moves: list[Move]
    ) -> list[File]:
        """What others have put below the directory *node* since `plan` said these moves: it is
        where it was on the server, and stays there.
        """
        moved = {move.file.ino for move in moves}
        return [
            file
            for file, path in _files(node, base)
            if file is not node
            and file.ino not in moved
            and not is_sent_from_here(file)
            and self._must_be_sent(file, container, path, alone=False)
        ]

    def _must_be_sent(
        self, file: File, container: ContainerDirectory, path: str, *, alone: bool
    ) -> bool:
        is_here = file.container is container
        if is_here and self._scratch.matches(path.rpartition("/")[2]):
            return False  # it stays here under the new name; what the server has of it stays there
        if file.spool is not None:
            # Else its own close sends it, or what was begun by its close.
            return alone and bool(file.size) and not file.writers and self._sends_at_once
        if file.remote is None:
            return False
        return not is_here or not is_named(file.remote, path)


def is_sent_from_here(file: File) -> bool:
    """Whether it is known by the object that it shows: one that was only listed is anybody's."""
    remote, local = file.remote, file.local
    return remote is not None and local is not None and local.file_id == remote.id


def _files(node: Node, base: str) -> Iterator[tuple[File, str]]:
    """The files that *node* is or holds, and their paths where it is *base*."""
    if isinstance(node, File):
        yield node, base
    elif isinstance(node, Directory):
        start = len(node.path)
        for each in node.walk():
            if isinstance(each, File):
                yield each, base + each.path[start:]


def made(moves: list[Move]) -> set[tuple[str, str]]:
    """The objects under the new names, as (container id, file id)."""
    return {(move.container.remote.id, move.remote.id) for move in moves if move.remote is not None}


def may_be_named(listed: Iterable[RemoteFile], path: str) -> Iterator[RemoteFile]:
    """Those that a server may have named by an upload as *path*, directories or base name only."""
    stem = splitext(path.rpartition("/")[2])[0]
    # Then it is in their names as it stands: soon found.
    is_plain = stem.isprintable() and not {"%", "~"} & {*stem}
    for each in listed:
        if (not is_plain or stem in each.path) and is_sent_as(each, path, may_be_flat=True):
            yield each


def is_named(remote: RemoteFile, path: str) -> bool:
    """Whether the server's object already has the name that *path* asks for."""
    parts = components(remote.path, id=remote.id)
    wanted = tuple(path.split("/"))
    return wanted in (parts, stripped(remote.path, id=remote.id))


def are_named_alike(one: RemoteFile, other: RemoteFile) -> bool:
    """Whether two objects of the server have one name there, prefixes aside."""
    return one.container_id == other.container_id and _name(one) == _name(other)


def _name(file: RemoteFile) -> tuple[str, ...]:
    return stripped(file.path, id=file.id) or components(file.path, id=file.id)
