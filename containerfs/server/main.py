"""Starts a server, and stops it in order."""

import asyncio
import os
import signal
import socket
import sys
import threading

import uvicorn

from containerfs.server.access import Access, read_key
from containerfs.server.admin import Admin
from containerfs.server.app import Application
from containerfs.server.conduct import Conduct
from containerfs.server.faults import Faults
from containerfs.server.operations import Operations
from containerfs.server.protocol import Protocol
from containerfs.server.requestlog import RequestLog
from containerfs.server.settings import ServeSettings
from containerfs.server.sockets import address, listen
from containerfs.server.store import Store, open_store

_GRACE = 1.0  # seconds that requests under way have when the server stops
_KEEP_ALIVE = 75  # seconds that an idle connection is kept


def serve(settings: ServeSettings) -> None:
    """Serve until SIGINT, SIGTERM or, if wanted, the end of standard input.

    Prints one line, `listening on ADDRESS`, when requests are taken. Stops within two seconds.

    Raises:
        ServeError: The server can't start.
    """
    key = None if settings.api_key_file is None else read_key(settings.api_key_file)
    with open_store(settings.data) as store:
        listener = listen(settings)
        try:
            _run(_application(settings, store, Access(key)), listener, settings)
        finally:
            listener.close()
            if settings.uds is not None:
                settings.uds.unlink(missing_ok=True)


def _application(settings: ServeSettings, store: Store, access: Access) -> Application:
    conduct = Conduct(behaviours=settings.behaviours, faults=Faults(settings.faults))
    requests = RequestLog()
    return Application(
        operations=Operations(store=store, conduct=conduct),
        admin=Admin(store=store, conduct=conduct, log=requests) if settings.admin else None,
        access=access,
        conduct=conduct,
        requests=requests,
    )


def _run(application: Application, listener: socket.socket, settings: ServeSettings) -> None:
    config = uvicorn.Config(
        application,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    if settings.until_eof:
        threading.Thread(target=server.stop_at_eof, daemon=True).start()
    # uvicorn raises the signal that stopped it once more: to have stopped is enough.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run([listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready and doesn't wait for ever."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        print("listening on", *map(address, sockets or ()), flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; requests that take too long lose their connection."""
        asyncio.get_running_loop().call_later(_GRACE, self._abort)
        await super().shutdown(sockets)

    def stop_at_eof(self) -> None:
        """Stop when standard input ends: whoever started this server is gone."""
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self.should_exit = True

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
