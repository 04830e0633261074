"""The list answers of a box, rendered ahead: what lets a plain file server play the API.

A page is found by its direction and cursor. Any walk by full pages, from either end, finds its
cursors, and so does a reader who knows the last walk's page ends and asks for all pages at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxes import Box, as_json

PAGE = 100  # entries
FIRST = "first"  # stands for the cursor of a request without one


def write_pages(directory: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write `asc/CURSOR.json` and `desc/CURSOR.json` for a list.

    Args:
        entries: The list's objects, the oldest first.
    """
    ends = {entry["id"] for entry in (*entries[PAGE - 1 :: PAGE], *entries[::-1][PAGE - 1 :: PAGE])}
    ends |= {entry["id"] for entry in (*entries[:1], *entries[-1:])}
    for direction, listed in (("asc", list(entries)), ("desc", list(entries[::-1]))):
        place = directory / direction
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{FIRST}.json").write_bytes(_page(listed, 0))
        for index, entry in enumerate(listed, start=1):
            if entry["id"] in ends:
                (place / f"{entry['id']}.json").write_bytes(_page(listed, index))


def write_box(directory: Path, box: Box) -> None:
    """The pages of a box's files."""
    write_pages(directory, [box.file_json(number) for number in range(box.count)])


def _page(listed: Sequence[dict[str, Any]], start: int) -> bytes:
    data = listed[start : start + PAGE]
    return as_json(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": start + PAGE < len(listed),
        }
    )
