"""What an upload has made on the server where nobody was told: one judgement for all who ask.

It is looked for by its name, of which a server may keep the base alone. So what is known to be
something else is none of it: what was listed before, and what a file here was sent as.
"""

from collections.abc import Collection, Iterable

from containerfs.api.types import RemoteFile
from containerfs.cache.metadata import Metadata
from containerfs.cache.state import State
from containerfs.fs.outgoing.flattening import is_sent_as, keeps_directories


class Arrivals:
    """Looks for uploads of an earlier mount."""

    def __init__(self, *, metadata: Metadata, state: State) -> None:
        self._metadata = metadata
        self._state = state

    async def of(self, container_id: str, path: str, *, known: Collection[str]) -> list[RemoteFile]:
        """The objects that an upload as *path* may have made.

        Args:
            known: Ids of objects that are something else.

        Raises:
            FileSystemError: The server does not say.
        """
        listed = (await self._metadata.files(container_id, fresh=True)).entries
        others = {*known, *own_objects(self._state, container_id)}
        may_be_flat = not keeps_directories(listed)
        return [
            file
            for file in listed
            if file.id not in others and is_sent_as(file, path, may_be_flat=may_be_flat)
        ]


def own_objects(state: State, container_id: str, *, but: str | None = None) -> set[str]:
    """The ids of the objects that files of a container are known by here.

    Args:
        but: Visible path of a file that is not asked for.
    """
    remembered = state.nodes(container_id).items()
    return {
        local.file_id for path, local in remembered if local.file_id is not None and path != but
    }


def still_replaced(
    state: State, container_id: str, path: str, replaced: Iterable[str]
) -> list[str]:
    """The ids of *replaced* that no file but the one at *path* has become since: a server may keep
    the id of what it overwrites.
    """
    others = own_objects(state, container_id, but=path)
    return [id for id in replaced if id not in others]
