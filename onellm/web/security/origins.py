"""Which names the app is reached by, and which pages may speak to it: its own, and nobody else's.

A browser sends a page's requests to any address, this machine's own included. So a name that the app was not told to
serve is refused (a stranger's name may resolve to this machine), and so is whatever another site's page sends.
"""

import ipaddress
import os
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Scope

API = "/gradio_api/"
HUGGING_FACE = "https://huggingface.co"
PORTS = {"http": 80, "https": 443}


class Origins:
    """The names and the sites that an app serves.

    Args:
        names: host names, with a port where it is not that of http or https; as `--allow-host` gives them.
        host: the address that the app listens on.
    """

    def __init__(self, names: Iterable[str] = (), host: str = "127.0.0.1"):
        self.space = "SPACE_ID" in os.environ  # in a frame of huggingface.co, below names that the host chooses
        self.names = {name.strip().lower() for name in names if name.strip()}
        if space := os.environ.get("SPACE_HOST"):
            self.names.add(space.lower())
        self.hosts = {_split(name)[0] for name in self.names} | {"localhost"}
        self.any_address = not is_loopback(host)
        if self.any_address:  # whom others can reach they reach by its address or its own name
            own = socket.gethostname().lower()
            self.hosts |= {host.lower(), own, f"{own}.local"}

    def check(self, scope: Scope) -> None:
        """Refuse a request for another name, or from another site's page.

        Raises:
            HTTPException: 421 for a name, 403 for a site.
        """
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host and not self.serves(host):
            raise HTTPException(
                421,
                f"This app does not serve the name {host[:100]!r}; use the address that it printed, or have whoever "
                "runs it start it with --allow-host and this name.",
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is not None:
            allowed = self.is_own(origin, {host, headers.get("x-forwarded-host", host)})
        else:
            allowed = site in ("none", "same-origin") or self._is_link(scope, headers)
        if not allowed:
            raise HTTPException(403, "Another site's page cannot use this app; open the app's own page.")

    def serves(self, host: str) -> bool:
        """Tell whether a request's Host header names this app."""
        name, _ = _split(host)
        if self.space or name in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self.any_address  # an address cannot resolve to another one

    def is_own(self, origin: str, hosts: Iterable[str]) -> bool:
        """Tell whether a page of an origin is the app's own.

        Args:
            origin: the header.
            hosts: what the request itself calls the app.
        """
        if self.space and origin == HUGGING_FACE:
            return True
        scheme, _, place = origin.lower().partition("://")
        if scheme not in PORTS:  # "null": a file, or a frame that is to have no origin
            return False
        name, port = _split(place)
        own = {(name, port or PORTS[scheme]) for name, port in map(_split, self.names)}
        own |= {(name, port or PORTS[scheme]) for name, port in map(_split, filter(self.serves, filter(None, hosts)))}
        return bool(name) and (name, port or PORTS[scheme]) in own

    def _is_link(self, scope: Scope, headers: Headers) -> bool:
        """Tell whether somebody follows a link to the page."""
        navigates = headers.get("sec-fetch-mode") == "navigate" and scope["method"] in ("GET", "HEAD")
        return navigates and API not in scope["path"] and "/v1/" not in scope["path"]

    def protect(self, headers: MutableHeaders, path: str) -> None:
        """Add to an answer what a browser is to keep to.

        Args:
            headers: the answer's; none of them lets another site's page read it.
            path: the request's.
        """
        for name in [name for name in headers if name.startswith("access-control-")]:
            del headers[name]
        framing = f"'self' {HUGGING_FACE} https://*.hf.space" if self.space else "'self'"
        file = f"{API}file=" in path
        rules = FILE if file else PAGE
        headers["Content-Security-Policy"] = f"{rules}; frame-ancestors {framing}"
        headers["X-Content-Type-Options"] = "nosniff"
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if not self.space:
            headers["X-Frame-Options"] = "SAMEORIGIN"


# Gradio writes scripts into the page, and makes functions of the texts that components bring.
PAGE = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
FILE = "default-src 'none'; style-src 'unsafe-inline'; sandbox"  # opened by itself, an upload runs nothing


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(host: str) -> tuple[str, int]:
    """Return the name and the port of a Host header; 0 where none is named, no name where it is none."""
    try:
        parts = urlsplit(f"//{host.lower()}")
        return ("", 0) if parts.path or parts.username is not None else (parts.hostname or "", parts.port or 0)
    except ValueError:
        return "", 0
