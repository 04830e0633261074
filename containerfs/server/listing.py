"""Pages of a collection: by creation time, then by order of arrival, found through an index.

Both collections of the service list alike, and both can lag: a new object may be hidden for a
while, a deleted one shown for a while. A lag is counted in seconds or in list requests.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from containerfs.server import refusals
from containerfs.server.behaviours import Behaviours

MAX_LIMIT = 100
DEFAULT_LIMIT = 20
ORDERS = ("asc", "desc")
EMPTY_PAGE = "~"  # ends the cursor that an empty page hands out

_VISIBLE = (
    "hidden_until <= :now AND hidden_lists = 0 "
    "AND (deleted = 0 OR gone_at > :now OR gone_lists > 0)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The query of a list request, validated."""

    limit: int = DEFAULT_LIMIT
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    name: str | None = None


def parse_query(text: bytes) -> Query:
    """The list query in a query string; parameters nobody knows are ignored.

    Raises:
        Refusal: A limit outside below 1, above 100 or no integer, or no such order.
    """
    values = dict(parse_qsl(text.decode("ascii", "replace"), keep_blank_values=True))
    order = values.get("order", "desc")
    if order not in ORDERS:
        raise refusals.not_one_of("order", choices=ORDERS, value=order)
    return Query(
        limit=_limit(values.get("limit")),
        order="asc" if order == "asc" else "desc",
        after=values.get("after"),
        name=values.get("name"),
    )


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise refusals.wrong_type("limit", expected="an integer", value=text)
    limit = int(text)
    if not 1 <= limit <= MAX_LIMIT:
        raise refusals.outside("limit", value=limit, low=1, high=MAX_LIMIT)
    return limit


@dataclass(frozen=True, slots=True)
class Rows:
    """One page's rows, and whether more follow."""

    rows: list[sqlite3.Row]
    has_more: bool


class Collection:
    """The list of one table, or of that part of it where *scope* has a given value.

    Args:
        table: The table's name, one of our own.
        scope: The column that divides it, or None.
    """

    def __init__(
        self, database: sqlite3.Connection, *, table: str, scope: str | None = None
    ) -> None:
        self._database = database
        self._table = table
        self._scope = f"{scope} = :scope AND " if scope else ""

    def page(self, query: Query, *, now: float, scope: int | None = None) -> Rows:
        """The page that *query* asks for; costs what the page costs, however long the list is.

        Raises:
            Refusal: The cursor is no object of this list.
        """
        values = {"now": now, "scope": scope, "name": query.name}
        where = self._scope + _VISIBLE + (" AND name = :name" if query.name is not None else "")
        steps = ["1"]
        if query.after is not None:
            values["created"], values["seq"] = self._position(query.after, now=now, scope=scope)
            than = ">" if query.order == "asc" else "<"
            # One comparison of both would search the index by the first alone (SQLite 3.40).
            steps = [f"created = :created AND seq {than} :seq", f"created {than} :created"]
        rows: list[sqlite3.Row] = []
        for step in steps:
            rows += self._database.execute(
                f"SELECT * FROM {self._table} WHERE {where} AND {step} "  # noqa: S608 - our words
                f"ORDER BY created {query.order}, seq {query.order} LIMIT :room",
                {**values, "room": query.limit + 1 - len(rows)},
            )
        return Rows(rows[: query.limit], len(rows) > query.limit)

    def count_list(self, *, now: float, scope: int | None = None) -> None:
        """A list request was answered: lags that are counted in those get shorter."""
        lagging = f"{self._scope}(deleted = 1 OR hidden_lists > 0)"
        values = {"now": now, "scope": scope}
        found = self._database.execute(
            f"SELECT 1 FROM {self._table} WHERE {lagging} LIMIT 1",  # noqa: S608 - our own words
            values,
        ).fetchone()
        if found is None:
            return
        self._database.execute(
            f"UPDATE {self._table} SET hidden_lists = MAX(hidden_lists - 1, 0), "  # noqa: S608
            f"gone_lists = MAX(gone_lists - 1, 0) WHERE {lagging}",
            values,
        )
        self._database.execute(
            f"DELETE FROM {self._table} WHERE {self._scope}"  # noqa: S608 - only our own words
            "deleted = 1 AND gone_at <= :now AND gone_lists = 0",
            values,
        )

    def delete(self, seq: int, *, behaviours: Behaviours, now: float) -> None:
        """Delete the row: at once, or as far as anybody but the list can tell."""
        if not (behaviours.delete_lag or behaviours.delete_lag_lists):
            self._database.execute(
                f"DELETE FROM {self._table} WHERE seq = ?",  # noqa: S608 - only our own words
                (seq,),
            )
            return
        self._database.execute(
            f"UPDATE {self._table} SET deleted = 1, gone_at = ?, gone_lists = ? "  # noqa: S608
            "WHERE seq = ?",
            (now + behaviours.delete_lag, behaviours.delete_lag_lists, seq),
        )

    def _position(self, cursor: str, *, now: float, scope: int | None) -> tuple[int, int]:
        row = self._database.execute(
            f"SELECT created, seq FROM {self._table} "  # noqa: S608 - only our own words
            f"WHERE {self._scope}id = :id AND {_VISIBLE}",
            {"now": now, "scope": scope, "id": cursor},
        ).fetchone()
        if row is None:
            raise refusals.invalid("after", f"no object with id '{cursor}' is in this list.")
        return row["created"], row["seq"]


def answer(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """The body of a list answer."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def empty_answer(after: str | None) -> dict[str, Any]:
    """An empty page that promises more; its `last_id` leads to the page that *after* leads to."""
    cursor = (after or "") + EMPTY_PAGE
    return {"object": "list", "data": [], "first_id": None, "last_id": cursor, "has_more": True}
