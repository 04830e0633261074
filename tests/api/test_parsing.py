"""What a server says is believed only as far as it can be true."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerfs.api.parsing import container, page, parse_json, remote_file
from containerfs.api.types import RemoteFile
from containerfs.errors import ServerFault

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["id", "path", "bytes", "name", "status", "created_at", "expires_after", "network_policy"]
)


def file_with(**members: Any) -> RemoteFile:
    return remote_file({"id": "f", "path": "/mnt/data/x", **members}, container_id="c")


@settings(deadline=None)
@given(data=st.dictionaries(FIELDS, ANYTHING) | ANYTHING)
def test_any_json_is_an_object_or_a_server_fault(data: Any) -> None:
    for parse in (container, lambda data: remote_file(data, container_id="c")):
        try:
            parsed = parse(data)
        except ServerFault:
            continue
        assert isinstance(parsed.id, str)
        assert 0 <= parsed.created <= 2**33


@settings(deadline=None)
@given(entries=st.lists(st.dictionaries(FIELDS, ANYTHING) | ANYTHING, max_size=5), more=ANYTHING)
def test_a_page_keeps_only_what_can_be_used(entries: list[Any], more: Any) -> None:
    data = {"object": "list", "data": entries, "has_more": more, "last_id": more}
    parsed = page(data, lambda entry: remote_file(entry, container_id="c"))
    assert len(parsed.data) <= len(entries)
    assert all(isinstance(file.path, str) for file in parsed.data)


@pytest.mark.parametrize("size", [-1, 1.5, 880.0, 2**63, True, "12", None, [], float("nan")])
def test_a_size_that_cannot_be_true_is_unknown(size: Any) -> None:
    assert file_with(bytes=size).size is None


@pytest.mark.parametrize("size", [1, True, 1.0, None])
@pytest.mark.parametrize("created", [1, True, 1.0, None])
def test_a_file_that_is_known_is_described_as_any_other(size: Any, created: Any) -> None:
    known = {"f": file_with(bytes=1, created_at=1, source="user")}
    data = {
        "id": "f",
        "path": "/mnt/data/x",
        "bytes": size,
        "created_at": created,
        "source": "user",
    }
    described = remote_file(data, "c", known)
    assert described == remote_file(data, "c")
    assert (described is known["f"]) is (type(size) is type(created) is int)


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_a_possible_size_is_kept(size: int) -> None:
    assert file_with(bytes=size).size == size


def test_missing_fields_of_a_file_take_defaults() -> None:
    file = file_with()
    assert (file.size, file.created, file.source, file.container_id) == (None, 0, None, "c")


def test_missing_fields_of_a_container_take_defaults() -> None:
    parsed = container({"id": "c", "brand": "new"})
    assert (parsed.name, parsed.created, parsed.status) == ("", 0, "running")
    assert parsed.expires_at is None


@pytest.mark.parametrize(
    ("status", "is_expired"),
    [
        *((status, False) for status in ("running", "active", None, "", "???")),
        *((status, True) for status in ("expired", "deleted", "EXPIRED")),
    ],
)
def test_a_container_is_live_unless_it_is_said_to_be_dead(status: Any, is_expired: bool) -> None:
    assert container({"id": "c", "status": status}).is_expired is is_expired


@pytest.mark.parametrize("entry", [{"id": 1, "path": "x"}, {"id": "", "path": "x"}, {"id": "f"}, 7])
def test_an_entry_without_id_or_path_is_left_out_with_a_warning(
    entry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"id": "g", "path": "y"}
    data = {"data": [entry, good], "has_more": False}
    parsed = page(data, lambda entry: remote_file(entry, container_id="c"))
    assert [file.id for file in parsed.data] == ["g"]
    assert "1 of 2 entries left out" in caplog.text


def test_a_page_without_last_id_ends_with_its_last_entry() -> None:
    data = {"data": [{"id": "a", "path": ""}, {"id": "b", "path": ""}]}
    assert page(data, lambda entry: remote_file(entry, container_id="c")).last_id == "b"


@pytest.mark.parametrize("more", [True, 1, "true", "yes", None, {}, 2.0])
def test_a_page_that_does_not_say_that_it_is_the_last_is_followed_by_another(more: Any) -> None:
    data = {"data": [{"id": "a", "path": ""}], "has_more": more}
    assert page(data, lambda entry: remote_file(entry, container_id="c")).has_more


@pytest.mark.parametrize("more", [False, 0, "false", "0"])
def test_a_page_that_says_that_it_is_the_last_is_the_last(more: Any) -> None:
    data = {"data": [{"id": "a", "path": ""}], "has_more": more}
    assert not page(data, lambda entry: remote_file(entry, container_id="c")).has_more


@pytest.mark.parametrize("data", [None, [], "list", {"data": {}}, {"data": None}, {"error": 1}])
def test_what_is_no_list_is_a_server_fault(data: Any) -> None:
    with pytest.raises(ServerFault):
        page(data, container)


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"[" * 100_000, b"\xff\xfe", b'{"a":', b"1" * 5000]
)
def test_what_is_no_json_is_a_server_fault(text: bytes) -> None:
    with pytest.raises(ServerFault):
        parse_json(text)


def test_nested_json_of_a_megabyte_is_a_server_fault() -> None:
    with pytest.raises(ServerFault):
        parse_json(b'{"a":' * 200_000)


def test_an_id_with_half_a_surrogate_pair_cannot_be_used() -> None:
    with pytest.raises(ServerFault, match="no usable id"):
        container(json.loads('{"id": "\\ud800"}'))
