"""Everything needed to talk to one account of one server.

A `Connection` is checked when it is made, so that a bad key or address is reported before the
first request, in words that never contain the key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from containerfs.errors import Invalid

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name, RFC 9110 5.6.2
_FIELD = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")  # its value, ASCII only
_KEY = re.compile(r"[\x21-\x7e]+")
_SHORTEST_SECRET = 8  # characters of a header's or a query's value that is taken for one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Connection:
    """An address, who asks, and how long to wait.

    Raises:
        Invalid: A value cannot be used; the message names the setting, never the key.
    """

    base_url: str = DEFAULT_BASE_URL
    uds: str | None = None  # path of a Unix socket to connect to instead of the URL's host
    api_key: str | None = field(default=None, repr=False)
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    auth_header: str | None = None  # the key goes into this header, bare, not as a Bearer token
    query: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    timeout: float = 30.0  # seconds a metadata request may take, all its retries together
    transfer_timeout: float = 30.0  # seconds without progress after which a transfer is given up
    max_connections: int = 128

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if self.api_key is not None and not _KEY.fullmatch(self.api_key):
            raise Invalid(_fault_of_key(self.api_key))
        for name, value in self.sent_headers().items():
            if not _TOKEN.fullmatch(name):
                raise Invalid(f"not a header name: {name!r}")
            if not _FIELD.fullmatch(value):
                raise Invalid(f"the value of header {name} is not printable ASCII")
        if self.client_key is not None and self.client_cert is None:
            raise Invalid("a client key was given without its certificate")
        if not (self.timeout > 0 and self.transfer_timeout > 0 and self.max_connections >= 1):
            raise Invalid("time limits and the number of connections must be above zero")

    def sent_headers(self) -> dict[str, str]:
        """The headers every request carries on account of who asks; the key is among them."""
        headers: dict[str, str] = {}
        if self.api_key is not None and self.auth_header is not None:
            headers[self.auth_header] = self.api_key
        elif self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if self.organization:
            headers["OpenAI-Organization"] = self.organization
        if self.project:
            headers["OpenAI-Project"] = self.project
        return {**headers, **self.headers}

    def redacted(self, text: str) -> str:
        """*text* without the key, and without what headers and query may hold of secrets."""
        for secret in self._secrets():
            text = text.replace(secret, "[key]")
        return text

    def _secrets(self) -> list[str]:
        values = [value.rpartition(" ")[2] for value in self.headers.values()]
        values += self.query.values()
        secrets = {value for value in values if len(value) >= _SHORTEST_SECRET}
        if self.api_key is not None:
            secrets.add(self.api_key)
        spelled = {quote(secret, safe="") for secret in secrets} | secrets
        return sorted(spelled, key=len, reverse=True)  # what holds another one goes first


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise Invalid(f"not a base URL: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Invalid(f"not a base URL (http://… or https://…): {url!r}")
    if parts.username is not None or parts.password is not None:
        raise Invalid("the base URL holds a user name or password; give the key separately")
    if not url.isprintable() or " " in url:
        raise Invalid("the base URL holds spaces or control characters")


def _fault_of_key(key: str) -> str:
    if not key:
        return "the API key is empty"
    if "\n" in key or "\r" in key:
        return "the API key holds a line break"
    if not key.isascii():
        return "the API key holds characters outside ASCII"
    return "the API key holds spaces or control characters"
