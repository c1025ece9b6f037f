"""Elements at the beginning of a plain image: explicit VR, little endian, nothing unusual on the way.

Nearly all images are plain, and pydicom takes a third of a second to import and a millisecond for each. What
is not plain, or breaks off, is None here: then pydicom has to look (see `headers`). So this says what pydicom
would say, or nothing. Source: DICOM PS3.5 section 7.1.2 and PS3.10 section 7.1. Pure functions.
"""

import re
import struct
from collections.abc import Collection

__all__ = ["plain_number", "plain_text", "plain_uid", "plain_values"]

PREFIX_AT = 128
PREFIX = b"DICM"
TRANSFER_SYNTAX_TAG = 0x0002_0010
SYNTAXES = b"1.2.840.10008.1.2."
"""What begins so is explicit and little endian, but for the two that follow; implicit VR has no last dot."""

OTHER_SYNTAXES = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
"""Big endian, and deflated."""

SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
UNDEFINED = 0xFFFF_FFFF

_element = struct.Struct("<HH2sH").unpack_from
_length = struct.Struct("<I").unpack_from
_plain_uid = re.compile(rb"([0-9.]+)\0?")
_plain_number = re.compile(rb" *([0-9]{1,9}) *")
_plain_text = re.compile(rb"([A-Za-z0-9 ._:/+()-]*)")


def plain_values(header: bytes, tags: Collection[int], last_tag: int) -> dict[int, bytes] | None:
    """Return the values of these elements, of those that are there, from what holds all up to `last_tag`.

    None where a closer look is needed.
    """
    if header[PREFIX_AT : PREFIX_AT + len(PREFIX)] != PREFIX:
        return None
    found: dict[int, bytes] = {}
    syntax, place, end = b"", PREFIX_AT + len(PREFIX), len(header)
    while place + 8 <= end:
        group, element, vr, length = _element(header, place)
        tag = group << 16 | element
        if group > 2 and not _is_plain(syntax):
            return None
        if tag > last_tag:
            return found
        if vr in LONG_VRS:
            if place + 12 > end:
                return None
            (length,) = _length(header, place + 8)
            place += 4
        elif vr not in SHORT_VRS:
            return None
        place += 8
        if length == UNDEFINED or place + length > end:
            return None
        if tag == TRANSFER_SYNTAX_TAG:
            syntax = header[place : place + length]
        elif tag in tags:
            found[tag] = header[place : place + length]
        place += length
    return None


def _is_plain(syntax: bytes) -> bool:
    uid = syntax.rstrip(b"\0 ")
    return uid.startswith(SYNTAXES) and uid not in OTHER_SYNTAXES


def plain_uid(value: bytes) -> str | None:
    """Return a UID ("": empty), None where it is not plain."""
    match = _plain_uid.fullmatch(value)
    return match[1].decode("ascii") if match else None if value else ""


def plain_number(value: bytes) -> int | None:
    """Return an integer, None where it is not plain, nor is what is empty."""
    match = _plain_number.fullmatch(value)
    return int(match[1]) if match else None


def plain_text(value: bytes) -> str | None:
    """Return a text of letters that are the same in each character set, None where it is not plain."""
    match = _plain_text.fullmatch(value)
    return match[1].decode("ascii").rstrip(" ") if match else None
