"""Copies the files of a container into a directory, by the official openai package alone.

Usage: demo_read_back.py CONTAINER-NAME DIRECTORY
"""

import re
import sys
from pathlib import Path

from openai import OpenAI

PREFIX = re.compile(r"(^|/)[0-9a-f]{32}-")  # what the service puts before an uploaded file's name


def main(name: str, directory: Path) -> None:
    """Copy every file of the container called `name`."""
    client = OpenAI()
    container = next(found for found in client.containers.list() if found.name == name)
    count = 0
    for file in client.containers.files.list(container.id):
        path = directory / PREFIX.sub(r"\1", file.path.removeprefix("/mnt/data/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        content = client.containers.files.content.retrieve(file.id, container_id=container.id)
        path.write_bytes(content.read())
        count += 1
    print(f"{count} files of container {container.id} read")


main(sys.argv[1], Path(sys.argv[2]))
