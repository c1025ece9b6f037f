"""The NCI Imaging Data Commons as an Archive: listings from its index, which is on local disk, images from
S3.

What TCIA published, under TCIA's names. Of listings only those of studies ask the network, and only once for
each study: the StudyID that is part of a study's name is in no index, but in the headers of its images.
Defined here and only here: that, and which question is answered by what. One IdcArchive serves many trio
tasks at once.
"""

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

import httpx

from tciafs.archives.http.client import HttpClient
from tciafs.archives.idc.config import IdcConfig
from tciafs.archives.idc.images import IdcImages, names_of, vouching
from tciafs.archives.idc.memory import IdcMemory
from tciafs.archives.idc.parallel import all_of
from tciafs.archives.idc.records import series_record, speakers, study_record
from tciafs.archives.idc.s3 import Buckets
from tciafs.archives.idc.table import IdcTable, IndexedSeries
from tciafs.archives.route import Route
from tciafs.errors import UnreadableAnswer
from tciafs.model import (
    Change,
    Collection,
    Delivery,
    ImageKey,
    ListedImage,
    Member,
    Patient,
    Series,
    Study,
    Value,
)

__all__ = ["MEMORY_NAME", "IdcArchive"]

MEMORY_NAME = "learnt.sqlite"

STUDIES_AT_ONCE = 24
PATIENTS_IN_A_BATCH = 200
CONNECTIONS = 24

NAME = "the Imaging Data Commons"
LEFT_ALONE_S = 15.0
"""Buckets that are away, where there is no other archive: less than a series that failed is left alone."""


