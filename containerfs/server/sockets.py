"""The socket a server listens on, and how its address is told."""

import contextlib
import os
import socket
from pathlib import Path

from containerfs.server.routes import BASE
from containerfs.server.settings import ServeError, ServeSettings

_BACKLOG = 2048


def listen(settings: ServeSettings) -> socket.socket:
    """A listening socket as the settings want it; raises ServeError."""
    return _listen_unix(settings.uds) if settings.uds else _listen_tcp(settings)


def address(listener: socket.socket) -> str:
    """Where the server can be reached: a base URL, or `unix:` and a path."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}/{BASE}"


def _listen_tcp(settings: ServeSettings) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError as exc:
        where_text = f"{settings.host}:{settings.port}"
        raise ServeError(f"can't listen on {where_text}: {exc.strerror}") from exc
    listener.listen(_BACKLOG)
    return listener


def _listen_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _remove_stale(path)
    # Nobody else may connect, not even before a chmod could say so.
    old_mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as exc:
        listener.close()
        raise ServeError(f"can't listen on {path}: {exc.strerror or exc}") from exc
    finally:
        os.umask(old_mask)
    listener.listen(_BACKLOG)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that a killed server left; raises ServeError if one is listening."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        except OSError as exc:
            raise ServeError(f"can't use {path}: {exc.strerror}") from exc
        else:
            raise ServeError(f"another server listens on {path}")
