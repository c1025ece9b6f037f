"""The body of NBIA's getImage or getDCMImage -> members and checksums, as they arrive.

Drops the LICENSE, and of getImage all that is no image; reads md5hashes.csv. Defined here and only
here: how that ZIP is laid out. One reader belongs to one task; it never holds a whole image.
"""

import csv
import logging
import re
from collections.abc import AsyncIterator, Iterator

from tciafs.archives.nbia.names import ROUTE
from tciafs.archives.unzip import Event, Limits, MemberData, MemberEnd, MemberStart, Unzipper
from tciafs.errors import SeriesDamaged, UnreadableAnswer
from tciafs.model import Checksums, Delivery, Member, Series

__all__ = ["SeriesReader", "parse_checksums"]

log = logging.getLogger(__name__)

CHECKSUMS_NAME = "md5hashes.csv"
LICENCE_NAME = "LICENSE"
IMAGE_SUFFIX = ".dcm"

_IMAGE_NAME = re.compile(r"[0-9]+(?:-[0-9]+)?\.dcm", re.IGNORECASE)
"""What NBIA calls images, now and before 2020; annotations have the names that their authors gave them."""

_SIGNATURE = b"PK"
_HEXADECIMAL = frozenset("0123456789abcdef")
_BATCH_BYTES = 1 << 20
_MIN_CHECKSUMS_BYTES = 1 << 20
_CHECKSUM_ROW_BYTES = 512


def parse_checksums(text: str) -> Checksums:
    """Return the checksums in an md5hashes.csv: `Filename,MD5Hash`, quoted or not, any line end.

    Rows that are not a name and 32 hexadecimal digits (the header among them) are left out. Raises
    UnreadableAnswer where it is no CSV.
    """
    rows = csv.reader(text.removeprefix("\ufeff").splitlines())
    try:
        pairs = [(row[0].strip(), row[1].strip().lower()) for row in rows if len(row) == 2]
    except csv.Error as error:
        raise UnreadableAnswer(f"{CHECKSUMS_NAME} cannot be read: {error}") from error
    return Checksums(tuple((name, md5) for name, md5 in pairs if name and _is_md5(md5)))


def _is_md5(text: str) -> bool:
    return len(text) == 32 and _HEXADECIMAL.issuperset(text)


class SeriesReader:
    """Iterates over the deliveries of one series; `chunks` is the body of the answer.

    Names are those in the ZIP: the retriever's, unless the server is too old to know NewFileNames.
    With `gives_annotations`, as of getDCMImage, what is neither image nor LICENSE comes as an annotation.
    A member that is asked past without having been read is read and dropped. Raises
    UnreadableAnswer for anything but a complete, valid ZIP, SeriesDamaged for no body at all, and
    what `chunks` raises.
    """

    def __init__(
        self, chunks: AsyncIterator[bytes], series: Series, *, gives_annotations: bool = False
    ) -> None:
        self._source = _EventSource(chunks, series)
        self._series = series
        self._gives_annotations = gives_annotations
        self._member: _MemberChunks | None = None

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        if self._member is not None:
            await self._member.drop()
        while (start := await self._source.next_member()) is not None:
            self._member = _MemberChunks(self._source, start.name)
            if start.name == CHECKSUMS_NAME:
                return await self._checksums(self._member)
            if self._is_image(start.name):
                return Member(start.name, start.size_bytes, self._member, ROUTE)
            if self._gives_annotations and start.name != LICENCE_NAME:
                return Member(start.name, start.size_bytes, self._member, ROUTE, is_annotation=True)
            log.debug("%r in series %s is no image", start.name, self._series.series_uid)
            await self._member.drop()
        raise StopAsyncIteration

    def _is_image(self, name: str) -> bool:
        if self._gives_annotations:
            return _IMAGE_NAME.fullmatch(name) is not None
        return name.lower().endswith(IMAGE_SUFFIX)

    async def _checksums(self, chunks: "_MemberChunks") -> Checksums:
        limit = _MIN_CHECKSUMS_BYTES + _CHECKSUM_ROW_BYTES * (self._series.image_count or 0)
        text = bytearray()
        async for chunk in chunks:
            text += chunk
            if len(text) > limit:
                raise UnreadableAnswer(f"{CHECKSUMS_NAME} has more than {limit} bytes")
        return parse_checksums(text.decode(errors="replace"))


class _EventSource:
    """The events of the ZIP; `pending` are those that have arrived and nobody has taken yet."""

    def __init__(self, chunks: AsyncIterator[bytes], series: Series) -> None:
        self._chunks = chunks
        self._series_uid = series.series_uid
        self._unzipper = Unzipper(Limits.for_series(series.image_count, series.size_bytes))
        self._begun = False
        self._ended = False
        self.pending: Iterator[Event] = iter(())

    async def next_member(self) -> MemberStart | None:
        """Return the beginning of the next member, None at the end of a complete ZIP."""
        while not self._ended:
            for event in self.pending:
                if isinstance(event, MemberStart):
                    return event
            await self.refill()
        return None

    async def refill(self) -> None:
        """Wait for the next chunk, or find out that the ZIP is complete; `pending` is then new."""
        chunk = await anext(self._chunks, None) if self._begun else await self._first_chunk()
        if chunk is None:
            self._unzipper.close()
            self._ended = True
        else:
            self.pending = self._unzipper.feed(chunk)

    async def _first_chunk(self) -> bytes:
        """Return the beginning of the body, checked to be that of a ZIP."""
        self._begun = True
        head = b""
        async for chunk in self._chunks:
            head += chunk
            if len(head) >= len(_SIGNATURE):
                break
        if not head:
            raise SeriesDamaged(f"the archive sent an empty answer instead of series {self._series_uid}")
        if not head.startswith(_SIGNATURE):
            seen = "a web page" if head.lstrip().startswith(b"<") else "something that is no ZIP"
            raise UnreadableAnswer(f"the archive sent {seen} instead of series {self._series_uid}")
        return head


class _MemberChunks:
    """The bytes of one member; an iterator, not a generator, so that leaving early is harmless."""

    def __init__(self, source: _EventSource, name: str) -> None:
        self._source = source
        self._name = name
        self._ended = False
        self._dropped = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._dropped:
            raise RuntimeError(f"{self._name!r} was passed by: the next member has been asked for")
        while not self._ended:
            batch = self._batch()
            if batch:
                return batch
            if not self._ended:
                await self._source.refill()
        raise StopAsyncIteration

    async def drop(self) -> None:
        """Read what is left of the member, for its checks and to get at the next."""
        if self._ended:
            return
        async for _ in self:
            pass
        self._dropped = True

    def _batch(self) -> bytes:
        """Return what has arrived of the member, up to about a MiB; note where it ends."""
        pieces: list[bytes] = []
        room_bytes = _BATCH_BYTES
        for event in self._source.pending:
            if isinstance(event, MemberData):
                pieces.append(event.data)
                room_bytes -= len(event.data)
            self._ended = isinstance(event, MemberEnd)
            if self._ended or room_bytes <= 0:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
