"""The image download: a ZIP made while it is sent, in chunks as Tomcat sends them.

Defined here and only here: the order of members (LICENSE, images, annotations, md5hashes.csv), holding at a
pace, ending when the client has gone. What is kept compressed is sent so; of all else a piece is in memory.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import trio
from starlette.types import Receive, Scope, Send

from tciafs.sample.control import Pacer
from tciafs.sample.faults import Fault, until_disconnect
from tciafs.sample.names import new_file_names, plain_names
from tciafs.sample.records import Annotation, Image, Series
from tciafs.sample.zips import ZipStream

__all__ = ["ImageZip"]

POLICY = (
    "These data are computed phantoms, served by the sample archive of this program.\n"
    "Data from a real archive come with its data usage policy in this place.\n"
)


@dataclass(frozen=True, slots=True)
class ImageZip:
    """The answer to getImage or getDCMImage: an ASGI application that streams one series, chunked."""

    series: Series
    pacer: Pacer
    chunk_bytes: int
    new_names: bool
    with_md5: bool
    with_licence: bool = True
    with_annotations: bool = False
    fault: Fault | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the ZIP; stop where the client goes away."""
        file_name = f"{self.series.uid}.zip"
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-disposition", f'attachment; filename="{file_name}"'.encode()),
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send_members(_Chunks(send, self.chunk_bytes))
            nursery.cancel_scope.cancel()

    async def _send_members(self, out: "_Chunks") -> None:
        archive = ZipStream(dt.datetime.now())
        hashes: list[tuple[str, str]] = []
        if self.with_licence:
            await out.write(archive.member("LICENSE", [_licence(self.series).encode()]))
        for place, (name, image) in enumerate(self._images(), start=1):
            if not self.pacer.lets_pass(self.series.uid, place):
                await out.flush()
                await self.pacer.until_passes(self.series.uid, place)
            await out.write(_packed(archive, name, image, hashes))
        for annotation in self._annotations():
            await out.write(archive.member(annotation.name, [annotation.content]))
        if self.with_md5 and not self._is_short:
            await out.write(archive.member("md5hashes.csv", [self._md5_table(hashes)]))
        await out.write(archive.end())
        await out.end()

    @property
    def _is_short(self) -> bool:
        """Whether a file is missing: NBIA then ends there, without checksums or complaint."""
        return self.fault is not None and self.fault.kind in ("short", "short_annotations")

    def _images(self) -> Sequence[tuple[str, Image]]:
        images = self.series.images()
        named = new_file_names(images) if self.new_names else plain_names(images)
        if self.fault is not None and self.fault.kind == "short":
            return named[: max(0, len(named) - self.fault.images)]
        return named

    def _annotations(self) -> Sequence[Annotation]:
        """Return the annotations that are sent; none behind an image that is missing."""
        kind = "" if self.fault is None else self.fault.kind
        if not self.with_annotations or kind == "short":
            return ()
        annotations = self.series.annotations
        if self.fault is None or not annotations:
            return annotations
        last = annotations[-1]
        match kind:
            case "short_annotations":
                return annotations[: -self.fault.images]
            case "cut_annotation":
                return (*annotations[:-1], replace(last, content=last.content[: len(last.content) // 2]))
            case "annotation_name":
                return (*annotations[:-1], replace(last, name=self.fault.name))
            case _:
                return annotations

    def _md5_table(self, hashes: list[tuple[str, str]]) -> bytes:
        """Return the checksums, in an order as useless as a hash map's."""
        if self.fault is not None and self.fault.kind == "wrong_md5":
            hashes[0] = (hashes[0][0], hashes[0][1][::-1].translate(str.maketrans("0123", "1230")))
        mixed = sorted(hashes, key=lambda pair: pair[0][::-1])
        lines = [f"{name},{md5}\n" for name, md5 in mixed]
        return "".join(["Filename,MD5Hash\n", *lines]).encode()


def _packed(archive: ZipStream, name: str, image: Image, hashes: list[tuple[str, str]]) -> Iterator[bytes]:
    """Yield one image as a member, and note its checksum when it has passed."""
    if image.deflated is not None:
        ready = image.deflated()
        yield from archive.ready_member(name, ready)
        hashes.append((name, ready.md5_hex))
        return
    digest = hashlib.md5(usedforsecurity=False)

    def passing() -> Iterator[bytes]:
        for piece in image.pieces():
            digest.update(piece)
            yield piece

    yield from archive.member(name, passing())
    hashes.append((name, digest.hexdigest()))


def _licence(series: Series) -> str:
    licence = series.licence
    return f"{series.collection}\n\nLicence: {licence.name} ({licence.short_name})\n{licence.uri}\n\n{POLICY}"


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    await until_disconnect(receive)
    scope.cancel()


class _Chunks:
    """Collects small pieces and sends chunks of one size."""

    def __init__(self, send: Send, chunk_bytes: int) -> None:
        self._send = send
        self._chunk_bytes = chunk_bytes
        self._waiting = bytearray()

    async def write(self, pieces: Iterable[bytes]) -> None:
        """Send all whole chunks there are with `pieces`; keep the rest."""
        for piece in pieces:
            self._waiting += piece
            sent = 0
            while len(self._waiting) - sent >= self._chunk_bytes:
                await self._send_chunk(bytes(self._waiting[sent : sent + self._chunk_bytes]))
                sent += self._chunk_bytes
            del self._waiting[:sent]

    async def flush(self) -> None:
        """Send what is left over."""
        if self._waiting:
            await self._send_chunk(bytes(self._waiting))
            self._waiting.clear()

    async def end(self) -> None:
        """Send what is left over and end the answer."""
        await self.flush()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_chunk(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
