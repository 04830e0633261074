"""Layout: where listed objects are shown, as plain functions."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerfs.api.types import Container, RemoteFile
from containerfs.fs.names.layout import BY_ID, place_containers, place_files
from containerfs.fs.names.names import components, escape_id, plain, stripped, tailed

A, B = "a" * 32 + "-", "b" * 32 + "-"


def file(id, path, *, created=1, source="user"):
    return RemoteFile(
        id=id,
        container_id="c",
        path=path if path.startswith("/") else f"/mnt/data/{path}",
        size=1,
        created=created,
        source=source,
    )


def container(id, name, *, created=1):
    return Container(id=id, name=name, created=created, status="running")


def shown(placed):
    """The path of each object, by id."""
    return {file.id: path for path, files in placed.items() for file in files}


def directories_of(paths):
    found = set()
    for path in paths:
        while path := path.rpartition("/")[0]:
            found.add(path)
    return found


NAMES = st.sampled_from(["a", "b", "a.csv", "d/a", "d/e/a", "d", "d/e", "a/b", ".outside", "%2E"])
FILES = st.lists(
    st.builds(
        lambda number, prefix, name, created, source: file(
            f"cfile_{number:08}", prefix + name, created=created, source=source
        ),
        st.integers(0, 99),
        st.sampled_from(["", A, B, "/tmp/"]),
        NAMES,
        st.integers(0, 3),
        st.sampled_from(["user", "assistant", None]),
    ),
    max_size=12,
    unique_by=lambda each: each.id,
)


@given(FILES, st.sets(st.sampled_from(["d", "a", "a.csv", "kept"])), st.booleans())
def test_every_object_is_placed_exactly_once(files, directories, raw_names):
    placed = place_files(files, kept={}, directories=directories, raw_names=raw_names)
    counts = Counter(each.id for found in placed.values() for each in found)
    assert counts == Counter(each.id for each in files)


@given(FILES, st.sets(st.sampled_from(["d", "a", "a.csv", "kept"])))
def test_no_path_is_a_file_and_a_directory(files, directories):
    placed = place_files(files, kept={}, directories=directories)
    assert not placed.keys() & (directories_of(placed) | directories)


@given(FILES)
def test_the_order_of_a_listing_does_not_matter(files):
    assert place_files(files, kept={}) == place_files(files[::-1], kept={})


@given(FILES, FILES)
def test_something_newer_never_changes_the_path_of_what_is_shown(before, after):
    first = place_files(before, kept={})
    ids = {each.id for each in before}
    newer = [each for each in after if each.id not in ids]
    second = shown(place_files([*before, *newer], kept=shown(first)))
    taken = directories_of(second.values())
    for id, path in shown(first).items():
        assert second[id] == path or path in taken  # a directory takes the name from a file


@given(FILES, FILES)
def test_objects_that_share_a_path_here_have_one_name_on_the_server(before, after):
    first = place_files(before, kept={})
    ids = {each.id for each in before}
    newer = [each for each in after if each.id not in ids]
    for found in place_files([*before, *newer], kept=shown(first)).values():
        # Removing a path removes all its objects: none of them may be another file.
        assert len({components(each.path, id=each.id) for each in found}) == 1


def test_of_one_path_the_newest_is_shown_first():
    files = [file("1", "a", created=5), file("2", "a", created=7), file("3", "a", created=5)]
    placed = place_files(files, kept={})
    assert [each.id for each in placed["a"]] == ["2", "3", "1"]


def test_an_uploads_prefix_is_hidden():
    assert shown(place_files([file("1", A + "a.csv")], kept={})) == {"1": "a.csv"}


def test_a_prefix_stays_where_the_name_would_not_be_certain():
    files = [file("1", A + "a.csv"), file("2", B + "a.csv")]
    assert shown(place_files(files, kept={})) == {"1": A + "a.csv", "2": B + "a.csv"}


def test_a_prefix_stays_where_the_name_is_somebody_elses():
    files = [file("1", A + "a.csv"), file("2", "a.csv", source="assistant")]
    assert shown(place_files(files, kept={})) == {"1": A + "a.csv", "2": "a.csv"}


def test_a_prefix_on_what_no_user_uploaded_is_part_of_the_name():
    files = [file("1", A + "a.csv", source="assistant"), file("2", B + "b", source=None)]
    assert shown(place_files(files, kept={})) == {"1": A + "a.csv", "2": B + "b"}


def test_raw_names_are_the_servers():
    files = [file("1", A + "a.csv")]
    placed = place_files(files, kept={"1": "a.csv"}, raw_names=True)
    assert shown(placed) == {"1": A + "a.csv"}


def test_what_was_sent_from_here_keeps_its_path():
    files = [file("1", A + "a.csv"), file("2", B + "a.csv"), file("3", "flat.txt")]
    kept = {"1": "a.csv", "3": "d/deep.txt"}
    assert shown(place_files(files, kept=kept)) == {
        "1": "a.csv",
        "2": B + "a.csv",
        "3": "d/deep.txt",
    }


def test_a_directory_keeps_its_name_and_the_file_gets_the_tail_of_its_id():
    files = [file("cfile_00000001", "d"), file("2", "d/a")]
    assert shown(place_files(files, kept={})) == {"cfile_00000001": "d~00000001", "2": "d/a"}


def test_a_directory_of_this_machine_keeps_its_name_too():
    files = [file("cfile_00000001", "x/d")]
    placed = place_files(files, kept={}, directories={"x/d"})
    assert shown(placed) == {"cfile_00000001": "x/d~00000001"}


def test_a_file_that_makes_way_for_a_directory_hides_no_other():
    files = [
        file("cfile_00000001", "d"),
        file("2", "d/a"),
        file("3", "d~00000001"),
        file("4", "cfile_00000001"),
    ]
    placed = place_files(files, kept={})
    assert sorted(len(found) for found in placed.values()) == [1, 1, 1, 1]


# Containers.

ACCOUNT = st.lists(
    st.builds(
        lambda number, name, created: container(f"cntr_{number:08}", name, created=created),
        st.integers(0, 50),
        st.sampled_from(["box", "", ".by-id", ".", "a/b", "box~00000001", "cntr_00000001", "n\nl"]),
        st.integers(0, 3),
    ),
    max_size=10,
    unique_by=lambda each: each.id,
)


@given(ACCOUNT)
def test_every_container_has_a_name_of_its_own(containers):
    placed = place_containers(containers, kept={})
    assert placed.keys() == {each.id for each in containers}
    assert len(set(placed.values())) == len(containers)
    assert BY_ID not in placed.values()


@given(ACCOUNT, ACCOUNT)
def test_a_newer_container_takes_no_name_away(before, after):
    first = place_containers(before, kept={})
    newer = [each for each in after if each.id not in first]
    second = place_containers([*before, *newer], kept=first)
    assert first.items() <= second.items()


@given(ACCOUNT)
def test_names_do_not_depend_on_the_order_of_the_list(containers):
    assert place_containers(containers, kept={}) == place_containers(containers[::-1], kept={})


def test_of_two_containers_with_one_name_the_first_keeps_it():
    containers = [container("cntr_22222222", "box", created=2), container("cntr_1", "box")]
    assert place_containers(containers, kept={}) == {
        "cntr_1": "box",
        "cntr_22222222": "box~22222222",
    }


def test_a_name_that_was_given_stays_though_it_is_free_again():
    containers = [container("cntr_22222222", "box", created=2)]
    kept = {"cntr_1": "box", "cntr_22222222": "box~22222222"}
    assert place_containers(containers, kept=kept) == {"cntr_22222222": "box~22222222"}


@pytest.mark.parametrize("id", ["cntr_x", "", "x" * 237, "..", "a/b"])
def test_a_container_without_a_name_is_called_by_its_id(id):
    assert place_containers([container(id, "")], kept={}) == {id: escape_id(id)}


def test_names_that_ids_would_give_can_be_taken():
    containers = [
        container("cntr_1", "box", created=1),
        container("cntr_2", tailed("box", id="cntr_99999999"), created=1),
        container("cntr_3", "cntr_99999999", created=1),
        container("cntr_99999999", "box", created=2),
    ]
    assert len(set(place_containers(containers, kept={}).values())) == 4


def test_a_file_that_others_make_under_a_name_given_here_gets_a_name_of_its_own():
    sent, written = file("1", A + "a.csv"), file("22222222", "a.csv", source="assistant")
    assert shown(place_files([sent, written], kept={"1": "a.csv"})) == {
        "1": "a.csv",
        "22222222": "a.csv~22222222",
    }


@given(
    st.sampled_from(["", "/mnt/data/", "/", "/tmp/"]),
    st.sampled_from(["", A, "file-12345678-"]),
    st.text(st.sampled_from("aé.%/25~\x01\ud800\n-") | st.characters(), max_size=80)
    | st.sampled_from([".", "..", ".outside", "a" * 222, "a" * 223, "a" * 256, "é" * 64]),
)
def test_a_plain_name_is_what_the_long_way_finds(directory, prefix, name):
    path = directory + prefix + name
    found = plain(path)
    if found is not None:
        raw, short = found
        assert components(path, id="id") == (raw,)
        assert stripped(path, id="id") == (None if short is None else (short,))
