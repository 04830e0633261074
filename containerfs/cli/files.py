"""`containerfs containers:files`: list, create, retrieve, delete."""

import os
from typing import Any

import click

from containerfs.api.types import RemoteFile
from containerfs.cli.calling import Target, call, service_options
from containerfs.cli.ids import container_and_file_id
from containerfs.cli.ids import container_id as id_of_container
from containerfs.cli.listoptions import list_options
from containerfs.cli.output import format_option, show, show_all
from containerfs.cli.progress import transfer_bar
from containerfs.cli.shapes import FILE_COLUMNS, deleted_shape, file_shape
from containerfs.cli.source import opened_source


@click.group(name="containers:files")
def files() -> None:
    """List, create, retrieve, delete the files of a container."""


@files.command("list")
@id_of_container
@list_options
@format_option
@service_options
def list_(
    *,
    target: Target,
    container_id: str,
    form: str | None,
    after: str | None,
    most: int | None,
    **query: Any,
) -> None:
    """List all files of a container."""

    async def operation() -> list[dict[str, Any]]:
        from containerfs.api.listing import entries

        async with target.client() as client:
            found = await entries(
                lambda cursor: client.list_files(container_id, after=cursor, **query),
                after=after,
                most=most,
            )
        return [file_shape(file) for file in found]

    show_all(call(operation), columns=FILE_COLUMNS, form=form)


@files.command("create")
@id_of_container
@click.option(
    "--file",
    "path",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="Upload this file; - is standard input.",
)
@click.option("--file-id", metavar="ID", help="Copy this file of the Files API instead.")
@click.option(
    "--name", help="What the upload is called  [default: the last part of FILE, or stdin]"
)
@format_option
@service_options
def create(
    *,
    target: Target,
    container_id: str,
    path: str | None,
    file_id: str | None,
    name: str | None,
    form: str | None,
) -> None:
    """Upload a file, byte for byte, or copy one that the account has already."""
    if (path is None) == (file_id is None):
        raise click.UsageError("exactly one of --file and --file-id is needed")
    if file_id is not None and name is not None:
        raise click.UsageError("--name goes with --file")
    if name is not None and not name:
        raise click.UsageError("the name is empty")

    async def operation() -> dict[str, Any]:
        if path is not None:
            created = await _upload(target, container_id, path, name)
        else:
            created = await _attach(target, container_id, file_id or "")
        return file_shape(created)

    show(call(operation), form=form)


@files.command("retrieve")
@container_and_file_id
@format_option
@service_options
def retrieve(*, target: Target, container_id: str, file_id: str, form: str | None) -> None:
    """Show what is known of a file."""

    async def operation() -> dict[str, Any]:
        async with target.client() as client:
            return file_shape(await client.retrieve_file(container_id, file_id))

    show(call(operation), form=form)


@files.command("delete")
@container_and_file_id
@format_option
@service_options
def delete(*, target: Target, container_id: str, file_id: str, form: str | None) -> None:
    """Delete a file."""

    async def operation() -> dict[str, Any]:
        async with target.client() as client:
            await client.delete_file(container_id, file_id)
        return deleted_shape("container.file", file_id)

    show(call(operation), form=form)


async def _upload(target: Target, container_id: str, path: str, name: str | None) -> RemoteFile:
    called = name or ("stdin" if path == "-" else os.path.basename(path))
    with opened_source(path) as (fd, size), transfer_bar(called, total=size) as advance:
        async with target.client() as client:
            return await client.upload_file(
                container_id, name=called, fd=fd, size=size, progress=advance
            )


async def _attach(target: Target, container_id: str, file_id: str) -> RemoteFile:
    async with target.client() as client:
        return await client.attach_file(container_id, file_id=file_id)
