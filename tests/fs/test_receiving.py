"""Waiting for requests: at once where there is one, and never before there is."""

import os

import pytest
import trio
import trio.testing

from containerfs.fs.kernel.receiving import Receiving


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)  # a read that comes too early fails
    yield reader, writer
    os.close(reader)
    os.close(writer)


def idle():
    return False


async def receive(receiving, fd):
    """As pyfuse3 does; nothing yields between the wait and the read."""
    async with receiving:
        await receiving.wait_readable(fd)
    return os.read(fd, 1)


async def test_each_request_is_received_once_by_whoever_comes_first(pipe, autojump_clock):
    reader, writer = pipe
    receiving = Receiving(is_busy=idle)
    received = []

    async def worker():
        while (byte := await receive(receiving, reader)) != b".":
            received.append(byte)
            if byte in b"aeiou":  # some answers take their time
                await trio.sleep(1)

    text = b"the quick brown fox jumps over the lazy dog" * 20
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(worker)
        for byte in text:
            os.write(writer, bytes([byte]))
            if byte == 32:
                await trio.testing.wait_all_tasks_blocked()
        os.write(writer, b"." * 5)
    assert b"".join(sorted(received)) == bytes(sorted(text))


async def test_who_was_woken_for_a_request_that_another_one_took_waits_on(pipe):
    reader, writer = pipe
    receiving = Receiving(is_busy=idle, turn=60)
    os.write(writer, b"-")
    await receive(receiving, reader)
    received = []

    async def worker():
        while len(received) < 200:
            received.append(await receive(receiving, reader))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        while len(received) < 200:
            await trio.testing.wait_all_tasks_blocked()
            os.write(writer, b"x")
            await trio.lowlevel.checkpoint()  # wakes the worker, before or after this task
            with trio.move_on_after(0):
                received.append(await receive(receiving, reader))
        os.write(writer, b"x")


async def test_a_request_that_is_there_is_received_without_a_pause(pipe):
    reader, writer = pipe
    receiving = Receiving(is_busy=idle, turn=60)
    os.write(writer, b"abc")
    assert await receive(receiving, reader) == b"a"
    with trio.testing.assert_no_checkpoints():
        assert await receive(receiving, reader) == b"b"


async def test_other_tasks_have_their_turn_while_requests_keep_coming(pipe):
    reader, writer = pipe
    receiving = Receiving(is_busy=idle)
    turns = 0

    async def other():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            while turns < 20:
                os.write(writer, b"x")
                await receive(receiving, reader)
            nursery.cancel_scope.cancel()


async def test_who_waits_and_is_cancelled_leaves_the_next_one_its_place(pipe):
    reader, writer = pipe
    receiving = Receiving(is_busy=idle)
    with trio.move_on_after(0):
        await receive(receiving, reader)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, receiving, reader)
        await trio.testing.wait_all_tasks_blocked()
        os.write(writer, b"x")
