"""Which object of the server each file shows, and what becomes of a file when that changes."""

from dataclasses import replace

from containerfs.api.types import RemoteFile
from containerfs.cache.metadata import Metadata
from containerfs.fs.tree.nodes import ContainerDirectory, File
from containerfs.fs.tree.places import Places
from containerfs.fs.tree.tree import Tree


class Objects:
    """Keeps the files of the tree and the objects of the server together."""

    def __init__(self, *, tree: Tree, places: Places, metadata: Metadata) -> None:
        self._tree = tree
        self._places = places
        self._metadata = metadata

    def set_remote(
        self,
        container: ContainerDirectory,
        file: File,
        remote: RemoteFile,
        *,
        older: tuple[RemoteFile, ...] = (),
    ) -> File:
        """Let *file* show *remote*; returns the node that does.

        A file that is open keeps the content it was opened with: the new version gets a node of
        its own, as when a file is replaced by a rename on a local disk.
        """
        before = file.remote
        if before is None and file.local is None and not older:  # as most are, at first
            container.files[remote.id], file.remote = file, remote
            return file
        if before is not None and before.version != remote.version and file.spool is None:
            if file.opens:
                directory, name, path = file.parent, file.name, file.path
                local = replace(file.local) if file.local is not None else None
                assert directory is not None  # noqa: S101 - only shown files come here
                self._tree.orphan(file)
                file = self._places.make_file(container, directory, name, path, local)
                self._tree.save(file)
            else:
                self._tree.differ(file.parent)
                file.pages_valid, file.true_size = False, None
            if before.version.id == remote.id and file.local is not None:
                file.local.mtime_ns = None
        if before is not None and before.id != remote.id:
            self._tree.unindex(container, before.id, file)
        file.remote, file.older = remote, older
        container.files[remote.id] = file
        if file.local is not None and file.local.file_id not in (None, remote.id):
            if file.spool is None:  # somebody else's version: its own time
                file.local.mtime_ns = file.local.ctime_ns = None
            file.local.file_id = None
        return file

    def adopt_remote(self, container: ContainerDirectory, file: File, remote: RemoteFile) -> None:
        """*file* was just sent, as *remote*: the same bytes, so what is open stays as it is."""
        other = container.files.get(remote.id)
        if other is not None and other is not file:
            self.vanished(container, other, replaced=False)
            if other.local is not None and other.local.file_id == remote.id:
                other.local.file_id = None  # a server may keep the id of what is overwritten
                self._tree.save(other)
        if file.remote is not None:
            self._tree.unindex(container, file.remote.id, file)
        file.remote, file.older = remote, ()
        container.files[remote.id] = file

    def lose_remote(self, file: File) -> None:
        """The server's object is *file*'s no more; its content is in its spool."""
        container = self._tree.container_of(file)
        for id in file.remote_ids:
            self._metadata.forget(container.remote.id, id)
            self._tree.unindex(container, id, file)
        file.remote, file.older = None, ()
        self._tree.local(file).file_id = None
        self._tree.save(file)

    def disown(self, file: File) -> None:
        """The objects of *file* are about to be another's, or nobody's; it shows them till then."""
        container = self._tree.container_of(file)
        for id in file.remote_ids:
            self._tree.unindex(container, id, file)

    def vanished(self, container: ContainerDirectory, file: File, *, replaced: bool) -> None:
        """The server has the object of *file* no more, or shows it elsewhere."""
        assert file.remote is not None  # noqa: S101 - it is indexed by it
        self._tree.unindex(container, file.remote.id, file)
        if file.parent is None:
            return
        if file.spool is not None:
            file.remote, file.older = None, ()
        elif not replaced:
            self._tree.orphan(file)
