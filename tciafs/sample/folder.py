"""Any folder of DICOM files as a collection of the archive.

The rows come from the headers of the files, the bytes are the files, unchanged. Files that are not
DICOM are passed over; a file that cannot be parsed is too. Database order is path order.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from tciafs.sample.holdings import Shelf
from tciafs.sample.records import PIECE_BYTES, Image, Made, Patient, Series, Study

__all__ = ["shelf"]

TAGS = (
    "PatientID",
    "PatientName",
    "PatientSex",
    "PatientAge",
    "EthnicGroup",
    "StudyInstanceUID",
    "StudyDate",
    "StudyID",
    "StudyDescription",
    "AdmittingDiagnosesDescription",
    "SeriesInstanceUID",
    "SeriesDate",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "SOPInstanceUID",
    "AcquisitionNumber",
    "InstanceNumber",
)


def shelf(name: str, folders: Iterable[Path]) -> Shelf:
    """Return a collection of all DICOM files below `folders`, read on first use."""
    tops = tuple(folders)
    return Shelf(name, lambda: list(_read(name, tops)))


def _read(name: str, folders: Sequence[Path]) -> Iterator[Series]:
    headers: dict[str, Dataset] = {}
    images: dict[str, list[Image]] = {}
    for header, image in _files(folders):
        series_uid = str(header.SeriesInstanceUID)
        headers.setdefault(series_uid, header)
        images.setdefault(series_uid, []).append(image)
    for series_uid, header in headers.items():
        yield _series(name, header, images[series_uid])


def _files(folders: Sequence[Path]) -> Iterator[tuple[Dataset, Image]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            header = _header(path) if path.is_file() else None
            if header is not None:
                yield header, _image(path, header)


def _header(path: Path) -> Dataset | None:
    """Return what the archive indexes of a file; None where it is not a DICOM image file."""
    try:
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
    except (InvalidDicomError, OSError, ValueError, AttributeError, NotImplementedError):
        return None
    needed = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return dataset if all(dataset.get(keyword) for keyword in needed) else None


def _image(path: Path, header: Dataset) -> Image:
    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    return Image(
        str(header.SOPInstanceUID),
        _integer(header.get("AcquisitionNumber")),
        _integer(header.get("InstanceNumber")),
        path.stat().st_size,
        pieces,
        suffix=path.suffix or ".dcm",
    )


def _series(collection: str, header: Dataset, images: Sequence[Image]) -> Series:
    patient = Patient(
        collection,
        str(header.PatientID),
        name=_text(header, "PatientName"),
        sex=_text(header, "PatientSex"),
        ethnic_group=_text(header, "EthnicGroup"),
        is_phantom=False,
    )
    study = Study(
        patient,
        str(header.StudyInstanceUID),
        _day(header.get("StudyDate")),
        _text(header, "StudyID"),
        _text(header, "StudyDescription"),
        _text(header, "PatientAge"),
        _text(header, "AdmittingDiagnosesDescription"),
    )
    return Series(
        study,
        str(header.SeriesInstanceUID),
        Made(lambda _: images),
        modality=_text(header, "Modality"),
        number=_integer(header.get("SeriesNumber")),
        description=_text(header, "SeriesDescription"),
        protocol=_text(header, "ProtocolName"),
        date=_day(header.get("SeriesDate")),
        body_part=_text(header, "BodyPartExamined"),
        manufacturer=_text(header, "Manufacturer"),
        model=_text(header, "ManufacturerModelName"),
        software=_text(header, "SoftwareVersions"),
    )


def _text(header: Dataset, keyword: str) -> str | None:
    """Return the element's text as written (several values joined), None where it is absent."""
    if keyword not in header:
        return None
    value = header[keyword].value
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _day(value: Any) -> dt.date | None:
    try:
        return dt.datetime.strptime(str(value), "%Y%m%d").date()
    except ValueError:
        return None
