"""NBIA's listings: bodies that arrive in pieces -> the records that were asked for, and no others.

Defined here and only here: which records belong to an answer, what becomes of those that come twice, and the
warning of rows that are none. One object reads one body, as `http.Reader` or `http.RowReader`; all of them
raise UnreadableAnswer for a body that is no listing. NBIA says nothing by an empty body. No I/O.
"""

import datetime as dt
import logging
from collections.abc import Callable, Hashable
from functools import partial
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec

from tciafs.archives.nbia.json_rows import RowDecoder
from tciafs.archives.nbia.rows import (
    AnnotationSizeRow,
    ChangeRow,
    CollectionRow,
    ImageRow,
    PatientRow,
    SeriesRow,
    StudyRow,
    ValueRow,
    annotation_bytes_of,
    change_of,
    collection_of,
    image_uid_of,
    patient_of,
    series_of,
    study_of,
    value_of,
)
from tciafs.model import Change, Collection, Patient, Series, Study, Value, series_identity, study_identity

__all__ = [
    "Changes",
    "Listing",
    "Records",
    "annotation_bytes_listing",
    "collections_listing",
    "every_series",
    "every_study",
    "image_uids_listing",
    "named_listing",
    "patients_listing",
    "series_listing",
    "studies_listing",
    "values_listing",
]

log = logging.getLogger(__name__)

Row = TypeVar("Row", bound=msgspec.Struct)
Record = TypeVar("Record")


class Records(Generic[Record]):
    """The records of one body as they come, in batches; one may come twice.

    `build` makes a record of a row, None of one that has none: those are warned of at the end.
    `is_asked` tells what belongs to the answer: the server compares names without regard to case.
    """

    def __init__(
        self,
        what: str,
        row_type: type[Row],
        build: Callable[[Row], Record | None],
        is_asked: Callable[[Record], bool] = lambda record: True,
    ) -> None:
        self._what = what
        self._rows: RowDecoder[Any] = RowDecoder(row_type)
        self._build: Callable[[Any], Record | None] = build
        self._is_asked = is_asked
        self._row_count = 0
        self._unusable_count = 0

    def feed(self, piece: bytes) -> list[Record]:
        """Return the records that are complete with the next piece."""
        return self._built(self._rows.feed(piece))

    def finish(self) -> list[Record]:
        """Return the records that are left, and warn of all rows that were of no use."""
        records = self._built(self._rows.finish())
        if self._unusable_count:
            log.warning(
                "%d of %d rows of %s left out: their identifiers are missing or malformed",
                self._unusable_count,
                self._row_count,
                self._what,
            )
        return records

    def _built(self, rows: list[Any]) -> list[Record]:
        self._row_count += len(rows)
        records = [record for record in map(self._build, rows) if record is not None]
        self._unusable_count += len(rows) - len(records)
        return list(filter(self._is_asked, records))


class Listing(Generic[Record]):
    """All records of one body, without repetitions: of those with one identity, the first."""

    def __init__(self, records: Records[Record], identity: Callable[[Record], Hashable]) -> None:
        self._records = records
        self._identity = identity
        self._found: dict[Hashable, Record] = {}

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._take(self._records.feed(piece))

    def finish(self) -> tuple[Record, ...]:
        """Return the records in the order they came."""
        self._take(self._records.finish())
        return tuple(self._found.values())

    def _take(self, records: list[Record]) -> None:
        for identity, record in zip(map(self._identity, records), records, strict=True):
            self._found.setdefault(identity, record)


class Changes:
    """Who has had something released after a day, each patient once with the latest day."""

    def __init__(self, since: dt.date) -> None:
        self._records = Records("changes", ChangeRow, change_of, lambda change: change.released > since)
        self._latest: dict[tuple[str, str], Change] = {}

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._take(self._records.feed(piece))

    def finish(self) -> tuple[Change, ...]:
        """Return the patients in the order they came."""
        self._take(self._records.finish())
        return tuple(self._latest.values())

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            known = self._latest.setdefault((change.collection, change.patient_id), change)
            if change.released > known.released:
                self._latest[change.collection, change.patient_id] = change


def collections_listing() -> Listing[Collection]:
    """Read an answer of getCollectionValues."""
    return Listing(Records("collections", CollectionRow, collection_of), attrgetter("name"))


def annotation_bytes_listing() -> Listing[int]:
    """Read an answer of getSeriesMetaData; a row that does not say is as good as none."""
    build = partial(_said_or_none, annotation_bytes_of)
    return Listing(Records("annotations", AnnotationSizeRow, build, lambda size: size > 0), lambda size: size)


def _said_or_none(read: Callable[[AnnotationSizeRow], int | None], row: AnnotationSizeRow) -> int:
    return read(row) or 0


def image_uids_listing() -> Listing[str]:
    """Read an answer of getSOPInstanceUIDs."""
    return Listing(Records("images", ImageRow, image_uid_of), lambda uid: uid)


def patients_listing(collection: str) -> Listing[Patient]:
    """Read the patients of exactly `collection` in an answer of getPatient."""
    build = partial(patient_of, collection=collection)
    records = Records("patients", PatientRow, build, lambda record: record.collection == collection)
    return Listing(records, attrgetter("patient_id"))


def studies_listing(collection: str, patient: str) -> Listing[Study]:
    """Read the studies of exactly this patient in an answer of getPatientStudy."""
    return Listing(_studies(collection, patient), study_identity)


def series_listing(collection: str, patient: str) -> Listing[Series]:
    """Read the series of exactly this patient in an answer of getSeries."""
    return Listing(_series(collection, patient), series_identity)


def named_listing(series_uids: frozenset[str] | None) -> Listing[Series]:
    """Read exactly these series in an answer, of whatever collection; None: whatever series come."""
    build = partial(series_of, collection=None, patient=None)
    records = Records(
        "series", SeriesRow, build, lambda record: series_uids is None or record.series_uid in series_uids
    )
    return Listing(records, attrgetter("series_uid"))


def values_listing(field: str) -> Listing[Value]:
    """Read an answer of getModalityValues and its like; an empty text says as little as no row does."""
    build = partial(value_of, field=field)
    records = Records("values", ValueRow, build, lambda record: record.text != "")
    return Listing(records, attrgetter("text"))


def every_study(collection: str) -> Records[Study]:
    """Read the studies of all patients of exactly `collection`; a row without a patient is left out."""
    return _studies(collection, None)


def every_series(collection: str) -> Records[Series]:
    """Read the series of all patients of exactly `collection`; a row without a patient is left out."""
    return _series(collection, None)


def _studies(collection: str, patient: str | None) -> Records[Study]:
    build = partial(study_of, collection=collection, patient=patient)
    return Records("studies", StudyRow, build, partial(_is_of, collection=collection, patient=patient))


def _series(collection: str, patient: str | None) -> Records[Series]:
    build = partial(series_of, collection=collection, patient=patient)
    return Records("series", SeriesRow, build, partial(_is_of, collection=collection, patient=patient))


def _is_of(record: Study | Series, collection: str, patient: str | None) -> bool:
    return record.collection == collection and patient in (None, record.patient_id)
