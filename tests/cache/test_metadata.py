"""Metadata: listings with a time to live, on a clock that the tests move."""

import time
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from containerfs.api.types import Container, Page, RemoteFile
from containerfs.cache.listing import life
from containerfs.cache.listings import STALE_GRACE, STALE_LIFE
from containerfs.cache.metadata import Metadata
from containerfs.cache.overlay import OVERLAY_LIFE, UNLISTED_LIFE
from containerfs.cache.state import open_state
from containerfs.errors import (
    AccessDenied,
    Expired,
    LocalFault,
    NoSpace,
    NotFound,
    ServerFault,
    Unreachable,
)

TTL = 10.0


def remote(id: str, **members) -> RemoteFile:
    values = {"container_id": "c", "path": f"/mnt/data/{id}", "size": 1, "created": 1}
    return RemoteFile(id=id, **(values | {"source": "user"} | members))


def box(id: str, **members) -> Container:
    return Container(id=id, name=id, created=1, status="running", **members)


class FakeClient:
    """A server that lists what the test says, when the test lets it."""

    def __init__(self) -> None:
        self.files: list[RemoteFile] = []
        self.containers: list[Container] = []
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.gates: list[trio.Event] = []
        self.is_held = False
        self.gone: set[str] = set()

    async def retrieve_file(self, container_id, file_id):
        self.asked.append(file_id)
        await trio.lowlevel.checkpoint()
        if file_id in self.gone:
            raise NotFound("gone")
        return remote(file_id)

    @asynccontextmanager
    async def download_file(self, container_id, file_id, *, length):
        await trio.lowlevel.checkpoint()
        if file_id in self.gone:
            raise NotFound("gone")
        yield

    async def list_files(self, container_id, *, limit=100, order="desc", after=None, known=None):
        return await self._page(container_id, self.files)

    async def list_containers(self, *, limit=100, order="desc", after=None, name=None):
        return await self._page("", self.containers)

    async def _page(self, key, listed):
        self.asked.append(key)
        data, error = tuple(listed), self.error  # as it is when it is asked
        if self.is_held:
            gate = trio.Event()
            self.gates.append(gate)
            await gate.wait()
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        ids = [each.id for each in data] or [None]
        return Page(data=data, first_id=ids[0], last_id=ids[-1], has_more=False)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def metadata(client, state, nursery, mock_clock) -> Metadata:
    return Metadata(client=client, state=state, ttl=TTL, nursery=nursery)


async def ids(metadata: Metadata, *, fresh: bool = False) -> list[str]:
    return sorted(file.id for file in (await metadata.files("c", fresh=fresh)).entries)


class Asking:
    """A `files` call in a task of its own."""

    def __init__(self, metadata: Metadata, nursery: trio.Nursery, *, fresh: bool = False) -> None:
        self.ids: list[str] | None = None
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        nursery.start_soon(self._run, metadata, fresh)

    async def _run(self, metadata: Metadata, fresh: bool) -> None:
        with self.scope:
            try:
                self.ids = await ids(metadata, fresh=fresh)
            except Exception as exc:
                self.error = exc


# Time.


async def test_a_listing_is_believed_until_its_ttl_has_passed(client, metadata, mock_clock):
    client.files = [remote("a")]
    assert await ids(metadata) == ["a"]
    client.files = [remote("a"), remote("b")]
    mock_clock.jump(TTL - 0.1)
    assert await ids(metadata) == ["a"]
    mock_clock.jump(0.2)
    assert await ids(metadata) == ["a", "b"]
    assert client.asked == ["c", "c"]


async def test_the_ttl_counts_from_when_the_listing_was_asked_for(
    client, metadata, mock_clock, nursery
):
    client.is_held = True
    asking = Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    asked_at = trio.current_time()
    mock_clock.jump(0.9)
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert asking.ids == []
    listing = metadata.fresh_files("c")
    assert listing is not None
    assert listing.expires == asked_at + TTL
    mock_clock.jump(TTL - 0.8)
    assert metadata.fresh_files("c") is None


async def test_what_a_listing_does_not_name_is_absent_until_its_ttl_has_passed(
    client, metadata, mock_clock
):
    assert await ids(metadata) == []
    client.files = [remote("late")]
    mock_clock.jump(TTL - 0.1)
    assert await ids(metadata) == []
    mock_clock.jump(0.2)
    assert await ids(metadata) == ["late"]


