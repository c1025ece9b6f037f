"""Records into the rows that NBIA answers: the columns of v1 and v4, in their order.

Defined here and only here: column names, date forms, how numbers are written. A null column is
missing from its row; an empty text is kept. Pure functions; imports only the records.
"""

import datetime as dt
from functools import lru_cache
from typing import TypeAlias

from tciafs.sample.records import Patient, Series, Study

__all__ = ["Row", "metadata_row", "patient_row", "row", "series_row", "spaced_metadata_row", "study_row"]

Value: TypeAlias = str | int | float | bool
Row: TypeAlias = dict[str, Value]

V4 = "v4"
SITE = "Sample"
SPECIES_CODES = {
    "Homo sapiens": "337915000",
    "Canis lupus familiaris": "448771007",
    "Mus musculus": "447612001",
}
"""SNOMED CT codes."""


def row(**columns: Value | None) -> Row:
    """Return the columns that are not null."""
    return {name: value for name, value in columns.items() if value is not None}


def patient_row(patient: Patient, version: str) -> Row:
    """Return a row of getPatient; there the patient's key is spelt PatientId."""
    return row(
        PatientId=patient.patient_id,
        PatientName=patient.name,
        PatientSex=patient.sex,
        EthnicGroup=patient.ethnic_group,
        Collection=patient.collection,
        Phantom="YES" if patient.is_phantom else "NO",
        SpeciesCode=None if patient.is_phantom else SPECIES_CODES.get(patient.species),
        SpeciesDescription=None if patient.is_phantom else patient.species,
        Authorized=_authorized(version),
    )


def study_row(study: Study, series_count: int, version: str) -> Row:
    """Return a row of getPatientStudy."""
    return row(
        StudyInstanceUID=study.uid,
        StudyDate=_date(study.date, version),
        StudyDescription=study.description,
        AdmittingDiagnosesDescription=study.admitting_diagnosis,
        StudyID=study.study_id,
        PatientAge=study.age,
        PatientID=study.patient.patient_id,
        PatientName=study.patient.name,
        PatientSex=study.patient.sex,
        EthnicGroup=study.patient.ethnic_group,
        Collection=study.patient.collection,
        SeriesCount=series_count,
        Authorized=_authorized(version),
    )


def series_row(series: Series, version: str) -> Row:
    """Return a row of getSeries; v4 has more columns and renamed two."""
    is_v4 = version == V4
    study, patient, licence = series.study, series.patient, series.licence
    columns = {  # one dictionary for each of half a million rows
        "SeriesInstanceUID": series.uid,
        "StudyInstanceUID": study.uid,
        "Modality": series.modality,
        "ProtocolName": series.protocol,
        "SeriesDate": _date(series.date, version),
        "SeriesDescription": series.description,
        "BodyPartExamined": series.body_part,
        "SeriesNumber": _number(series),
        "AnnotationsFlag": bool(series.annotations),
        "Collection": patient.collection,
        "Site": SITE if is_v4 else None,
        "PatientID": patient.patient_id,
        "PatientSex": patient.sex if is_v4 else None,
        "PatientAge": study.age if is_v4 else None,
        "AdmittingDiagnosisDescription": study.admitting_diagnosis if is_v4 else None,
        "Manufacturer": series.manufacturer,
        "ManufacturerModelName": series.model,
        "SoftwareVersions": series.software,
        "ImageCount": series.image_count,
        "MaxSubmissionTimestamp" if is_v4 else "TimeStamp": _date(series.submitted, version),
        "LicenseName": licence.name,
        "LicenseURI": licence.uri,
        "DataDescriptionURI" if is_v4 else "CollectionURI": series.data_uri,
        "FileSize": series.size_bytes,
        "ReleasedStatus": "YES" if is_v4 else None,
        "DateReleased": _date(series.released, version),
        "StudyDesc": study.description,
        "StudyDate": _date(study.date, version),
        "ThirdPartyAnalysis": series.third_party,
        "Authorized": _authorized(version),
    }
    return {name: value for name, value in columns.items() if value is not None}


def metadata_row(series: Series) -> Row:
    """Return a row of getSeriesMetadata of v4: what its patient, study and series rows say, in one."""
    columns = patient_row(series.patient, V4) | study_row(series.study, 0, V4) | series_row(series, V4)
    for name in ("PatientId", "StudyDescription", "SeriesCount"):
        columns.pop(name, None)
    return columns


def spaced_metadata_row(series: Series) -> Row:
    """Return a row of getSeriesMetaData of v1: other keys, texts for numbers, the StudyID as location.

    Some columns are left out.
    """
    return row(
        **{
            "Series UID": series.uid,
            "Collection": series.collection,
            "3rd Party Analysis": series.third_party,
            "Data Description URI": series.data_uri,
            "Subject ID": series.patient.patient_id,
            "Study UID": series.study.uid,
            "Study Date": _date(series.study.date, V4),
            "Manufacturer": (series.manufacturer or "").replace(",", " "),
            "Modality": series.modality,
            "Number of Images": str(series.image_count),
            "File Size": str(series.size_bytes),
            "File Location": series.study.study_id,
            "Series Number": None if series.number is None else f"{series.number:.6f}",
            "License Name": series.licence.name,
            "License URL": series.licence.uri,
            "Annotation Size": str(series.annotation_bytes),
            "Annotations Flag": str(bool(series.annotations)).lower(),
        }
    )


def _authorized(version: str) -> int | None:
    return 1 if version == V4 else None


@lru_cache(maxsize=65_536)  # a listing has few days and many rows
def _date(day: dt.date | None, version: str) -> str | None:
    if day is None:
        return None
    return f"{day:%m-%d-%Y}" if version == V4 else f"{day:%Y-%m-%d} 00:00:00.0"


def _number(series: Series) -> int | float | None:
    """Return the decimal of the database, which JSON writes without trailing zeros."""
    if series.listed_number is not None:
        return series.listed_number
    return series.number
