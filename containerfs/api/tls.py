"""Which certificates are believed, and which one is shown."""

import ssl
from urllib.parse import urlsplit

import httpx

from containerfs.api.connection import Connection
from containerfs.errors import Invalid


def ssl_context(connection: Connection) -> ssl.SSLContext | None:
    """What the connection's `https` is checked with; None where it does not use TLS.

    Raises:
        Invalid: The CA file or the client's certificate cannot be read or used.
    """
    if urlsplit(connection.base_url).scheme != "https":  # in lower case, whatever was written
        return None
    try:
        if connection.ca_file is None:
            context = httpx.create_ssl_context()
        else:
            context = ssl.create_default_context(cafile=connection.ca_file)
        if connection.client_cert is not None:
            context.load_cert_chain(connection.client_cert, connection.client_key, password=_none)
        context.set_alpn_protocols(["http/1.1"])
    except OSError as exc:  # ssl.SSLError is one
        files = (connection.ca_file, connection.client_cert, connection.client_key)
        named = ", ".join(file for file in files if file is not None)
        raise Invalid(f"certificate files ({named}): {exc}") from exc
    return context


def _none() -> str:
    return ""  # an encrypted key is refused; OpenSSL would ask on the terminal otherwise
