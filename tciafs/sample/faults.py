"""Faults on demand: what a server, a proxy or a line does wrong, as often as a test asks for it.

Defined here and only here: the kinds of fault and how each bends an answer. Faults that are inside
a ZIP (`short`, `wrong_md5`, those of annotations) are only handed on, for the download to act on. One task
at a time.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import trio
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["KINDS", "Fault", "FaultBoard", "FaultyServer", "fault_of", "until_disconnect"]

KINDS = frozenset(
    {
        "status",
        "hang",
        "stall",
        "drip",
        "cut",
        "corrupt",
        "short",
        "html",
        "truncate_json",
        "empty",
        "claim",
        "wrong_md5",
        "short_annotations",
        "cut_annotation",
        "annotation_name",
    }
)
SINGLE_IMAGE, WHOLE_SERIES = "/getSingleImage", "/getImage"
SCOPE_KEY = "tciafs.sample.fault"
MAINTENANCE_PAGE = "<!DOCTYPE html><html><body><h1>Down for maintenance</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to do wrong, for the next `times` requests whose path ends in `path`.

    `series` limits it to one SeriesInstanceUID. `code`, `body`, `retry_after` and further `headers` belong
    to `status`; `after_bytes` (of the body) to `cut`, `corrupt`, `stall` (nothing more comes) and `drip` (the
    rest comes byte by byte, one in `pace_s` seconds); `columns`, which all rows of a listing then claim to
    have, to `claim`; `images` (left out at the end) to `short`: files that the server has lost, and so cannot
    give one by one either; or so many annotations to `short_annotations`. The last annotation has half of
    its bytes in `cut_annotation`, and this `name` in `annotation_name`.
    """

    kind: str
    path: str = ""
    series: str | None = None
    times: int = 1
    code: int = 500
    body: str = ""
    retry_after: str | None = None
    after_bytes: int = 0
    images: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    pace_s: float = 1.0
    columns: Mapping[str, str | int | None] = field(default_factory=dict)
    name: str = ""

    @classmethod
    def from_json(cls, text: bytes) -> "Fault":
        """Return the fault described by a JSON object; raises ValueError where it is none."""
        described: Any = json.loads(text)
        if not isinstance(described, dict) or described.get("kind") not in KINDS:
            raise ValueError(f"a fault is an object with a kind out of {sorted(KINDS)}")
        unknown = described.keys() - {each.name for each in fields(cls)}
        if unknown:
            raise ValueError(f"a fault has no {sorted(unknown)}")
        return cls(**described)

    def fits(self, path: str, series_uid: str | None) -> bool:
        """Return whether a request is to go wrong in this way."""
        return path.endswith(self.path) and self.series in (None, series_uid)


class FaultBoard:
    """The faults still to happen, the first that fits first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let a fault happen from now on."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Let everything be right again."""
        self._faults.clear()

    def take(self, path: str, series_uid: str | None) -> Fault | None:
        """Return the fault of this request, and count it as happened."""
        for place, fault in enumerate(self._faults):
            if fault.fits(path, series_uid):
                left = fault.times - 1
                self._faults[place : place + 1] = [replace(fault, times=left)] if left else []
                return fault
        return None

    def lost_files(self, path: str, series_uid: str | None) -> Fault | None:
        """Return the fault that leaves images out of a series, as long as it still happens to getImage."""
        if not path.endswith(SINGLE_IMAGE):
            return None
        whole = path.removesuffix(SINGLE_IMAGE) + WHOLE_SERIES
        return next(
            (each for each in self._faults if each.kind == "short" and each.fits(whole, series_uid)), None
        )


