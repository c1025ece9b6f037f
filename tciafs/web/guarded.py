"""Who may see the page: who knows the token, from an address of this machine, and no other page in a browser.

Everything that is answered carries headers that forbid the browser to load, frame, store or pass on anything.
Defined here and only here: these rules. Knows nothing of what is shown.
"""

import secrets
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guarded", "new_token"]

TOKEN_BYTES = 32
METHODS = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def new_token() -> str:
    """Return what nobody can guess, fit for an address."""
    return secrets.token_urlsafe(TOKEN_BYTES)


class Guarded:
    """An application below /TOKEN/ for who asks one of `hosts` ("127.0.0.1:8042"); all others get 403."""

    def __init__(self, application: ASGIApp, token: str, hosts: Collection[str]) -> None:
        self._application = application
        self._token = token.encode()
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._application(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        inner, refused = self._admitted(scope)
        if inner is None:
            await refused(scope, receive, send_guarded)
        else:
            await self._application(inner, receive, send_guarded)

    def _admitted(self, scope: Scope) -> tuple[dict[str, Any] | None, PlainTextResponse]:
        """Return the request as the application sees it, None for one that is refused; and the refusal."""
        token, _, rest = scope["path"].lstrip("/").partition("/")
        # In constant time, so that no answer tells how much of a token was right.
        is_known = secrets.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)
        # A name that somebody has made an address of this machine would make his page one of ours.
        is_ours = Headers(scope=scope).getlist("host") in [[host] for host in self._hosts]
        if not (is_known and is_ours):
            return None, PlainTextResponse("Forbidden: the address that tciafs printed is needed.\n", 403)
        if scope["method"] not in METHODS:
            return None, PlainTextResponse("This page can only be looked at.\n", 405)
        path = f"/{rest}"
        return {**scope, "path": path, "raw_path": quote(path).encode()}, PlainTextResponse("")
