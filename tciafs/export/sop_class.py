"""What kind of image a file holds: its SOP Class, from its header."""

from io import BytesIO
from pathlib import Path

__all__ = ["sop_class_in", "sop_class_of"]

HEADER_BYTES = 64 * 1024
SOP_CLASS_TAG = 0x0008_0016


def sop_class_of(path: Path) -> tuple[str, str]:
    """Return name and UID of the SOP Class of a file, (0008,0016); empty texts where it is no DICOM."""
    with path.open("rb") as file:
        return sop_class_in(file.read(HEADER_BYTES))


def sop_class_in(header: bytes) -> tuple[str, str]:
    """Return name and UID of the SOP Class in the beginning of a file; empty texts where it is no DICOM."""
    # pydicom takes a fifth of a second to import, which only who exports should pay.
    from pydicom.filereader import read_partial
    from pydicom.tag import BaseTag
    from pydicom.uid import UID

    def is_behind(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > SOP_CLASS_TAG

    try:
        uid = UID(str(read_partial(BytesIO(header), stop_when=is_behind, force=True).get("SOPClassUID", "")))
    except Exception:  # bytes that are no DICOM make the parser raise whatever comes to its hands
        return "", ""
    return ("" if uid.name == uid else uid.name), str(uid)
