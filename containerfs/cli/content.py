"""`containerfs containers:files:content`: retrieve."""

from typing import TYPE_CHECKING

import click

from containerfs.cli.calling import Target, call, service_options
from containerfs.cli.ids import container_and_file_id
from containerfs.cli.progress import transfer_bar
from containerfs.cli.saving import destination
from containerfs.errors import ServerFault, Unsupported

if TYPE_CHECKING:
    from containerfs.api.client import Client
    from containerfs.api.types import RemoteFile


@click.group(name="containers:files:content")
def content() -> None:
    """Retrieve the content of a file."""


@content.command("retrieve")
@container_and_file_id
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Save to FILE, or into the directory FILE under its remote name; - is standard output.",
)
@service_options
def retrieve(*, target: Target, container_id: str, file_id: str, output: str | None) -> None:
    """Write the bytes of a file to standard output, or save them."""

    async def operation() -> None:
        async with target.client() as client:
            described = await _description(client, container_id, file_id)
            path = described.path if described else ""
            with destination(output, remote_path=path, file_id=file_id) as write:
                size = described.size if described else None
                async with client.download_file(container_id, file_id) as body:
                    total = size if size is not None else body.size
                    with transfer_bar(path or file_id, total=total) as advance:
                        received = 0
                        async for piece in body:
                            write(piece)
                            received += len(piece)
                            advance(received)
                # A gateway may answer an error text with status 200: only its length tells.
                if size is not None and received != size:
                    raise ServerFault(
                        f"{received} bytes came for a file of {size}", request_id=body.request_id
                    )

    call(operation)


async def _description(client: "Client", container_id: str, file_id: str) -> "RemoteFile | None":
    try:
        return await client.retrieve_file(container_id, file_id)
    except Unsupported:
        return None
