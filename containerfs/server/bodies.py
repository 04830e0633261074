"""JSON bodies of requests."""

import json
from typing import Any

from starlette.requests import Request

from containerfs.server.refusals import Refusal

MAX_JSON = 128 * 1024 * 1024  # bytes: room for the largest skill that the contract allows


async def read_json(request: Request) -> Any:
    """The parsed body.

    Raises:
        Refusal: It is no JSON, or too large.
        ClientDisconnect: The client went away.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON:
            raise Refusal(413, "Request body is too large.")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as exc:
        message = "We could not parse the JSON body of your request."
        raise Refusal(400, message) from exc
