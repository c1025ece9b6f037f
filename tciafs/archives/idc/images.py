"""The images of a series in IDC's buckets: which objects they are, in which order, and their bytes.

The bucket's listing has sizes and MD5s, but names that say nothing; what orders images lies in the first
kilobytes of each object, which are asked for by range, many at once, and remembered for ever. Names are those
that NBIA gives where its rule decides, and else those of `naming`: of images that share an instance number
NBIA's depend on an order in its database that nobody else knows. Defined here and only here: that, and what
is checked of a series.
"""

import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from operator import itemgetter

import trio

from tciafs.archives.idc.memory import IdcMemory, KnownImage
from tciafs.archives.idc.parallel import all_of, opened_ahead
from tciafs.archives.idc.s3 import Buckets, StoredObject
from tciafs.archives.idc.table import IndexedSeries
from tciafs.archives.nbia.names import retriever_names
from tciafs.errors import SeriesDamaged, UnreadableAnswer
from tciafs.headers import Beginning, beginning_in, sop_instance_uid_in
from tciafs.model import Checksums, Delivery, ImageKey, ListedImage, Member
from tciafs.naming import image_names

__all__ = ["IdcImages", "names_of", "vouching"]

HEADER_BYTES = (4 << 10, 32 << 10, 256 << 10)
"""How much of an object is asked for until its header is there; then all. The numbers lie within 4 kB mostly.
"""

ROUTE = "idc"
"""What `Member.route` calls it."""

HEADERS_AT_ONCE = 24
OBJECTS_AT_ONCE = 16
STREAMS_AT_ONCE = 12
IN_ONE_PIECE_BYTES = 4 << 20
"""What is smaller is asked for as a whole, and again where that fails; a larger one comes in a stream."""


REMEMBERED_IMAGES = 100_000
"""Series are kept resolved of which parts are asked for, as many as have so many images, and the last one."""


NOTHING_HELD: Mapping[str, int] = {}

_Rest = tuple[StoredObject, int]
"""An object from a byte on."""


def _ignore(_size_bytes: int) -> None:
    pass


