"""Who asks, and where the key comes from."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containerfs.api.connection import DEFAULT_BASE_URL, Connection
from containerfs.api.environment import connection_from, custom_headers
from containerfs.api.key import key_from_command, key_from_file
from containerfs.errors import AccessDenied, FileSystemError, Invalid
from containerfs.options import Options

KEY = "sk-very-secret"


def printing(text: str) -> str:
    return shlex.join([sys.executable, "-c", f"print({text!r})"])


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., Path]:
    def make(content: bytes = KEY.encode() + b"\n", mode: int = 0o600) -> Path:
        path = tmp_path / "key"
        path.write_bytes(content)
        path.chmod(mode)
        return path

    return make


def connection(environ: dict[str, str] | None = None, **options: Any) -> Connection:
    return connection_from(Options(**options), environ or {})


def test_the_variables_of_openai_are_used() -> None:
    made = connection(
        {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": "http://localhost:1/v1",
            "OPENAI_ORG_ID": "org",
            "OPENAI_PROJECT_ID": "proj",
            "OPENAI_CUSTOM_HEADERS": "A: b\n\nC:d:e\n",
        }
    )
    assert made.base_url == "http://localhost:1/v1"
    assert (made.api_key, made.organization, made.project) == (KEY, "org", "proj")
    assert made.headers == {"A": "b", "C": "d:e"}


def test_empty_variables_are_unset_ones() -> None:
    made = connection({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "", "OPENAI_ORG_ID": ""})
    assert made.base_url == DEFAULT_BASE_URL
    assert made.organization is None


def test_options_win_over_variables(key_file: Callable[..., Path]) -> None:
    made = connection(
        {"OPENAI_API_KEY": "sk-other", "OPENAI_BASE_URL": "http://other/v1"},
        base_url="http://chosen/v1",
        api_key_file=key_file(),
        auth_header="api-key",
        query={"api-version": "1"},
        timeout=3.0,
    )
    assert (made.base_url, made.api_key, made.timeout) == ("http://chosen/v1", KEY, 3.0)
    assert made.sent_headers() == {"api-key": KEY}


def test_a_socket_needs_no_url_and_no_key(tmp_path: Path) -> None:
    made = connection(uds=tmp_path / "socket")
    assert made.base_url.startswith("http://")
    assert made.api_key is None


def test_openai_needs_a_key() -> None:
    with pytest.raises(AccessDenied, match="no API key"):
        connection()
    connection({"OPENAI_CUSTOM_HEADERS": "authorization: Bearer x"})


def test_a_private_file_holds_the_key(key_file: Callable[..., Path], tmp_path: Path) -> None:
    path = key_file()
    assert key_from_file(path) == KEY
    (tmp_path / "link").symlink_to(path)
    assert key_from_file(tmp_path / "link") == KEY
    path.chmod(0o400)
    assert key_from_file(path) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_key_file_that_others_can_use_is_refused(
    key_file: Callable[..., Path], mode: int
) -> None:
    with pytest.raises(AccessDenied, match=f"{mode:04o}"):
        key_from_file(key_file(mode=mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_file_of_somebody_else_is_refused(key_file: Callable[..., Path]) -> None:
    path = key_file()
    os.chown(path, 12345, -1)
    with pytest.raises(AccessDenied, match="12345"):
        key_from_file(path)


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nothing-here: No such file"):
        key_from_file(tmp_path / "nothing-here")
    with pytest.raises(Invalid, match="directory"):
        key_from_file(tmp_path)


def test_a_command_prints_the_key() -> None:
    assert key_from_command(printing(f"{KEY}\nlogin: me")) == KEY


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "empty"),
        ("'", "quotation"),
        ("/no/such/program x", "No such file"),
        ("false", "code 1"),
        (shlex.join([sys.executable, "-c", "import os; os.write(1, b'\\xff')"]), "not text"),
    ],
)
def test_a_command_that_prints_no_key_is_an_error(command: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        key_from_command(command)


def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    assert key_from_command(f"echo sk-1; touch {marker}") == f"sk-1; touch {marker}"
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "empty"), ("sk-ä", "ASCII"), ("sk-1\nsk-2", "line break"), ("sk 1", "spaces")],
)
def test_a_bad_key_is_told_without_repeating_it(key: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        Connection(api_key=key)
    assert "sk" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "ftp://x/"},
        {"base_url": "x"},
        {"base_url": "http://"},
        {"base_url": "http://user:pass@host/"},
        {"base_url": "http://host:99999/"},
        {"base_url": "http://ho st/"},
        {"base_url": "http://[::1/"},
        {"headers": {"a b": "c"}},
        {"headers": {"a": "b\r\nc: d"}},
        {"auth_header": "x:y", "api_key": "k"},
        {"organization": "ü"},
        {"client_key": "k.pem"},
        {"timeout": 0.0},
        {"max_connections": 0},
    ],
)
def test_what_cannot_be_used_is_found_before_the_first_request(settings: Any) -> None:
    with pytest.raises(Invalid):
        Connection(**settings)


def test_a_header_line_without_a_colon_is_an_error_that_hides_it() -> None:
    with pytest.raises(Invalid, match="line 2") as caught:
        custom_headers("A: b\nsecret")
    assert "secret" not in str(caught.value)


def test_two_sources_of_the_key_are_one_too_many(key_file: Callable[..., Path]) -> None:
    with pytest.raises(FileSystemError):
        connection(api_key_file=key_file(), api_key_command="echo x")
