"""The rows of NBIA's listings: JSON bytes as a server of any version writes them -> records.

Defined here and only here: the columns, their spellings in v1 and v4, and what is forgiven. Pure
functions without I/O. Null columns are missing from NBIA's JSON, and an empty answer has no body.
"""

import datetime as dt
import functools
import logging
import math
import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import msgspec

from tciafs.errors import UnreadableAnswer
from tciafs.model import Collection, Patient, Series, Study

__all__ = ["read_collections", "read_date", "read_patients", "read_series", "read_studies"]

log = logging.getLogger(__name__)

Row = TypeVar("Row", bound=msgspec.Struct)
Record = TypeVar("Record", bound=Hashable)

_UTF8_MARK = b"\xef\xbb\xbf"
_MAX_UID_LENGTH = 64
_MAX_COUNT = (1 << 63) - 1

# DICOM PS3.5 section 9.1, leading zeros forgiven. Nothing else may become part of a path or a URL.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")

_DATE_FORMS = (
    re.compile(r"(?P<y>[0-9]{4})-(?P<m>[0-9]{2})-(?P<d>[0-9]{2})(?:[ T].*)?"),  # v1, ISO
    re.compile(r"(?P<m>[0-9]{2})-(?P<d>[0-9]{2})-(?P<y>[0-9]{4})"),  # v4
    re.compile(r"(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})"),  # DICOM
)


# Any column may come as a text, a number or something absurd: no type is asked for here, so that
# one odd value costs that value and not the listing.


class _CollectionRow(msgspec.Struct, frozen=True, rename={"collection": "Collection"}):
    collection: Any = None


class _PatientRow(
    msgspec.Struct,
    frozen=True,
    rename={
        "collection": "Collection",
        "patient_id": "PatientId",
        "patient_id_as_elsewhere": "PatientID",
    },
):
    collection: Any = None
    patient_id: Any = None
    patient_id_as_elsewhere: Any = None


class _StudyRow(
    msgspec.Struct,
    frozen=True,
    rename={
        "collection": "Collection",
        "patient_id": "PatientID",
        "patient_id_as_elsewhere": "PatientId",
        "study_uid": "StudyInstanceUID",
        "date": "StudyDate",
        "study_id": "StudyID",
        "description": "StudyDescription",
    },
):
    collection: Any = None
    patient_id: Any = None
    patient_id_as_elsewhere: Any = None
    study_uid: Any = None
    date: Any = None
    study_id: Any = None
    description: Any = None


class _SeriesRow(
    msgspec.Struct,
    frozen=True,
    rename={
        "collection": "Collection",
        "patient_id": "PatientID",
        "patient_id_as_elsewhere": "PatientId",
        "study_uid": "StudyInstanceUID",
        "series_uid": "SeriesInstanceUID",
        "modality": "Modality",
        "number": "SeriesNumber",
        "description": "SeriesDescription",
        "image_count": "ImageCount",
        "size_bytes": "FileSize",
        "released": "DateReleased",
        "submitted_v1": "TimeStamp",
        "submitted_v4": "MaxSubmissionTimestamp",
        "study_date": "StudyDate",
        "series_date": "SeriesDate",
        "licence_name": "LicenseName",
        "licence_uri": "LicenseURI",
        "data_uri_v1": "CollectionURI",
        "data_uri_v4": "DataDescriptionURI",
        "body_part": "BodyPartExamined",
        "manufacturer": "Manufacturer",
        "third_party": "ThirdPartyAnalysis",
    },
):
    collection: Any = None
    patient_id: Any = None
    patient_id_as_elsewhere: Any = None
    study_uid: Any = None
    series_uid: Any = None
    modality: Any = None
    number: Any = None
    description: Any = None
    image_count: Any = None
    size_bytes: Any = None
    released: Any = None
    submitted_v1: Any = None
    submitted_v4: Any = None
    study_date: Any = None
    series_date: Any = None
    licence_name: Any = None
    licence_uri: Any = None
    data_uri_v1: Any = None
    data_uri_v4: Any = None
    body_part: Any = None
    manufacturer: Any = None
    third_party: Any = None


def read_collections(body: bytes) -> tuple[Collection, ...]:
    """Return the collections in an answer of getCollectionValues; raises UnreadableAnswer."""

    def build(row: _CollectionRow) -> Collection | None:
        name = _key(row.collection)
        return None if name is None else Collection(name)

    return _unique(_records("collections", _decode(body, _CollectionRow), build), lambda record: record.name)


def read_patients(body: bytes, collection: str) -> tuple[Patient, ...]:
    """Return the patients of exactly `collection` in an answer of getPatient.

    The server compares names without regard to case, so an answer can hold rows of another
    collection. A row that names no collection is of the one asked for. Raises UnreadableAnswer.
    """

    def build(row: _PatientRow) -> Patient | None:
        patient_id = _key(row.patient_id) or _key(row.patient_id_as_elsewhere)
        if patient_id is None:
            return None
        return Patient(_key(row.collection) or collection, patient_id)

    records = _records("patients", _decode(body, _PatientRow), build)
    return _unique(
        (record for record in records if record.collection == collection),
        lambda record: record.patient_id,
    )


