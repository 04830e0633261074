"""A list read anew by where its pages ended: the same list, in fewer round trips."""

from dataclasses import dataclass, replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from containerfs.api.client import connect
from containerfs.api.connection import Connection
from containerfs.api.environment import SOCKET_BASE_URL
from containerfs.api.listing import all_files
from containerfs.api.refresh import files_again, read_again, with_newest
from containerfs.api.types import Page, RemoteFile
from containerfs.errors import Invalid, ServerFault


@dataclass
class Server:
    """A list, newest first, given out in pages; notes how many requests wait at one time."""

    ids: list[str]
    page: int = 100
    requests: int = 0

    async def fetch(self, after: str | None) -> Page[RemoteFile]:
        self.requests += 1
        await trio.lowlevel.checkpoint()
        if after is not None and after not in self.ids:
            raise Invalid("no such cursor")
        start = 0 if after is None else self.ids.index(after) + 1
        data = tuple(entry(id) for id in self.ids[start : start + self.page])
        return Page(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=start + self.page < len(self.ids),
        )


def entry(id: str, *, created: int | None = None, size: int = 1) -> RemoteFile:
    return RemoteFile(
        id=id,
        container_id="c",
        path=f"/mnt/data/{id}",
        size=size,
        created=int(id) if created is None else created,
        source="user",
    )


def ids(count: int) -> list[str]:
    return [str(number) for number in range(count, 0, -1)]


changes = st.lists(
    st.tuples(st.sampled_from(["new", "gone"]), st.integers(0, 449), st.integers(1, 150)),
    max_size=4,
)


def change(server: Server, changes: list[tuple[str, int, int]]) -> None:
    newest = len(server.ids)
    for kind, place, length in changes:
        if kind == "new":
            server.ids[:0] = [str(newest + number) for number in range(length, 0, -1)]
            newest += length
        else:
            del server.ids[place : place + length]


@given(count=st.integers(0, 450), changes=changes)
def test_it_finds_what_the_server_has_now_whatever_came_and_went(count, changes):
    last = [entry(id) for id in ids(count)]
    server = Server([each.id for each in last])
    change(server, changes)
    found = trio.run(read_again, server.fetch, last)
    assert [each.id for each in found] == server.ids


def shown(ids: list[str], last: list[RemoteFile], *, own: frozenset[str] = frozenset()):
    """What is known after the newest page of a server that has *ids*; what it has known stays."""
    known = {each.id: each for each in last}
    page = trio.run(Server(ids).fetch, None)
    page = replace(page, data=tuple(known.get(each.id, each) for each in page.data))
    found = with_newest(page, last, known=known, own=own)
    return None if found is None else [each.id for each in found]


@given(count=st.integers(0, 450), changes=changes)
def test_the_newest_page_tells_of_all_that_is_newer_than_its_end(count, changes):
    last = [entry(id) for id in ids(count)]
    server = Server([each.id for each in last])
    change(server, changes)
    page, before = server.ids[:100], {each.id for each in last}
    if len(server.ids) <= 100:
        expected = server.ids
    elif before.isdisjoint(page):
        expected = None
    else:
        expected = page + [each.id for each in last if int(each.id) < int(page[-1])]
    assert shown(server.ids, last) == expected


def test_what_was_made_here_joins_the_newest_page_to_what_is_known():
    last = [entry(id) for id in ids(200)]
    made = [str(number) for number in range(400, 200, -1)]
    assert shown([*made, *ids(200)], last) is None
    expected = [*made[:100], *ids(200)]  # the others are laid over it
    assert shown([*made, *ids(200)], last, own=frozenset(made)) == expected


def test_of_what_is_as_old_as_the_end_of_the_newest_page_nothing_is_gone():
    last = [entry(id, created=7) for id in ids(300)]
    known = {each.id: each for each in last}
    for data in (last[100:200], [last[5], entry(last[4].id, created=9), *last[10:90]]):
        page = Page(data=tuple(data), first_id="x", last_id="y", has_more=True)
        found = with_newest(page, last, known=known, own=())
        assert sorted(each.id for each in found) == sorted(known)


def test_a_file_that_changed_in_place_is_shown_once_as_it_is_now():
    last = [entry(id) for id in ids(300)]
    changed = entry("7", created=1_000, size=2)
    data = (changed, *last[:99])
    page = Page(data=data, first_id="7", last_id=last[98].id, has_more=True)
    found = with_newest(page, last, known={each.id: each for each in last}, own=())
    assert found == (changed, *(each for each in last if each.id != "7"))
    new = (entry(str(number)) for number in range(1_098, 999, -1))
    page = Page(data=(changed, *new), first_id="7", last_id="1000", has_more=True)
    assert with_newest(page, last, known={each.id: each for each in last}, own=()) is None


def test_an_empty_page_that_claims_more_tells_nothing():
    page = Page(data=(), first_id=None, last_id=None, has_more=True)
    assert with_newest(page, [entry("1")], known={"1": entry("1")}, own=()) is None


async def test_every_page_is_asked_for_once_when_nothing_changed():
    server = Server(ids(1_000))
    assert len(await read_again(server.fetch, [entry(id) for id in server.ids])) == 1_000
    assert server.requests <= 11


async def test_a_failing_page_fails_the_whole():
    class Failing(Server):
        async def fetch(self, after):
            if after == "501":
                raise ServerFault("no page")
            return await super().fetch(after)

    server = Failing(ids(1_000))
    with pytest.raises(ServerFault, match="no page"):
        await read_again(server.fetch, [entry(id) for id in server.ids])


async def test_a_long_listing_of_a_real_server_is_read_anew_with_one_request_a_page(server_factory):
    server = server_factory()
    async with connect(Connection(base_url=SOCKET_BASE_URL, uds=str(server.uds))) as client:
        container = await client.create_container(name="long")
        files = [{"path": f"/mnt/data/{number}", "content_base64": ""} for number in range(650)]
        server.admin("POST", f"/admin/files/{container.id}", files)
        last = await all_files(client, container.id)
        gone = last[199]  # the last of the second page
        await client.delete_file(container.id, gone.id)
        server.admin("DELETE", "/admin/requests")
        again = await files_again(client, container.id, last)
        assert again == tuple(file for file in last if file is not gone)
        assert len(server.admin("GET", "/admin/requests")) <= 9


async def test_what_has_not_changed_is_the_same_object(server_factory):
    server = server_factory()
    async with connect(Connection(base_url=SOCKET_BASE_URL, uds=str(server.uds))) as client:
        container = await client.create_container(name="same")
        files = [{"path": f"/mnt/data/{number}", "content_base64": ""} for number in range(350)]
        server.admin("POST", f"/admin/files/{container.id}", files)
        last = await all_files(client, container.id)
        changed = [last[0], last[1]._replace(size=7), *last[2:]]
        again = await files_again(client, container.id, changed)
    assert again == last
    assert [new is old for new, old in zip(again, changed, strict=True)] == [
        True,
        False,
        *[True] * 348,
    ]
