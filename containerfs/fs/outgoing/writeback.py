"""`write_back`: close returns once the file is safe on this disk; it is uploaded a little later.

Safe means that a power cut does not lose it. fsync and sync still wait for the server. What goes
wrong in the background is the error of the next close or fsync of that file.
"""

from containerfs.fs.outgoing.keeping import Keeping
from containerfs.fs.outgoing.sending import Sending
from containerfs.fs.tree.nodes import File


class WriteBack:
    """Closes files early, where the mount was told so."""

    def __init__(self, *, sending: Sending, keeping: Keeping, delay: float | None) -> None:
        """Args:
        delay: Seconds after which a closed file is uploaded at the latest; None: at once.
        """
        self._sending = sending
        self._keeping = keeping
        self.delay = delay

    @property
    def is_on(self) -> bool:
        """Whether close may return before the server has the file."""
        return self.delay is not None

    async def close(self, file: File) -> None:
        """Return once *file*, which is dirty, survives a power cut; it is sent soon.

        Raises:
            NoSpace, LocalFault: It is not safe.
        """
        await self._keeping.keep(file)
        self._sending.send_soon(file, after=self.delay or 0.0)
