"""The commands of the service, in the shape of the official command line."""

from containerfs.cli.containers import containers
from containerfs.cli.content import content
from containerfs.cli.files import files

__all__ = ["containers", "content", "files"]