async def test_without_a_ttl_every_question_is_asked(client, state, nursery, mock_clock):
    metadata = Metadata(client=client, state=state, ttl=0, nursery=nursery)
    await ids(metadata)
    await ids(metadata)
    assert client.asked == ["c", "c"]


async def test_fresh_asks_whatever_is_believed(client, metadata):
    await ids(metadata)
    client.files = [remote("a")]
    assert await ids(metadata, fresh=True) == ["a"]
    assert await ids(metadata) == ["a"]
    assert client.asked == ["c", "c"]


async def test_the_list_of_containers_is_believed_like_any_other(client, metadata, mock_clock):
    client.containers = [box("one")]
    assert [each.id for each in (await metadata.containers()).entries] == ["one"]
    client.containers = []
    assert metadata.fresh_containers() is not None
    mock_clock.jump(TTL + 0.1)
    assert metadata.fresh_containers() is None
    assert (await metadata.containers()).entries == ()
    assert client.asked == ["", ""]


# Many askers.


async def test_many_who_ask_at_once_cause_one_request(client, metadata, nursery):
    client.is_held = True
    askers = [Asking(metadata, nursery) for _ in range(20)]
    await wait_all_tasks_blocked()
    client.files = [remote("a")]
    assert client.asked == ["c"]
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert [asker.ids for asker in askers] == [[]] * 20


async def test_who_asked_first_can_give_up_and_the_others_are_answered(client, metadata, nursery):
    client.is_held = True
    client.files = [remote("a")]
    first, second = Asking(metadata, nursery), Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    first.scope.cancel()
    await wait_all_tasks_blocked()
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert (first.ids, second.ids) == (None, ["a"])
    assert client.asked == ["c"]


async def test_a_failure_reaches_all_who_wait_for_it(client, metadata, nursery):
    client.is_held = True
    client.error = Unreachable("down", retriable=True)
    askers = [Asking(metadata, nursery) for _ in range(3)]
    await wait_all_tasks_blocked()
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert [type(asker.error) for asker in askers] == [Unreachable] * 3


async def test_a_failure_is_not_remembered(client, metadata):
    client.error = NotFound("no such container")
    with pytest.raises(NotFound):
        await metadata.files("c")
    client.error, client.files = None, [remote("a")]
    assert await ids(metadata) == ["a"]


async def test_an_older_answer_that_comes_late_is_not_believed(client, metadata, nursery):
    client.is_held = True
    slow = Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    client.files = [remote("new")]
    quick = Asking(metadata, nursery, fresh=True)
    await wait_all_tasks_blocked()
    client.gates[1].set()
    await wait_all_tasks_blocked()
    assert quick.ids == ["new"]
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert slow.ids == ["new"]
    assert await ids(metadata) == ["new"]


# Our own changes.


async def test_what_was_made_here_is_shown_while_the_listing_lags(client, metadata, mock_clock):
    await ids(metadata)
    metadata.learn(remote("own"))
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == ["own"]
    client.files = [remote("own")]
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == ["own"]
    client.files = []  # somebody else deleted it
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == []


async def test_what_was_made_here_and_deleted_elsewhere_before_it_was_listed_is_gone(
    client, metadata, mock_clock
):
    await ids(metadata)
    metadata.learn(remote("own"))
    client.gone = {"own"}
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == []
    assert client.asked == ["c", "c", "own"]


async def test_what_the_server_never_lists_is_not_shown_for_ever(client, metadata, mock_clock):
    metadata.learn(remote("own"))
    assert await ids(metadata) == ["own"]
    mock_clock.jump(OVERLAY_LIFE + 1)
    assert await ids(metadata) == []


async def test_what_was_made_during_a_listing_is_not_lost_by_it(client, metadata, nursery):
    client.is_held = True
    asking = Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    metadata.learn(remote("own"))
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert asking.ids == ["own"]


async def test_what_was_made_stays_though_an_older_listing_ends_after_one_that_has_it(
    client, metadata, nursery
):
    client.is_held = True
    Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    metadata.learn(remote("own"))
    client.files = [remote("own")]
    Asking(metadata, nursery, fresh=True)
    await wait_all_tasks_blocked()
    client.gates[1].set()
    await wait_all_tasks_blocked()
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert await ids(metadata) == ["own"]


