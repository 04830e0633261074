"""Whether an answer can be the content it should be: a wrong length is an error, never content."""

from containerfs.api.body import Body
from containerfs.api.failures import error_object, failure
from containerfs.api.types import RemoteFile
from containerfs.cache.download import Download
from containerfs.errors import NoSpace, WrongLength

LARGEST_ERROR = 64 << 10  # bytes of an error text


def total_size(download: Download, body: Body) -> int | None:
    """The whole file's size as this answer declares it, checked against what was told before.

    Raises:
        WrongLength: They differ.
    """
    told = download.total
    if body.total is not None and told is not None and body.total != told:
        raise WrongLength(
            f"file {download.file.id}: the answer has {body.total} bytes, {told} were told",
            request_id=body.request_id,
        )
    return body.total


def check_length(download: Download, *, size: int, request_id: str | None = None) -> None:
    """Refuse content of another length than was told, or than an earlier stream has written.

    Raises:
        WrongLength: It is one.
    """
    told = download.total
    content = download.content
    is_mixed = content is not None and content.written != size
    if is_mixed or (told is not None and size != told):
        raise WrongLength(
            f"file {download.file.id}: {size} bytes came, {told} were told", request_id=request_id
        )


def may_be_error(file: RemoteFile, body: Body) -> bool:
    """Whether only its text can tell this answer from an error that was sent as a success."""
    is_whole = body.size == body.total
    is_json = (body.content_type or "").partition(";")[0].strip() == "application/json"
    return file.size is None and is_json and is_whole and (body.total or 0) <= LARGEST_ERROR


def check_is_content(download: Download, body: Body, *, size: int) -> None:
    """Raise the error that the body describes, if it does.

    Raises:
        NoSpace: Nothing was kept that could be looked at.
    """
    what = f"file {download.file.id}"
    if size > LARGEST_ERROR:
        return
    if download.content is None:
        raise NoSpace(f"{what} does not fit the cache")
    error = error_object(download.content.read(0, size))
    if error is not None:
        raise failure(200, error, what=what, request_id=body.request_id)
