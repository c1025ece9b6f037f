"""The images of a series by either way: from the IDC's buckets, or from NBIA where these are away or lack it.

What the IDC's index has is called the same whichever way it comes. Images from NBIA take the names that
their headers mean in the IDC; of a series whose headers were never read there they come without names, and
get them when all are there. Defined here and only here: that, and which way is tried first.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from tciafs.archives.idc.archive import IdcArchive
from tciafs.archives.nbia.archive import NbiaArchive
from tciafs.archives.route import Route
from tciafs.errors import TciafsError, Unreachable, UnreadableAnswer
from tciafs.headers import Beginning, beginning_in
from tciafs.model import Checksums, Delivery, ImageKey, ListedImage, Member, Series

__all__ = ["EitherImages"]

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST_FAILED = 1000
MOST_LISTED = 10_000


class EitherImages:
    """Images, one by one or as series; see `model.Archive`, `model.SingleImages` and `model.Layouts`.

    `server` knows whether that of NBIA is away.
    """

    def __init__(self, idc: IdcArchive, nbia: NbiaArchive, server: Route) -> None:
        self._idc = idc
        self._nbia = nbia
        self._server = server
        self._listed: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._failed: OrderedDict[str, None] = OrderedDict()  # series that broke off on the IDC's way

    @asynccontextmanager
    async def images_behind(
        self, series: Series, held: Mapping[str, int]
    ) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Fetch the images of a series; see `model.Ranges.images_behind`. NBIA leaves nothing out.

        A way that breaks off in the middle is Unreachable, and the next time the other one is tried first.
        """
        async with AsyncExitStack() as stack:
            if not self._is_idcs(series):
                yield await stack.enter_async_context(self._nbia.images(series))
                return

            async def from_idc() -> AsyncIterator[Delivery]:
                async with AsyncExitStack() as way:
                    deliveries = await _begun(
                        await way.enter_async_context(self._idc.images_behind(series, held))
                    )
                    stack.push_async_exit(way.pop_all())
                return _Watched(deliveries, lambda: self._note_broken(series))

            async def from_nbia() -> AsyncIterator[Delivery]:
                deliveries = await stack.enter_async_context(self._nbia.images(series))
                return _Renamed(deliveries, self._idc.names_learnt(series))

            yield await self._by_either(series, from_idc, from_nbia)

    def deliveries(self, series: Series) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch the images of a series; see `model.Archive.images`."""
        return self.images_behind(series, {})

    @asynccontextmanager
    async def annotated(self, series: Series) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Fetch a series and its annotations from NBIA, the images under the names of the IDC."""
        self._server.require()
        if is_ours := self._is_idcs(series):
            await self._learn_names(series)
        async with AsyncExitStack() as stack:
            with self._server.asked():
                deliveries = await stack.enter_async_context(self._nbia.annotations.images(series))
            yield _Renamed(deliveries, self._idc.names_learnt(series)) if is_ours else deliveries

    async def _learn_names(self, series: Series) -> None:
        """Have the IDC tell the names of images, unless it cannot: then they get theirs at the end."""
        if self._idc.names_learnt(series) is not None:
            return
        try:
            await self._idc.layout(series)
        except TciafsError as error:
            log.info("the images of series %s cannot be named yet: %s", series.series_uid, error)

    # -- one by one -------------------------------------------------------------------------------

    @property
    def deflates_whole_series(self) -> bool:
        """Whether a whole series comes from NBIA for now."""
        return self._idc.route.is_away

    async def image_uids(self, series: Series) -> Sequence[str]:
        """Return the SOP Instance UIDs of a series."""
        return await self._asked(series, self._idc.image_uids, self._nbia.single_images.image_uids)

    async def check_of(self, series: Series) -> Callable[[Sequence[str]], bool] | None:
        """Return what says whether images with these MD5s are those of a series; None: nobody can."""
        return await self._asked(series, self._idc.check_of, self._nbia.single_images.check_of)

    def names(self, images: Sequence[ImageKey]) -> Sequence[str] | None:
        """Return what all images of a series are called, None where that depends on the way they come."""
        return self._nbia.single_images.names(images)

    @asynccontextmanager
    async def image(self, series: Series, sop_instance_uid: str) -> AsyncIterator[Member]:
        """Fetch one image."""
        async with AsyncExitStack() as stack:

            def by(way: Callable[[Series, str], AbstractAsyncContextManager[Member]]) -> "_Way[Member]":
                return lambda: stack.enter_async_context(way(series, sop_instance_uid))

            theirs = by(self._nbia.single_images.image)
            if not self._is_idcs(series):
                yield await theirs()
            else:
                yield await self._by_either(series, by(self._idc.image), theirs)

    # -- in advance -------------------------------------------------------------------------------

    def can_name(self, series: Series) -> bool:
        """Return whether the IDC has the series, all of it, and its buckets are not known to be away."""
        return not (self._idc.route.is_away or series.has_annotations) and self._is_idcs(series)

    async def layout(
        self, series: Series, received: Callable[[int], None] = lambda size_bytes: None
    ) -> Sequence[ListedImage] | None:
        """Return names and sizes of the images, None where the IDC cannot give them now."""
        if not self.can_name(series):
            return None
        try:
            return await self._idc.layout(series, received)
        except TciafsError as error:
            log.info("the images of series %s cannot be named in advance: %s", series.series_uid, error)
            return None

    # -- either way -------------------------------------------------------------------------------

    def gives(self, series: Series) -> bool:
        """Return whether the IDC has the series, all of it, is not away, and has not failed with it."""
        return self.can_name(series) and series.series_uid not in self._failed

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        """Return a part of an image from the IDC; where that fails, the series is to be had from NBIA.

        Who has an image open has no other way, so this one is tried in any case.
        """
        try:
            return await self._idc.part_tried(series, image, first, size_bytes)
        except TciafsError:
            self._note_broken(series)
            raise

    async def _asked(
        self,
        series: Series,
        ours: Callable[[Series], Awaitable[T]],
        theirs: Callable[[Series], Awaitable[T]],
    ) -> T:
        if not self._is_idcs(series):
            return await theirs(series)
        if self._idc.names_learnt(series) is not None:
            return await ours(series)  # from memory
        return await self._by_either(series, lambda: ours(series), lambda: theirs(series))

    async def _by_either(self, series: Series, ours: "_Way[T]", theirs: "_Way[T]") -> T:
        """Return what one way gives, the IDC's if it may. Raises what says of both why they do not."""

        async def watched() -> T:  # the IDC sees for itself whether its buckets answer
            with self._server.used():
                return await theirs()

        ways = [(self._idc.route, ours), (self._server, watched)]
        if self._idc.route.is_away or series.series_uid in self._failed:
            ways.reverse()
        failures: list[TciafsError] = []
        for route, way in ways:
            try:
                return await way()
            except TciafsError as error:
                log.info("series %s does not come from %s: %s", series.series_uid, route.name, error)
                failures.append(error)
        said = "; ".join(map(str, failures))
        if any(error.retryable for error in failures):
            raise Unreachable(said)
        raise type(failures[-1])(said) from failures[0]

    def _is_idcs(self, series: Series) -> bool:
        """Return whether the IDC has a series as it was listed, and not as a version that NBIA has."""
        asked = series.series_uid, series.version
        if asked not in self._listed:
            self._listed[asked] = self._idc.lists(series)
            while len(self._listed) > MOST_LISTED:
                self._listed.popitem(last=False)
        return self._listed[asked]

    def _note_broken(self, series: Series) -> None:
        self._failed[series.series_uid] = None
        while len(self._failed) > MOST_FAILED:
            self._failed.popitem(last=False)


