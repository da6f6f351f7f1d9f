"""The address of a server, taken before its model is loaded."""

import socket

from pam.errors import PamError

PORTS = range(2**16)


def bound(host: str, port: int) -> socket.socket:
    """A socket with this address, which does not listen yet. `PamError` if it cannot be had.

    A name with addresses of both kinds, such as localhost, gets the one of IPv4.
    """
    if port not in PORTS:
        raise PamError(f"--port {port}: expected 0 (a free one) to {PORTS[-1]}")
    try:
        known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise PamError(
            f"--host {host}: {error}: give a name or an address of this machine"
        ) from error
    family, kind, protocol, _, address = min(known, key=lambda one: one[0] != socket.AF_INET)
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        raise PamError(
            f"--host {host} --port {port}: {error.strerror}: give an address of this machine and a "
            "port that is free"
        ) from error
    return found
