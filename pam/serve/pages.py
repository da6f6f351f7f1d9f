"""Which requests of web pages are taken.

A browser sends requests for every page that it shows, to servers of its own machine too. Such a
page cannot know the key; of a server without one it could use the CPU, and read answers by a name
of its own for 127.0.0.1 (DNS rebinding).
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from pam.serve.errors import ApiError

HINT = "ask for a key instead (--api_key)"


def check_page(request: Request, own_name: str | None) -> None:
    """`ApiError` 403 for a request that a page of another address may have sent.

    Args:
        own_name: of a server of this machine only, whose requests must name this machine;
            None: others may reach it, by names that it does not know.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if origin is not None and authority(origin).lower() != host.lower():
        why = f"pages of {origin} may not use this server: {HINT}"
        raise ApiError(403, why, "forbidden_origin")
    if own_name is None or hostname(host) == own_name.lower() or is_local(hostname(host)):
        return
    why = f"{host or 'no host'} is not a name of the machine whose requests are taken: {HINT}"
    raise ApiError(403, why, "forbidden_host")


def is_local(name: str) -> bool:
    """Whether this is localhost, or an address of the machine itself."""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def authority(origin: str) -> str:
    """The host and the port of an address; empty for one that has none, such as null."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def hostname(host: str) -> str:
    """The name, or the address, of a Host header, in small letters."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