class IdcImages:
    """The images of series, from buckets; what headers say is kept in `memory`."""

    def __init__(self, buckets: Buckets, memory: IdcMemory) -> None:
        self._buckets = buckets
        self._memory = memory
        self._latest: tuple[str, Mapping[str, KnownImage]] = ("", {})
        self._by_name: OrderedDict[str, Mapping[str, KnownImage]] = OrderedDict()

    async def study_id(self, series: IndexedSeries) -> str | None:
        """Return the StudyID in the header of the first object of a series; None: there is none."""
        first = await self._buckets.first(series.bucket, f"{series.uuid}/")
        return None if first is None else (await self._beginning(series, first)).study_id

    async def known(
        self, series: IndexedSeries, received: Callable[[int], None] = _ignore
    ) -> Sequence[KnownImage]:
        """Return the images of a series in the order of their names, checked against the index.

        `received` is told of what is read of them for that. Raises SeriesDamaged where they are not what the
        index says.
        """
        return tuple((await self._by_uid(series, received)).values())

    def learnt(self, series: IndexedSeries) -> Sequence[KnownImage] | None:
        """Return the same without the network; None: their headers were never read."""
        images = self._learnt_by_uid(series)
        return None if images is None else tuple(images.values())

    def names_learnt(self, series: IndexedSeries) -> Mapping[str, str] | None:
        """Return the names of the images by SOP Instance UID; None: their headers were never read."""
        images = self.learnt(series)
        if images is None:
            return None
        return {image.sop_instance_uid: name for name, image in _with_names(images)}

    async def _by_uid(
        self, series: IndexedSeries, received: Callable[[int], None] = _ignore
    ) -> Mapping[str, KnownImage]:
        """Return the images by SOP Instance UID."""
        images = self._learnt_by_uid(series)
        return self._as_latest(series, await self._learn(series, received)) if images is None else images

    def _learnt_by_uid(self, series: IndexedSeries) -> Mapping[str, KnownImage] | None:
        """Return the images by SOP Instance UID, of the series asked for last without reading them again.

        Its images may be fetched one by one, and there are 91,980 of them in one series.
        """
        uuid, images = self._latest
        if uuid == series.uuid:
            return images
        known = self._memory.images(series.uuid)
        return self._as_latest(series, known) if known else None

    def _as_latest(self, series: IndexedSeries, known: Sequence[KnownImage]) -> Mapping[str, KnownImage]:
        images = {each.sop_instance_uid: each for each in known}
        self._latest = series.uuid, images
        return images

    async def _learn(self, series: IndexedSeries, received: Callable[[int], None]) -> Sequence[KnownImage]:
        objects = await self._buckets.objects(series.bucket, f"{series.uuid}/")
        if not objects or series.image_count not in (None, len(objects)):
            raise SeriesDamaged(
                f"series {series.series_uid} has {len(objects)} of {series.image_count} images in its bucket"
            )
        headers = await self._beginnings(series, objects, received)
        images = [_known(series, *pair) for pair in zip(objects, headers, strict=True)]
        if len({image.sop_instance_uid for image in images}) < len(images):
            raise SeriesDamaged(f"two images of series {series.series_uid} have one SOP Instance UID")
        images = [image for _name, image in sorted(_with_names(images), key=itemgetter(0))]
        self._memory.keep_images(series.uuid, images)
        return images

    @staticmethod
    def named(images: Sequence[KnownImage]) -> list[ListedImage]:
        """Return all images of a series, in order, with their names."""
        return [ListedImage(name, each.stored.size_bytes) for name, each in _with_names(images)]

    @asynccontextmanager
    async def deliveries(
        self, series: IndexedSeries, held: Mapping[str, int] = NOTHING_HELD
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Fetch the images of a series side by side, to be read one after the other, by their names.

        Of those that are `held` come the bytes behind so many.
        """
        named = _with_names(await self.known(series))
        beginnings = [(each, held.get(name, 0)) for name, each in named]
        rests = [(each.stored, first if first <= each.stored.size_bytes else 0) for each, first in beginnings]
        async with self._bodies(series, rests) as bodies:
            yield _Deliveries(named, [first for _, first in rests], bodies)

    def _bodies(
        self, series: IndexedSeries, rests: Sequence[_Rest]
    ) -> AbstractAsyncContextManager[AsyncIterator[AsyncIterator[bytes]]]:
        if all(stored.size_bytes <= IN_ONE_PIECE_BYTES for stored, _ in rests):
            return self._buckets.rests(series.bucket, rests, most=OBJECTS_AT_ONCE)
        return opened_ahead(rests, partial(self._opened, series), most=STREAMS_AT_ONCE)

    @asynccontextmanager
    async def one(self, series: IndexedSeries, sop_instance_uid: str) -> AsyncIterator[Member]:
        """Fetch one image. Raises UnreadableAnswer where the series has no such image."""
        image = (await self._by_uid(series)).get(sop_instance_uid)
        if image is None:
            raise UnreadableAnswer(f"series {series.series_uid} has no image {sop_instance_uid}")
        async with self._opened(series, (image.stored, 0)) as chunks:
            yield Member(None, image.stored.size_bytes, chunks, ROUTE)

    async def part(self, series: IndexedSeries, listed: ListedImage, first: int, size_bytes: int) -> bytes:
        """Return bytes of an image from `first` on; of the first ones the SOP Instance UID is checked.

        Raises SeriesDamaged where they are not of the image that was listed.
        """
        image = (await self._named_images(series)).get(listed.name)
        if image is None or image.stored.size_bytes != listed.size_bytes:
            raise SeriesDamaged(f"series {series.series_uid} has no such image as {listed.name} any more")
        data = await self._buckets.part(series.bucket, image.stored, size_bytes, first)
        if len(data) != size_bytes:
            raise UnreadableAnswer(f"of {listed.name} {len(data)} bytes came, and not {size_bytes}")
        if first == 0 and not _may_be(image, data):
            raise SeriesDamaged(f"{listed.name} of series {series.series_uid} is no such DICOM image")
        return data

    async def _named_images(self, series: IndexedSeries) -> Mapping[str, KnownImage]:
        """Return the images of a series by name.

        They are looked up in a thread: of the longest series that takes a good part of a second.
        """
        if series.uuid not in self._by_name:
            known = await trio.to_thread.run_sync(self._memory.images, series.uuid)
            images = known or await self._learn(series, _ignore)
            self._by_name[series.uuid] = dict(await trio.to_thread.run_sync(_with_names, images))
        self._by_name.move_to_end(series.uuid)
        while len(self._by_name) > 1 and sum(map(len, self._by_name.values())) > REMEMBERED_IMAGES:
            self._by_name.popitem(last=False)
        return self._by_name[series.uuid]

    @asynccontextmanager
    async def _opened(self, series: IndexedSeries, rest: _Rest) -> AsyncIterator[AsyncIterator[bytes]]:
        stored, first = rest
        left_bytes = stored.size_bytes - first
        if left_bytes <= IN_ONE_PIECE_BYTES:
            data = await self._buckets.part(series.bucket, stored, first=first) if left_bytes else b""
            yield _Sized(left_bytes, _Once(data))
            return
        async with self._buckets.stream(series.bucket, stored, first) as chunks:
            yield _Sized(left_bytes, chunks)

    async def _beginnings(
        self, series: IndexedSeries, objects: Sequence[StoredObject], received: Callable[[int], None]
    ) -> Sequence[Beginning]:
        """Return what the headers of many objects say, most of them from their first bytes."""
        found: dict[str, Beginning] = {}
        first_bytes, *more_bytes = HEADER_BYTES
        headers = self._buckets.beginnings(series.bucket, objects, first_bytes, most=HEADERS_AT_ONCE)
        async with headers as bodies:
            for stored in objects:
                header = b"".join([chunk async for chunk in await anext(bodies)])
                received(len(header))
                is_whole = len(header) == stored.size_bytes
                if (beginning := beginning_in(header, is_whole=is_whole)) is not None:
                    found[stored.key] = beginning
        others = [each for each in objects if each.key not in found]
        work = partial(self._beginning, series, received=received, sizes_bytes=more_bytes)
        for stored, beginning in zip(others, await all_of(others, work, most=HEADERS_AT_ONCE), strict=True):
            found[stored.key] = beginning
        return [found[each.key] for each in objects]

    async def _beginning(
        self,
        series: IndexedSeries,
        stored: StoredObject,
        received: Callable[[int], None] = _ignore,
        sizes_bytes: Sequence[int] = HEADER_BYTES,
    ) -> Beginning:
        for size_bytes in sizes_bytes:
            if size_bytes >= stored.size_bytes:
                break
            header = await self._buckets.part(series.bucket, stored, size_bytes)
            received(len(header))
            if (found := beginning_in(header, is_whole=False)) is not None:
                return found
        # The deflated transfer syntax, or a header with very much in it.
        whole = await self._buckets.part(series.bucket, stored)
        received(len(whole))
        found = beginning_in(whole, is_whole=True)
        assert found is not None
        return found


def key_of(image: KnownImage) -> ImageKey:
    """Return what orders an image."""
    return ImageKey(image.acquisition_number, image.instance_number, image.sop_instance_uid)


def names_of(keys: Sequence[ImageKey]) -> Sequence[str]:
    """Return the names of all images of a series: NBIA's where its rule decides."""
    return retriever_names(keys) or image_names(keys)


def _with_names(images: Sequence[KnownImage]) -> list[tuple[str, KnownImage]]:
    return list(zip(names_of(list(map(key_of, images))), images, strict=True))


def vouching(images: Sequence[KnownImage]) -> Callable[[Sequence[str]], bool] | None:
    """Return what says whether images with these MD5s are a series'; None where the bucket has no MD5s."""
    told = [image.stored.md5 for image in images]
    if None in told:
        return None
    expected = sorted(md5 for md5 in told if md5 is not None)
    return lambda md5s: sorted(md5s) == expected


def _known(series: IndexedSeries, stored: StoredObject, header: Beginning) -> KnownImage:
    """Return an image whose header says that it is of this series. Raises SeriesDamaged where it is not."""
    if not header.sop_instance_uid or header.series_uid != series.series_uid:
        raise SeriesDamaged(f"an object of series {series.series_uid} is no image of it")
    return KnownImage(stored, header.sop_instance_uid, header.acquisition_number, header.instance_number)


def _may_be(image: KnownImage, beginning: bytes) -> bool:
    """Return whether an object that begins so is that image, as far as its beginning tells."""
    try:
        return sop_instance_uid_in(beginning) == image.sop_instance_uid
    except zlib.error:  # the deflated transfer syntax, of which a part says nothing
        return True


class _Deliveries(AsyncIterator[Delivery]):
    """The checksums of a series, where the bucket has them, then its images."""

    def __init__(
        self,
        named: Sequence[tuple[str, KnownImage]],
        firsts: Sequence[int],
        bodies: AsyncIterator[AsyncIterator[bytes]],
    ) -> None:
        self._firsts = iter(firsts)
        self._named = iter(named)
        self._bodies = bodies
        pairs = tuple((name, image.stored.md5) for name, image in named if image.stored.md5 is not None)
        self._checksums = Checksums(pairs) if len(pairs) == len(named) else None

    async def __anext__(self) -> Delivery:
        checksums, self._checksums = self._checksums, None
        if checksums is not None:
            return checksums
        name, image = next(self._named, (None, None))
        if name is None or image is None:
            raise StopAsyncIteration
        chunks = await anext(self._bodies)
        return Member(name, image.stored.size_bytes, chunks, ROUTE, first=next(self._firsts))


class _Sized(AsyncIterator[bytes]):
    """The chunks of an object; raises UnreadableAnswer where they are not as many bytes as are left of what
    it was listed with.
    """

    def __init__(self, left_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        self._left_bytes = left_bytes
        self._chunks = chunks

    async def __anext__(self) -> bytes:
        with suppress(StopAsyncIteration):
            chunk = await anext(self._chunks)
            self._left_bytes -= len(chunk)
            if self._left_bytes >= 0:
                return chunk
        if self._left_bytes:
            raise UnreadableAnswer("an object has another size than its bucket lists")
        raise StopAsyncIteration


class _Once(AsyncIterator[bytes]):
    """One chunk; an iterator and no generator, so that leaving early is harmless."""

    def __init__(self, chunk: bytes) -> None:
        self._chunks = iter((chunk,))

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration
