"""Objects in public buckets, asked for as anybody may: S3's ListObjectsV2, and GET of a part or of all.

Plain HTTP without signatures, the bucket in the path. Defined here and only here: how S3 is asked and
answers. An ETag of 32 hexadecimal digits is the object's MD5: it is not where an object was uploaded in
parts, which has a dash, or encrypted with a key of its own, which anonymous readers cannot have (Amazon S3
API, Object).
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from urllib.parse import quote, unquote_plus

import msgspec

from tciafs.archives.http.asking import Span
from tciafs.archives.http.client import HttpClient
from tciafs.archives.http.errors import RequestRejected
from tciafs.archives.http.side_by_side import Wanted
from tciafs.archives.route import Route
from tciafs.errors import UnreadableAnswer

__all__ = ["Buckets", "StoredObject"]

MOST_OBJECTS = 1_000_000
_MD5 = re.compile("[0-9a-f]{32}")


class StoredObject(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An object as a listing has it; `etag` is without its quotes."""

    key: str
    size_bytes: int
    etag: str

    @property
    def md5(self) -> str | None:
        """The MD5 of its bytes, None where the ETag is none."""
        return self.etag if _MD5.fullmatch(self.etag) else None


class Buckets:
    """The buckets of one server. Methods raise what those of `model.Archive` raise.

    `route` is told whether the server answers; whoever asks decides what follows from that.
    """

    def __init__(self, http: HttpClient, route: Route) -> None:
        self._http = http
        self._route = route

    async def first(self, bucket: str, prefix: str) -> StoredObject | None:
        """Return the object with the least key below a prefix, None where there is none."""
        page = await self._page(bucket, {"prefix": prefix, "max-keys": "1"})
        return page.objects[0] if page.objects else None

    async def objects(self, bucket: str, prefix: str) -> list[StoredObject]:
        """Return all objects below a prefix, in the order of their keys, with retries."""
        found: list[StoredObject] = []
        following: str | None = ""
        while following is not None:
            page = await self._page(bucket, {"prefix": prefix, **_continued(following)})
            found += page.objects
            if len(found) > MOST_OBJECTS or (page.following == following and following):
                raise UnreadableAnswer(f"the listing of {bucket} has no end")
            following = page.following
        return found

    async def part(
        self, bucket: str, each: StoredObject, size_bytes: int | None = None, first: int = 0
    ) -> bytes:
        """Return bytes of an object from `first` on, or all up to its end, with retries.

        For what may be held in memory. Raises SeriesDamaged where it is another object by now.
        """
        span = _span(each, first, size_bytes)
        with self._route.used(), _gone_for_good():
            return await self._http.fetch(_address(bucket, each), {}, _Bytes, span=span)

    def beginnings(
        self, bucket: str, objects: Sequence[StoredObject], size_bytes: int, *, most: int
    ) -> AbstractAsyncContextManager[AsyncIterator[AsyncIterator[bytes]]]:
        """Yield the chunks of the beginning of each object, in order, `most` at once.

        As many bytes as the object has, but `size_bytes` at most. Raises as `part`, where they are read.
        """
        return self._many(
            [
                Wanted(_address(bucket, each), _span(each, 0, size_bytes), min(each.size_bytes, size_bytes))
                for each in objects
            ],
            most,
        )

    def rests(
        self, bucket: str, rests: Sequence[tuple[StoredObject, int]], *, most: int
    ) -> AbstractAsyncContextManager[AsyncIterator[AsyncIterator[bytes]]]:
        """Yield the chunks of each object from a byte on up to its end, as `beginnings` does."""
        return self._many(
            [
                Wanted(_address(bucket, each), _span(each, first), each.size_bytes - first)
                for each, first in rests
            ],
            most,
        )

    def _many(
        self, wanted: Sequence[Wanted], most: int
    ) -> AbstractAsyncContextManager[AsyncIterator[AsyncIterator[bytes]]]:

        async def careful(each: Wanted, span: Span) -> bytes:
            with self._route.used(), _gone_for_good():
                return await self._http.fetch(each.path, {}, _Bytes, span=span)

        return self._http.fetch_each(wanted, careful, most=most)

    @asynccontextmanager
    async def stream(
        self, bucket: str, each: StoredObject, first: int = 0
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Fetch an object of any size from a byte on, without retries.

        One that breaks off says nothing of the server, which has answered.
        """
        span = _span(each, first) if first else None
        async with AsyncExitStack() as stack:
            with self._route.used(), _gone_for_good():
                answer = self._http.stream(_address(bucket, each), {}, span)
                chunks = await stack.enter_async_context(answer)
            yield chunks

    async def _page(self, bucket: str, query: dict[str, str]) -> "_Page":
        asked = {"list-type": "2", "encoding-type": "url", **query}
        with self._route.used(), _gone_for_good():
            return await self._http.fetch(quote(bucket), asked, _PageReader)


def _continued(token: str) -> dict[str, str]:
    return {"continuation-token": token} if token else {}


def _address(bucket: str, each: StoredObject) -> str:
    return f"{quote(bucket)}/{quote(each.key)}"


def _span(each: StoredObject, first: int, size_bytes: int | None = None) -> Span:
    return Span(first, size_bytes, each.etag or None)


@contextmanager
def _gone_for_good() -> Iterator[None]:
    """Say of what was refused that it cannot be read: what was listed and is gone, is gone for good."""
    try:
        yield
    except RequestRejected as rejected:
        raise UnreadableAnswer(str(rejected)) from rejected


class _Page(msgspec.Struct):
    objects: list[StoredObject]
    following: str | None


class _PageReader:
    """Reads a ListBucketResult."""

    def __init__(self) -> None:
        self._elements = _Elements()
        self._parser = ET.XMLParser(target=self._elements)

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        try:
            self._parser.feed(piece)
        except ET.ParseError as error:
            raise UnreadableAnswer(f"it is no XML: {error}") from error

    def finish(self) -> _Page:
        """Return what was listed, and where it goes on."""
        try:
            self._parser.close()
        except ET.ParseError as error:
            raise UnreadableAnswer(f"it is no XML: {error}") from error
        found = self._elements
        if found.root != "ListBucketResult":
            raise UnreadableAnswer(f"it is {found.root or 'nothing'} and not ListBucketResult")
        if found.is_cut and not found.following:
            raise UnreadableAnswer("it breaks off and does not say where it goes on")
        return _Page(found.objects, found.following if found.is_cut else None)


class _Elements:
    """Takes the elements of a listing one by one; see xml.etree.ElementTree.TreeBuilder."""

    def __init__(self) -> None:
        self.objects: list[StoredObject] = []
        self.following = ""
        self.is_cut = False
        self.root = ""
        self._text: list[str] = []
        self._told: dict[str, str] = {}

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        self.root = self.root or _local(tag)
        self._text = []

    def data(self, text: str) -> None:
        self._text.append(text)

    def end(self, tag: str) -> None:
        name, text = _local(tag), "".join(self._text)
        self._text = []
        if name == "Contents":
            self.objects.append(_object(self._told))
            self._told = {}
        elif name in ("Key", "Size", "ETag"):
            self._told[name] = text
        elif name == "NextContinuationToken":
            self.following = text
        elif name == "IsTruncated":
            self.is_cut = text.strip().lower() == "true"

    def close(self) -> None:
        pass


def _local(tag: str) -> str:
    """Return the name of an element without its namespace, which servers spell in more ways than one."""
    return tag.rpartition("}")[2]


def _object(told: Mapping[str, str]) -> StoredObject:
    try:
        # As `encoding-type=url` has it, which is asked for since XML cannot hold all keys.
        key, size_bytes = unquote_plus(told["Key"], errors="strict"), int(told["Size"])
    except (KeyError, ValueError) as error:
        raise UnreadableAnswer(f"an object has no {error}") from error
    if size_bytes < 0:
        raise UnreadableAnswer(f"an object has {size_bytes} bytes")
    return StoredObject(key, size_bytes, told.get("ETag", "").strip('"').lower())


class _Bytes:
    """Reads a body as it is."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._pieces.append(piece)

    def finish(self) -> bytes:
        """Return all of them."""
        return b"".join(self._pieces)
