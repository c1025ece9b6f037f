"""The daemon's end of the control socket: HTTP over a Unix socket, JSON in and out, answered in one thread.

Runs as one task of the daemon and never ends the mount, whatever comes or fails. A question is answered
from what is known at this moment; only a command that says so waits, and it alone. Heavy to import, so only
the task that serves does. Defined here and only here: paths, methods, statuses and bounds of the protocol.
"""

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import hypercorn.trio
import msgspec
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tciafs import request_ids
from tciafs.control.commands import Commands
from tciafs.control.known_values import ListKnown, Locate
from tciafs.control.manifest_values import AddManifest, ListManifests, RemoveManifest
from tciafs.control.series_values import ListFailed, ListNamed, ListSeries, Prefetch
from tciafs.control.usage_values import ListUsed
from tciafs.control.values import (
    PREFIX,
    Check,
    Evict,
    ListCached,
    ListFailures,
    LogLevel,
    Pause,
    Pin,
    Refresh,
    Refusal,
    Status,
)
from tciafs.errors import AccessDenied, Misuse, NoSuchName, TciafsError

__all__ = ["serve"]

log = logging.getLogger(__name__)

W = TypeVar("W")

MOST_REQUEST_BYTES = 64 * 1024
MOST_ANSWER_BYTES = 100_000
"""An answer must fit into the buffer of a socket (some 200 kB): hypercorn cannot be stopped while it waits
for a command that does not read."""

IDLE_S = 5.0
"""How long a connection may stay without a request."""

REQUEST_S = 5.0
"""How long the rest of a request may take to arrive."""


async def serve(listener: socket.socket, commands: Commands) -> None:
    """Answer on a listening socket, which is taken over, until cancelled.

    If that is not possible any more, the log has a warning, and the mount goes on without.
    """
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_S
    config.keep_alive_max_requests = 1  # so that unread answers cannot pile up in one connection
    application: Any = _application(commands)  # hypercorn and starlette spell the ASGI types apart
    try:
        await hypercorn.trio.serve(application, config, shutdown_trigger=trio.sleep_forever)
    except Exception:
        log.warning("commands do not reach this mount any more", exc_info=True)


def _application(commands: Commands) -> Starlette:
    application = Starlette(
        routes=[
            _question("status", commands.status),
            _metrics(commands.status),
            _command("failures", ListFailures, _at_once(lambda wish: commands.failures(wish.after))),
            _command("cached", ListCached, lambda wish: commands.cached(wish.path, wish.after)),
            _command("check", Check, lambda wish: commands.check(wish.series_uid, wish.place)),
            _command("pause", Pause, _at_once(lambda wish: commands.pause(wish.paused))),
            _command("log-level", LogLevel, _at_once(lambda wish: commands.log_level(wish.level))),
            _command("series", ListSeries, lambda wish: commands.series(wish.path, wish.after)),
            _command("failed", ListFailed, lambda wish: commands.failed(wish.path, wish.after)),
            _command("named", ListNamed, lambda wish: commands.named(wish.series_uids, wish.after)),
            _command("prefetch", Prefetch, commands.prefetch),
            _command("refresh", Refresh, lambda wish: commands.refresh(wish.path)),
            _command("pin", Pin, lambda wish: commands.pin(wish.path, wish.pinned)),
            _command("known", ListKnown, lambda wish: commands.known(wish.path, wish.after)),
            _command("locate", Locate, lambda wish: commands.locate(wish.series_uid, wish.image)),
            _command("add-manifest", AddManifest, commands.add_manifest),
            _command("manifests", ListManifests, _at_once(lambda wish: commands.manifests(wish.after))),
            _command("remove-manifest", RemoveManifest, lambda wish: commands.remove_manifest(wish.name)),
            _command("used", ListUsed, _at_once(lambda wish: commands.used(wish.since, wish.place))),
            _command("evict", Evict, lambda wish: commands.evict(wish.path, wish.after)),
        ],
        exception_handlers={HTTPException: _unknown},
    )
    application.router.redirect_slashes = False
    return application


def _question(name: str, answer: Callable[[], Any]) -> Route:
    """Return the route of what is answered at once: GET, an answer in JSON."""

    async def handle(_: Request) -> Response:
        return _json(answer())

    return Route(PREFIX + name, _guarded(handle), methods=["GET"])


def _metrics(status: Callable[[], Status]) -> Route:
    """Return the route of the same as Prometheus metrics; what writes them is loaded when they are wanted."""

    async def handle(_: Request) -> Response:
        return Response(*await trio.to_thread.run_sync(_exposed, status()))

    return Route(PREFIX + "metrics", _guarded(handle), methods=["GET"])


def _exposed(status: Status) -> tuple[bytes, int, dict[str, str]]:
    from tciafs.control.metrics import CONTENT_TYPE, exposition

    return exposition([status]), 200, {"content-type": CONTENT_TYPE}


def _command(name: str, kind: type[W], obey: Callable[[W], Awaitable[object]]) -> Route:
    """Return the route of what may take its time: POST, a wish in JSON, its result in JSON (None: null)."""

    async def handle(request: Request) -> Response:
        return _json(await obey(await _wish(request, kind)))

    return Route(PREFIX + name, _guarded(handle), methods=["POST"])


def _at_once(answer: Callable[[W], object]) -> Callable[[W], Awaitable[object]]:
    """Return what obeys a wish that waits for nothing."""

    async def obey(wish: W) -> object:
        return answer(wish)

    return obey


async def _wish(request: Request, kind: type[W]) -> W:
    """Return what a command wishes. Raises Misuse."""
    body = bytearray()
    with trio.move_on_after(REQUEST_S) as arriving:
        async with aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > MOST_REQUEST_BYTES:
                    raise Misuse(f"a request has at most {MOST_REQUEST_BYTES} bytes")
    if arriving.cancelled_caught:
        raise Misuse(f"the request did not arrive within {REQUEST_S:g} s")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Misuse(f"the request is not understood: {error}") from None


def _guarded(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler whose every failure is an answer."""

    async def guarded(request: Request) -> Response:
        request_ids.begin()
        log.debug("%s %s", request.method, request.url.path)
        try:
            return await handle(request)
        except TciafsError as error:
            return _refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)  # which nobody reads
        except Exception as error:
            log.exception("a command failed in an unexpected way: %s", request.url.path)
            return _refusal(TciafsError(f"the command failed in an unexpected way: {error!r}"))

    return guarded


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer a path or a method that there is not."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    refusal = Misuse(f"this daemon does not know {request.method} {request.url.path}")
    return _refusal(refusal, status)


def _refusal(error: TciafsError, status: int | None = None) -> Response:
    if status is None:
        status = {Misuse: 400, AccessDenied: 403, NoSuchName: 404}.get(type(error), 500)
    return _json(Refusal(type(error).__name__, str(error)[:1000]), status)


def _json(value: object, status: int = 200) -> Response:
    try:
        body = msgspec.json.encode(value)
    except ValueError:  # half a surrogate pair in a text from outside
        value = Refusal("TciafsError", "the answer has a text that is no Unicode")
        body, status = msgspec.json.encode(value), 500
    if len(body) > MOST_ANSWER_BYTES:
        value = Refusal("TciafsError", f"the answer would have {len(body)} bytes, more than allowed")
        body, status = msgspec.json.encode(value), 500
    return Response(body, status, media_type="application/json")
