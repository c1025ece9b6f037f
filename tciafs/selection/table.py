"""The metadata.csv of what was chosen: a row for each series, with the path under which a mount shows it.

It is made of listings alone, so the SOP Class is empty, and so is the time of a download that has not been.
Handed what was chosen; made once for as long as its listings are fresh.
"""

import io
import time
from typing import TYPE_CHECKING

import trio

from tciafs.metadata import MetadataRow, day_text, size_text, write_rows
from tciafs.model import Patient, Series, Study
from tciafs.naming import Naming, collection_names, patient_names, series_names, study_names

if TYPE_CHECKING:
    from tciafs.catalogue.answers import Listings

__all__ = ["MetadataTable"]


SHORTEST_S = 1.0
"""Old listings, too, are good for a moment, so that who looks at the table and opens it has it made once."""


class MetadataTable:
    """The table of all series in some listings, with the names of a naming."""

    def __init__(self, listings: "Listings", naming: Naming) -> None:
        self._listings = listings
        self._naming = naming
        self._making = trio.Lock()
        self._made = b""
        self._changes, self._made_at = 0, -1
        self._fresh_until = 0.0

    async def text(self) -> bytes:
        """Return the table. Raises what the archive raises."""
        async with self._making:
            if self._made_at != self._changes or self._fresh_until <= time.time():
                changes, at_least_until = self._changes, time.time() + SHORTEST_S
                rows, fresh_until = await self._rows()
                text = io.StringIO(newline="")
                write_rows(text, rows)
                self._made, self._made_at = text.getvalue().encode("utf-8", "surrogatepass"), changes
                self._fresh_until = max(fresh_until, at_least_until)
            return self._made

    def forget(self) -> None:
        """Make it anew when it is asked for: a listing has changed, perhaps one that is being read for it."""
        self._changes += 1

    async def _rows(self) -> tuple[list[MetadataRow], float]:
        """Return all rows, and until when they are fresh."""
        rows = list[MetadataRow]()
        collections = await self._listings.collections()
        fresh_until = collections.fresh_until
        for name, collection in collection_names(collections.records).items():
            patients = await self._listings.patients(collection.name)
            fresh_until = min(fresh_until, patients.fresh_until)
            for patient_name, patient in patient_names(patients.records).items():
                rows += await self._rows_of(patient, f"./{name}/{patient_name}")
        return rows, fresh_until

    async def _rows_of(self, patient: Patient, location: str) -> list[MetadataRow]:
        studies = await self._listings.studies(patient.collection, patient.patient_id)
        series = await self._listings.series(patient.collection, patient.patient_id)
        rows = []
        for study_name, study in study_names(studies.records, self._naming).items():
            own = [each for each in series.records if each.study_uid == study.study_uid]
            for name, each in series_names(own, self._naming).items():
                rows.append(_row(each, study, f"{location}/{study_name}/{name}"))
        return rows


def _row(series: Series, study: Study, location: str) -> MetadataRow:
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
        location=location,
        downloaded_at="",
    ).as_retrieved
