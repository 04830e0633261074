"""Whole lists, from servers that page well, badly, or for ever."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from containerfs.api.client import Client
from containerfs.api.listing import all_containers, all_files, both_ends, entries
from containerfs.api.types import Page, RemoteFile
from containerfs.api.walk import MOST_PAGES
from containerfs.errors import Invalid, NotFound, ServerFault


def file(number: int) -> RemoteFile:
    return RemoteFile(
        id=f"f{number}", container_id="c", path=f"/{number}", size=1, created=number, source=None
    )


def page(numbers: list[int], *, more: bool = True, last: str | None = "?") -> Page[RemoteFile]:
    data = tuple(file(number) for number in numbers)
    end = data[-1].id if last == "?" and data else None
    last_id = last if last != "?" else end
    return Page(data=data, first_id=None, last_id=last_id, has_more=more)


class Pages:
    """Answers with one page after the other, and remembers what it was asked."""

    def __init__(self, *pages: Page[RemoteFile] | Exception) -> None:
        self.pages = list(pages)
        self.asked: list[str | None] = []

    async def __call__(self, after: str | None) -> Page[RemoteFile]:
        self.asked.append(after)
        answer = self.pages[min(len(self.asked), len(self.pages)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def ids(fetch: Any, **options: Any) -> list[str]:
    return [entry.id for entry in await entries(fetch, **options)]


async def test_a_list_ends_when_the_server_says_so() -> None:
    fetch = Pages(page([3, 2]), page([1], more=False))
    assert await ids(fetch) == ["f3", "f2", "f1"]
    assert fetch.asked == [None, "f2"]


async def test_empty_pages_are_passed_over() -> None:
    fetch = Pages(page([], last="x"), page([2]), page([], last="y"), page([1], more=False))
    assert await ids(fetch) == ["f2", "f1"]
    assert fetch.asked == [None, "x", "f2", "y"]


async def test_an_empty_page_that_leads_nowhere_is_the_end() -> None:
    fetch = Pages(page([2]), page([], last=None))
    assert await ids(fetch) == ["f2"]
    assert len(fetch.asked) == 2


async def test_a_server_that_ignores_the_cursor_is_asked_twice() -> None:
    fetch = Pages(page([3, 2, 1]))
    assert await ids(fetch) == ["f3", "f2", "f1"]
    assert len(fetch.asked) == 2


async def test_a_page_that_brings_nothing_new_is_the_end() -> None:
    fetch = Pages(page([3, 2], last="x"), page([2, 3], last="y"), page([1]))
    assert await ids(fetch) == ["f3", "f2"]


async def test_each_entry_is_given_once() -> None:
    fetch = Pages(page([3, 2]), page([2, 1], more=False))
    assert await ids(fetch) == ["f3", "f2", "f1"]


async def test_a_list_without_end_is_a_server_fault() -> None:
    asked = 0

    async def fetch(after: str | None) -> Page[RemoteFile]:
        nonlocal asked
        asked += 1
        return page([asked])

    with pytest.raises(ServerFault, match="does not end"):
        await entries(fetch)
    assert asked == MOST_PAGES


@pytest.mark.parametrize("error", [Invalid("no such cursor"), NotFound("no such cursor")])
async def test_a_list_is_read_anew_when_its_cursor_has_been_deleted(error: Exception) -> None:
    fetch = Pages(page([4, 3]), error, page([4, 2]), page([1], more=False))
    assert await ids(fetch) == ["f4", "f2", "f1"]
    assert fetch.asked == [None, "f3", None, "f2"]


async def test_an_unknown_first_cursor_is_an_error() -> None:
    with pytest.raises(Invalid):
        await ids(Pages(Invalid("unknown cursor")), after="nope")


async def test_no_page_is_asked_for_beyond_what_is_wanted() -> None:
    fetch = Pages(page([3, 2]), page([1], more=False))
    assert await ids(fetch, most=1) == ["f3"]
    assert await ids(Pages(), most=0) == []
    assert len(fetch.asked) == 1


# From both ends.


class List:
    """A list as a server holds it, with any order among entries of one time.

    Args:
        times: The times of creation; entries are numbered in this order.
        ties: "reversed" where one order is the other backwards, "same" where entries of one time
            keep their order both ways.
    """

    def __init__(self, times: list[int], *, ties: str = "reversed", size: int = 3) -> None:
        self.entries = [file(number)._replace(created=time) for number, time in enumerate(times)]
        self.ties = ties
        self.size = size
        self.asked: list[tuple[str, str | None]] = []

    async def __call__(self, order: str, after: str | None) -> Page[RemoteFile]:
        self.asked.append((order, after))
        await trio.lowlevel.checkpoint()
        found = sorted(self.entries, key=lambda entry: entry.created)
        if order == "desc" and self.ties == "reversed":
            found.reverse()
        elif order == "desc":
            found.sort(key=lambda entry: -entry.created)
        places = [entry.id for entry in found]
        if after is not None and after not in places:
            raise Invalid("unknown cursor")
        start = 0 if after is None else places.index(after) + 1
        data = tuple(found[start : start + self.size])
        more = start + self.size < len(found)
        return Page(data=data, first_id=None, last_id=data[-1].id if data else None, has_more=more)


@settings(deadline=None)
@given(
    times=st.lists(st.integers(0, 12), max_size=40),
    ties=st.sampled_from(["reversed", "same"]),
    size=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_both_ends_together_find_every_entry(
    times: list[int], ties: str, size: int, seed: int
) -> None:
    server = List(times, ties=ties, size=size)
    jitter = random.Random(seed)

    async def fetch(order: str, after: str | None) -> Page[RemoteFile]:
        for _ in range(jitter.randrange(5)):
            await trio.lowlevel.checkpoint()
        return await server(order, after)

    found = trio.run(both_ends, fetch)
    assert {entry.id for entry in found} == {entry.id for entry in server.entries}
    assert len(found) == len(server.entries)
    assert [entry.created for entry in found] == sorted(times, reverse=True)


@settings(deadline=None)
@given(
    times=st.lists(st.integers(0, 12), max_size=40),
    ties=st.sampled_from(["reversed", "same"]),
    size=st.integers(1, 5),
)
def test_what_is_told_early_is_older_than_nothing_that_is_still_to_come(
    times: list[int], ties: str, size: int
) -> None:
    server = List(times, ties=ties, size=size)
    come: set[str] = set()
    told: list[str] = []

    async def fetch(order: str, after: str | None) -> Page[RemoteFile]:
        page = await server(order, after)
        if order == "desc":
            come.update(entry.id for entry in page.data)
        return page

    def tell(entries: Sequence[RemoteFile]) -> None:
        told.extend(entry.id for entry in entries)
        oldest = min(entry.created for entry in entries)
        assert {each.id for each in server.entries if each.created >= oldest} <= come

    async def listed() -> tuple[RemoteFile, ...]:
        return await both_ends(fetch, tell=tell)

    found = trio.run(listed)
    assert len(told) == len(set(told))
    assert set(told) <= {entry.id for entry in found}


async def test_the_first_page_is_told_while_the_others_are_under_way() -> None:
    server = List(list(range(1, 31)))
    told: list[int] = []
    has_told = trio.Event()

    async def fetch(order: str, after: str | None) -> Page[RemoteFile]:
        if server.asked:
            await has_told.wait()
        return await server(order, after)

    def tell(entries: Sequence[RemoteFile]) -> None:
        told.append(len(server.asked))
        has_told.set()

    with trio.fail_after(60):
        await both_ends(fetch, tell=tell)
    assert told[0] == 1
    assert len(told) >= 4


@settings(deadline=None)
@given(
    times=st.lists(st.integers(1, 30), min_size=10, max_size=40),
    gone=st.sets(st.integers(0, 39), max_size=3),
    at=st.integers(1, 6),
)
def test_both_ends_together_leave_out_nothing_that_was_there_all_the_time(
    times: list[int], gone: set[int], at: int
) -> None:
    server = List(times)
    ids_gone = {f"f{number}" for number in gone}

    async def fetch(order: str, after: str | None) -> Page[RemoteFile]:
        if len(server.asked) == at:
            server.entries = [each for each in server.entries if each.id not in ids_gone]
            server.entries.append(file(99)._replace(created=31))
        return await server(order, after)

    found = [entry.id for entry in trio.run(both_ends, fetch)]
    assert {f"f{number}" for number in range(len(times))} - ids_gone <= set(found)
    assert len(found) == len(set(found))


async def test_both_ends_share_the_pages() -> None:
    server = List(list(range(1, 301)), size=10)
    assert len(await both_ends(server)) == 300
    assert len(server.asked) <= 33
    assert {order for order, _ in server.asked} == {"asc", "desc"}


async def test_one_page_is_asked_for_once() -> None:
    server = List([1, 2, 3])
    assert len(await both_ends(server)) == 3
    assert server.asked == [("desc", None)]


@settings(deadline=None)
@given(
    times=st.lists(st.integers(0, 12), max_size=40),
    order=st.sampled_from(["asc", "desc"]),
    size=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
@example(times=[1] * 8 + [2] * 8, order="desc", size=3, seed=0)
def test_an_order_that_the_server_does_not_know_does_no_harm(
    times: list[int], order: str, size: int, seed: int
) -> None:
    server = List(times, size=size)
    jitter = random.Random(seed)

    async def fetch(_: str, after: str | None) -> Page[RemoteFile]:
        for _step in range(jitter.randrange(5)):
            await trio.lowlevel.checkpoint()
        return await server(order, after)

    found = trio.run(both_ends, fetch)
    assert sorted(entry.created for entry in found) == sorted(times)


async def test_a_failing_other_end_does_no_harm() -> None:
    server = List(list(range(1, 31)))

    async def fetch(order: str, after: str | None) -> Page[RemoteFile]:
        if order == "asc":
            raise Invalid("only desc")
        return await server(order, after)

    assert len(await both_ends(fetch)) == 30


async def test_a_failing_end_is_the_failure_of_the_list() -> None:
    server = List(list(range(1, 31)))

    async def fetch(order: str, after: str | None) -> Page[RemoteFile]:
        if order == "desc" and after is not None:
            raise ServerFault("broken")
        return await server(order, after)

    with pytest.raises(ServerFault, match="broken"):
        await both_ends(fetch)


# From the real server.


async def test_all_files_are_found_newest_first(client: Client, server: Any) -> None:
    container = server.new_container()
    made = [
        server.write(container, f"/mnt/data/{n}", b"x", created_at=1000 + n)["id"]
        for n in range(230)
    ]
    server.forget_requests()
    assert [each.id for each in await all_files(client, container)] == made[::-1]


@pytest.mark.parametrize("behaviour", ["empty_pages", "long_ids", "phantom"])
async def test_all_files_are_found_whatever_the_pages_look_like(
    client: Client, server: Any, behaviour: str
) -> None:
    server.set_behaviours(**{behaviour: True})
    container = server.new_container()
    made = {server.write(container, f"/mnt/data/{n}")["id"] for n in range(120)}
    assert made <= {each.id for each in await all_files(client, container)}


async def test_a_list_that_ignores_cursors_ends(client: Client, server: Any) -> None:
    server.set_behaviours(ignore_cursor=True)
    container = server.new_container()
    for n in range(120):
        server.write(container, f"/mnt/data/{n}")
    server.forget_requests()
    assert len(await all_files(client, container)) >= 100
    assert len(server.requests("list_files")) <= 6


async def test_a_short_list_costs_one_request(client: Client, server: Any) -> None:
    container = server.new_container()
    server.write(container, "/mnt/data/x")
    server.forget_requests()
    await all_files(client, container)
    assert [entry["operation"] for entry in server.requests()] == ["list_files"]


async def test_all_containers_are_found_by_name(client: Client, server: Any) -> None:
    for n in range(3):
        server.new_container(f"box{n % 2}")
    assert len(await all_containers(client)) == 3
    assert [each.name for each in await all_containers(client, name="box0")] == ["box0", "box0"]
