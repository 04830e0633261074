"""A `Connection` from the options and the variables that OpenAI's own tools use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from containerfs.api.connection import DEFAULT_BASE_URL, Connection
from containerfs.api.key import key_from_command, key_from_file
from containerfs.errors import AccessDenied, Invalid

# Variables that may hold a secret: no program that we start needs them.
SECRETS = ("OPENAI_API_KEY", "OPENAI_CUSTOM_HEADERS", "CONTAINERFS_QUERY")
SOCKET_BASE_URL = "http://containerfs/v1"  # for a Unix socket, where the host is only a name


class ConnectionOptions(Protocol):
    """The options that say how to reach the service."""

    @property
    def base_url(self) -> str | None: ...
    @property
    def uds(self) -> Path | None: ...
    @property
    def api_key_file(self) -> Path | None: ...
    @property
    def api_key_command(self) -> str | None: ...
    @property
    def auth_header(self) -> str | None: ...
    @property
    def query(self) -> Mapping[str, str]: ...
    @property
    def ca_file(self) -> Path | None: ...
    @property
    def client_cert(self) -> Path | None: ...
    @property
    def client_key(self) -> Path | None: ...
    @property
    def timeout(self) -> float: ...
    @property
    def transfer_timeout(self) -> float: ...
    @property
    def max_connections(self) -> int: ...


def connection_from(options: ConnectionOptions, environ: Mapping[str, str]) -> Connection:
    """How to reach the service; options win over `OPENAI_*`, empty variables count as unset.

    Raises:
        AccessDenied: OpenAI's own service is meant and there is no key, or its file is not private.
        Invalid: A value cannot be used; the message never holds the key.
    """
    connection = Connection(
        base_url=_base_url(options, environ),
        uds=_text(options.uds),
        api_key=_api_key(options, environ),
        organization=environ.get("OPENAI_ORG_ID") or None,
        project=environ.get("OPENAI_PROJECT_ID") or None,
        headers=custom_headers(environ.get("OPENAI_CUSTOM_HEADERS", "")),
        auth_header=options.auth_header,
        query=options.query,
        ca_file=_text(options.ca_file),
        client_cert=_text(options.client_cert),
        client_key=_text(options.client_key),
        timeout=options.timeout,
        transfer_timeout=options.transfer_timeout,
        max_connections=options.max_connections,
    )
    if _needs_key(connection):
        raise AccessDenied("no API key: OPENAI_API_KEY, api_key_file, api_key_command are not set")
    return connection


def custom_headers(text: str) -> dict[str, str]:
    """The headers in `OPENAI_CUSTOM_HEADERS`: one `Name: value` a line.

    Raises:
        Invalid: A line has no colon.
    """
    headers = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
        elif line.strip():
            raise Invalid(f"OPENAI_CUSTOM_HEADERS: line {number} has no colon")
    return headers


def _base_url(options: ConnectionOptions, environ: Mapping[str, str]) -> str:
    if options.base_url is not None:
        return options.base_url
    if options.uds is not None:
        return SOCKET_BASE_URL
    return environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL


def _api_key(options: ConnectionOptions, environ: Mapping[str, str]) -> str | None:
    if options.api_key_file is not None and options.api_key_command is not None:
        raise Invalid("both a key file and a key command were given")
    if options.api_key_file is not None:
        return key_from_file(options.api_key_file)
    if options.api_key_command is not None:
        others = {name: value for name, value in environ.items() if name not in SECRETS}
        return key_from_command(options.api_key_command, environ=others)
    return environ.get("OPENAI_API_KEY") or None


def _needs_key(connection: Connection) -> bool:
    host = (urlsplit(connection.base_url).hostname or "").lower()
    is_openai = host == "openai.com" or host.endswith(".openai.com")
    has_key = any(name.lower() == "authorization" for name in connection.sent_headers())
    return is_openai and connection.uds is None and not has_key and connection.api_key is None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
