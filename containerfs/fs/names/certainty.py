"""Which names are certain while a listing is still on its way."""

from collections import Counter
from collections.abc import Iterable, Mapping

from containerfs.api.types import RemoteFile
from containerfs.cache.state import LocalNode
from containerfs.fs.names.names import plain


class Certainty:
    """Which names are certain, whatever is still to come.

    They are plain names in the container itself. One that this machine has to do with, beyond
    that it sent the very file, is not among them.
    """

    def __init__(
        self, remembered: Mapping[str, LocalNode], *, unsent: Iterable[str], raw_names: bool
    ) -> None:
        """Args:
        remembered: What this machine knows of the container, by visible path.
        unsent: Visible paths of what is still to be sent.
        """
        self.remembered: dict[str, LocalNode] = {}
        self._kept: dict[str, str] = {}
        self._raw_names = raw_names
        self._taken: set[str] = set()
        self._placed = Counter(local.file_id for local in remembered.values())
        for path, local in remembered.items():
            if local.kind == "file" and "/" not in path and local.file_id is not None:
                self.remembered[path] = local
                self._kept[local.file_id] = path
            else:
                self._taken.add(path.partition("/")[0])
        self._taken.update(path.partition("/")[0] for path in unsent)

    def name(self, file: RemoteFile) -> str | None:
        """The name that *file* is shown by; None where that is not certain."""
        if file.id in self._placed and not self._raw_names:
            kept = self._kept.get(file.id) if self._placed[file.id] == 1 else None
            return None if kept in self._taken else kept
        found = plain(file.path)
        if found is None:
            return None
        name, short = found
        if short is not None and file.source == "user" and not self._raw_names:
            name = short  # as others of that name are older, this one keeps it (`place_files`)
        return None if name in self._taken or name in self.remembered else name
