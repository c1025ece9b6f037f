"""The HTTP side of the sample archive: routes, versions, status codes, one listener on loopback.

Defined here and only here: how NBIA answers over HTTP (an empty listing is an empty body, a bad
token an empty 401, a refused series a 400 with a sentence). Imports nothing of tciafs.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5
from typing import Any, Protocol
from urllib.parse import parse_qsl

import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tciafs.sample.control import Pacer, Recorder, control_routes
from tciafs.sample.delivery import ImageZip
from tciafs.sample.faults import FaultBoard, FaultyServer, fault_of
from tciafs.sample.holdings import Holdings
from tciafs.sample.listing import listing
from tciafs.sample.login import Logins
from tciafs.sample.names import new_file_names
from tciafs.sample.queries import ENDPOINTS, NOT_PROCESSED, Endpoint, Question, Refusal, known_parameters
from tciafs.sample.records import Image, Series
from tciafs.sample.rows import V4

__all__ = ["SERVICES", "SampleServer", "serve"]

SERVICES = "/nbia-api/services"
VERSIONS = ("v1", V4)
V2 = "v2"
"""What v1 is to a guest: it answers the same to whoever has a token."""

TOMCAT_CHUNK_BYTES = 8192
KEEP_ALIVE_S = 60.0
KEEP_ALIVE_REQUESTS = 1_000_000


@dataclass(frozen=True)
class SampleServer:
    """What one server offers. `offers_md5=False` is a v4 server of before November 2025.

    `carts` are series UIDs by the name under which somebody shared them.
    """

    holdings: Holdings
    versions: tuple[str, ...] = VERSIONS
    offers_md5: bool = True
    chunk_bytes: int = TOMCAT_CHUNK_BYTES
    logins: Logins = field(default_factory=partial(Logins, None))
    carts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def application(self) -> ASGIApp:
        """Return the ASGI application: the archive, its faults and the record around it."""
        board, pacer = FaultBoard(), Pacer()
        archive = Starlette(
            routes=[
                *(route for version in self.versions for route in self._routes(version, pacer)),
                Route("/nbia-api/oauth/token", self._token, methods=["POST"]),
            ]
        )
        recorder = Recorder(FaultyServer(archive, board))
        control = Starlette(
            routes=[
                *control_routes(recorder, board, pacer, self.holdings),
                Route("/_sample/tokens", self._expire, methods=["DELETE"]),
                Route("/_sample/carts", self._share_cart, methods=["POST"]),
            ]
        )
        return _Split(archive=recorder, control=control)

    def _routes(self, version: str, pacer: Pacer) -> list[Route]:
        routes = self._routes_at(version, version, pacer)
        return routes + self._routes_at(V2, version, pacer) if version == "v1" else routes

    def _routes_at(self, address: str, version: str, pacer: Pacer) -> list[Route]:
        def route(name: str, handler: Callable[[Request, str], Any], method: str = "GET") -> Route:
            async def answer(request: Request) -> Any:
                request.state.given = dict(request.query_params)
                if method == "POST":
                    request.state.given = dict(parse_qsl((await request.body()).decode(), True))
                try:
                    return handler(request, version)
                except Refusal as refusal:
                    kind = "application/json" if refusal.status == 400 else "text/plain"
                    return Response(refusal.text, refusal.status, media_type=kind)

            return Route(f"{SERVICES}/{address}/{name}", answer, methods=[method])

        listings = [
            route(name, partial(self._listing, endpoint), endpoint.method)
            for name, endpoint in ENDPOINTS.items()
            if version in endpoint.versions
        ]
        md5_name = "getMD5HashForImage" if version == V4 else "getM5HashForImage"
        return [
            *listings,
            route("getImage", partial(self._get_image, pacer)),
            route("getDCMImage", partial(self._get_dcm_image, pacer)),
            route("getSingleImage", self._get_single_image),
            route(md5_name, self._get_md5),
            *([self._md5_hierarchy_route()] if version == V4 and self.offers_md5 else []),
        ]

    def _sees_restricted(self, request: Request, version: str) -> bool:
        """Return whether the request sees restricted data; v1 looks at no token, and v2 asks for one."""
        is_v2 = request.url.path.startswith(f"{SERVICES}/{V2}/")
        if version != V4 and not is_v2:
            return False
        allowed = self.logins.sees_restricted(request.headers.get("authorization", ""))
        if allowed is None or (is_v2 and not allowed):
            raise Refusal(401, "")
        return allowed

    def _question(self, request: Request, version: str, known: tuple[str, ...]) -> Question:
        """Return the request's parameters, checked; raises Refusal."""
        restricted = self._sees_restricted(request, version)
        parameters = known_parameters(version, request.state.given, known)
        if parameters.get("format", "json").lower() != "json":
            raise Refusal(500, f"{NOT_PROCESSED}\nonly json is offered here")
        return Question(self.holdings, version, parameters, restricted, self.carts)

    def _listing(self, endpoint: Endpoint, request: Request, version: str) -> Response:
        return listing(endpoint.rows(self._question(request, version, endpoint.parameters)))

    def _get_image(self, pacer: Pacer, request: Request, version: str) -> ImageZip:
        md5_parameter = ("IncludeMD5",) if self.offers_md5 else ()
        known = ("SeriesInstanceUID", "NewFileNames", *md5_parameter)
        question = self._question(request, version, known)
        series = self._permitted(question)
        return ImageZip(
            series,
            pacer,
            self.chunk_bytes,
            new_names=_is_yes(question.parameters, "NewFileNames"),
            with_md5=version == V4 and _is_yes(question.parameters, "IncludeMD5"),
            fault=fault_of(request.scope),
        )

    def _get_dcm_image(self, pacer: Pacer, request: Request, version: str) -> ImageZip:
        known = ("SeriesInstanceUID", "IncludeAnnotation", "MD5Verification")
        question = self._question(request, version, known)
        return ImageZip(
            self._permitted(question),
            pacer,
            self.chunk_bytes,
            new_names=True,
            with_md5=question.parameters.get("MD5Verification", "").lower() == "true",
            with_licence=False,
            with_annotations=question.parameters.get("IncludeAnnotation", "").lower() == "true",
            fault=fault_of(request.scope),
        )

    def _permitted(self, question: Question) -> Series:
        """Return the series asked for; raises Refusal with the sentence of its version."""
        uid = question.required("SeriesInstanceUID")
        series = self.holdings.find(uid, restricted=question.sees_restricted)
        if series is not None:
            return series
        if question.version == V4:
            raise Refusal(
                400,
                "The user has not been granted the access to image with given "
                f"SeriesInstanceUID,{uid}. Please contact System Admin...",
            )
        raise Refusal(400, f"Image with given SeriesInstanceUID,{uid}, is not in public domain.")

    def _get_single_image(self, request: Request, version: str) -> Response:
        question = self._question(request, version, ("SeriesInstanceUID", "SOPInstanceUID"))
        uid, sop_uid = map(question.required, ("SeriesInstanceUID", "SOPInstanceUID"))
        series = self.holdings.find(uid, restricted=question.sees_restricted)
        fault = fault_of(request.scope)
        lost_count = fault.images if fault is not None and fault.kind == "short" else 0
        images = [image for _, image in new_file_names(series.images())] if series else []
        for image in images[: max(0, len(images) - lost_count)]:
            if image.sop_uid == sop_uid:
                name = f'attachment; filename="{sop_uid}.dcm"'
                headers = {"Content-Disposition": name}
                return Response(_content(image), 200, headers, "application/dicom")
        raise Refusal(500, f"{NOT_PROCESSED}\nnull")

    def _get_md5(self, request: Request, version: str) -> Response:
        name = "SOPInstanceUID" if version == V4 else "SOPInstanceUid"
        question = self._question(request, version, (name,))
        sop_uid = question.required(name)
        series = self.holdings.series_of_image(sop_uid, restricted=question.sees_restricted)
        for image in series.images() if series else ():
            if image.sop_uid == sop_uid:
                return Response(_md5(image), media_type="text/plain")
        return Response(b"", media_type="text/plain")

    def _md5_hierarchy_route(self) -> Route:
        """Return v4/getMD5Hierarchy, a form: the MD5 of a series is that of its images' MD5s, sorted."""

        async def answer(request: Request) -> Response:
            form = dict(parse_qsl((await request.body()).decode()))
            series = self.holdings.find(
                form.get("SeriesInstanceUID", ""), restricted=self._sees_restricted(request, V4)
            )
            digests = sorted(_md5(image) for image in series.images()) if series else []
            text = md5("".join(digests).encode(), usedforsecurity=False).hexdigest() if series else ""
            return Response(text, media_type="text/plain")

        return Route(f"{SERVICES}/{V4}/getMD5Hierarchy", answer, methods=["POST"])

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        answer = self.logins.token(form)
        if answer is None:
            return JSONResponse({"error": "invalid_grant"}, 401)
        return JSONResponse(answer)

    async def _share_cart(self, request: Request) -> Response:
        wish = json.loads(await request.body())
        self.carts[str(wish["name"])] = tuple(map(str, wish["series"]))
        return Response(status_code=204)

    async def _expire(self, _: Request) -> Response:
        self.logins.expire()
        return Response(status_code=204)


@dataclass(frozen=True, slots=True)
class _Split:
    """Sends the control paths to one application and everything else to the other."""

    archive: ASGIApp
    control: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope["type"] == "http" and scope["path"].startswith("/_sample/")
        await (self.control if is_control else self.archive)(scope, receive, send)


def _is_yes(parameters: Mapping[str, str], name: str) -> bool:
    return parameters.get(name, "").lower() == "yes"


def _content(image: Image) -> bytes:
    return b"".join(image.pieces())


def _md5(image: Image) -> str:
    return md5(_content(image), usedforsecurity=False).hexdigest()


class Started(Protocol):
    """What `trio.Nursery.start` hands to a task that reports its URL."""

    def started(self, value: str, /) -> None:
        """Take the URL."""


async def serve(
    server: SampleServer,
    port: int = 0,
    *,
    task_status: Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on 127.0.0.1 until cancelled; `port` 0 takes a free one. The start value is the URL."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = KEEP_ALIVE_REQUESTS
    application: Any = server.application()  # hypercorn and starlette spell the ASGI types apart
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(
            partial(hypercorn.trio.serve, application, config, shutdown_trigger=trio.sleep_forever)
        )
        task_status.started(binds[0] + SERVICES)