def read_studies(body: bytes, collection: str, patient: str | None) -> tuple[Study, ...]:
    """Return the studies in an answer of getPatientStudy, of exactly what was asked for.

    `patient` None means all patients. A row without a usable UID, or without a patient when none
    was asked for, is left out with a warning. Raises UnreadableAnswer.
    """

    def build(row: _StudyRow) -> Study | None:
        patient_id = _key(row.patient_id) or _key(row.patient_id_as_elsewhere) or patient
        study_uid = _uid(row.study_uid)
        if patient_id is None or study_uid is None:
            return None
        return Study(
            collection=_key(row.collection) or collection,
            patient_id=patient_id,
            study_uid=study_uid,
            date=read_date(row.date),
            study_id=_text(row.study_id),
            description=_text(row.description),
        )

    records = _records("studies", _decode(body, _StudyRow), build)
    return _unique(
        (record for record in records if _is_asked(record, collection, patient)),
        lambda record: (record.patient_id, record.study_uid),
    )


def read_series(body: bytes, collection: str, patient: str | None) -> tuple[Series, ...]:
    """Return the series in an answer of getSeries, of exactly what was asked for.

    As `read_studies`. `studied` is the study's day, or else the series' own. Raises
    UnreadableAnswer.
    """
    records = _records(
        "series",
        _decode(body, _SeriesRow),
        functools.partial(_series, collection=collection, patient=patient),
    )
    return _unique(
        (record for record in records if _is_asked(record, collection, patient)),
        lambda record: (record.patient_id, record.study_uid, record.series_uid),
    )


def _series(row: _SeriesRow, collection: str, patient: str | None) -> Series | None:
    patient_id = _key(row.patient_id) or _key(row.patient_id_as_elsewhere) or patient
    study_uid = _uid(row.study_uid)
    series_uid = _uid(row.series_uid)
    if patient_id is None or study_uid is None or series_uid is None:
        return None
    return Series(
        collection=_key(row.collection) or collection,
        patient_id=patient_id,
        study_uid=study_uid,
        series_uid=series_uid,
        modality=_text(row.modality),
        number=_number(row.number),
        description=_text(row.description),
        image_count=_count(row.image_count),
        size_bytes=_count(row.size_bytes),
        released=read_date(row.released),
        submitted=read_date(row.submitted_v4) or read_date(row.submitted_v1),
        studied=read_date(row.study_date) or read_date(row.series_date),
        licence_name=_text(row.licence_name),
        licence_uri=_text(row.licence_uri),
        data_uri=_text(row.data_uri_v4) or _text(row.data_uri_v1),
        body_part=_text(row.body_part),
        manufacturer=_text(row.manufacturer),
        third_party=_text(row.third_party),
    )


def _is_asked(record: Study | Series, collection: str, patient: str | None) -> bool:
    return record.collection == collection and patient in (None, record.patient_id)


def _decode(body: bytes, row_type: type[Row]) -> list[Row]:
    """Return the rows that are not empty: of an array, of a single object, or of no body at all."""
    body = body.removeprefix(_UTF8_MARK).strip()
    if body in (b"", b"null"):
        return []
    try:
        rows = _decoder(row_type).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        seen = "a web page" if body.startswith(b"<") else f"something else ({error})"
        raise UnreadableAnswer(f"the archive sent {seen} instead of the JSON of a listing") from error
    nothing = row_type()
    if isinstance(rows, row_type):
        if rows == nothing and msgspec.json.decode(body) != {}:
            raise UnreadableAnswer("the archive sent an object that is no row instead of a listing")
        rows = [rows]
    return [row for row in rows if row is not None and row != nothing]


@functools.cache
def _decoder(row_type: type[msgspec.Struct]) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(list[row_type | None] | row_type)  # type: ignore[valid-type]


def _records(what: str, rows: list[Row], build: Callable[[Row], Record | None]) -> Iterable[Record]:
    """Yield what `build` makes of the rows, and warn once of those it makes nothing of."""
    unusable = 0
    for row in rows:
        record = build(row)
        if record is None:
            unusable += 1
        else:
            yield record
    if unusable:
        log.warning(
            "%d of %d rows of %s left out: their identifiers are missing or malformed",
            unusable,
            len(rows),
            what,
        )


def _unique(records: Iterable[Record], identity: Callable[[Record], Hashable]) -> tuple[Record, ...]:
    """Return the records without repetitions: of those with one identity, the first."""
    by_identity: dict[Hashable, Record] = {}
    for record in records:
        by_identity.setdefault(identity(record), record)
    return tuple(by_identity.values())


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(int(value)) if value == int(value) else repr(value)


def _key(value: object) -> str | None:
    return _text(value) or None


def _uid(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > _MAX_UID_LENGTH or not _UID.fullmatch(value):
        return None
    return value


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: object) -> int | None:
    """Return a number of things or bytes; None for a negative, broken or impossible one."""
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        number = _number(value)
        if number is None or number != int(number):
            return None
        count = int(number)
    return count if 0 <= count <= _MAX_COUNT else None


def read_date(value: object) -> dt.date | None:
    """Return the day that NBIA wrote in any of its forms; None for anything else.

    `2000-01-01 00:00:00.0` (v1), `MM-DD-YYYY` (v4), `YYYY-MM-DD` and `YYYYMMDD` (its examples).
    """
    text = _text(value)
    return None if text is None else _read_date_text(text[:40])


@functools.lru_cache(maxsize=1 << 16)  # a listing repeats few days many times
def _read_date_text(text: str) -> dt.date | None:
    for form in _DATE_FORMS:
        match = form.fullmatch(text)
        if match is None:
            continue
        try:
            return dt.date(int(match["y"]), int(match["m"]), int(match["d"]))
        except ValueError:
            return None
    return None
