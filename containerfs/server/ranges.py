"""The Range header of a download (RFC 9110, one range of bytes)."""

import re

from containerfs.server.refusals import Refusal

_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*")


def parse_range(header: str, *, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last that *header* asks for, within *size*.

    Returns:
        None where the header is to be ignored: malformed, or several ranges.

    Raises:
        Refusal: 416, no byte of the file is in the range.
    """
    match = _RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Refusal(
            416,
            "The requested range is not in the file.",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, stop
