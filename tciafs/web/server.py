"""The page served on loopback by the command that shows it: daemons are asked for each page, in threads.

Only looks: nothing here has a daemon do anything, and images are read from packs that are on disk, so that no
page causes a download. Ends with the command.
"""

import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tciafs.control.client import ask_known, ask_locate, ask_status
from tciafs.control.known_values import KnownFolder
from tciafs.control.speeds import Speeds
from tciafs.errors import NoSuchName, TciafsError
from tciafs.web.guarded import Guarded, new_token
from tciafs.web.pages import SURROGATES, Place, Shown, live_html, page_html
from tciafs.web.pictures import NoPicture, picture

__all__ = ["serve_page", "serve_until_told"]

A = TypeVar("A")

LOOPBACK = "127.0.0.1"
SERIES_NAMES = 4
DRAWN_KEPT = 16
IDLE_S = 15.0
FILES: Mapping[str, str] = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
AT_ONCE = 4
"""So many daemons are asked at once; a page is looked at by one person."""


def serve_until_told(mounts: Callable[[], Sequence[Path]], announce: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM comes. Blocks."""

    async def serve() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_page, mounts, announce)
                await anext(signals)
                nursery.cancel_scope.cancel()

    trio.run(serve)


async def serve_page(mounts: Callable[[], Sequence[Path]], announce: Callable[[str], None]) -> None:
    """Serve the page until cancelled; `announce` is given its address. `mounts` may raise TciafsError."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        port, token = listener.getsockname()[1], new_token()
        hosts = [f"{name}:{port}" for name in (LOOPBACK, "localhost")]
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.accesslog = config.errorlog = None  # which would have the token
        config.include_server_header = False
        config.keep_alive_timeout = IDLE_S
        application: Any = Guarded(_Pages(mounts).application(), token, hosts)
        announce(f"http://{LOOPBACK}:{port}/{token}/")
        await hypercorn.trio.serve(application, config, shutdown_trigger=trio.sleep_forever)


class _Pages:
    """What is answered, and the speeds that are known of having been asked before."""

    def __init__(self, mounts: Callable[[], Sequence[Path]]) -> None:
        self._mounts = mounts
        self._speeds: dict[Path, Speeds] = {}
        self._asking = trio.CapacityLimiter(AT_ONCE)
        self._drawing = trio.CapacityLimiter(1)
        self._drawn_lately: dict[tuple[str, int, int], bytes] = {}

    def application(self) -> Starlette:
        """Return the pages as an application."""
        routes = [
            Route("/", self._page),
            Route("/live", self._live),
            Route("/picture.png", self._picture),
            *(Route(f"/{name}", partial(_file, name=name)) for name in FILES),
        ]
        application = Starlette(routes=routes, exception_handlers={NoSuchName: _not_found})
        application.router.redirect_slashes = False
        return application

    async def _page(self, request: Request) -> Response:
        mounts = await self._asked(self._mounts)
        mount = _meant(request, mounts)
        query = _query(request)
        place = Place(str(mount), query.get("at", "/"), query.get("after", ""), _number(query.get("image")))
        live = await self._now(mount)
        shown = await self._shown(mount, place)
        return _html(page_html(place, [str(each) for each in mounts], live, shown))

    async def _live(self, request: Request) -> Response:
        return _html(await self._now(_meant(request, await self._asked(self._mounts))))

    async def _now(self, mount: Path) -> str:
        speeds = self._speeds.setdefault(mount, Speeds())
        try:
            status = await self._asked(ask_status, mount)
        except TciafsError as error:
            return live_html(None, speeds, f"{error}. {error.hint}".strip())
        speeds.note(status, trio.current_time())
        return live_html(status, speeds, "")

    async def _shown(self, mount: Path, place: Place) -> Shown:
        names = place.names
        try:
            if len(names) < SERIES_NAMES:
                return Shown(page=await self._asked(ask_known, mount, place.path, place.after))
            return await self._shown_series(mount, place)
        except TciafsError as error:
            return Shown(error=f"{error}. {error.hint}".strip())

    async def _shown_series(self, mount: Path, place: Place) -> Shown:
        *study, name = place.names[:SERIES_NAMES]
        series = await self._series(mount, "/" + "/".join(study), name)
        if series.state != "local":
            return Shown(series=series, no_picture="There is no picture, as the series is not on disk.")
        try:
            located = await self._asked(ask_locate, mount, series.series_uid, place.image)
        except NoSuchName as error:
            return Shown(series=series, no_picture=f"There is no picture: {error}.")
        try:
            await self._drawn(located.pack, located.offset, located.size_bytes)
        except NoPicture as error:
            return Shown(series=series, no_picture=f"There is no picture: {error}.")
        return Shown(series=series, located=located)

    async def _series(self, mount: Path, study: str, name: str) -> KnownFolder:
        after: str | None = ""
        while after is not None:
            page = await self._asked(ask_known, mount, study, after)
            for each in page.folders:
                if each.name == name:
                    return each
            after = page.next
        raise NoSuchName(f"{name!r} is not a series there, as far as is known")

    async def _picture(self, request: Request) -> Response:
        mount = _meant(request, await self._asked(self._mounts))
        query = _query(request)
        uid, image = query.get("series", ""), _number(query.get("image"))
        located = await self._asked(ask_locate, mount, uid, image)
        try:
            drawn = await self._drawn(located.pack, located.offset, located.size_bytes)
        except NoPicture as error:
            return PlainTextResponse(f"{error}\n", 404)
        return Response(drawn, media_type="image/png")

    async def _drawn(self, *where: *tuple[str, int, int]) -> bytes:
        """Return the picture of an image, which a page and then the browser ask for. Raises NoPicture."""
        if where not in self._drawn_lately:
            drawn = await self._draw(*where)
            self._drawn_lately = dict([*self._drawn_lately.items(), (where, drawn)][-DRAWN_KEPT:])
        return self._drawn_lately[where]

    async def _draw(self, pack: str, offset: int, size_bytes: int) -> bytes:
        return await trio.to_thread.run_sync(picture, Path(pack), offset, size_bytes, limiter=self._drawing)

    async def _asked(self, call: Callable[..., A], *arguments: object) -> A:
        return await trio.to_thread.run_sync(
            partial(call, *arguments), abandon_on_cancel=True, limiter=self._asking
        )


def _query(request: Request) -> Mapping[str, str]:
    """Return what an address asks for; nothing where it is none that a page has."""
    try:
        return dict(parse_qsl(request.url.query, keep_blank_values=True, errors=SURROGATES))
    except ValueError:
        return {}


def _meant(request: Request, mounts: Sequence[Path]) -> Path:
    """Return the mount that is asked for, the first one where none is. Raises NoSuchName."""
    wanted = _query(request).get("mount")
    for each in mounts:
        if wanted is None or str(each) == wanted:
            return each
    raise NoSuchName("that is not mounted any more")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _html(text: str) -> Response:
    return Response(text, media_type="text/html")


async def _file(_: Request, name: str) -> Response:
    return Response((files("tciafs.web") / "page" / name).read_bytes(), media_type=FILES[name])


async def _not_found(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 404)
