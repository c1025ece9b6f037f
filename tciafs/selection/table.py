"""Tables of what was chosen, as files: metadata.csv, series.csv, collections.csv; and manifests of it.

They are made of listings alone, so the SOP Class is empty, and so is the time of a download that has not
been. The last ones are kept for as long as their listings are fresh. Handed what was chosen.
"""

import csv
import io
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from tciafs.metadata import COLUMNS, MetadataRow, day_text, size_text, write_rows
from tciafs.model import Collection, Patient, Series, Study
from tciafs.naming import Naming, collection_names, patient_names, series_names, study_names
from tciafs.selection.manifests import manifest_text

if TYPE_CHECKING:
    from tciafs.catalogue.answers import Listings
    from tciafs.catalogue.sums import Sum

__all__ = ["Tables"]

SHORTEST_S = 1.0
"""Old listings, too, are good for a moment, so that who looks at a table and opens it has it made once."""

KEPT_BYTES = 32 << 20
"""Tables are kept up to this size together, and the newest one whatever it takes."""

MORE_COLUMNS = ("License Name", "License URI", "NonCommercial")
"""What series.csv has behind the columns of the retriever."""

COLLECTION_COLUMNS = ("Collection", "Patients", "Series", "Images", "Bytes", "Licenses", "NonCommercial")


@dataclass(frozen=True, slots=True)
class _Made:
    """A text, when what it was made of was last known to change, and until when it is fresh."""

    text: bytes
    changes: int
    fresh_until: float


@dataclass(frozen=True, slots=True)
class _Listed:
    """A series, its study, and where it is."""

    series: Series
    study: Study
    location: str


class Tables:
    """Files that tell of listings, with the names of a naming.

    `prefix` tells listings apart. All raise what the archive raises.
    """

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._making: dict[tuple[str, ...], trio.Lock] = {}
        self._made: OrderedDict[tuple[str, ...], _Made] = OrderedDict()
        self._changes = 0

    async def metadata(self, listings: "Listings", prefix: tuple[str, ...] = ()) -> bytes:
        """Return the retriever's metadata.csv of all series."""

        async def make() -> tuple[str, float]:
            collections = await listings.collections()
            rows, fresh_until = [], collections.fresh_until
            for collection in collection_names(collections.records).values():
                listed, until = await self._listed(listings, collection)
                rows += [_row(each) for each in listed]
                fresh_until = min(fresh_until, until)
            text = io.StringIO(newline="")
            write_rows(text, rows)
            return text.getvalue(), fresh_until

        return await self._text(("metadata", *prefix), make)

    async def series(self, listings: "Listings", prefix: tuple[str, ...], collection: str) -> bytes:
        """Return the table of the series of a collection: what metadata.csv has, and the licences."""

        async def make() -> tuple[str, float]:
            listed, fresh_until = await self._listed(listings, Collection(collection))
            rows = ((*_row(each).values, *_licence_of(each.series)) for each in listed)
            return _table((*COLUMNS, *MORE_COLUMNS), rows), fresh_until

        return await self._text(("series", *prefix, collection), make)

    async def manifest(self, listings: "Listings", prefix: tuple[str, ...], collection: str) -> bytes:
        """Return a manifest, as the retriever reads it, of the series of a collection."""

        async def make() -> tuple[str, float]:
            listed, fresh_until = await self._listed(listings, Collection(collection))
            return manifest_text(each.series.series_uid for each in listed), fresh_until

        return await self._text(("manifest", *prefix, collection), make)

    async def collections(self, listings: "Listings") -> bytes:
        """Return the table of all collections, with what is known without asking for more."""

        async def make() -> tuple[str, float]:
            collections, rows = await listings.collections(), []
            for each in collection_names(collections.records).values():
                rows.append((each.name, *_sum_texts(await listings.known_sum(each.name))))
            # What is known grows with each listing, of which nobody tells.
            return _table(COLLECTION_COLUMNS, rows), 0.0

        return await self._text(("collections",), make)

    def forget(self) -> None:
        """Make all anew when they are asked for: a listing has changed, perhaps one that is being read."""
        self._changes += 1

    async def _text(self, key: tuple[str, ...], make: Callable[[], Awaitable[tuple[str, float]]]) -> bytes:
        lock = self._making.setdefault(key, trio.Lock())
        async with lock:
            made = self._made.get(key)
            if made is None or made.changes != self._changes or made.fresh_until <= time.time():
                changes, at_least_until = self._changes, time.time() + SHORTEST_S
                text, fresh_until = await make()
                encoded = text.encode("utf-8", "surrogatepass")
                made = self._made[key] = _Made(encoded, changes, max(fresh_until, at_least_until))
            self._made.move_to_end(key)
            while len(self._made) > 1 and sum(len(each.text) for each in self._made.values()) > KEPT_BYTES:
                self._made.popitem(last=False)
            if not lock.statistics().tasks_waiting:
                self._making.pop(key, None)
            return made.text

    async def _listed(self, listings: "Listings", collection: Collection) -> tuple[list[_Listed], float]:
        """Return all series of a collection, in the order of their folders, and until when that is fresh."""
        patients = await listings.patients(collection.name)
        (name,) = collection_names([collection])
        listed, fresh_until = [], patients.fresh_until
        for patient_name, patient in patient_names(patients.records).items():
            await trio.lowlevel.checkpoint()
            listed += await self._listed_of(listings, patient, f"./{name}/{patient_name}")
        return listed, fresh_until

    async def _listed_of(self, listings: "Listings", patient: Patient, location: str) -> list[_Listed]:
        studies = await listings.studies(patient.collection, patient.patient_id)
        series = await listings.series(patient.collection, patient.patient_id)
        listed = []
        for study_name, study in study_names(studies.records, self._naming).items():
            own = [each for each in series.records if each.study_uid == study.study_uid]
            for name, each in series_names(own, self._naming).items():
                listed.append(_Listed(each, study, f"{location}/{study_name}/{name}"))
        return listed


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(headings)
    writer.writerows(rows)
    return text.getvalue()


def _sum_texts(known: "Sum | None") -> tuple[str, ...]:
    if known is None:
        return ("",) * (len(COLLECTION_COLUMNS) - 1)
    numbers = (known.patients, known.series, known.images, known.size_bytes)
    texts = ("" if number is None else str(number) for number in numbers)
    return (*texts, "; ".join(sorted(known.licences)), "yes" if known.restricted else "")


def _licence_of(series: Series) -> tuple[str, str, str]:
    mark = "yes" if series.forbids_commercial_use else ""
    return series.licence_name or "", series.licence_uri or "", mark


def _row(listed: _Listed) -> MetadataRow:
    series, study = listed.series, listed.study
    return MetadataRow(
        series_uid=series.series_uid,
        collection=series.collection,
        third_party=series.third_party or "null",
        data_uri=series.data_uri or "",
        patient_id=series.patient_id,
        study_uid=series.study_uid,
        study_description=study.description or "",
        study_date=day_text(study.date),
        series_description=series.description or "",
        manufacturer=series.manufacturer or "",
        modality=series.modality or "",
        sop_class_name="",
        sop_class_uid="",
        image_count="" if series.image_count is None else str(series.image_count),
        size=size_text(series.size_bytes),
        location=listed.location,
        downloaded_at="",
    ).as_retrieved
