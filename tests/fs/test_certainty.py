"""Names that are shown before the whole listing is there: none of them is taken back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerfs.api.types import RemoteFile
from containerfs.cache.state import LocalNode
from containerfs.fs.names.certainty import Certainty
from containerfs.fs.names.layout import own_path, place_files

A, B = "a" * 32 + "-", "b" * 32 + "-"


def file(id, path, *, source="user"):
    return RemoteFile(
        id=id, container_id="c", path=f"/mnt/data/{path}", size=1, created=1, source=source
    )


def sent(id):
    return LocalNode(kind="file", ino=1, file_id=id)


def certainty(remembered=None, *, unsent=(), raw_names=False):
    return Certainty(remembered or {}, unsent=unsent, raw_names=raw_names)


NAMES = ["a", "b", "d", "d/e", "a/b", ".x", "%2E", "", "a\n", "x" * 300]
FILES = st.lists(
    st.builds(
        lambda number, prefix, name, source: file(f"f{number}", prefix + name, source=source),
        st.integers(0, 9),
        st.sampled_from(["", A, B]),
        st.sampled_from(NAMES),
        st.sampled_from(["user", "assistant"]),
    ),
    max_size=10,
    unique_by=lambda each: each.id,
)
REMEMBERED = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "d/e", "a/b"]),
    st.one_of(
        st.integers(0, 9).map(lambda number: sent(f"f{number}")),
        st.sampled_from(["directory", "symlink"]).map(lambda kind: LocalNode(kind=kind, ino=1)),
    ),
    max_size=3,
)


def shown_early(files, rules):
    """Each name, with the first of the files that has it."""
    early = {}
    for each in files:
        name = rules.name(each)
        if name is not None:
            early.setdefault(name, each)
    return early


@given(files=FILES, remembered=REMEMBERED, raw_names=st.booleans())
def test_what_is_shown_early_stays_there_unless_a_directory_takes_the_name(
    files, remembered, raw_names
):
    early = shown_early(files, certainty(remembered, raw_names=raw_names))
    kept = {each.id: name for name, each in early.items() if name != own_path(each)}
    kept |= {local.file_id: path for path, local in remembered.items() if local.file_id}
    directories = {path for path, local in remembered.items() if local.kind != "file"}
    for path in remembered:
        while path := path.rpartition("/")[0]:
            directories.add(path)
    placed = place_files(files, kept=kept, directories=directories, raw_names=raw_names)
    there = {path.partition("/")[0] for path in placed}
    for name, each in early.items():
        assert name in there
        assert name not in placed or each in placed[name]


def test_a_name_that_is_the_servers_is_certain():
    assert certainty().name(file("1", "a", source="assistant")) == "a"
    assert certainty(raw_names=True).name(file("1", A + "a")) == A + "a"


def test_an_uploads_name_is_certain_without_its_prefix():
    assert certainty().name(file("1", A + "a")) == "a"
    assert certainty().name(file("1", A + "a", source="assistant")) == A + "a"


def test_what_was_sent_from_here_has_its_name():
    assert certainty({"a": sent("1")}).name(file("1", A + "a")) == "a"


@pytest.mark.parametrize("path", ["d/a", A + ".a", ".a", "a\n", ""], ids=repr)
def test_a_name_that_is_made_up_or_not_in_the_container_itself_is_not_certain(path):
    assert certainty().name(file("1", path)) is None


def test_a_name_that_this_machine_has_to_do_with_is_not_certain():
    assert certainty({"a": sent("2")}).name(file("1", "a")) is None
    assert certainty({"a/b": sent("2")}).name(file("1", "a")) is None
    assert certainty(unsent=["a"]).name(file("1", "a")) is None
    assert certainty({"a": sent("1")}, unsent=["a"]).name(file("1", A + "a")) is None