async def test_a_new_version_under_an_old_id_outlives_a_listing_of_before(
    client, metadata, nursery, mock_clock
):
    old, new = remote("a", size=1), remote("a", size=2, created=2)
    client.files = [old]
    client.is_held = True
    Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    mock_clock.jump(0.1)
    metadata.learn(new)
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert (await metadata.files("c")).entries == (new,)


async def test_what_was_deleted_here_is_hidden_while_the_listing_lags(client, metadata, mock_clock):
    client.files = [remote("a"), remote("b")]
    await ids(metadata)
    metadata.forget("c", "a")
    for _ in range(3):
        mock_clock.jump(TTL + 0.1)
        assert await ids(metadata) == ["b"]
    client.files = [remote("b")]
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == ["b"]
    client.files = [remote("a"), remote("b")]  # the same id anew: not ours to hide any more
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == ["a", "b"]


async def test_what_was_made_and_deleted_here_stays_hidden_though_a_late_list_shows_it_only_then(
    client, metadata, mock_clock
):
    """A list that is two changes behind has not got it yet, then has it, and then has not."""
    await ids(metadata)
    metadata.learn(remote("own"))
    metadata.forget("c", "own")
    for listed in ([], [remote("own")], []):
        client.files = listed
        mock_clock.jump(TTL + 0.1)
        assert await ids(metadata) == []
    client.files = [remote("own")]  # the same id anew
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == ["own"]


async def test_what_was_made_and_deleted_here_is_not_hidden_for_ever(
    client, metadata, state, mock_clock
):
    metadata.learn(remote("own"))
    metadata.forget("c", "own")
    await ids(metadata)
    assert state.tombstones()
    mock_clock.jump(UNLISTED_LIFE + 0.1)
    await ids(metadata)
    assert not state.tombstones()


async def test_what_was_changed_here_stays_so_though_two_listings_are_answered_crosswise(
    metadata, client, nursery, mock_clock
):
    client.files = [remote("old")]
    await ids(metadata)
    metadata.learn(remote("new"))
    metadata.forget("c", "old")
    mock_clock.jump(TTL + 0.1)
    client.is_held = True
    client.files = [remote("new")]
    Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    client.files = [remote("old")]  # a list that lags, as another of its servers has it
    Asking(metadata, nursery, fresh=True)
    await wait_all_tasks_blocked()
    for gate in client.gates:
        gate.set()
        await wait_all_tasks_blocked()
    assert await ids(metadata) == ["new"]


async def test_a_listing_of_before_the_deletion_does_not_confirm_it(
    client, metadata, nursery, mock_clock
):
    client.is_held = True
    Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    mock_clock.jump(1)
    metadata.forget("c", "a")
    client.gates[0].set()
    await wait_all_tasks_blocked()
    client.is_held = False
    client.files = [remote("a")]
    assert await ids(metadata, fresh=True) == []


async def test_what_was_learned_again_is_not_hidden(client, metadata, mock_clock):
    metadata.forget("c", "a")
    metadata.learn(remote("a"))
    client.files = [remote("a")]
    assert await ids(metadata) == ["a"]


async def test_what_is_listed_and_not_there_is_hidden_for_a_while(client, metadata, mock_clock):
    client.files = [remote("a")]
    metadata.hide("c", "a")
    assert await ids(metadata) == []
    mock_clock.jump(301)
    assert await ids(metadata) == ["a"]


async def test_containers_made_and_deleted_here_are_shown_and_hidden(client, metadata):
    client.containers = [box("old")]
    metadata.learn_container(box("new"))
    metadata.forget_container("old")
    assert [each.id for each in (await metadata.containers()).entries] == ["new"]


# A server that fails.


@pytest.mark.parametrize("error", [Unreachable("down"), ServerFault("broken")])
async def test_a_server_that_fails_is_replaced_by_its_last_listing(
    client, metadata, mock_clock, error, caplog
):
    client.files = [remote("a")]
    await ids(metadata)
    client.error = error
    mock_clock.jump(TTL + 0.1)
    assert await ids(metadata) == ["a"]
    assert "stale" in caplog.text
    assert await ids(metadata) == ["a"]
    assert client.asked == ["c", "c"]  # not asked again at once
    client.error, client.files = None, [remote("b")]
    mock_clock.jump(STALE_LIFE + 0.1)
    assert await ids(metadata) == ["b"]


