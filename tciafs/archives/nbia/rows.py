"""The rows of NBIA's listings, as a server of any version writes them: one row -> one record.

Defined here and only here: the columns, their spellings in v1 and v4, and what is forgiven. Pure
functions without I/O. Null columns are missing from NBIA's JSON. A row whose identifiers are missing
or malformed is no record: None.
"""

import datetime as dt
import functools
import math
import re
from typing import Any

import msgspec

from tciafs.model import Change, Collection, Patient, Series, Study, Value, believed_image_count

__all__ = [
    "AnnotationSizeRow",
    "ChangeRow",
    "CollectionRow",
    "ImageRow",
    "PatientRow",
    "SeriesRow",
    "StudyRow",
    "ValueRow",
    "annotation_bytes_of",
    "change_of",
    "collection_of",
    "image_uid_of",
    "patient_of",
    "read_date",
    "series_of",
    "study_of",
    "value_of",
]

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
# one odd value costs that value and not the listing, as long as it is JSON: invalid UTF-8, half a pair of
# surrogates and a number that no float holds (1e999) cost the listing. What JSON brings has no cycles to be
# collected.


class CollectionRow(msgspec.Struct, frozen=True, gc=False, rename={"collection": "Collection"}):
    """A row of getCollectionValues."""

    collection: Any = None


class ImageRow(msgspec.Struct, frozen=True, gc=False, rename={"sop_uid": "SOPInstanceUID"}):
    """A row of getSOPInstanceUIDs."""

    sop_uid: Any = None


class PatientRow(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "collection": "Collection",
        "patient_id": "PatientId",
        "patient_id_as_elsewhere": "PatientID",
    },
):
    """A row of getPatient."""

    collection: Any = None
    patient_id: Any = None
    patient_id_as_elsewhere: Any = None


class StudyRow(
    msgspec.Struct,
    frozen=True,
    gc=False,
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
    """A row of getPatientStudy."""

    collection: Any = None
    patient_id: Any = None
    patient_id_as_elsewhere: Any = None
    study_uid: Any = None
    date: Any = None
    study_id: Any = None
    description: Any = None


class SeriesRow(
    msgspec.Struct,
    frozen=True,
    gc=False,
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
        "model": "ManufacturerModelName",
        "annotations_flag": "AnnotationsFlag",
    },
):
    """A row of getSeries."""

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
    model: Any = None
    annotations_flag: Any = None


class ChangeRow(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "collection": "Collection",
        "patient_id": "PatientID",
        "patient_id_as_elsewhere": "PatientId",
        "released": "DateReleased",
    },
):
    """A row of getUpdatedSeries, of which little is used: the columns are those of getSeries."""

    collection: Any = None
    patient_id: Any = None
    patient_id_as_elsewhere: Any = None
    released: Any = None


class AnnotationSizeRow(msgspec.Struct, frozen=True, gc=False, rename={"size": "Annotation Size"}):
    """A row of getSeriesMetaData, of which one column is used."""

    size: Any = None


class ValueRow(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={"modality": "Modality", "body_part": "BodyPartExamined", "manufacturer": "Manufacturer"},
):
    """A row of getModalityValues, getBodyPartValues or getManufacturerValues: one column of these."""

    modality: Any = None
    body_part: Any = None
    manufacturer: Any = None


def collection_of(row: CollectionRow) -> Collection | None:
    """Return the collection of a row of getCollectionValues."""
    name = _key(row.collection)
    return None if name is None else Collection(name)


def image_uid_of(row: ImageRow) -> str | None:
    """Return the SOP Instance UID in a row of getSOPInstanceUIDs."""
    return _uid(row.sop_uid)


def patient_of(row: PatientRow, collection: str) -> Patient | None:
    """Return the patient of a row of getPatient; of `collection` where it names none."""
    patient_id = _key(row.patient_id) or _key(row.patient_id_as_elsewhere)
    if patient_id is None:
        return None
    return Patient(_key(row.collection) or collection, patient_id)


def study_of(row: StudyRow, collection: str, patient: str | None) -> Study | None:
    """Return the study of a row of getPatientStudy.

    Where the row does not name them, it is of `collection` and of `patient` (None: of nobody).
    """
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


def series_of(row: SeriesRow, collection: str | None, patient: str | None) -> Series | None:
    """Return the series of a row of getSeries.

    Collection (None: of none) and patient as in `study_of`. `studied` is the study's day, or else the
    series' own.
    """
    patient_id = _key(row.patient_id) or _key(row.patient_id_as_elsewhere) or patient
    study_uid = _uid(row.study_uid)
    series_uid = _uid(row.series_uid)
    collection = _key(row.collection) or collection
    if collection is None or patient_id is None or study_uid is None or series_uid is None:
        return None
    return Series(
        collection=collection,
        patient_id=patient_id,
        study_uid=study_uid,
        series_uid=series_uid,
        modality=_text(row.modality),
        number=_number(row.number),
        description=_text(row.description),
        image_count=believed_image_count(_count(row.image_count)),
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
        model=_text(row.model),
        has_annotations=_flag(row.annotations_flag),
    )


def annotation_bytes_of(row: AnnotationSizeRow) -> int | None:
    """Return what annotations come to, in bytes; None where a row of getSeriesMetaData does not say."""
    return _count(row.size)


def change_of(row: ChangeRow) -> Change | None:
    """Return whom a row of getUpdatedSeries is of, and when it was released."""
    collection = _key(row.collection)
    patient_id = _key(row.patient_id) or _key(row.patient_id_as_elsewhere)
    released = read_date(row.released)
    if collection is None or patient_id is None or released is None:
        return None
    return Change(collection, patient_id, released)


def value_of(row: ValueRow, field: str) -> Value | None:
    """Return the value of a field in a row, which may be an empty text."""
    text = _text(getattr(row, field))
    return None if text is None else Value(text)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(int(value)) if value == int(value) else repr(value)


def _key(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return _text(value)


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


def _flag(value: object) -> bool:
    """Return what a flag says: true or false, a number, or the word that some answers write."""
    if isinstance(value, str):
        return value.strip().lower() in ("true", "yes", "1")
    return isinstance(value, bool | int) and bool(value)


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
