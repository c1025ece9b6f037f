"""Extended attributes: where a file comes from (`user.tcia.*`) and what tciafs did (`user.tciafs.*`).

Answers come from records, from the ledger, and for the SOP Instance UID from the header of an image
that is here; nothing here ever asks the archive or starts a download. Defined here and only here: the
attributes' names.
"""

import datetime as dt
import zlib
from collections.abc import Mapping

from tciafs.catalogue.sums import Sum
from tciafs.errors import TciafsError
from tciafs.headers import HEADER_BYTES, sop_instance_uid_in
from tciafs.model import Collection, Patient, Series, Study
from tciafs.store.open_packs import OpenImage
from tciafs.store.store import Store

__all__ = [
    "COSTS",
    "SOP_INSTANCE_UID",
    "sop_instance_uid",
    "xattrs_of_costs",
    "xattrs_of_failure",
    "xattrs_of_record",
    "xattrs_of_state",
]

SOP_INSTANCE_UID = "user.tcia.SOPInstanceUID"

LACKS = "user.tciafs.lacks"
"""Why a series is shown without its annotation files."""

COSTS = tuple(f"user.tciafs.{each}" for each in ("series", "images", "size", "noncommercial", "local_bytes"))
"""What lies below a folder: series, images and bytes as listed, how many series are NonCommercial, and how
many of the bytes are on disk."""


def xattrs_of_record(record: Collection | Patient | Study | Series) -> Mapping[str, str]:
    """Return the attributes that the archive's own words give; what it did not say is left out."""
    facts: dict[str, str | None]
    match record:
        case Collection():
            facts = {"Collection": record.name}
        case Patient():
            facts = {"Collection": record.collection, "PatientID": record.patient_id}
        case Study():
            facts = {
                "Collection": record.collection,
                "PatientID": record.patient_id,
                "StudyInstanceUID": record.study_uid,
                "StudyDescription": record.description,
                "StudyDate": _iso(record.date),
            }
        case Series():
            facts = {
                "Collection": record.collection,
                "PatientID": record.patient_id,
                "StudyInstanceUID": record.study_uid,
                "SeriesInstanceUID": record.series_uid,
                "SeriesDescription": record.description,
                "Modality": record.modality,
                "LicenseName": record.licence_name,
                "LicenseURI": record.licence_uri,
                "NonCommercial": "yes" if record.forbids_commercial_use else None,
                "DataDescriptionURI": record.data_uri,
                "BodyPartExamined": record.body_part,
                "Manufacturer": record.manufacturer,
                "ManufacturerModelName": record.model,
                "ThirdPartyAnalysis": record.third_party,
                "DateReleased": _iso(record.released),
                "ImageCount": _text(record.image_count),
                "FileSize": _text(record.size_bytes),
                "AnnotationsFlag": "yes" if record.has_annotations else None,
            }
    return {f"user.tcia.{key}": value for key, value in facts.items() if value}


def xattrs_of_costs(known: Sum, local: Sum) -> Mapping[str, str]:
    """Return what series come to, and those of them that are on disk, as far as it is known."""
    numbers = (known.series, known.images, known.size_bytes, known.restricted or None, local.size_bytes)
    return {name: str(number) for name, number in zip(COSTS, numbers, strict=True) if number is not None}


def _iso(day: dt.date | None) -> str | None:
    return None if day is None else day.isoformat()


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def xattrs_of_state(store: Store, series: Series, refused: TciafsError | None = None) -> Mapping[str, str]:
    """Return what tciafs knows of the bytes of a series: state, checks, route, last error or refusal."""
    attributes = {"user.tciafs.state": store.state(series)}
    if in_part_bytes := store.ranged.bytes_of(series):
        attributes["user.tciafs.in_part"] = str(in_part_bytes)
    if known := store.peek(series):
        said = {
            "user.tciafs.verified": ",".join(known.layout.checks),
            "user.tciafs.route": ",".join(known.layout.routes) if known.layout.checks else "",
        }
        attributes.update({name: text for name, text in said.items() if text})
    if lacks := _lacks(store, series):
        attributes[LACKS] = lacks
    failed = store.failures.find(series)
    if failure := failed.failure if failed is not None else refused:
        attributes.update(xattrs_of_failure(failure))
    return attributes


def _lacks(store: Store, series: Series) -> str:
    """Return why a series is without annotations, also from the moment on at which its last listing ended."""
    download, known = store.peek_download(series), store.peek(series)
    if download is not None and download.layout is not None:
        return download.layout.lacks
    return "" if known is None else known.layout.lacks


def xattrs_of_failure(failure: TciafsError) -> Mapping[str, str]:
    """Return what says why a series could not be had, or a folder not be listed."""
    return {"user.tciafs.error": f"{failure}. {failure.hint}".strip()}


def sop_instance_uid(image: OpenImage) -> str | None:
    """Return DICOM (0008,0018) of an image, None if it has none or is no DICOM; reads the disk."""
    try:
        return sop_instance_uid_in(image.read(0, HEADER_BYTES))
    except zlib.error:  # the deflated transfer syntax gives nothing before its end
        return sop_instance_uid_in(image.read(0, image.image.size_bytes))
