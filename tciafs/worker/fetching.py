"""One series from an archive into a pack, checked on the way and again as a whole at the end.

Images that arrived in a failed try are kept: the next try brings the rest of them one by one where that is
less work (see `rest`), or all again, and then only compares those that are here. Blocking disk writes are
made inline, since this process does nothing else. Must not know of the daemon's state.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import stamina
from isal.isal_zlib import crc32

from tciafs.errors import NoSpace, SeriesDamaged, SlowDown, TciafsError, UnreadableAnswer
from tciafs.model import Annotations, Archive, Checksums, Delivery, Member, Series, SingleImages
from tciafs.naming import image_name, image_names
from tciafs.store.download import Grant
from tciafs.store.layout import Layout, PackedImage
from tciafs.store.pack import PackWriter
from tciafs.worker.annotations import ArrivingAnnotations
from tciafs.worker.digests import md5s_of
from tciafs.worker.earlier import take_over
from tciafs.worker.headers import image_keys
from tciafs.worker.held import HeldBeginnings
from tciafs.worker.messages import Arrived, Finished, Progress, Report, Verified
from tciafs.worker.rest import NotSingly, Rest, is_less_work
from tciafs.worker.retrying import delay_before_retry, may_get_better, may_go_on

__all__ = ["fetch_series"]

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.25
Fetched = Callable[[Series], AbstractAsyncContextManager[AsyncIterator[Delivery]]]

LONGEST_WAIT_S = 30.0


async def fetch_series(
    archive: Archive,
    series: Series,
    pack: Path,
    tell: Callable[[Report], None],
    grant: Grant,
    *,
    retries: int,
    first_wait_s: float,
    strict: bool = False,
) -> None:
    """Write the finished pack of `series` to the new file `pack`, telling of each image and of the end.

    The file is never larger than granted. If `strict`, nobody is told of an image before all of the series
    agrees with what the archive says. Raises TciafsError when it could not be had after `retries` more tries,
    the first after about `first_wait_s`; OSError when the disk fails. Images that the earlier pack has
    do not come again where the archive vouches for them.
    """
    arrival = _Arrival(series, pack, tell, grant, strict)
    with arrival.held, closing(arrival.writer):
        if grant.earlier is not None and (layout := await arrival.take_over(archive, grant.earlier)):
            await arrival.conclude(layout)
            return
        async for attempt in stamina.retry_context(
            on=delay_before_retry,
            attempts=retries + 1,
            timeout=None,
            wait_initial=first_wait_s,
            wait_max=LONGEST_WAIT_S,
            wait_jitter=first_wait_s,
        ):
            with attempt:
                # One more try for the annotations, then the images are had without.
                layout = await arrival.receive(archive, must_annotate=attempt.num == 1 and retries > 0)
                await arrival.conclude(layout)


class _WrongBytes(SeriesDamaged):
    """Images that are here are not what they should be, and not only too few."""


@dataclass(slots=True)
class _Arrival:
    """The state of one series coming in, over several tries.

    An image with a name is announced as soon as it is in, and may be open from then on: later tries must
    bring the same. Images without a name get theirs when all are in, and are announced no sooner; and none
    is in a strict arrival. The first `told` images are announced.
    """

    series: Series
    pack: Path
    tell: Callable[[Report], None]
    grant: Grant
    strict: bool
    writer: PackWriter = field(init=False)
    held: HeldBeginnings = field(init=False)
    md5_by_given: dict[str, str] = field(default_factory=dict)
    given_names: dict[str, str] = field(default_factory=dict)
    routes: set[str] = field(default_factory=set)
    received_bytes: int = 0
    told: int = 0
    annotations: ArrivingAnnotations = field(init=False)
    _rest: Rest | None = None
    _may_come_singly: bool = True
    _told_at: float = 0.0

    def __post_init__(self) -> None:
        self.writer = PackWriter(self.pack, self.grant.size_bytes)
        self.held = HeldBeginnings(self.grant.held)
        self.annotations = ArrivingAnnotations(self.series, self.pack, self.writer, self._write)

    async def make_room(self, size_bytes: int) -> None:
        """See to it that the pack may have so many bytes. Raises NoSpace."""
        if size_bytes > self.writer.granted_bytes:
            self.writer.granted_bytes = await self.grant.grow_to(size_bytes)

    async def receive(self, archive: Archive, *, must_annotate: bool) -> Layout:
        """Take in the series once, or what is missing of it, and return its layout.

        Raises TciafsError where the images fall short, or with `must_annotate` anything may get better.
        """
        self.received_bytes = 0
        self.tell(Progress(0))
        try:
            if self.series.has_annotations and archive.annotations is not None:
                checks = await self._bring_annotated(archive, archive.annotations, must_annotate)
            else:
                checks = await self._bring_images(archive)
            return self._layout(checks)
        except _WrongBytes:
            if not self.told:
                self._drop()
            raise
        finally:
            self.tell(Progress(self.received_bytes))

    async def take_over(self, archive: Archive, earlier: Path) -> Layout | None:
        """Take the images of an earlier pack, if the archive vouches for them; None: they must come."""
        singles = archive.single_images
        routes = await take_over(earlier, self.series, singles, self.writer, self.make_room)
        if routes is None:
            return None
        self.routes.update(routes)
        return self._layout([*self._check_amount(), "md5"])

    def _layout(self, checks: Sequence[str]) -> Layout:
        return Layout(
            self.series.series_uid,
            self.series.version,
            self.writer.images,
            tuple(checks),
            self.series.path,
            tuple(sorted(self.routes)),
            self.writer.annotations,
            self.annotations.lacks,
        )

    async def conclude(self, layout: Layout) -> None:
        """Finish the pack with its layout, and tell of the end."""
        await self.make_room(self.writer.finished_bytes(layout))
        self.announce_untold()
        for annotation in layout.annotations:
            self.tell(Arrived(annotation, is_annotation=True))
        self.tell(Verified(layout.checks, layout.routes, layout.lacks))
        self.writer.finish(layout)
        self.tell(Finished())

    def _drop(self) -> None:
        self.writer.keep(0)
        self.routes.clear()

    def announce_untold(self) -> None:
        """Tell of all images that nobody was told of yet."""
        for image in islice(self.writer.images, self.told, None):
            self.tell(Arrived(image))
        self.told = len(self.writer.images)

    async def _bring_annotated(
        self, archive: Archive, annotations: Annotations, must_annotate: bool
    ) -> list[str]:
        """Bring images and annotations in one, or else the images alone; return what agreed."""
        self.annotations.begin()
        try:
            await self._receive_whole(annotations.images)
            checks = await self._complete(archive.single_images)
            if "md5" not in checks and await self._vouched_for(archive.single_images):
                checks.append("md5")
        except (SlowDown, NoSpace):
            raise
        except TciafsError as error:
            if must_annotate and may_get_better(error):
                raise
            log.info("series %s cannot come with annotations: %s", self.series.series_uid, error)
            self.annotations.give_up(str(error))
            if isinstance(error, _WrongBytes) and not self.told:
                self.writer.keep(0)
            return await self._vouched_images(archive.single_images) or await self._bring_images(archive)
        return [*checks, *await self.annotations.agreed(annotations, self.md5_by_given)]

    async def _bring_images(self, archive: Archive) -> list[str]:
        if (checks := await self._bring_rest(archive.single_images)) is not None:
            return checks
        sizes_bytes = self.held.sizes_bytes
        if archive.ranges is None or not sizes_bytes:
            await self._receive_whole(archive.images)
        else:
            try:
                await self._receive_whole(partial(archive.ranges.images_behind, held=sizes_bytes))
            finally:
                self.held.drop()
        return await self._complete(archive.single_images)

    async def _vouched_images(self, singles: SingleImages | None) -> list[str] | None:
        """Return what agrees of images that are all here; None where they are not, or nobody vouches."""
        try:
            checks = ["crc32", *self._check_amount()]
            is_good = {"count", "size"}.issubset(checks) and all(self.writer.images.names)
            return [*checks, "md5"] if is_good and await self._vouched_for(singles) else None
        except TciafsError as error:
            log.info("what is here of series %s does not do: %s", self.series.series_uid, error)
            return None

    async def _bring_rest(self, singles: SingleImages | None) -> list[str] | None:
        """Bring image by image what an earlier try left missing, and return what agreed.

        None: the whole is to be fetched. As long as each try brings an image more, the next one goes on.
        """
        if singles is None or not self._may_come_singly:
            return None
        if self._rest is None:
            if not is_less_work(self.series, self.writer.images, self.pack, singles):
                return None
            self._rest = Rest(singles, self.series, self.pack, self.writer, self._store)
        before = len(self.writer.images)
        try:
            await self._rest.bring()
            return [*self._check_amount(), "md5"]
        except (NotSingly, TciafsError) as error:
            if isinstance(error, SlowDown) or (len(self.writer.images) > before and may_go_on(error)):
                raise
            log.info("the rest of series %s cannot come singly: %s", self.series.series_uid, error)
            self._rest.drop()
            self._may_come_singly = False
            return None

    async def _receive_whole(self, fetched: Fetched) -> None:
        """Take in all images, or compare them with those of an earlier try."""
        if not all(self.writer.images.names):
            self._drop()
        earlier = {image.name: image for image in self.writer.images}
        seen: set[str] = set()
        async with fetched(self.series) as deliveries:
            async for delivery in deliveries:
                if isinstance(delivery, Checksums):
                    self.md5_by_given.update(delivery.md5_by_name)
                else:
                    await self._take(delivery, earlier, seen)
        if earlier.keys() - seen:
            raise _WrongBytes(f"a second try of series {self.series.series_uid} lacked images of the first")

    async def _take(self, member: Member, earlier: Mapping[str, PackedImage], seen: set[str]) -> None:
        """Take in one member, and note its name in `seen`."""
        member = self.held.before(member, self._spare)
        if member.name is None:
            with self._damage_of("an image"):
                await self._store(member)
            return
        if member.is_annotation:
            with self._damage_of("an annotation"):
                await self.annotations.take(member, seen)
            return
        name = image_name(member.name)
        if name in seen:
            raise UnreadableAnswer(f"series {self.series.series_uid} came with two images called {name!r}")
        seen.add(name)
        self.given_names[name] = member.name
        with self._damage_of(name):
            if name in earlier:
                await self._compare(member, earlier[name])
            else:
                await self._store(member, name)
                if not self.strict:
                    self.announce_untold()

    @contextmanager
    def _damage_of(self, image: str) -> Iterator[None]:
        """Call what fails the check of its transfer damaged: inside an image, where bytes are wrong."""
        try:
            yield
        except UnreadableAnswer as error:
            series_uid = self.series.series_uid
            raise SeriesDamaged(f"{image} of series {series_uid} came damaged: {error}") from error

    async def _store(self, member: Member, name: str = "") -> PackedImage:
        await self._write(member)
        return self.writer.end(name)

    async def _write(self, member: Member) -> None:
        if member.route:
            self.routes.add(member.route)
        self.writer.begin()
        async for chunk in member.chunks:
            await self.make_room(self.writer.size_bytes + len(chunk))
            self.writer.write(chunk)
            self._note_progress(len(chunk))

    async def _compare(self, member: Member, image: PackedImage) -> None:
        """Read a member that an earlier try brought already."""
        checksum, size_bytes = 0, 0
        async for chunk in member.chunks:
            checksum = crc32(chunk, checksum)
            size_bytes += len(chunk)
            self._note_progress(len(chunk))
        if (size_bytes, checksum) != (image.size_bytes, image.crc32):
            raise _WrongBytes(
                f"two tries of series {self.series.series_uid} brought different bytes as {image.name}"
            )

    def _spare(self, size_bytes: int) -> None:
        """Count bytes that are about to be taken, but did not come."""
        self.received_bytes -= size_bytes

    def _note_progress(self, size_bytes: int) -> None:
        self.received_bytes += size_bytes
        if (now := time.monotonic()) - self._told_at > PROGRESS_EVERY_S:
            self._told_at = now
            self.tell(Progress(self.received_bytes))

    async def _complete(self, singles: SingleImages | None) -> list[str]:
        """Return what agreed of a series that came whole; name the nameless. Raises where it does not."""
        images, checks = self.writer.images, ["crc32", *self._check_amount()]
        nameless = [not name for name in images.names]
        if any(nameless):
            if not all(nameless):
                raise UnreadableAnswer(
                    f"of series {self.series.series_uid} only some images came with a name"
                )
            self._name_all(singles)
            if await self._vouched_for(singles):
                checks.append("md5")
        elif self.md5_by_given:
            self._check_md5()
            checks.append("md5")
        return checks

    def _name_all(self, singles: SingleImages | None) -> None:
        """Name images that came without: as the archive would where it can tell."""
        images = self.writer.images
        keys = image_keys(self.pack, images)
        names = (None if singles is None else singles.names(keys)) or image_names(keys)
        self.writer.arrange(replace(image, name=name) for image, name in zip(images, names, strict=True))

    async def _vouched_for(self, singles: SingleImages | None) -> bool:
        """Return whether the archive vouches for the MD5s, False if it cannot. Raises where they differ."""
        if singles is None:
            return False
        try:
            agrees = await singles.check_of(self.series)
        except TciafsError as error:
            log.info("nobody vouches for the MD5s of series %s: %s", self.series.series_uid, error)
            return False
        if agrees is not None and not agrees(md5s_of(self.pack, self.writer.images)):
            raise _WrongBytes(f"series {self.series.series_uid} does not have the MD5 that the archive gives")
        return agrees is not None

    def _check_amount(self) -> Iterator[str]:
        """Yield what agreed of number and size. Raises SeriesDamaged where one does not."""
        uid, images = self.series.series_uid, self.writer.images
        if self.series.image_count is not None:
            if len(images) != self.series.image_count:
                raise SeriesDamaged(
                    f"series {uid} came with {len(images)} of {self.series.image_count} images"
                )
            yield "count"
        if self.series.size_bytes:
            if (total := images.size_bytes) != self.series.size_bytes:
                raise SeriesDamaged(f"series {uid} came with {total:,} of {self.series.size_bytes:,} bytes")
            yield "size"

    def _check_md5(self) -> None:
        images = self.writer.images
        for image, digest in zip(images, md5s_of(self.pack, images), strict=True):
            expected = self.md5_by_given.get(self.given_names[image.name])
            if expected is None:
                raise SeriesDamaged(f"the archive's checksums do not name {image.name}")
            if digest != expected:
                raise _WrongBytes(f"{image.name} does not have the MD5 that the archive gives")
