"""Certificates: which servers are believed, and who shows one."""

import shutil
import ssl
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from containerfs.api.client import Client, connect
from containerfs.api.connection import Connection
from containerfs.errors import Invalid, ServerFault, TimedOut, Unreachable

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


async def read(client: Client) -> int:
    async with client.download_file("c", "f") as body:
        return sum([len(piece) async for piece in body])


@pytest.fixture
async def tls(raw: Any, nursery: trio.Nursery, certificate: Path) -> Any:
    """The scripted server behind TLS; gives its base URL and its settings."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def serve(stream: trio.SocketStream) -> None:
        wrapped = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await raw.serve(wrapped)

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    return f"https://localhost:{port}/v1", context


async def test_a_server_of_the_given_authority_is_believed(
    tls: Any, raw: Any, certificate: Path
) -> None:
    raw.answers = [raw.plain(b"x" * 3_000_000), raw.default]
    async with connect(Connection(base_url=tls[0], ca_file=str(certificate))) as client:
        assert await read(client) == 3_000_000
        await client.list_containers()
    assert raw.connections == 1


async def test_tls_is_used_however_https_is_written(tls: Any, raw: Any, certificate: Path) -> None:
    url = tls[0].replace("https", "HTTPS")
    async with connect(Connection(base_url=url, ca_file=str(certificate))) as client:
        await client.list_containers()
    assert len(raw.requests) == 1


async def test_a_certificate_of_another_host_is_not_believed(
    tls: Any, raw: Any, certificate: Path
) -> None:
    url = tls[0].replace("localhost", "127.0.0.1")
    async with connect(Connection(base_url=url, ca_file=str(certificate))) as client:
        with pytest.raises(Unreachable, match="mismatch"):
            await client.list_containers()
    assert raw.requests == []


async def test_a_handshake_that_stands_still_is_given_up(
    nursery: trio.Nursery, certificate: Path
) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    listeners = await nursery.start(partial(trio.serve_tcp, silent, 0, host="127.0.0.1"))
    url = f"https://localhost:{listeners[0].socket.getsockname()[1]}/v1"
    connection = Connection(base_url=url, ca_file=str(certificate), timeout=0.3)
    async with connect(connection) as client:
        with pytest.raises(TimedOut):
            await client.list_containers()


async def test_content_cut_within_tls_is_a_server_fault(
    tls: Any, raw: Any, certificate: Path
) -> None:
    raw.answers = [raw.plain(b"x" * 100_000)[:-1] + raw.CLOSE]
    async with connect(Connection(base_url=tls[0], ca_file=str(certificate))) as client:
        with pytest.raises(ServerFault, match="99999 of 100000"):
            await read(client)


async def test_an_upload_goes_through_tls(
    tls: Any, raw: Any, certificate: Path, tmp_path: Path
) -> None:
    raw.answers = [raw.json({"id": "f", "path": "x"})]
    path = tmp_path / "source"
    path.write_bytes(b"y" * 3_000_000)
    async with connect(Connection(base_url=tls[0], ca_file=str(certificate))) as client:
        with path.open("rb") as file:
            await client.upload_file("c", name="x", fd=file.fileno(), size=3_000_000)
    assert raw.requests[0].body.count(b"y") >= 3_000_000


async def test_an_unknown_server_is_unreachable_and_asked_nothing(tls: Any, raw: Any) -> None:
    async with connect(Connection(base_url=tls[0])) as client:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await client.list_containers()
    assert raw.requests == []


async def test_the_own_certificate_is_shown_where_it_is_asked_for(
    tls: Any, raw: Any, certificate: Path
) -> None:
    tls[1].verify_mode = ssl.CERT_REQUIRED
    tls[1].load_verify_locations(certificate)
    own = {"ca_file": str(certificate), "client_cert": str(certificate)}
    async with connect(Connection(base_url=tls[0], **own)) as client:
        await client.list_containers()


@pytest.mark.parametrize("setting", ["ca_file", "client_cert"])
async def test_a_certificate_file_that_is_missing_is_named(setting: str, tmp_path: Path) -> None:
    files: Any = {setting: str(tmp_path / "nothing-here")}
    with pytest.raises(Invalid, match="nothing-here"):
        async with connect(Connection(base_url="https://localhost/v1", **files)):
            pass
