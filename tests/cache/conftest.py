"""What tests of the caches share.

`directory`, `connection`
    Where a content store's files are to be, and an open database for its index.

`state`
    An open state database in a directory of its own.

`service`
    The module's server with its default behaviours, no faults and an empty request log.

`client`
    A client of it.

`box`
    The id of a new container there.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.cache.state import State, open_state


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "content"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
    yield connection
    connection.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with open_state(tmp_path / "state.sqlite") as opened:
        yield opened


@pytest.fixture
async def client(service: Any) -> AsyncIterator[Client]:
    connection = Connection(
        base_url=service.base_url, uds=service.uds, timeout=5, transfer_timeout=5
    )
    async with connect(connection) as connected:
        yield connected


@pytest.fixture
def box(service: Any) -> str:
    return service.new_container()
