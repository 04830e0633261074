"""A listing that is nearly the last one: the tree shows what it would if all were placed anew."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from containerfs.api.types import Container, RemoteFile
from containerfs.cache.state import open_state
from containerfs.fs.names.layout import own_path, place_files
from containerfs.fs.tree.amending import difference
from containerfs.fs.tree.inodes import Inodes
from containerfs.fs.tree.nodes import ContainerDirectory, File
from containerfs.fs.tree.objects import Objects
from containerfs.fs.tree.places import Places
from containerfs.fs.tree.reconciling import Reconciliation
from containerfs.fs.tree.tree import Tree
from containerfs.upload.journal import Journal
from containerfs.upload.spools import SpoolDirectory

A, B = "a" * 32 + "-", "b" * 32 + "-"


def file(id, path, *, created=1, source="user"):
    return RemoteFile(
        id=id, container_id="c", path=f"/mnt/data/{path}", size=1, created=created, source=source
    )


class Shown:
    """A container that is shown as it was listed, again and again."""

    def __init__(self, state, directory):
        journal = Journal(state.connection, on_rollback=state.on_rollback)
        tree = Tree(state=state, journal=journal, inodes=Inodes())
        places = Places(tree=tree)
        self.told = []
        self._reconciliation = Reconciliation(
            tree=tree,
            places=places,
            objects=Objects(tree=tree, places=places, metadata=None),
            state=state,
            journal=journal,
            spools=SpoolDirectory(directory / "spool"),
            raw_names=False,
            on_change=self.told.append,
        )
        remote = Container(id="c", name="c", created=1, status="running")
        self.container = ContainerDirectory(ino=2, name="c", parent=None, remote=remote)
        tree.inodes.add(self.container)
        tree.root.attach(self.container, "c")
        tree.containers["c"] = self.container

    def reconcile(self, listed):
        self._reconciliation.reconcile(self.container, tuple(listed))
        return self.files()

    def files(self):
        files = (node for node in self.container.walk() if isinstance(node, File))
        return {node.path: node.remote for node in files}


@pytest.fixture
def shown(tmp_path):
    with open_state(tmp_path / "state.sqlite") as state:
        yield Shown(state, tmp_path)


def test_what_was_added_changed_or_went_is_shown_and_the_rest_stays_as_it_is(shown):
    listed = [file(f"cfile_{number:08}", f"{number:032x}-f{number}") for number in range(20)]
    shown.reconcile(listed)
    nodes = dict(shown.container.children)
    assert shown.reconcile(listed) == {f"f{number}": each for number, each in enumerate(listed)}
    assert shown.told == []
    listed[3] = listed[3]._replace(created=2)
    now = shown.reconcile([*listed[1:], file("cfile_00000099", f"{A}new")])
    assert now["f3"].created == 2
    assert set(now) == {"new", *(f"f{number}" for number in range(1, 20))}
    assert all(shown.container.children[name] is nodes[name] for name in now if name != "new")
    assert len(shown.told) == 1


def test_a_name_that_is_free_again_goes_to_who_had_to_do_without_it(shown):
    first, second = file("cfile_00000001", f"{A}name"), file("cfile_00000002", f"{B}name")
    assert shown.reconcile([first]) == {"name": first}
    assert shown.reconcile([first, second]) == {"name": first, f"{B}name": second}
    assert shown.reconcile([second]) == {"name": second}


def test_a_listing_tells_what_another_one_did_not():
    same, old, new = file("s", "same"), file("x", "x"), file("x", "x", created=2)
    gone, added = file("g", "gone"), file("a", "added")
    found = difference([same, old, gone], [added, same, new])
    assert (found.added, found.changed, found.gone) == ((added,), ((old, new),), (gone,))


FILES = st.dictionaries(
    st.integers(0, 9).map("cfile_{:08}".format),
    st.tuples(
        st.sampled_from(["", A, B]),
        st.sampled_from(["a", "b", "c.csv", "d/a", "d/e/a", ".x", "%2F"]),
        st.integers(1, 2),
        st.sampled_from(["user", "assistant"]),
    ),
    max_size=6,
)


ASIDE = {
    "cfile_00000000": ("", "b", 2, "assistant"),
    "cfile_00000001": ("", "b", 1, "user"),
    "cfile_00000002": (A, "d/a", 1, "assistant"),
}


@settings(max_examples=200, deadline=None)
@example([{"cfile_00000002": (A, "b", 1, "user")}, ASIDE, ASIDE])  # one with an older version
@given(st.lists(FILES, min_size=2, max_size=5))
def test_the_same_is_shown_as_if_all_were_placed_anew(tmp_path_factory, listings):
    directory = tmp_path_factory.mktemp("machine")
    with open_state(directory / "state.sqlite") as state:
        shown = Shown(state, directory)
        known = {}
        for listing in listings:
            files = [
                file(id, prefix + name, created=created, source=source)
                for id, (prefix, name, created, source) in listing.items()
            ]
            kept = {each.id: path for path, each in known.items() if path != own_path(each)}
            placed = place_files(files, kept=kept)
            known = {path: versions[0] for path, versions in placed.items()}
            assert shown.reconcile(files) == known