@pytest.mark.parametrize("error", [NotFound("gone"), Expired("gone"), AccessDenied("no")])
async def test_an_answer_that_is_no_failure_is_not_replaced(client, metadata, mock_clock, error):
    client.files = [remote("a")]
    await ids(metadata)
    client.error = error
    mock_clock.jump(TTL + 0.1)
    with pytest.raises(type(error)):
        await metadata.files("c")


async def test_a_fresh_question_is_not_answered_with_a_stale_listing(client, metadata):
    await ids(metadata)
    client.error = Unreachable("down")
    with pytest.raises(Unreachable):
        await metadata.files("c", fresh=True)


async def test_a_server_that_takes_long_is_replaced_by_its_last_listing(
    client, metadata, nursery, mock_clock
):
    client.files = [remote("a")]
    await ids(metadata)
    client.is_held, client.files = True, [remote("b")]
    mock_clock.jump(TTL + 0.1)
    asking = Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    mock_clock.jump(STALE_GRACE + 0.1)
    await wait_all_tasks_blocked()
    assert asking.ids == ["a"]
    client.gates[0].set()
    await wait_all_tasks_blocked()
    assert await ids(metadata) == ["b"]  # its answer is believed when it comes
    assert len(client.asked) == 2


async def test_a_stale_listing_shows_our_own_changes(client, metadata, mock_clock):
    client.files = [remote("a"), remote("b"), remote("c", size=1)]
    await ids(metadata)
    metadata.learn(remote("own"))
    metadata.forget("c", "a")
    rewritten = remote("c", size=9)
    metadata.learn(rewritten)
    client.error = Unreachable("down")
    mock_clock.jump(TTL + 0.1)
    listed = {each.id: each for each in (await metadata.files("c")).entries}
    assert sorted(listed) == ["b", "c", "own"]
    assert listed["c"] == rewritten


async def test_a_stale_listing_never_replaces_a_newer_one(client, metadata, nursery, mock_clock):
    client.files = [remote("a")]
    await ids(metadata)
    client.is_held = True
    mock_clock.jump(TTL + 0.1)
    slow = Asking(metadata, nursery)
    await wait_all_tasks_blocked()
    client.files = [remote("a"), remote("b")]
    quick = Asking(metadata, nursery, fresh=True)
    await wait_all_tasks_blocked()
    client.gates[1].set()
    await wait_all_tasks_blocked()
    assert quick.ids == ["a", "b"]
    mock_clock.jump(STALE_GRACE + 0.1)
    await wait_all_tasks_blocked()
    assert slow.ids == ["a", "b"]
    assert await ids(metadata) == ["a", "b"]


# The next mount.


@contextmanager
def reopened(path):
    with open_state(path) as state:
        yield state


async def test_the_last_listing_is_served_by_the_next_mount_too(
    client, tmp_path, nursery, mock_clock
):
    files = (remote("a"), remote("é☃", path="/mnt/data/\ud800", size=None, source=None))
    client.files, client.containers = list(files), [box("c", network_policy={"type": "disabled"})]
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        await metadata.files("c")
        await metadata.containers()
    client.error = Unreachable("down")
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        assert (await metadata.files("c")).entries == files
        assert (await metadata.containers()).entries == tuple(client.containers)
        assert metadata.last_files("c") == files


async def test_without_an_earlier_listing_a_failure_is_a_failure(client, metadata):
    client.error = Unreachable("down")
    with pytest.raises(Unreachable):
        await metadata.files("c")


async def test_deletions_are_hidden_by_the_next_mount_too(client, tmp_path, nursery, mock_clock):
    client.files, client.containers = [remote("a"), remote("b")], [box("c"), box("gone")]
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        metadata.forget("c", "a")
        metadata.forget_container("gone")
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        mock_clock.jump(1)
        assert await ids(metadata) == ["b"]
        assert [each.id for each in (await metadata.containers()).entries] == ["c"]
        client.files = [remote("b")]
        await ids(metadata, fresh=True)
    with reopened(tmp_path / "s") as state:
        assert state.tombstones() == [("", "gone")]


