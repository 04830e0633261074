"""What an exchange of names could lose, kept until it is over.

A server may overwrite what has the name of what is sent. In an exchange each is sent under the
other's name, so a process that ends in the middle could leave one content there twice, and the
other one nowhere but in the cache, where it may be evicted and does not survive a power cut.
"""

from collections.abc import Iterable

from containerfs.fs.files.spooling import Spooling
from containerfs.fs.outgoing.keeping import Keeping
from containerfs.fs.outgoing.moves import Move
from containerfs.fs.tree.nodes import Directory, File, Node
from containerfs.upload.intents import Intents


class Copies:
    """Spools of what is exchanged, which the next mount takes up where it has to."""

    def __init__(self, *, spooling: Spooling, keeping: Keeping, intents: Intents) -> None:
        self._spooling = spooling
        self._keeping = keeping
        self._intents = intents

    async def make(self, moves: Iterable[Move], nodes: Iterable[Node]) -> None:
        """Have all that is about to be sent, and what is unsent below *nodes*, survive a power cut.

        Raises:
            FileSystemError: It may not; `discard` is still to be called.
        """
        for move in moves:
            if move.content is not None:
                move.copy = await self._spooling.copy(move.content.fd, move.content.size or 0)
                await move.copy.sync()
        for node in nodes:
            below = node.walk() if isinstance(node, Directory) else ()
            for each in (node, *below):
                if isinstance(each, File) and each.is_dirty and each.own_ids:
                    await self._keeping.keep(each)

    def discard(self, moves: Iterable[Move]) -> None:
        """Remove the copies, but for those that the next mount may need."""
        needed = self._intents.copies
        for move in moves:
            if move.copy is not None and move.copy.path.name in needed:
                move.copy.close()
            elif move.copy is not None:
                move.copy.discard()
