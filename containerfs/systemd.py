"""Tells systemd how the mount is doing, by sd_notify's protocol.

Without a `NOTIFY_SOCKET` every call does nothing. A notification that can't be delivered is
logged and never raised: a mount does not fail because its supervisor is gone.

Source: sd_notify(3), "Notify Protocol".
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(*facts: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send facts such as `READY=1` in one datagram.

    Args:
        facts: Assignments without newlines.
        environ: Where `NOTIFY_SOCKET` is looked up: a path, or `@name` for an abstract socket.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto("\n".join(facts).encode(), address)
    except OSError as error:
        log.warning("systemd was not notified of %s: %s", facts, error)


def status(text: str) -> str:
    """The fact that `systemctl status` shows as a line of text."""
    return "STATUS=" + " ".join(text.split())
