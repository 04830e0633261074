"""Whether the parts of one file that come one after the other are of one version."""

import logging

from containerfs.api.body import Body
from containerfs.api.client import Client
from containerfs.api.types import RemoteFile
from containerfs.cache.download import Download
from containerfs.errors import AnotherVersion, ServerFault

log = logging.getLogger(__name__)

SAMPLES = 4  # answers that have to agree on a new etag


class Versions:
    """Tells versions from one another by etags, where the server gives some that tell."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._are_told = True

    async def is_same(self, download: Download, body: Body) -> bool:
        """Whether this answer is about the version that there is some of, as far as etags tell.

        A new etag is believed once more answers have it: where each answer, or each of several
        machines behind one address, has its own for one version, they tell nothing, and no file
        could be read in parts.

        Raises:
            FileSystemError: The server can't be asked.
        """
        if body.etag is None or not self._are_told:
            return True
        download.etag = download.etag or body.etag
        if download.etag == body.etag:
            return True
        for _ in range(SAMPLES):
            if await self._etag(download.file, body.offset) not in (None, body.etag):
                log.info("the server's etags differ without a change: they are not believed")
                self._are_told = False
                return True
        return False

    async def _etag(self, file: RemoteFile, offset: int) -> str | None:
        request = self._client.download_file(file.container_id, file.id, offset=offset, length=1)
        async with request as body:
            return body.etag

    async def check(self, download: Download, body: Body) -> None:
        """Refuse the rest of another version than there is some of, which is forgotten.

        Raises:
            ServerFault: It is one.
            AnotherVersion: It is one, and what there is was read.
        """
        if await self.is_same(download, body):
            return
        begin_anew(download, body)
        if body.offset > 0:
            raise ServerFault(
                f"file {download.file.id}: it became another one", request_id=body.request_id
            )
        download.etag = body.etag


def begin_anew(download: Download, body: Body) -> None:
    """Forget what there is, for this answer is about another version.

    Raises:
        AnotherVersion: Some of it was read, and may not be mixed with this.
    """
    if download.is_read:
        raise another_version(download, body)
    download.forget()


def another_version(download: Download, body: Body) -> AnotherVersion:
    """What who has read of *download* is told, now that *body* is of another version."""
    return AnotherVersion(
        f"file {download.file.id}: it became another one while it was read",
        request_id=body.request_id,
    )
