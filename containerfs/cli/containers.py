"""`containerfs containers`: list, create, retrieve, delete."""

from typing import Any

import click

from containerfs.cli.calling import Target, call, service_options
from containerfs.cli.ids import container_id as id_of_container
from containerfs.cli.listoptions import list_options
from containerfs.cli.output import format_option, show, show_all
from containerfs.cli.shapes import CONTAINER_COLUMNS, container_shape, deleted_shape
from containerfs.cli.words import EXPIRY, NETWORK_POLICY, SKILL


@click.group(name="containers")
def containers() -> None:
    """List, create, retrieve, delete containers."""


@containers.command("list")
@list_options
@click.option("--name", help="Only containers of this name.")
@format_option
@service_options
def list_(
    *, target: Target, form: str | None, after: str | None, most: int | None, **query: Any
) -> None:
    """List all containers, expired ones too."""

    async def operation() -> list[dict[str, Any]]:
        from containerfs.api.listing import entries

        async with target.client() as client:
            found = await entries(
                lambda cursor: client.list_containers(after=cursor, **query),
                after=after,
                most=most,
            )
        return [container_shape(container) for container in found]

    show_all(call(operation), columns=CONTAINER_COLUMNS, form=form)


@containers.command("create")
@click.option("--name", required=True, help="What it is called; names need not be unique.")
@click.option("--memory-limit", metavar="1g|4g|16g|64g", help="Its memory.")
@click.option(
    "--expires-after", type=EXPIRY, metavar="MINUTES", help="Idle minutes, or the API's JSON."
)
@click.option(
    "--network-policy",
    type=NETWORK_POLICY,
    metavar="POLICY",
    help="disabled, allow:a.com,b.com, or the API's JSON.",
)
@click.option(
    "--file-id", "file_ids", multiple=True, metavar="ID", help="Copy this uploaded file into it."
)
@click.option(
    "--skill",
    "skills",
    type=SKILL,
    multiple=True,
    metavar="SKILL",
    help="ID, ID@VERSION, or the API's JSON.",
)
@format_option
@service_options
def create(*, target: Target, form: str | None, **settings: Any) -> None:
    """Create a container; it costs money until it expires or is deleted."""

    async def operation() -> dict[str, Any]:
        async with target.client(may_make=True) as client:
            return container_shape(await client.create_container(**settings))

    show(call(operation), form=form)


@containers.command("retrieve")
@id_of_container
@format_option
@service_options
def retrieve(*, target: Target, container_id: str, form: str | None) -> None:
    """Show a container; that may keep it alive."""

    async def operation() -> dict[str, Any]:
        async with target.client() as client:
            return container_shape(await client.retrieve_container(container_id))

    show(call(operation), form=form)


@containers.command("delete")
@id_of_container
@format_option
@service_options
def delete(*, target: Target, container_id: str, form: str | None) -> None:
    """Delete a container and all its files."""

    async def operation() -> dict[str, Any]:
        async with target.client() as client:
            await client.delete_container(container_id)
        return deleted_shape("container", container_id)

    show(call(operation), form=form)
