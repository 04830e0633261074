"""The tree that the mount shows: what was listed, with what only this machine knows.

Nodes are kept and brought in line with each new listing, so that inode numbers, open files and
unsent changes outlive any number of refreshes. Nothing is asked of the server that nobody looks
at: the root asks for the list of containers, a container for its files when it is entered.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

import trio

from containerfs.api.types import Container, RemoteFile
from containerfs.cache.metadata import Listing, Metadata
from containerfs.cache.state import LocalNode, State
from containerfs.errors import Expired, FileSystemError, NotFound, Stale
from containerfs.fs.inodes import ROOT_INO, Inodes
from containerfs.fs.layout import BY_ID, Placed, place_containers, place_files
from containerfs.fs.names import components, escape_id, stripped, tailed
from containerfs.fs.nodes import SPECIAL, ContainerDirectory, Directory, File, Node, Symlink
from containerfs.upload.journal import Journal
from containerfs.upload.spool import Spool, SpoolDirectory

log = logging.getLogger(__name__)


class Namespace:
    """Directories and their entries, from the root down."""

    def __init__(
        self,
        *,
        metadata: Metadata,
        state: State,
        journal: Journal,
        spools: SpoolDirectory,
        inodes: Inodes,
        show_expired: bool,
        raw_names: bool,
        on_change: Callable[[Iterable[Directory]], None],
    ) -> None:
        """Args:
        on_change: Told which directories a listing changed, but for a container's first one.
        """
        self._metadata = metadata
        self._state = state
        self._journal = journal
        self._spools = spools
        self._show_expired = show_expired
        self._raw_names = raw_names
        self._on_change = on_change
        self._differing: set[Directory] = set()
        self._listing: Listing[Container] | None = None
        self._names = state.container_names()
        self.inodes = inodes
        self.root = Directory(ino=ROOT_INO, name="", parent=None)
        self.by_id = Directory(ino=inodes.allocate("", BY_ID), name=BY_ID, parent=self.root)
        self.containers: dict[str, ContainerDirectory] = {}
        inodes.add(self.root)
        inodes.add(self.by_id)

    # Looking things up.

    def expires(self, node: Node) -> float:
        """When what is known of *node* must be asked for again, on trio's clock."""
        container = node.container
        return self._believed_until(None if container is node else container)

    def entries_expire(self, directory: Directory) -> float:
        """When the entries of *directory*, absent ones too, must be asked for again."""
        return self._believed_until(directory.container)

    def _believed_until(self, container: ContainerDirectory | None) -> float:
        """The end of the container's listing; where it has none to come, of the top level's."""
        if container is None or container.is_snapshot:
            return self._listing.expires if self._listing is not None else 0.0
        return container.listing.expires if container.listing is not None else 0.0

    async def lookup(self, directory: Directory, name: str) -> Node:
        """The entry *name* of *directory*.

        Raises:
            NotFound: There is none.
            FileSystemError: The server could not be asked.
        """
        if directory is self.root and name == BY_ID:
            return self.by_id
        await self.refresh(directory)
        try:
            return directory.children[name]
        except KeyError:
            raise NotFound(f"no {name!r} in {directory.path!r}") from None

    async def refresh(self, node: Node, *, fresh: bool = False) -> None:
        """Bring what *node* belongs to in line with the server, where its time has come.

        Args:
            fresh: Ask the server even if its time has not come, and fail if it can't be asked.

        Raises:
            NotFound, Expired: The container is gone.
        """
        container = node.container
        if container is None or (container is node and container.parent is None):
            await self._refresh_containers(fresh=fresh)
        else:
            await self._refresh_files(container, fresh=fresh)

    async def _refresh_containers(self, *, fresh: bool) -> None:
        listing = None if fresh else self._metadata.fresh_containers()
        if listing is None:
            listing = await self._metadata.containers(fresh=fresh)
        if listing is not self._listing:
            self._listing = listing
            self._reconcile_containers(listing.entries)

    async def _refresh_files(self, container: ContainerDirectory, *, fresh: bool) -> None:
        if container.is_snapshot:
            return
        listing = None if fresh else self._metadata.fresh_files(container.remote.id)
        if listing is None:
            try:
                listing = await self._metadata.files(container.remote.id, fresh=fresh)
            except Expired:
                self.expire(container)
                return
            except NotFound:
                await self._refresh_containers(fresh=True)  # the list tells gone from expired
                if container.remote.is_expired:
                    return
                self.remove_container(container)
                raise
        if listing is not container.listing:
            container.listing = listing
            self.restore(container)
            # Something may have been sent or removed since the listing was made.
            entries = self._metadata.corrected(container.remote.id, listing.entries)
            self.reconcile(container, entries)

    # Containers.

    def _reconcile_containers(self, listed: Iterable[Container]) -> None:
        found = {container.id: container for container in listed}
        shown = [container for container in found.values() if self._is_shown(container)]
        shown += self._only_in_the_journal(found)
        names = place_containers(shown, kept=self._names)
        for id in [id for id in self.containers if id not in names]:
            self.remove_container(self.containers[id], forget=False)
        for container in shown:
            self._place_container(container, names[container.id])
        if names != self._names:
            self._names = names
            self._state.keep_container_names(names)

    def _is_shown(self, container: Container) -> bool:
        """Live, asked for, or expired with something of it still here."""
        if not container.is_expired or self._show_expired:
            return True
        known = self.containers.get(container.id)
        return (known is not None and known.listing is not None) or any(
            entry.container_id == container.id for entry in self._journal.entries
        )

    def _only_in_the_journal(self, found: Iterable[str]) -> list[Container]:
        """Containers that the server lists no more, while unsent files for them are here."""
        ids = {entry.container_id for entry in self._journal.entries} - set(found)
        return [
            Container(id=id, name=self._names.get(id, id), created=0, status="expired")
            for id in ids
        ]

    def _place_container(self, remote: Container, name: str) -> None:
        container = self.containers.get(remote.id)
        if container is None:
            self.add_container(remote, name)
            return
        container.remote = remote
        if container.name != name:
            self.root.detach(container)
            self.root.attach(container, name)
        if remote.is_expired and not container.is_snapshot:
            self.expire(container)

    def add_container(self, remote: Container, name: str) -> ContainerDirectory:
        """Show *remote* as directory *name*."""
        ino = self.inodes.allocate(remote.id, "")
        container = ContainerDirectory(ino=ino, name=name, parent=None, remote=remote)
        container.local = self._state.node(remote.id, "")
        self.inodes.add(container)
        self.root.attach(container, name)
        self.containers[remote.id] = container
        link_name = self.by_id_name(container)
        link = Symlink(
            ino=self.inodes.allocate(remote.id, BY_ID), name=link_name, parent=None, target=b""
        )
        self.inodes.add(link)
        self.by_id.attach(link, link_name)
        if remote.is_expired:
            self.expire(container)
        return container

    def keep_name(self, container: ContainerDirectory) -> None:
        """Remember the name that the container was made under here."""
        self._names = {**self._names, container.remote.id: container.name}
        self._state.keep_container_names(self._names)

    def remove_container(self, container: ContainerDirectory, *, forget: bool = True) -> None:
        """Stop showing a container.

        Args:
            forget: It is gone for good: what is remembered of it goes too, but for what the
                journal holds. A list without it proves nothing: lists lag, and break off.
        """
        if self.containers.pop(container.remote.id, None) is None:
            return
        for node in list(container.walk()):
            self._orphan(node)
        self.root.detach(container)
        self.inodes.drop_unused(container)
        link = self.by_id.children[self.by_id_name(container)]
        self.by_id.detach(link)
        self.inodes.drop_unused(link)
        if forget and not any(
            entry.container_id == container.remote.id for entry in self._journal.entries
        ):
            self._state.forget_container(container.remote.id)

    def expire(self, container: ContainerDirectory) -> None:
        """The container is dead: keep what is here as a snapshot that can be read."""
        if not container.is_snapshot:
            if container.listing is not None:
                log.warning("container %s has expired", container.remote.id)
            self.restore(container)
            if container.listing is None:
                self.reconcile(container, self._metadata.last_files(container.remote.id))
            container.is_snapshot = True

    # Files.

    def restore(self, container: ContainerDirectory) -> None:
        """Put what only this machine knows of a container into the tree, once."""
        if container.restored:
            return
        container.restored = True
        remembered = self._state.nodes(container.remote.id)
        for path, local in sorted(remembered.items()):
            if not path:
                continue  # the container itself
            if local.kind == "directory":
                directory = self._directory(container, path, local)
                directory.local, local.ino = local, directory.ino
            elif local.kind == "symlink":
                directory, name = self._place(container, path)
                link = Symlink(
                    ino=self._ino(container, path, local),
                    name=name,
                    parent=None,
                    target=local.target or b"",
                )
                link.local = local
                self._add(directory, link, name)
            elif made := next((each for each in SPECIAL if each.kind == local.kind), None):
                directory, name = self._place(container, path)
                node = made(ino=self._ino(container, path, local), name=name, parent=None)
                node.local = local
                self._add(directory, node, name)
        for entry in self._journal.entries:
            shown = self.find(container, entry.path)
            if isinstance(shown, File) and shown.entry is entry:
                continue  # made here before the container was listed
            if entry.container_id == container.remote.id:
                spool = self._spools.open(entry.spool)
                if spool is None:
                    log.error("the spool of %r is lost", entry.path)
                    continue
                file = self._file(container, entry.path, remembered.get(entry.path))
                file.spool, file.entry, file.error = spool, entry, entry.error
                self._restore_times(file, spool)

    def _restore_times(self, file: File, spool: Spool) -> None:
        """A write costs no record of its time: what was written last tells by its spool."""
        local, changed = self.local(file), spool.changed_ns()
        if local.ctime_ns is None or changed > local.ctime_ns:
            local.mtime_ns = local.ctime_ns = changed
        spool.close()

    def reconcile(self, container: ContainerDirectory, listed: Collection[RemoteFile]) -> None:
        """Bring the tree in line with a listing; open and unsent files keep what they have."""
        self._differing.clear()
        remembered = self._state.nodes(container.remote.id)
        placed = self._place_files(container, listed, remembered)
        for id, file in list(container.files.items()):
            if file.parent is None or all(
                remote.id != id for remote in placed.get(file.path, ())[:1]
            ):
                self._lose_remote(container, file, replaced=file.path in placed)
        for path, versions in placed.items():
            self._show(container, path, versions, remembered.get(path))
        for path, local in remembered.items():
            if local.kind != "file" or path in placed:
                continue
            if not isinstance(self.find(container, path), File):
                self._state.forget_node(container.remote.id, path)
        self._remove_empty_directories(container)
        if self._differing and container.is_watched:
            self._on_change(list(self._differing))
        container.is_watched = True

    def _place_files(
        self,
        container: ContainerDirectory,
        listed: Collection[RemoteFile],
        remembered: dict[str, LocalNode],
    ) -> Placed:
        kept = dict(_shown_without_prefix(container))
        directories = {path for path, local in remembered.items() if local.kind != "file"}
        listed_ids = {file.id for file in listed}
        for path, local in remembered.items():
            if local.kind != "file" or local.file_id in listed_ids:
                directories.update(_parents(path))
            if local.file_id is not None:
                kept[local.file_id] = path
        sending: dict[tuple[str, ...], str] = {}
        for entry in self._journal.entries:
            if entry.container_id == container.remote.id:
                directories.update(_parents(entry.path))
                if entry.state == "sending":
                    sending[tuple(entry.path.split("/"))] = entry.path
        if sending:  # an upload whose answer has not come, or never will, may be listed
            for file in listed:
                sent_as = sending.get(stripped(file.path, id=file.id) or ())
                if sent_as is not None:
                    kept.setdefault(file.id, sent_as)
        return place_files(listed, kept=kept, directories=directories, raw_names=self._raw_names)

    def _show(
        self,
        container: ContainerDirectory,
        path: str,
        versions: list[RemoteFile],
        local: LocalNode | None,
    ) -> None:
        newest = versions[0]
        file = container.files.get(newest.id)
        if file is None or file.parent is None or file.path != path:
            file = self._file(container, path, local)
        self.set_remote(container, file, newest, older=tuple(versions[1:]))

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
        if before is not None and before.version != remote.version and file.spool is None:
            if file.opens:
                directory, name, path = file.parent, file.name, file.path
                local = replace(file.local) if file.local is not None else None
                assert directory is not None  # noqa: S101 - only shown files come here
                self.orphan(file)
                file = self._new_file(container, directory, name, path, local)
                self.save(file)
            else:
                self._differ(file.parent)
                file.pages_valid, file.true_size = False, None
            if before.version.id == remote.id and file.local is not None:
                file.local.mtime_ns = None
        if before is not None and before.id != remote.id:
            self._unindex(container, before.id, file)
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
            self._lose_remote(container, other, replaced=False)
        if file.remote is not None:
            self._unindex(container, file.remote.id, file)
        file.remote, file.older = remote, ()
        container.files[remote.id] = file

    def lose_remote(self, file: File) -> None:
        """The server's object is *file*'s no more; its content is in its spool."""
        container = self.container_of(file)
        for id in file.remote_ids:
            self._metadata.forget(container.remote.id, id)
            self._unindex(container, id, file)
        file.remote, file.older = None, ()
        self.local(file).file_id = None
        self.save(file)

    def disown(self, file: File) -> None:
        """The objects of *file* are about to be another's, or nobody's; it shows them till then."""
        container = self.container_of(file)
        for id in file.remote_ids:
            self._unindex(container, id, file)

    def _unindex(self, container: ContainerDirectory, id: str, file: File) -> None:
        if container.files.get(id) is file:
            del container.files[id]

    def _lose_remote(self, container: ContainerDirectory, file: File, *, replaced: bool) -> None:
        """The server has the object of *file* no more, or shows it elsewhere."""
        assert file.remote is not None  # noqa: S101 - it is indexed by it
        self._unindex(container, file.remote.id, file)
        if file.parent is None:
            return
        if file.spool is not None:
            file.remote, file.older = None, ()
        elif not replaced:
            self.orphan(file)

    # Changing the tree. What is on the server is the caller's business.

    def add(self, directory: Directory, node: Node, name: str) -> None:
        """Give a new *node* the free name *name* in *directory*."""
        self._add(directory, node, name)

    def _differ(self, directory: Directory | None) -> None:
        if directory is not None:
            self._differing.add(directory)

    def _add(self, directory: Directory, node: Node, name: str) -> None:
        self._differ(directory)
        self.inodes.add(node)
        directory.attach(node, name)

    def orphan(self, node: Node) -> None:
        """Take *node* out of the tree; whoever has it open keeps it."""
        container, path = node.container, node.path
        parent = node.parent
        if parent is None:
            return
        self._differ(parent)
        parent.detach(node)
        self._orphan(node)
        if container is not None and node.local is not None and path:
            self._state.forget_node(container.remote.id, path)
        if isinstance(node, File) and node.remote is not None and container is not None:
            self._unindex(container, node.remote.id, node)

    def _orphan(self, node: Node) -> None:
        node.parent = None
        self.inodes.drop_unused(node)

    def move(self, node: Node, directory: Directory, name: str) -> None:
        """Give *node* the free name *name* in *directory*; what is remembered of it follows."""
        source, old_path = node.container, node.path
        assert node.parent is not None  # noqa: S101 - only what has a name can be renamed
        moved = [node, *(node.walk() if isinstance(node, Directory) else ())]
        with self._state.transaction():
            if source is not None:
                for each in moved:
                    if each.local is not None:
                        self._state.forget_node(source.remote.id, each.path)
                    if isinstance(each, File) and each.remote is not None:
                        self._unindex(source, each.remote.id, each)
            node.parent.detach(node)
            directory.attach(node, name)
            target = node.container
            if target is None:
                return
            for each in moved:
                if isinstance(each, File):
                    if each.remote is not None:
                        target.files[each.remote.id] = each
                    if each.entry is not None:
                        self._journal.update(
                            each.entry, container_id=target.remote.id, path=each.path
                        )
                self.save(each)
        log.debug("moved %r to %r", old_path, node.path)

    def save(self, node: Node) -> None:
        """Remember `node.local`, where there is something to remember."""
        container = node.container
        if node.local is not None and container is not None:
            self._state.save_node(container.remote.id, node.path, node.local)

    def local(self, node: Node) -> LocalNode:
        """What is remembered of *node*, made if need be; `save` it after a change."""
        if node.local is None:
            node.local = LocalNode(kind=node.kind, ino=node.ino)
        if isinstance(node, File) and node.remote is not None:
            node.local.file_id = node.remote.id
        return node.local

    def keep_directory(self, directory: Directory) -> None:
        """Let *directory* stay when its last entry goes, as a directory does on a disk."""
        is_ours = directory.container not in (None, directory)
        if is_ours and directory.local is None:
            self.local(directory)
            self.save(directory)

    def new_file(self, directory: Directory, name: str) -> File:
        """A new, empty file of the free name *name*."""
        container = directory.container
        assert container is not None  # noqa: S101 - files are made in containers only
        path = directory.path_of(name)
        return self._new_file(container, directory, name, path, None)

    def _new_file(
        self,
        container: ContainerDirectory,
        directory: Directory,
        name: str,
        path: str,
        local: LocalNode | None,
    ) -> File:
        file = File(ino=self._ino(container, path, local), name=name, parent=None)
        file.local = local
        if local is not None:
            local.ino = file.ino
        self._add(directory, file, name)
        return file

    def _ino(self, container: ContainerDirectory, path: str, local: LocalNode | None) -> int:
        if local is not None and self.inodes.is_free(local.ino):
            return local.ino
        return self.inodes.allocate(container.remote.id, path)

    def _file(self, container: ContainerDirectory, path: str, local: LocalNode | None) -> File:
        """The file at *path*, made if need be, in the place of anything but a file."""
        directory, name = self._place(container, path)
        node = directory.children.get(name)
        if isinstance(node, File):
            return node
        if node is not None:
            self.orphan(node)
        if local is not None and local.kind != "file":
            local = None
        return self._new_file(container, directory, name, path, local)

    def find(self, container: ContainerDirectory, path: str) -> Node | None:
        """What is shown at *path* now, without asking anybody."""
        node: Node = container
        for part in path.split("/"):
            if not isinstance(node, Directory) or part not in node.children:
                return None
            node = node.children[part]
        return node

    def _place(self, container: ContainerDirectory, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return self._directory(container, parent), name

    def _directory(
        self, container: ContainerDirectory, path: str, local: LocalNode | None = None
    ) -> Directory:
        """The directory at *path*, made with those above it if need be."""
        directory: Directory = container
        if not path:
            return directory
        done = ""
        for part in path.split("/"):
            done = f"{done}/{part}" if done else part
            node = directory.children.get(part)
            if not isinstance(node, Directory):
                if node is not None:
                    self._make_way(directory, node)
                ino = self._ino(container, done, local if done == path else None)
                node = Directory(ino=ino, name=part, parent=None)
                self._add(directory, node, part)
            directory = node
        return directory

    def _make_way(self, directory: Directory, node: Node) -> None:
        """A directory appeared where *node* is: what is not on the server moves aside."""
        if isinstance(node, File) and node.spool is not None:
            self.move(node, directory, tailed(node.name, id=f"{node.ino:08x}"))
        else:
            self.orphan(node)

    def _remove_empty_directories(self, container: ContainerDirectory) -> None:
        """Directories exist by what is in them, unless they were made here."""
        directories = [node for node in container.walk() if isinstance(node, Directory)]
        for directory in reversed(directories):
            if not directory.children and not directory.is_kept and not directory.opens:
                self.orphan(directory)

    def by_id_name(self, container: ContainerDirectory) -> str:
        """The container's name in `.by-id`."""
        return escape_id(container.remote.id)

    def total_size(self) -> int:
        """Bytes of all files that are known of now."""
        sizes = (
            file.size or 0
            for container in self.containers.values()
            for file in list(container.files.values())
        )
        return sum(sizes)

    def container_of(self, node: Node) -> ContainerDirectory:
        """The container that *node* is in.

        Raises:
            Stale: It is in none any more.
        """
        container = node.container
        if container is None:
            raise Stale(f"inode {node.ino} has no name any more")
        return container

    async def lost(self, file: File) -> None:
        """The server does not know the object of *file*: ask what it has instead.

        Raises:
            Expired: The whole container is gone; the file stays in its snapshot.
        """
        container, remote = file.container, file.remote
        if container is None or remote is None:
            return
        with trio.move_on_after(5):
            try:
                await self._refresh_files(container, fresh=True)
            except FileSystemError as exc:
                log.info("container %s: %s", container.remote.id, exc)
        if container.is_snapshot:
            raise Expired(f"container {container.remote.id} has expired")
        self._metadata.hide(container.remote.id, remote.id)
        if file.spool is None and file.remote is not None and file.remote.id == remote.id:
            self.orphan(file)


def _shown_without_prefix(container: ContainerDirectory) -> Iterator[tuple[str, str]]:
    """Objects that are shown under another name than the server's, and keep it: id and path."""
    for id, file in container.files.items():
        if file.parent is not None and file.remote is not None:
            path = file.path
            if path != "/".join(components(file.remote.path, id=id)):
                yield id, path


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