class IdcArchive:
    """IDC; see `model.Archive`. `transport` replaces the network in tests.

    `route` knows whether its buckets are away. Then a question about names, and one for a part of an image,
    fails at once; a download, which has the patience for it, tries all the same.
    """

    def __init__(
        self,
        config: IdcConfig,
        *,
        route: Route | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Open the table; nothing is sent. Raises Unusable, or Misuse for an address that cannot work."""
        self.config = config
        self.route = route or Route(NAME, first_pause_s=LEFT_ALONE_S, longest_pause_s=LEFT_ALONE_S)
        self._table = IdcTable(Path(config.table))
        self._memory = IdcMemory(Path(config.table).with_name(MEMORY_NAME))
        self._http = HttpClient(
            config.url,
            # Buckets are made for many requests at once, and each of ours is small.
            replace(config.limits, connections=max(CONNECTIONS, config.limits.connections)),
            retries=config.retries,
            user_agent=config.user_agent,
            may_repeat=lambda: self.route.is_trusted,
            transport=transport,
        )
        self._images = IdcImages(Buckets(self._http, self.route), self._memory)

    @classmethod
    def beside_another(
        cls, config: IdcConfig, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> "IdcArchive":
        """Return one whose buckets may be left alone for long, as what they lack comes from elsewhere."""
        return cls(config, route=Route(NAME), transport=transport)

    @property
    def remark(self) -> str:
        """What a user is told of its buckets while they are away, else ""."""
        return self.route.remark

    async def collections(self) -> tuple[Collection, ...]:
        """Return all collections."""
        return tuple(map(Collection, self._table.collections()))

    async def patients(self, collection: str) -> tuple[Patient, ...]:
        """Return the patients of a collection."""
        return tuple(Patient(collection, each) for each in self._table.patients(collection))

    async def studies(self, collection: str, patient: str) -> tuple[Study, ...]:
        """Return the studies of a patient: one request or two for each study that nobody listed before."""
        return tuple(await self._studies(collection, [(patient, self._table.series(collection, patient))]))

    async def series(self, collection: str, patient: str) -> tuple[Series, ...]:
        """Return the series of a patient."""
        return tuple(
            series_record(collection, patient, each) for each in self._table.series(collection, patient)
        )

    @asynccontextmanager
    async def every_study(self, collection: str) -> AsyncIterator[AsyncIterator[Sequence[Study]]]:
        """Give all studies of a collection, in batches; what was learnt stays if a later one fails."""
        async with aclosing(self._study_batches(collection)) as batches:
            yield batches

    @asynccontextmanager
    async def every_series(self, collection: str) -> AsyncIterator[AsyncIterator[Sequence[Series]]]:
        """Give all series of a collection, in batches."""
        async with aclosing(self._series_batches(collection)) as batches:
            yield batches

    async def changes(self, since: dt.date) -> tuple[Change, ...]:
        """Return who has had series in a later release, each once; this index is of one release."""
        return tuple(Change(*each) for each in self._table.released_after(since))

    async def named(self, *series_uids: str) -> tuple[Series, ...]:
        """Return the series among these that there are."""
        return tuple(series_record(*row) for uid in series_uids for row in self._table.named(uid))

    async def cart(self, name: str) -> tuple[Series, ...]:
        """Raise UnreadableAnswer: shared carts are NBIA's."""
        raise UnreadableAnswer(f"the Imaging Data Commons has no shared carts, such as {name!r}")

    async def values(self, collection: str, field: str, modality: str, body_part: str) -> tuple[Value, ...]:
        """Return the values of a field."""
        asked = {"collection": collection, "modality": modality, "body_part": body_part}
        wanted = [(name, text) for name, text in asked.items() if text]
        return tuple(map(Value, self._table.values(field, wanted)))

    def images(self, series: Series) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch the images of a series, side by side and in the order of their names."""
        return self._images.deliveries(self._place_of(series))

    @property
    def single_images(self) -> "IdcArchive":
        """How to get at the images of a series one by one."""
        return self

    @property
    def layouts(self) -> "IdcArchive":
        """How to name the images of a series in advance."""
        return self

    @property
    def annotations(self) -> None:
        """There are images only."""
        return None

    def can_name(self, series: Series) -> bool:
        """Return whether the index has the series."""
        return self.holds(series.series_uid)

    async def layout(
        self, series: Series, received: Callable[[int], None] = lambda size_bytes: None
    ) -> Sequence[ListedImage]:
        """Return names and sizes of the images, from the bucket's listing and their first kilobytes."""
        place = self._place_of(series)
        images = self._images.learnt(place)
        if images is None:
            with self.route.asked():
                images = await self._images.known(place, received)
        return self._images.named(images)

    @property
    def ranges(self) -> "IdcArchive":
        """How to get at parts of images."""
        return self

    def gives(self, series: Series) -> bool:
        """Return whether the index has the series."""
        return self.holds(series.series_uid)

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        """Return a part of an image, which has to be the object that was listed."""
        with self.route.asked():
            return await self.part_tried(series, image, first, size_bytes)

    async def part_tried(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        """Return the same, or try to, whether the buckets are known to be away or not."""
        return await self._images.part(self._place_of(series), image, first, size_bytes)

    def images_behind(
        self, series: Series, held: Mapping[str, int]
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch the images of a series, without the first bytes of those that are held."""
        return self._images.deliveries(self._place_of(series), held)

    deflates_whole_series = False

    async def image_uids(self, series: Series) -> Sequence[str]:
        """Return the SOP Instance UIDs of a series."""
        return [each.sop_instance_uid for each in await self._images.known(self._place_of(series))]

    def image(self, series: Series, sop_instance_uid: str) -> AbstractAsyncContextManager[Member]:
        """Fetch one image."""
        return self._images.one(self._place_of(series), sop_instance_uid)

    def names(self, images: Sequence[ImageKey]) -> Sequence[str]:
        """Return the names that `images` gives."""
        return names_of(images)

    async def check_of(self, series: Series) -> Callable[[Sequence[str]], bool] | None:
        """Return what compares MD5s with those in the bucket; None where it has none."""
        return vouching(await self._images.known(self._place_of(series)))

    def holds(self, series_uid: str) -> bool:
        """Return whether the index has a series."""
        return self._table.holds(series_uid)

    def lists(self, series: Series) -> bool:
        """Return whether the index has a series, and of as many images and bytes as it was listed with."""
        records = (series_record(*row) for row in self._table.named(series.series_uid))
        return any(_is_as_large(each, series) for each in records)

    def holds_collection(self, collection: str) -> bool:
        """Return whether the index has a collection."""
        return self._table.holds_collection(collection)

    def names_learnt(self, series: Series) -> Mapping[str, str] | None:
        """Return the names of a series' images by SOP Instance UID; None: headers were never read."""
        return self._images.names_learnt(self._place_of(series))

    def learn_study_ids(self, studies: Iterable[Study]) -> list[Study]:
        """Remember the StudyIDs that somebody else lists, where none is known, and return the studies that
        the index does not have.
        """
        others, told = list[Study](), dict[str, str | None]()
        by_patient = groupby(studies, lambda each: (each.collection, each.patient_id))
        for (collection, patient), some in by_patient:
            speaking = speakers(self._table.series(collection, patient))
            for each in some:
                if (speaker := speaking.get(each.study_uid)) is None:
                    others.append(each)
                else:
                    told[speaker.uuid] = each.study_id
        known = self._memory.study_ids(list(told))
        self._memory.keep_study_ids({uuid: told[uuid] for uuid in told.keys() - known.keys()})
        return others

    async def aclose(self) -> None:
        """Close all connections and files."""
        await self._http.aclose()
        self._table.close()
        self._memory.close()

    def _place_of(self, series: Series) -> IndexedSeries:
        """Return where a series is. Raises UnreadableAnswer for one that this index does not have."""
        for _collection, _patient, found in self._table.named(series.series_uid):
            return found
        raise UnreadableAnswer(f"the index has no series {series.series_uid} any more")

    async def _studies(
        self, collection: str, patients: Sequence[tuple[str, Iterable[IndexedSeries]]]
    ) -> list[Study]:
        """Return the studies of some patients, with StudyIDs that are learnt if need be, many at once."""
        found = [(patient, each) for patient, series in patients for each in speakers(series).values()]
        study_ids = self._memory.study_ids([each.uuid for _, each in found])
        unknown = [each for _, each in found if each.uuid not in study_ids]
        if unknown:
            with self.route.asked():
                # The first one alone: of dead buckets not two dozen are to find out.
                told = [await self._images.study_id(unknown[0])]
                told += await all_of(unknown[1:], self._images.study_id, most=STUDIES_AT_ONCE)
            learnt = {each.uuid: study_id for each, study_id in zip(unknown, told, strict=True)}
            self._memory.keep_study_ids(learnt)
            study_ids.update(learnt)
        return [study_record(collection, patient, each, study_ids[each.uuid]) for patient, each in found]

    async def _study_batches(self, collection: str) -> AsyncGenerator[Sequence[Study], None]:
        patients = self._table.every_patient(collection)
        while some := list(islice(patients, PATIENTS_IN_A_BATCH)):
            yield await self._studies(collection, some)

    async def _series_batches(self, collection: str) -> AsyncGenerator[Sequence[Series], None]:
        for patient, series in self._table.every_patient(collection):
            yield [series_record(collection, patient, each) for each in series]


def _is_as_large(one: Series, other: Series) -> bool:
    """Return whether nothing that is said of both contradicts that they have the same images."""
    pairs = ((one.image_count, other.image_count), (one.size_bytes, other.size_bytes))
    return all(a is None or b is None or a == b for a, b in pairs)
