"""What tests of uploads share.

`service`
    The module's server with its default behaviours, no faults and an empty request log.

`client`
    A client of it.

`box`
    The id of a new container there.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection


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