async def test_what_was_made_here_is_remembered_for_the_next_mount(
    client, tmp_path, nursery, mock_clock
):
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        await ids(metadata)
        metadata.learn(remote("own"))
        metadata.save()
    client.error = Unreachable("down")
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        assert await ids(metadata) == ["own"]


async def test_what_was_made_here_and_is_not_listed_yet_is_shown_by_the_next_mount_too(
    client, tmp_path, nursery, mock_clock
):
    client.files, client.containers = [remote("a")], [box("c")]
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        metadata.learn(remote("own", path="/mnt/data/é\n\udc80"))
        metadata.learn(remote("gone"))
        metadata.forget("c", "gone")
        metadata.learn_container(box("new"))
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        mock_clock.jump(1)
        assert await ids(metadata) == ["a", "own"]
        assert sorted(each.id for each in (await metadata.containers()).entries) == ["c", "new"]
        client.files, client.containers = [remote("a"), remote("own")], [box("c"), box("new")]
        await ids(metadata, fresh=True)
        await metadata.containers(fresh=True)
    with reopened(tmp_path / "s") as state:
        assert state.created_files() == []
        assert state.created_containers() == []


async def test_what_the_server_never_lists_is_not_shown_for_ever_by_the_next_mounts(
    client, tmp_path, nursery, mock_clock
):
    with reopened(tmp_path / "s") as state:
        state.add_creation("c", remote("own"), at=time.time() - OVERLAY_LIFE - 60)
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        assert await ids(metadata) == []
        assert state.created_files() == []


async def test_a_long_listing_is_kept_when_the_mount_stops(client, tmp_path, nursery, mock_clock):
    client.files = [remote(f"f{number}") for number in range(2_500)]
    with reopened(tmp_path / "s") as state:
        metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
        await ids(metadata)
        metadata.save()
        assert len(metadata.last_files("c")) == 2_500


async def test_a_change_that_no_disk_is_left_for_is_recorded_in_no_part(metadata, state):
    ((pages,),) = state.connection.execute("PRAGMA page_count")
    state.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with suppress(NoSpace), state.transaction():
        metadata.learn(remote("new", path="/mnt/data/" + "x" * 100_000))
        state.add_tombstone("c", "old")
    assert list(state.tombstones()) == []


async def test_what_is_deleted_is_not_recorded_as_made_though_that_came_to_nothing_at_first(
    metadata, state
):
    metadata.learn(remote("own"))
    with suppress(LocalFault), state.transaction():
        metadata.forget("c", "own")
        raise LocalFault("the disk is broken")
    metadata.forget("c", "own")
    assert state.created_files() == []


async def test_what_was_made_is_not_recorded_for_ever(client, state, nursery):
    for id, age in (("old", 7 * 86_400), ("new", 3_600)):
        state.add_creation("c", remote(id), at=time.time() - age)
    Metadata(client=client, state=state, ttl=TTL, nursery=nursery)
    assert [file.id for file, _ in state.created_files()] == ["new"]


async def test_only_so_many_listings_are_kept_fresh(client, state, nursery, mock_clock):
    metadata = Metadata(client=client, state=state, ttl=TTL, nursery=nursery, capacity=2)
    for id in ("x", "y", "z"):
        client.files = [remote("a", container_id=id)]
        await metadata.files(id)
    assert [metadata.fresh_files(id) is not None for id in ("x", "y", "z")] == [False, True, True]


@pytest.mark.parametrize(
    ("took", "seconds"), [(0.0, 10.0), (0.9, 10.0), (1.5, 15.0), (5.0, 50.0), (30.0, 60.0)]
)
def test_a_listing_that_takes_long_is_believed_longer_up_to_a_minute(took, seconds):
    assert life(10.0, took=took, entries=1) == seconds


@pytest.mark.parametrize(
    ("entries", "seconds"), [(0, 10.0), (100, 10.0), (101, 20.0), (500, 50.0), (10_000, 60.0)]
)
def test_a_listing_of_several_pages_is_believed_longer_up_to_a_minute(entries, seconds):
    assert life(10.0, took=0.0, entries=entries) == seconds


def test_a_long_life_is_not_shortened_by_a_long_listing():
    assert life(300.0, took=5.0, entries=10_000) == 300.0


def test_without_a_ttl_a_listing_of_many_pages_is_not_believed():
    assert life(0.0, took=0.5, entries=10_000) == 0.0
