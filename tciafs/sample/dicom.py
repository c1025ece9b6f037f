"""Archive records into DICOM files: identifiers, the common header, encoding.

Defined here and only here: how a record's fields become header elements (a null text is absent, an
empty one present and empty; type 2 elements are always present). No pictures are made here.
"""

import hashlib
import io
from dataclasses import replace
from functools import cache, partial
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, ExplicitVRLittleEndian

from tciafs.sample.records import Image, Series, image_of_bytes
from tciafs.sample.zips import packed

__all__ = ["encode", "header", "image_of_dataset", "image_of_file", "uid"]

ROOT = "1.2.826.0.1.3680043.8.498."
"""The UID root that pydicom gives to its users."""

LONGEST_UID = 64


def uid(*path: object, ending: str = "") -> str:
    """Return the UID of the thing at `path`: always the same, 64 characters, ending in `ending`."""
    digest = hashlib.sha512("/".join(map(str, path)).encode()).hexdigest()
    digits = str(int(digest, 16))
    return ROOT + "1" + digits[: LONGEST_UID - len(ROOT) - 1 - len(ending)] + ending


def _put(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set an element without checking the value: some of the archive's are meant to be odd."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"not a DICOM keyword: {keyword}")
    vr = dictionary_VR(tag)
    dataset.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))


def header(
    series: Series,
    sop_class: UID,
    sop_uid: str,
    *,
    instance: int | None = 1,
    acquisition: int | None = None,
) -> Dataset:
    """Return a dataset with the patient, study, series and instance elements of one image."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = sop_uid
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Computed, not acquired: no person is behind it"
    for keyword, value in _required(series).items():
        _put(dataset, keyword, "" if value is None else value)
    for keyword, value in _optional(series).items():
        if value is not None:
            _put(dataset, keyword, value)
    dataset.InstanceNumber = instance
    if acquisition is not None:
        dataset.AcquisitionNumber = acquisition
    return dataset


def _required(series: Series) -> dict[str, Any]:
    """Return the type 2 elements (DICOM PS3.3 C.7): present even when nothing is known."""
    study, patient = series.study, series.patient
    return {
        "PatientName": patient.name,
        "PatientID": patient.patient_id,
        "PatientBirthDate": "",
        "PatientSex": patient.sex,
        "StudyInstanceUID": study.uid,
        "StudyDate": study.date and f"{study.date:%Y%m%d}",
        "StudyTime": "",
        "ReferringPhysicianName": "",
        "StudyID": study.study_id,
        "AccessionNumber": "",
        "SeriesInstanceUID": series.uid,
        "SeriesNumber": None if series.number is None else str(series.number),
        "Modality": series.modality,
        "Manufacturer": series.manufacturer,
    }


def _optional(series: Series) -> dict[str, Any]:
    study = series.study
    return {
        "EthnicGroup": series.patient.ethnic_group,
        "PatientAge": study.age,
        "StudyDescription": study.description,
        "AdmittingDiagnosesDescription": study.admitting_diagnosis,
        "SeriesDescription": series.description,
        "SeriesDate": series.date and f"{series.date:%Y%m%d}",
        "ProtocolName": series.protocol,
        "BodyPartExamined": series.body_part,
        "ManufacturerModelName": series.model,
        "SoftwareVersions": series.software,
    }


def encode(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Return the DICOM file (PS3.10) of `dataset`, whose pixels are already in `syntax`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True, overwrite=True)
    return buffer.getvalue()


def image_of_dataset(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian) -> Image:
    """Return the image record of an encoded dataset."""
    return image_of_file(
        str(dataset.SOPInstanceUID),
        _number(dataset.get("AcquisitionNumber")),
        _number(dataset.get("InstanceNumber")),
        encode(dataset, syntax),
    )


def image_of_file(sop_uid: str, acquisition: int | None, instance: int | None, content: bytes) -> Image:
    """Return the image record of a DICOM file; once it was sent, it is kept compressed, too."""
    image = image_of_bytes(sop_uid, acquisition, instance, content)
    return replace(image, deflated=cache(partial(packed, content)))


def _number(value: Any) -> int | None:
    return None if value is None or value == "" else int(value)
