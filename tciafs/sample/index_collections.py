"""The rows of an index as collections of the archive, with what an index leaves out made up.

Real: names, identifiers, dates, descriptions, numbers, image counts, licences, DOIs, species. The
index's version days stand for submission and release. Made up, always alike: StudyID (absent for
seven studies in ten), PatientName (the PatientID), the images and so FileSize. Absent throughout:
protocol, software, ethnic group, admitting diagnosis.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from tciafs.sample.holdings import Collection, Keys
from tciafs.sample.index_table import IndexRow, IndexTable, Places
from tciafs.sample.records import Patient, Series, Study
from tciafs.sample.stamps import Stamps

__all__ = ["collections_of_index"]

SPECIES: Mapping[str | None, str] = {"Canine": "Canis lupus familiaris", "Mouse": "Mus musculus"}
HUMAN = "Homo sapiens"
STUDY_FIELDS = attrgetter(
    "study_uid", "patient_id", "collection", "study_date", "study_description", "age", "sex", "species"
)
"""All that the records of a study and its patient are made of."""


def collections_of_index(table: IndexTable) -> list[Collection]:
    """Return the collections of the table; their records are made when somebody asks for them."""
    return [_IndexCollection(name, table, rows) for name, rows in table.collections.items()]


class _IndexCollection:
    """One collection: some consecutive rows of the table."""

    is_restricted = False

    def __init__(self, name: str, table: IndexTable, rows: range) -> None:
        self.name = name
        self._table = table
        self._rows = rows

    def select(self, keys: Keys) -> Iterator[Series]:
        """Yield the series that match."""
        return filter(keys.match, _series_of(self._table.rows(self._places(keys))))

    def patients(self, keys: Keys) -> Iterator[Patient]:
        """Yield the patients, as their first series describes them."""
        starts = _among(self._table.patient_starts, self._places(keys))
        return map(_patient, self._table.rows(starts))

    def studies(self, keys: Keys) -> Iterator[tuple[Study, int]]:
        """Yield the studies, as their first series describes them, and how many series each has."""
        bounds = self._table.study_starts
        starts = _among(bounds, self._places(keys))
        ends = bounds[np.searchsorted(bounds, starts, side="right")]
        for series, start, end in zip(_series_of(self._table.rows(starts)), starts, ends, strict=True):
            yield series.study, int(end - start)

    def series_of_image(self, sop_uid: str) -> Series | None:
        """Return None: an index knows no images, and to make them all up would take days."""
        return None

    def _places(self, keys: Keys) -> Places:
        """Return the rows among which the matching ones are."""
        if keys.series_uid is not None:
            return self._own(self._table.places_of_series(keys.series_uid))
        if keys.study_uid is not None:
            return self._own(self._table.places_of_study(keys.study_uid))
        if keys.patient_id is not None:
            return self._own(self._table.places_of_patient(keys.patient_id))
        rows = np.arange(self._rows.start, self._rows.stop)
        day = keys.released_after
        if day is None:
            return rows
        is_later = self._table.where("released", lambda released: released is not None and released > day)
        return rows[is_later[self._rows.start : self._rows.stop]]

    def _own(self, places: Places) -> Places:
        return places[(places >= self._rows.start) & (places < self._rows.stop)]


def _among(starts: Places, places: Places) -> Places:
    """Return those of the places that are among the starts."""
    is_start: NDArray[np.bool_] = starts[np.searchsorted(starts, places)] == places
    return places[is_start]


def _patient(row: IndexRow) -> Patient:
    return Patient(
        row.collection,
        row.patient_id,
        name=row.patient_id,
        sex=row.sex,
        is_phantom=row.species == "Phantom",
        species=SPECIES.get(row.species, HUMAN),
    )


def _study_id(study_uid: str) -> str | None:
    number = zlib.crc32(study_uid.encode())
    match number % 10:
        case 0:
            return str(number % 100_000)
        case 1:
            return f"DBT-S{number % 10_000:05}"
        case 2:
            return f"STUDY_{number % 1000} B"
        case _:
            return None


def _study(row: IndexRow, patient: Patient) -> Study:
    study_id = _study_id(row.study_uid)
    return Study(patient, row.study_uid, row.study_date, study_id, row.study_description, row.age)


def _series(row: IndexRow, study: Study) -> Series:
    return Series(
        study,
        row.series_uid,
        Stamps(row.image_count),
        modality=row.modality,
        number=row.number,
        description=row.description,
        date=row.series_date,
        body_part=row.body_part,
        manufacturer=row.manufacturer,
        model=row.model,
        licence=row.licence,
        data_uri=row.doi and f"https://doi.org/{row.doi}",
        third_party="YES" if row.analysis_result else "NO",
        released=row.released,
        submitted=row.submitted,
    )


def _series_of(rows: Iterable[IndexRow]) -> Iterator[Series]:
    """Yield the series of the rows; neighbours that say the same of their study share its record."""
    for _, alike in groupby(rows, STUDY_FIELDS):
        series_rows = list(alike)
        study = _study(series_rows[0], _patient(series_rows[0]))
        for row in series_rows:
            yield _series(row, study)