def fault_of(scope: Scope) -> Fault | None:
    """Return the fault that the handler of this request is to act on itself."""
    found: Fault | None = scope.get(SCOPE_KEY)
    return found


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class FaultyServer:
    """An application that is right, and wrong when the board says so."""

    def __init__(self, app: ASGIApp, board: FaultBoard) -> None:
        self._app = app
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        fault = None
        if scope["type"] == "http" and not scope["path"].startswith("/_sample/"):
            query = parse_qs(scope["query_string"].decode("latin-1"))
            asked = scope["path"], query.get("SeriesInstanceUID", [None])[-1]
            fault = self._board.take(*asked) or self._board.lost_files(*asked)
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.kind == "hang":
            await until_disconnect(receive)
        elif (answer := _instead(fault)) is not None:
            await answer(scope, receive, send)
        else:
            await self._bent(fault, scope, receive, send)

    async def _bent(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        match fault.kind:
            case "truncate_json":
                await self._app(scope, receive, _Whole(send, lambda body: body[: len(body) // 2]).send)
            case "claim":
                await self._app(scope, receive, _Whole(send, partial(_claiming, fault.columns)).send)
            case "corrupt":
                await self._app(scope, receive, _Corrupting(send, fault.after_bytes).send)
            case "cut":
                await self._ended(scope, receive, _Cutting(send, fault.after_bytes).send)
            case "stall":
                await self._ended(scope, receive, _Cutting(send, fault.after_bytes).send)
                await until_disconnect(receive)
            case "drip":
                await self._app(scope, receive, _Dripping(send, fault.after_bytes, fault.pace_s).send)
            case _:
                await self._app({**scope, SCOPE_KEY: fault}, receive, send)

    async def _ended(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer until `send` has enough of it."""
        try:
            await self._app(scope, receive, send)
        except BaseExceptionGroup as group:
            if group.split(_Cut)[1] is not None:
                raise
        except _Cut:
            pass


def _instead(fault: Fault) -> Response | None:
    """Return the answer that a fault gives in place of the right one (None: it bends that one)."""
    match fault.kind:
        case "status":
            pause = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return Response(fault.body, fault.code, {**fault.headers, **pause}, "text/plain")
        case "html":
            return HTMLResponse(MAINTENANCE_PAGE)
        case "empty":
            return Response(b"", media_type="application/json")
        case _:
            return None


class _Cut(Exception):
    """The connection is to end here; the server closes it when the application just stops."""


class _Cutting:
    """Passes on so many bytes of the body and then stops the application."""

    def __init__(self, send: Send, after_bytes: int) -> None:
        self._send = send
        self._left = after_bytes

    async def send(self, message: Message) -> None:
        """Pass on what is left to pass on; raises _Cut at the end of it."""
        if message["type"] == "http.response.body":
            body = message.get("body", b"")[: self._left]
            self._left -= len(body)
            message = {**message, "body": body, "more_body": True}
        await self._send(message)
        if self._left <= 0:
            raise _Cut


class _Corrupting:
    """Turns all bits of one byte of the body."""

    def __init__(self, send: Send, place: int) -> None:
        self._send = send
        self._place = place

    async def send(self, message: Message) -> None:
        """Pass a message on, the byte turned where it is in it."""
        body = message.get("body", b"")
        if 0 <= self._place < len(body):
            turned = bytes([body[self._place] ^ 0xFF])
            message = {**message, "body": body[: self._place] + turned + body[self._place + 1 :]}
        self._place -= len(body)
        await self._send(message)


class _Dripping:
    """Passes on so many bytes of the body at once, and the rest one by one."""

    def __init__(self, send: Send, after_bytes: int, pace_s: float) -> None:
        self._send = send
        self._left = after_bytes
        self._pace_s = pace_s

    async def send(self, message: Message) -> None:
        """Pass a message on, slowly where the body is past its quick beginning."""
        body = message.get("body", b"")
        quick, slow = body[: self._left], body[self._left :]
        self._left -= len(quick)
        if not slow:
            await self._send(message)
            return
        await self._send({**message, "body": quick, "more_body": True})
        for place in range(len(slow)):
            await trio.sleep(self._pace_s)
            await self._send({**message, "body": slow[place : place + 1], "more_body": True})
        if not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": b""})


class _Whole:
    """Collects the body and passes on what a function makes of it, with headers that agree with that."""

    def __init__(self, send: Send, change: Callable[[bytes], bytes]) -> None:
        self._send = send
        self._change = change
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        """Collect the answer; pass the changed one on when it is complete."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False) or self._start is None:
            return
        body = self._change(self._body)
        headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _claiming(columns: Mapping[str, str | int | None], body: bytes) -> bytes:
    """Return a listing all of whose rows have these columns."""
    return json.dumps([{**row, **columns} for row in json.loads(body or b"[]")]).encode()
