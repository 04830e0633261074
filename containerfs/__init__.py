"""containerfs mounts the OpenAI Containers API as a file system."""

__version__ = "0.1.0"
