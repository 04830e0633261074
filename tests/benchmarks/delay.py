"""A line of a given length: relays TCP connections, each byte half a round trip later.

There is no cap on bandwidth. A new connection carries its first bytes one round trip after it was
accepted, as the handshake of a real one would have it. Runs as a process of its own:
`python delay.py PORT SECONDS` relays to a loopback port and prints the port it listens on.
"""

import contextlib
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field

HOST = "127.0.0.1"
CHUNK = 256 * 1024  # bytes received at a time
MOST_UNDER_WAY = 128 * 1024 * 1024  # bytes of one direction of a connection; then its source waits
TICK = 0.0005  # half the resolution of epoll's timeout: what is due sooner than this is due


@dataclass(eq=False, slots=True)
class End:
    """One end of a relayed connection.

    Args:
        under_way: Bytes that were sent to it and that its socket has not taken yet.
        unsent: Those of them that have arrived.
    """

    sock: socket.socket
    other: "End | None" = None
    under_way: int = 0
    unsent: deque[memoryview] = field(default_factory=deque)
    is_open: bool = False  # the line is long enough in place to carry bytes from here
    has_spoken: bool = False  # it sends no more
    is_told: bool = False  # the other end's last byte has arrived here
    is_hung: bool = False  # both directions are over, and epoll would not stop saying so
    is_closed: bool = False


class Line:
    """Relays what connects to *listener* to a loopback port.

    Args:
        seconds: One way.
    """

    def __init__(self, listener: socket.socket, *, port: int, seconds: float) -> None:
        self._listener = listener
        self._port = port
        self._seconds = seconds
        self._ends: dict[int, End] = {}
        # All bytes take the same time, so both are in the order of arrival.
        self._under_way: deque[tuple[float, End, bytes]] = deque()
        self._opening: deque[tuple[float, End]] = deque()
        self._epoll = select.epoll()

    def run(self) -> None:
        """Relay until the process is ended."""
        self._epoll.register(self._listener, select.EPOLLIN)
        while True:
            for fd, events in self._epoll.poll(self._patience()):
                end = self._ends.get(fd)
                if end is None:
                    self._accept()
                else:
                    self._attend(end, events)
            self._arrive()

    def _patience(self) -> float | None:
        """Seconds until something is due; None for ever."""
        due = [queue[0][0] for queue in (self._under_way, self._opening) if queue]
        return max(0.0, min(due) - TICK - time.monotonic()) if due else None

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        try:
            server = socket.create_connection((HOST, self._port))
        except OSError:
            client.close()
            return
        near, far = End(client), End(server, is_open=True)
        near.other, far.other = far, near
        for end in (near, far):
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.sock.fileno()] = end
            self._epoll.register(end.sock, 0)
            self._watch(end)
        self._opening.append((time.monotonic() + 2 * self._seconds, near))

    def _watch(self, end: End) -> None:
        """Have epoll tell what can be done at this end now."""
        assert end.other is not None
        if end.is_hung:
            return
        reads = end.is_open and not end.has_spoken and end.other.under_way < MOST_UNDER_WAY
        events = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if end.unsent else 0)
        self._epoll.modify(end.sock, events)

    def _attend(self, end: End, events: int) -> None:
        if events & select.EPOLLIN and not end.has_spoken:
            self._receive(end)
        elif events & select.EPOLLHUP and end.has_spoken and not events & select.EPOLLERR:
            self._epoll.unregister(end.sock)  # what it has said may still be under way
            end.is_hung = True
        elif events & (select.EPOLLERR | select.EPOLLHUP):
            self._close(end)
        if events & select.EPOLLOUT and not end.is_closed:
            self._send(end)

    def _receive(self, end: End) -> None:
        assert end.other is not None
        try:
            data = end.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._close(end)
            return
        end.has_spoken = not data
        end.other.under_way += len(data)
        self._under_way.append((time.monotonic() + self._seconds, end.other, data))
        if end.has_spoken or end.other.under_way >= MOST_UNDER_WAY:
            self._watch(end)

    def _arrive(self) -> None:
        """Hand on whatever is due."""
        now = time.monotonic() + TICK
        while self._opening and self._opening[0][0] <= now:
            _, end = self._opening.popleft()
            end.is_open = True
            if not end.is_closed:
                self._watch(end)
        while self._under_way and self._under_way[0][0] <= now:
            _, end, data = self._under_way.popleft()
            if end.is_closed:
                continue
            if data:
                end.unsent.append(memoryview(data))
            else:
                end.is_told = True
            self._send(end)

    def _send(self, end: End) -> None:
        assert end.other is not None
        had_room = end.under_way < MOST_UNDER_WAY
        try:
            while end.unsent:
                sent = end.sock.send(end.unsent[0])
                end.under_way -= sent
                rest = end.unsent[0][sent:]
                if rest:
                    end.unsent[0] = rest
                else:
                    end.unsent.popleft()
        except BlockingIOError:
            pass  # epoll tells when it takes more
        except OSError:
            self._close(end)
            return
        if end.is_told and not end.unsent:
            self._finish(end)
        if end.is_closed:
            return
        self._watch(end)
        if not had_room and end.under_way < MOST_UNDER_WAY:
            self._watch(end.other)

    def _finish(self, end: End) -> None:
        """The other end's last byte is through."""
        with contextlib.suppress(OSError):
            end.sock.shutdown(socket.SHUT_WR)
        assert end.other is not None
        if end.has_spoken and end.other.is_told and not end.other.unsent:
            self._close(end)

    def _close(self, end: End) -> None:
        for each in (end, end.other):
            if each is not None and not each.is_closed:
                each.is_closed = True
                if not each.is_hung:
                    self._epoll.unregister(each.sock)
                del self._ends[each.sock.fileno()]
                each.sock.close()


def main() -> None:
    """Listen on a free loopback port and relay."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    with socket.create_server((HOST, 0), backlog=1024) as listener:
        listener.setblocking(False)
        print(f"listening on {listener.getsockname()[1]}", flush=True)
        Line(listener, port=port, seconds=seconds).run()


if __name__ == "__main__":
    main()
