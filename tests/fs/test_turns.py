"""Long work in turns with other tasks, and at once: the result is the same."""

import time

import pytest
import trio

from containerfs.fs.turns import PIECE, TURN, at_once, in_turns, pieces


def long_work(turns):
    for _ in range(turns):
        end = time.perf_counter() + TURN
        while time.perf_counter() < end:
            pass
        yield
    return "done"


async def test_others_have_their_turns_during_long_work():
    count = 0

    async def other():
        nonlocal count
        while True:
            count += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert await in_turns(long_work(4)) == "done"
        nursery.cancel_scope.cancel()
    assert count >= 3


def test_work_at_once_has_the_same_result():
    assert at_once(long_work(1)) == "done"


@pytest.mark.parametrize("count", [0, 1, PIECE, 2 * PIECE + 1])
def test_pieces_are_all_items_in_their_order(count):
    found = list(pieces(range(count)))
    assert [each for piece in found for each in piece] == list(range(count))
    assert all(0 < len(piece) <= PIECE for piece in found)


@pytest.mark.parametrize("ttl", [60.0, 0.0])
async def test_a_container_of_many_files_is_whole_for_all_who_look_at_it(
    service, box, mounting, ttl
):
    count = 2_100
    files = [{"path": f"/mnt/data/{n:04}", "content_base64": ""} for n in range(count)]
    service.admin("POST", f"/admin/files/{box}", files)
    found = []

    async def look(tree):
        found.append(await tree.names(box.name))

    async with mounting(ttl=ttl) as tree, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(look, tree)
    assert found == [[f"{n:04}" for n in range(count)]] * 3
