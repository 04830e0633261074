"""`write_back`: close returns once the file is safe on this disk; it is uploaded a little later.

Safe means that a power cut does not lose it: the spool is synced, and so is the journal that names
it. fsync and sync still wait for the server. What goes wrong in the background is the error of the
next close or fsync of that file.
"""

from containerfs.cache.database import durably
from containerfs.cache.state import State
from containerfs.fs.nodes import File
from containerfs.fs.sending import Sending
from containerfs.upload.journal import Journal


class WriteBack:
    """Closes files early, where the mount was told so."""

    def __init__(
        self, *, sending: Sending, journal: Journal, state: State, delay: float | None
    ) -> None:
        """Args:
        delay: Seconds after which a closed file is uploaded at the latest; None: at once.
        """
        self._sending = sending
        self._journal = journal
        self._state = state
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
        spool, entry = file.spool, file.entry
        assert spool is not None and entry is not None  # noqa: S101, PT018 - it is dirty
        await spool.sync()
        if file.entry is entry:  # else the server has got it meanwhile
            with durably(self._state.connection):
                self._journal.update(entry)
            self._sending.send_soon(file, after=self.delay or 0.0)
