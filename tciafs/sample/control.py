"""The server's back door for tests, under /_sample/: what was asked, what goes wrong, how fast, what changed.

Defined here and only here: the recorder of requests, the pacer of downloads, and the routes that
set them, the faults and the revisions. Waiting is for an event, never for a time. One event loop.
"""

import json
from collections import Counter, deque
from typing import Any
from urllib.parse import parse_qsl

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tciafs.sample.faults import Fault, FaultBoard
from tciafs.sample.holdings import Holdings

__all__ = ["Pacer", "Recorder", "control_routes"]

REMEMBERED_REQUESTS = 100_000
"""How many requests are kept, so that a demonstration may run for months."""


class Recorder:
    """An application that notes each request before another answers it, and how many bytes that sends.

    `requests` are the latest; `tally` counts all of them, by the last part of their path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_REQUESTS)
        self.tally: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the request and let the application answer."""
        if scope["type"] == "http" and not scope["path"].startswith("/_sample/"):
            headers = dict(scope["headers"])
            self.tally[scope["path"].rpartition("/")[2]] += 1
            noted = {
                "method": scope["method"],
                "path": scope["path"],
                "query": dict(parse_qsl(scope["query_string"].decode(), True)),
                "user_agent": headers.get(b"user-agent", b"").decode("latin-1"),
                "sent_bytes": 0,
            }
            self.requests.append(noted)
            send = _counted(send, noted)
        await self._app(scope, receive, send)

    def routes(self) -> list[Route]:
        """Return the routes that tell what was noted."""

        async def requests(request: Request) -> Response:
            if request.method == "DELETE":
                self.requests.clear()
                self.tally.clear()
                return Response(status_code=204)
            return JSONResponse(list(self.requests))

        async def tally(_: Request) -> Response:
            return JSONResponse(self.tally)

        return [
            Route("/_sample/requests", requests, methods=["GET", "DELETE"]),
            Route("/_sample/tally", tally, methods=["GET"]),
        ]


def _counted(send: Send, noted: dict[str, Any]) -> Send:
    """Return a `send` that notes how many bytes of body it has passed on."""

    async def counting(message: Message) -> None:
        await send(message)
        noted["sent_bytes"] += len(message.get("body", b""))

    return counting


class Pacer:
    """Holds the downloads of chosen series after so many images."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}
        self._changed = trio.Event()

    def set_limit(self, series_uid: str, members: int | None) -> None:
        """Let `members` images of a series pass, all of them with None."""
        if members is None:
            self._limits.pop(series_uid, None)
        else:
            self._limits[series_uid] = members
        self._changed.set()
        self._changed = trio.Event()

    def lets_pass(self, series_uid: str, place: int) -> bool:
        """Return whether the image at `place` (from 1) may be sent now."""
        return place <= self._limits.get(series_uid, place)

    async def until_passes(self, series_uid: str, place: int) -> None:
        """Return when the image at `place` may be sent."""
        while not self.lets_pass(series_uid, place):
            await self._changed.wait()


def control_routes(recorder: Recorder, board: FaultBoard, pacer: Pacer, holdings: Holdings) -> list[Route]:
    """Return the routes under /_sample/ for these four."""

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            board.clear()
            return Response(status_code=204)
        try:
            board.add(Fault.from_json(await request.body()))
        except (ValueError, TypeError) as error:
            return Response(str(error), 400, media_type="text/plain")
        return Response(status_code=204)

    async def pace(request: Request) -> Response:
        try:
            wish = json.loads(await request.body())
            members = wish["members"]
            pacer.set_limit(wish["series"], None if members is None else int(members))
        except (ValueError, TypeError, KeyError) as error:
            return Response(f"not a pace: {error}", 400, media_type="text/plain")
        return Response(status_code=204)

    async def series(request: Request) -> Response:
        if request.method == "DELETE":
            holdings.revisions.restore()
            return Response(status_code=204)
        try:
            _change(holdings, json.loads(await request.body()))
        except (ValueError, TypeError, LookupError) as error:
            return Response(f"not a change: {error}", 400, media_type="text/plain")
        return Response(status_code=204)

    return [
        *recorder.routes(),
        Route("/_sample/faults", faults, methods=["POST", "DELETE"]),
        Route("/_sample/pace", pace, methods=["POST"]),
        Route("/_sample/series", series, methods=["POST", "DELETE"]),
    ]


def _change(holdings: Holdings, wish: Any) -> None:
    """Withdraw the series (columns null) or revise it; raises ValueError, TypeError or LookupError."""
    uid, columns = wish["series"], wish["columns"]
    if columns is None:
        holdings.withdraw(uid)
    else:
        holdings.revise(uid, dict(columns))
