"""Members that few objects have: those that have none of them need no room for any."""

from typing import Any, Generic, Protocol, TypeVar, overload

T = TypeVar("T")


class Sparse(Protocol):
    """What has seldom members.

    Attributes:
        seldom: Their values by name; None for as long as each has its default.
    """

    seldom: dict[str, Any] | None


class Seldom(Generic[T]):
    """A member of a class with slots that is the *default* in most of its objects."""

    __slots__ = ("_default", "_name")

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, owner: None, kind: type) -> "Seldom[T]": ...

    @overload
    def __get__(self, owner: Sparse, kind: type) -> T: ...

    def __get__(self, owner: Sparse | None, kind: type) -> "T | Seldom[T]":
        if owner is None:
            return self
        values = owner.seldom
        if values is None:
            return self._default
        value: T = values.get(self._name, self._default)
        return value

    def __set__(self, owner: Sparse, value: T) -> None:
        values = owner.seldom
        if value != self._default:
            if values is None:
                values = owner.seldom = {}
            values[self._name] = value
        elif values is not None:
            values.pop(self._name, None)
            if not values:
                owner.seldom = None
