"""What the service says no to: one exception with the documented error body, in its usual forms."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: The HTTP status.
        message: One line for people.
        param: The parameter at fault, dotted where it is nested.
        code: The word for programs.
        kind: The error body's `type`.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.error = {"message": message, "type": kind, "param": param, "code": code}

    @property
    def body(self) -> bytes:
        """The answer's JSON."""
        return json.dumps({"error": self.error}).encode()


def container_not_found(container_id: str) -> Refusal:
    """404 with the live service's words."""
    return Refusal(404, f"Container with id '{container_id}' not found.")


def file_not_found(file_id: str) -> Refusal:
    """404 with the live service's words."""
    return Refusal(404, f"Container file with id '{file_id}' not found.")


def registry_file_not_found(file_id: str, *, param: str) -> Refusal:
    """404 for a file that is to be attached and was never registered."""
    return Refusal(404, f"No such File object: {file_id}", param=param)


def expired(container_id: str, *, status: int) -> Refusal:
    """What an operation on an expired container answers: 400 in so many words, or a plain 404."""
    return container_not_found(container_id) if status == 404 else Refusal(400, CONTAINER_EXPIRED)


CONTAINER_EXPIRED = "Container is expired."
INVALID_FILE = "You uploaded an invalid file"


def missing(param: str) -> Refusal:
    """A required parameter is not there."""
    return Refusal(
        400,
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )


def unknown(param: str) -> Refusal:
    """A parameter nobody knows."""
    return Refusal(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def wrong_type(param: str, *, expected: str, value: Any) -> Refusal:
    """A parameter of another JSON type than the contract's."""
    return Refusal(
        400,
        f"Invalid type for '{param}': expected {expected}, but got {json_type(value)} instead.",
        param=param,
        code="invalid_type",
    )


def invalid(param: str, message: str, *, code: str = "invalid_value") -> Refusal:
    """A parameter whose value is refused for the reason given."""
    return Refusal(400, f"Invalid '{param}': {message}", param=param, code=code)


def not_one_of(param: str, *, choices: Sequence[str], value: Any) -> Refusal:
    """A parameter with a value outside the contract's list."""
    supported = ", ".join(f"'{choice}'" for choice in choices)
    return Refusal(
        400,
        f"Invalid value: {json.dumps(value)}. Supported values are: {supported}.",
        param=param,
        code="invalid_value",
    )


def outside(param: str, *, value: int, low: int, high: int) -> Refusal:
    """An integer below or above its bounds, with the code that says which."""
    if value > high:
        bound, limit, code = "above maximum value", f"<= {high}", "integer_above_max_value"
    else:
        bound, limit, code = "below minimum value", f">= {low}", "integer_below_min_value"
    return invalid(
        param, f"integer {bound}. Expected a value {limit}, but got {value} instead.", code=code
    )


def json_type(value: Any) -> str:
    """The JSON type of a parsed value, with its article."""
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "something else")
