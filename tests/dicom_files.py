"""Small DICOM files for tests, made with pydicom: of them only the header is looked at."""

from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

__all__ = ["small_dicom"]

SECONDARY_CAPTURE = UID("1.2.840.10008.5.1.4.1.1.7")


def small_dicom(
    series_uid: str,
    *,
    sop: str,
    acquisition: int | None = 1,
    instance: int | None = 1,
    study_id: str | None = None,
    private_bytes: int = 0,
    padding: int = 0,
) -> bytes:
    """Return a file of a series; `private_bytes` lie before its numbers, `padding` of pixels behind."""
    image = Dataset()
    image.SOPClassUID = SECONDARY_CAPTURE
    image.SOPInstanceUID = UID(sop)
    if private_bytes:
        image.private_block(0x0009, "tciafs", create=True).add_new(1, "OB", bytes(private_bytes))
    image.SeriesInstanceUID = series_uid
    image.StudyInstanceUID = "1.2"
    image.StudyID = study_id or ""
    image.AcquisitionNumber = acquisition
    image.InstanceNumber = instance
    image.Rows = 1
    if padding:
        image.PixelData = bytes(padding + padding % 2)
        image["PixelData"].VR = "OB"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    image.file_meta.MediaStorageSOPInstanceUID = UID(sop)
    file = BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()
