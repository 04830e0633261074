"""What is recorded of files that are sent side by side: in one transaction, each as if alone."""

import pytest
import trio
import trio.testing

from containerfs.cache.state import LocalNode, open_state
from containerfs.errors import LocalFault
from containerfs.fs.outgoing.batches import Batches


@pytest.fixture
def state(tmp_path):
    with open_state(tmp_path / "state.sqlite") as state:
        yield state


@pytest.fixture
def begun(state):
    """The transactions since the test began."""
    begun = []
    state.connection.set_trace_callback(lambda text: "BEGIN" in text and begun.append(text))
    return begun


@pytest.fixture
def remember(state):
    """`remember(name)`: the change that a file of this name is remembered."""

    def remember(name):
        def change():
            state.save_node("box", name, LocalNode(kind="file", ino=1))
            return name

        return change

    return remember


async def commit_all(batches, changes):
    """What came of each: its result, or its failure."""
    outcomes = {}

    async def commit(number, change):
        try:
            outcomes[number] = await batches.commit(change, alone=False)
        except Exception as exc:
            outcomes[number] = exc

    async with trio.open_nursery() as nursery:
        for number, change in enumerate(changes):
            nursery.start_soon(commit, number, change)
    return [outcomes[number] for number in sorted(outcomes)]


def others(state):
    """What who opens the database now sees."""
    return set(state.nodes("box"))


async def test_what_comes_together_is_one_transaction(state, begun, remember):
    names = [f"file{number}" for number in range(20)]
    assert await commit_all(Batches(state=state), map(remember, names)) == names
    assert len(begun) == 1
    assert not state.connection.in_transaction
    assert others(state) == set(names)


async def test_what_comes_later_has_a_transaction_of_its_own(state, begun, remember):
    batches = Batches(state=state)
    for name in ("first", "second"):
        assert await commit_all(batches, [remember(name)]) == [name]
    assert len(begun) == 2


async def test_one_that_is_waited_for_waits_for_no_others(state, remember, autojump_clock):
    batches = Batches(state=state)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit_all, batches, [remember("other")])
        await trio.testing.wait_all_tasks_blocked()
        assert await batches.commit(remember("waited for"), alone=True) == "waited for"
        assert others(state) == {"waited for"}
    assert others(state) == {"other", "waited for"}


@pytest.mark.parametrize("error", [LocalFault("the disk"), ValueError("a bug")])
async def test_a_failure_is_that_of_one_and_undoes_nothing_else(state, remember, error):
    def fail():
        remember("half")()
        raise error

    changes = [remember("before"), fail, remember("after")]
    assert await commit_all(Batches(state=state), changes) == ["before", error, "after"]
    assert others(state) == {"before", "after"}


async def test_who_is_cancelled_meanwhile_has_made_the_change(state, remember):
    batches = Batches(state=state)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await batches.commit(remember("file"), alone=False) == "file"
    assert others(state) == {"file"}
