"""What the beginning of an image says of it: its UIDs, its SOP Class, and what orders it in its series."""

import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from tciafs.plain_headers import plain_number, plain_text, plain_uid, plain_values

__all__ = ["HEADER_BYTES", "Beginning", "beginning_in", "sop_class_in", "sop_instance_uid_in"]

HEADER_BYTES = 64 * 1024
"""How much of a file is enough: both elements lie in its first group after the file meta information."""

SOP_CLASS_TAG = 0x0008_0016
SOP_INSTANCE_UID_TAG = 0x0008_0018
INSTANCE_NUMBER_TAG = 0x0020_0013
BEGINNING_TAGS = (SOP_INSTANCE_UID_TAG, 0x0020_000E, 0x0020_0010, 0x0020_0012, INSTANCE_NUMBER_TAG)

_importing = threading.Lock()


def sop_instance_uid_in(header: bytes) -> str | None:
    """Return DICOM (0008,0018) of the beginning of an image, None if it has none or is no DICOM.

    Raises zlib.error where the beginning is too short: the deflated transfer syntax gives nothing before
    its end.
    """
    plain = plain_values(header, (SOP_INSTANCE_UID_TAG,), SOP_INSTANCE_UID_TAG)
    if plain is not None and (uid := plain_uid(plain.get(SOP_INSTANCE_UID_TAG, b""))) is not None:
        return uid or None
    return _text_in(header, "SOPInstanceUID", SOP_INSTANCE_UID_TAG) or None


@dataclass(frozen=True, slots=True)
class Beginning:
    """DICOM (0008,0018), (0020,000E), (0020,0010), (0020,0012) and (0020,0013) of an image; None: absent or
    empty.
    """

    sop_instance_uid: str | None
    series_uid: str | None
    study_id: str | None
    acquisition_number: int | None
    instance_number: int | None


def beginning_in(header: bytes, *, is_whole: bool) -> Beginning | None:
    """Return what the beginning of an image says, None where that takes more of it.

    What is no DICOM, or has no such elements at its end either (`is_whole`), says nothing: all is None.
    """
    return _plain_beginning(header) or _careful_beginning(header, is_whole=is_whole)


def _careful_beginning(header: bytes, *, is_whole: bool) -> Beginning | None:
    behind: list[int] = []
    read_partial = _import_reader()

    def is_behind(next_tag: Any, _vr: str | None, _length: int) -> bool:
        if int(next_tag) > INSTANCE_NUMBER_TAG:
            behind.append(int(next_tag))
        return bool(behind)

    try:
        found = read_partial(BytesIO(header), stop_when=is_behind, force=True)
        if not behind and not is_whole:
            return None
        return Beginning(
            _text_of(found, "SOPInstanceUID"),
            _text_of(found, "SeriesInstanceUID"),
            _text_of(found, "StudyID"),
            _number_of(found, "AcquisitionNumber"),
            _number_of(found, "InstanceNumber"),
        )
    except Exception:  # bytes that break off, or are no DICOM, make the parser raise whatever comes
        return Beginning(None, None, None, None, None) if is_whole else None


def _plain_beginning(header: bytes) -> Beginning | None:
    """Return what a plain header says, None where it is not there or not plain."""
    values = plain_values(header, BEGINNING_TAGS, INSTANCE_NUMBER_TAG)
    if values is None:
        return None
    image, series, study, acquisition, instance = (values.get(tag, b"") for tag in BEGINNING_TAGS)
    image_uid, series_uid, study_id = plain_uid(image), plain_uid(series), plain_text(study)
    numbers = plain_number(acquisition), plain_number(instance)
    if None in (image_uid, series_uid, study_id):
        return None
    if (acquisition and numbers[0] is None) or (instance and numbers[1] is None):
        return None
    return Beginning(image_uid or None, series_uid or None, study_id or None, *numbers)


def _text_of(found: Any, keyword: str) -> str | None:
    value = found.get(keyword)
    if value is None or isinstance(value, str):
        return str(value or "") or None  # pydicom's UID is a str of its own kind
    return "\\".join(map(str, value)) if isinstance(value, Iterable) else str(value)


def _number_of(found: Any, keyword: str) -> int | None:
    try:
        return int(_text_of(found, keyword) or "")
    except ValueError:
        return None


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
