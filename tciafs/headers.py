"""What the beginning of an image says of it: its SOP Instance UID and its SOP Class."""

import threading
import zlib
from io import BytesIO
from typing import Any

__all__ = ["HEADER_BYTES", "sop_class_in", "sop_instance_uid_in"]

HEADER_BYTES = 64 * 1024
"""How much of a file is enough: both elements lie in its first group after the file meta information."""

SOP_CLASS_TAG = 0x0008_0016
SOP_INSTANCE_UID_TAG = 0x0008_0018

_importing = threading.Lock()


def sop_instance_uid_in(header: bytes) -> str | None:
    """Return DICOM (0008,0018) of the beginning of an image, None if it has none or is no DICOM.

    Raises zlib.error where the beginning is too short: the deflated transfer syntax gives nothing before
    its end.
    """
    return _text_in(header, "SOPInstanceUID", SOP_INSTANCE_UID_TAG) or None


def sop_class_in(header: bytes) -> tuple[str, str]:
    """Return name and UID of the SOP Class in the beginning of an image, (0008,0016); else empty texts."""
    try:
        uid = _text_in(header, "SOPClassUID", SOP_CLASS_TAG)
    except zlib.error:
        return "", ""
    from pydicom.uid import UID

    name = UID(uid).name
    return ("" if name == uid else name), uid


def _text_in(header: bytes, keyword: str, tag: int) -> str:
    read_partial = _import_reader()

    def is_behind(next_tag: Any, _vr: str | None, _length: int) -> bool:
        return int(next_tag) > tag

    try:
        return str(read_partial(BytesIO(header), stop_when=is_behind, force=True).get(keyword, ""))
    except zlib.error:
        raise
    except Exception:  # bytes that are no DICOM make the parser raise whatever comes to its hands
        return ""


def _import_reader() -> Any:
    """Import pydicom when the first header is read: that takes a fifth of a second.

    One thread at a time: its modules import each other in circles, and a second thread that enters at
    another point is handed a module that is not complete (importlib, _DeadlockError).
    """
    with _importing:
        from pydicom.filereader import read_partial
    return read_partial
