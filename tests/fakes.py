"""Doubles of what is slow, remote or unpredictable: an archive and a fetcher that do as they are told.

Both record what they were asked and fail by plan. They hold no clock and never sleep: a test decides when
something happens, by calling a method or setting an event.
"""

import datetime as dt
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from tciafs.errors import NoSpace
from tciafs.model import (
    Annotations,
    Change,
    Checksums,
    Collection,
    Delivery,
    Layouts,
    Member,
    Patient,
    Ranges,
    Series,
    SingleImages,
    Study,
    Value,
)
from tciafs.store.download import Announcements, Grant
from tciafs.store.layout import Layout, PackedImage
from tciafs.store.pack import PackWriter

__all__ = [
    "Annotation",
    "Broken",
    "FakeAnnotations",
    "FakeArchive",
    "FakeFetcher",
    "Transfer",
    "jump_until",
    "make_series",
    "no_more_room",
    "write_pack",
]

T = TypeVar("T")

CHUNK_BYTES = 7
"""Odd and small, so that every member comes in several chunks."""

ENDING_BYTES = 2000
"""More than what ends the pack of a few images."""

BATCH_RECORDS = 2
"""Few, so that every listing of a whole collection comes in several batches."""


async def jump_until(condition: Callable[[], bool], step_s: float) -> None:
    """Let a mocked clock go on in steps until a thread has done what makes the condition true."""
    while not condition():  # noqa: ASYNC110 - no event comes out of the thread
        await trio.sleep(step_s)


def make_series(uid: str = "1.2.3", image_count: int | None = 2, size_bytes: int | None = None) -> Series:
    """Return a series of collection "Lung", patient "P1", study "1.2"."""
    return Series("Lung", "P1", "1.2", uid, "CT", image_count=image_count, size_bytes=size_bytes)


def write_pack(path: Path, series: Series, *images: tuple[str, bytes]) -> Layout:
    """Write a finished pack of these images and return its layout."""
    with closing(PackWriter(path)) as writer:
        for name, data in images:
            writer.begin()
            writer.write(data)
            writer.end(name)
        layout = Layout(series.series_uid, series.version, writer.images, ("crc32",), series.path)
        writer.finish(layout)
    return layout


# An archive