_Way = Callable[[], Awaitable[T]]


async def _begun(deliveries: AsyncIterator[Delivery]) -> AsyncIterator[Delivery]:
    """Return deliveries once the first image has begun to come. Raises what keeps it from that."""
    looked_at: list[Delivery] = []
    async for each in deliveries:
        if isinstance(each, Member):
            chunks = _Ahead(each.chunks)
            await chunks.look()
            looked_at.append(replace(each, chunks=chunks))
            break
        looked_at.append(each)
    return _Behind(looked_at, deliveries)


class _Behind(AsyncIterator[T]):
    """What was looked at already, then the rest."""

    def __init__(self, looked_at: list[T], source: AsyncIterator[T]) -> None:
        self._looked_at = looked_at
        self._source = source

    async def __anext__(self) -> T:
        return self._looked_at.pop(0) if self._looked_at else await anext(self._source)


class _Watched(AsyncIterator[T]):
    """Passes on what comes, tells of a failure, and has it be one that another try may not meet."""

    def __init__(self, source: AsyncIterator[T], tell: Callable[[], None]) -> None:
        self._source = source
        self._tell = tell

    async def __anext__(self) -> T:
        try:
            each = await anext(self._source)
        except TciafsError as error:
            self._tell()
            raise Unreachable(str(error)) from None
        if isinstance(each, Member):
            return replace(each, chunks=_Watched(each.chunks, self._tell))
        return each


class _Renamed(AsyncIterator[Delivery]):
    """Deliveries of NBIA under the names of the IDC, by SOP Instance UID; None: without names.

    Annotations keep theirs.
    Raises UnreadableAnswer for an image that the IDC does not have.
    """

    def __init__(self, source: AsyncIterator[Delivery], names: Mapping[str, str] | None) -> None:
        self._source = source
        self._names = names
        self._renamed: dict[str, str] = {}

    async def __anext__(self) -> Delivery:
        async for delivery in self._source:
            if isinstance(delivery, Member):
                return await self._member(delivery)
            told = delivery.md5_by_name
            if self._renamed.keys() >= {name for name, _ in told} or self._names is None:
                pairs = ((self._renamed[name], md5) for name, md5 in told if name in self._renamed)
                return Checksums(tuple(pairs))
        raise StopAsyncIteration

    async def _member(self, member: Member) -> Member:
        if member.is_annotation:
            self._renamed[member.name or ""] = member.name or ""
            return member
        if self._names is None:
            return replace(member, name=None)
        chunks = _Ahead(member.chunks)
        uid = (await chunks.beginning()).sop_instance_uid
        name = self._names.get(uid or "")
        if name is None:
            raise UnreadableAnswer(f"NBIA sent the image {uid}, which the Imaging Data Commons does not have")
        if member.name is not None:
            self._renamed[member.name] = name
        return replace(member, name=name, chunks=chunks)


class _Ahead(_Behind[bytes]):
    """Chunks of an image, of which some can be looked at first."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__([], chunks)

    async def look(self) -> None:
        """Look at the next chunk, if there is one."""
        if (chunk := await anext(self._source, None)) is not None:
            self._looked_at.append(chunk)

    async def beginning(self) -> Beginning:
        """Return what the header says; takes as much of the image as that needs."""
        looked_at_bytes = enough_bytes = 0
        async for chunk in self._source:
            self._looked_at.append(chunk)
            looked_at_bytes += len(chunk)
            if looked_at_bytes >= enough_bytes:
                if found := beginning_in(b"".join(self._looked_at), is_whole=False):
                    return found
                enough_bytes = 4 * looked_at_bytes
        found = beginning_in(b"".join(self._looked_at), is_whole=True)
        assert found is not None
        return found