@dataclass(frozen=True, slots=True)
class Broken:
    """An image that breaks off with `error` once `data` has come."""

    name: str | None
    data: bytes
    error: Exception


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation file, which breaks off with `error` behind its bytes if there is one."""

    name: str
    data: bytes
    error: Exception | None = None


Brought = tuple[str | None, bytes] | Broken | Annotation | Checksums | Exception
"""What comes in a try to fetch a series: an image, half of one, an annotation, checksums, or an error."""


class FakeArchive:
    """An archive of these series; see `model.Archive`.

    `carts` are series UIDs by the name of a cart.
    `asked` records the questions as they come, for example ("series", "Lung", "P1") or
    ("changes", "2026-01-01"). While `open` is not set, all answers wait. `changed` is what `changes`
    chooses from; None: it cannot tell.
    """

    def __init__(self, *series: Series) -> None:
        self.holdings = list(series)
        self.changed: list[Change] | None = []
        self.asked: list[tuple[str, ...]] = []
        self.carts: dict[str, Sequence[str]] = {}
        self.open = trio.Event()
        self.open.set()
        self._failures: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self._tries: dict[str, deque[Sequence[Brought]]] = {}
        self.single_images: SingleImages | None = None
        self.layouts: Layouts | None = None
        self.annotations: Annotations | None = None
        self.ranges: Ranges | None = None

    def fail(self, question: str, *errors: Exception) -> None:
        """Answer the next questions of a kind ("collections", "images" ...) with these errors."""
        self._failures[question] += errors

    def bring(self, series_uid: str, *tries: Sequence[Brought]) -> None:
        """Say what comes when a series is fetched: the first time, the second ..., the last time for ever."""
        self._tries[series_uid] = deque(tries)

    async def collections(self) -> Sequence[Collection]:
        await self._be_asked("collections")
        return _distinct(Collection(each.collection) for each in self.holdings)

    async def patients(self, collection: str) -> Sequence[Patient]:
        await self._be_asked("patients", collection)
        return _distinct(Patient(collection, each.patient_id) for each in self._of(collection))

    async def studies(self, collection: str, patient: str) -> Sequence[Study]:
        await self._be_asked("studies", collection, patient)
        return _studies(self._of(collection, patient))

    async def series(self, collection: str, patient: str) -> Sequence[Series]:
        await self._be_asked("series", collection, patient)
        return self._of(collection, patient)

    def every_study(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Study]]]:
        return self._every("every_study", collection, lambda: _studies(self._of(collection)))

    def every_series(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Series]]]:
        return self._every("every_series", collection, lambda: self._of(collection))

    async def changes(self, since: dt.date) -> Sequence[Change] | None:
        await self._be_asked("changes", since.isoformat())
        return None if self.changed is None else [each for each in self.changed if each.released > since]

    async def named(self, *series_uids: str) -> Sequence[Series]:
        await self._be_asked("named", *series_uids)
        return [each for each in self.holdings if each.series_uid in series_uids]

    async def cart(self, name: str) -> Sequence[Series]:
        await self._be_asked("cart", name)
        return [each for each in self.holdings if each.series_uid in self.carts.get(name, ())]

    async def values(self, collection: str, field: str, modality: str, body_part: str) -> Sequence[Value]:
        await self._be_asked("values", collection, field, modality, body_part)
        given = {"collection": collection, "modality": modality, "body_part": body_part}
        return _distinct(
            Value(getattr(each, field))
            for each in self.holdings
            if all(text in ("", getattr(each, name)) for name, text in given.items())
            if getattr(each, field) is not None
        )

    @asynccontextmanager
    async def images(self, series: Series) -> AsyncIterator[AsyncIterator[Delivery]]:
        await self._be_asked("images", series.series_uid)
        tries = self._tries.get(series.series_uid, deque([()]))
        brought = tries.popleft() if len(tries) > 1 else tries[0]
        deliveries = _deliveries(brought)
        try:
            yield deliveries
        finally:
            await deliveries.aclose()

    async def aclose(self) -> None:
        self.asked.append(("aclose",))

    @asynccontextmanager
    async def _every(
        self, question: str, collection: str, select: Callable[[], Sequence[T]]
    ) -> AsyncIterator[AsyncIterator[Sequence[T]]]:
        await self._be_asked(question, collection)
        batches = _batches(select())
        try:
            yield batches
        finally:
            await batches.aclose()

    def _of(self, collection: str, patient: str | None = None) -> list[Series]:
        return [
            each
            for each in self.holdings
            if each.collection == collection and patient in (None, each.patient_id)
        ]

    async def _be_asked(self, question: str, *about: str) -> None:
        self.asked.append((question, *about))
        await self.open.wait()
        await trio.lowlevel.checkpoint()
        if failures := self._failures[question]:
            raise failures.popleft()


class FakeAnnotations:
    """What a fake archive brings with annotations: tries as of `FakeArchive.bring`; see `model.Annotations`.

    `listed_bytes` is what it says that they come to, or what it fails with.
    """

    def __init__(self, *tries: Sequence[Brought], listed_bytes: int | Exception | None = None) -> None:
        self.tries = 0
        self._archive = FakeArchive()
        self._brought = tries
        self._listed_bytes = listed_bytes

    def images(self, series: Series) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        self.tries += 1
        place = min(self.tries, len(self._brought)) - 1
        self._archive.bring(series.series_uid, self._brought[place])
        return self._archive.images(series)

    async def size_bytes(self, series: Series) -> int | None:
        await trio.lowlevel.checkpoint()
        if isinstance(self._listed_bytes, Exception):
            raise self._listed_bytes
        return self._listed_bytes


def _distinct(records: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(records))


def _studies(series: Iterable[Series]) -> list[Study]:
    return _distinct(Study(each.collection, each.patient_id, each.study_uid, each.studied) for each in series)


async def _batches(records: Sequence[T]) -> AsyncGenerator[Sequence[T], None]:
    for start in range(0, len(records), BATCH_RECORDS):
        await trio.lowlevel.checkpoint()
        yield records[start : start + BATCH_RECORDS]


async def _deliveries(brought: Sequence[Brought]) -> AsyncGenerator[Delivery, None]:
    for each in brought:
        if isinstance(each, Exception):
            raise each
        if isinstance(each, Checksums):
            yield each
        elif isinstance(each, Broken):
            yield Member(each.name, None, _chunks(each.data, each.error))
        elif isinstance(each, Annotation):
            yield Member(each.name, len(each.data), _chunks(each.data, each.error), is_annotation=True)
        else:
            name, data = each
            yield Member(name, len(data), _chunks(data))


async def _chunks(data: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        await trio.lowlevel.checkpoint()
        yield data[start : start + CHUNK_BYTES]
    if error is not None:
        raise error


# A fetcher


async def no_more_room(size_bytes: int) -> int:
    """Refuse to let a pack grow, as `Grant.grow_to` may."""
    raise NoSpace(f"no {size_bytes:,} bytes for you")


class Transfer:
    """One series being fetched, in the hands of the test."""

    def __init__(self, series: Series, pack: Path, announce: Announcements, grant: Grant) -> None:
        self.series = series
        self.pack = pack
        self.announce = announce
        self.cancelled = False
        self._grant = grant
        self._writer = PackWriter(pack, grant.size_bytes)
        self._over = trio.Event()
        self._failure: Exception | None = None

    async def make_room(self, image_bytes: int) -> None:
        """Ask for room for an image more, and for what ends the pack. Raises NoSpace."""
        wanted_bytes = self._writer.size_bytes + image_bytes + ENDING_BYTES
        if wanted_bytes > self._writer.granted_bytes:
            self._writer.granted_bytes = await self._grant.grow_to(wanted_bytes)

    def bring(self, name: str, data: bytes) -> PackedImage:
        """Let an image arrive, for which there is room."""
        self._writer.begin()
        self._writer.write(data)
        image = self._writer.end(name)
        self.announce.image(image)
        return image

    def bring_annotation(self, name: str, data: bytes) -> PackedImage:
        """Let an annotation arrive, behind the last image."""
        self._writer.begin()
        self._writer.write(data)
        annotation = self._writer.end_annotation(name)
        self.announce.annotation(annotation)
        return annotation

    def verify(self, lacks: str = "") -> Layout:
        """Declare that what has arrived is all of it, or all but annotations."""
        layout = Layout(
            self.series.series_uid,
            self.series.version,
            self._writer.images,
            ("crc32",),
            self.series.path,
            annotations=self._writer.annotations,
            lacks=lacks,
        )
        if lacks:
            self.announce.lacks(lacks)
        self.announce.verified(layout.checks, layout.routes)
        return layout

    def finish(self, lacks: str = "") -> None:
        """End well: verified, and the pack finished."""
        self._writer.finish(self.verify(lacks))
        self.end()

    def end(self, failure: Exception | None = None) -> None:
        """End now, with an error or as if all were well."""
        self._failure = failure
        self._over.set()

    def close(self) -> None:
        self._writer.close()

    async def run(self) -> None:
        try:
            await self._over.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        if self._failure is not None:
            raise self._failure


class FakeFetcher:
    """A fetcher whose transfers are moved by the test; see `store.Fetcher`.

    A series in `contents` (by UID: pairs of name and bytes) arrives at once and without help; a name that
    ends in ".xml" is that of an annotation.
    """

    def __init__(self, contents: dict[str, Sequence[tuple[str, bytes]]] | None = None) -> None:
        self.contents = contents or {}
        self.transfers: list[Transfer] = []
        self.running = 0
        self.most_running = 0
        self.is_paused = False
        self._begun = trio.Event()

    async def begun(self, count: int = 1) -> Transfer:
        """Return the transfer that began as number `count`, as soon as it has."""
        while len(self.transfers) < count:
            await self._begun.wait()
        return self.transfers[count - 1]

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    async def fetch(self, series: Series, pack: Path, announce: Announcements, grant: Grant) -> None:
        transfer = Transfer(series, pack, announce, grant)
        self.transfers.append(transfer)
        self._begun.set()
        self._begun = trio.Event()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if (images := self.contents.get(series.series_uid)) is not None:
                for name, data in images:
                    await transfer.make_room(len(data))
                    bring = transfer.bring_annotation if name.endswith(".xml") else transfer.bring
                    bring(name, data)
                transfer.finish()
            await transfer.run()
        finally:
            self.running -= 1
            transfer.close()
