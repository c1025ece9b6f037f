"""Images the size of a stamp, in any number: put together from a template when they are sent.

Defined here and only here: how the file size of an image is known without making it. A data set
trailing padding (DICOM PS3.10 section 7.2) fills each file up to the size that its series' UID gives.
Nothing is kept after a download.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pydicom.uid import SecondaryCaptureImageStorage

from tciafs.sample import phantoms
from tciafs.sample.dicom import encode, header, uid
from tciafs.sample.pictures import set_pixels
from tciafs.sample.records import Image, Series

__all__ = ["Stamps"]

SMALLEST_BYTES = 6144
SIDE = 32
"""Rows and columns of a picture, and what such a file takes at least."""

SIZES = 512
"""How many different sizes there are, two bytes apart: DICOM files have an even length."""

PATTERNS = 90
PLACE_DIGITS = 6
PLACEHOLDER = 10**PLACE_DIGITS - 1
NUMBERS = b"\x20\x00\x12\x00IS\x02\x00%-2d\x20\x00\x13\x00IS\x06\x00%-6d"
"""The elements acquisition and instance number, neighbours, at a width that does not depend on them."""

PADDING_HEADER_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Template:
    """The parts of a file between what differs from image to image: SOP UID (twice) and numbers."""

    root: str
    parts: tuple[bytes, bytes, bytes, bytes]

    def sop_uid(self, place: int) -> str:
        """Return the UID of the image at `place` (from 1)."""
        return f"{self.root}{place:0{PLACE_DIGITS}}"

    def pieces(self, place: int, acquisition: int) -> Iterator[bytes]:
        """Yield the file of the image at `place`."""
        sop_uid, numbers = self.sop_uid(place).encode(), NUMBERS % (acquisition, place)
        head, between, before_numbers, tail = self.parts
        yield b"".join((head, sop_uid, between, sop_uid, before_numbers, numbers, tail))


def _template(series: Series, side: int, size_bytes: int) -> _Template:
    root = uid(series.uid)[:-PLACE_DIGITS]
    sop_uid = f"{root}{PLACEHOLDER}"
    dataset = header(series, SecondaryCaptureImageStorage, sop_uid, instance=PLACEHOLDER, acquisition=9)
    dataset.ConversionType = "SYN"
    pattern = zlib.crc32(series.uid.encode()) % PATTERNS
    set_pixels(dataset, phantoms.tile(side, pattern), bits_stored=12)
    missing = size_bytes - len(encode(dataset)) - PADDING_HEADER_BYTES
    dataset.DataSetTrailingPadding = bytes(missing)
    head, between, rest = encode(dataset).split(sop_uid.encode())
    before_numbers, tail = rest.split(NUMBERS % (9, PLACEHOLDER))
    return _Template(root, (head, between, before_numbers, tail))


@dataclass(frozen=True, slots=True)
class Stamps:
    """A source of `count` images, in one acquisition or, in every seventh series, in two.

    Pictures are square, of `side` pixels; files take at least `smallest_bytes`, which must hold them.
    """

    count: int
    side: int = SIDE
    smallest_bytes: int = SMALLEST_BYTES

    def images(self, series: Series) -> Sequence[Image]:
        """Return the images, without their bytes."""
        size_bytes = self._image_bytes(series)
        template = _template(series, self.side, size_bytes)
        has_two = zlib.crc32(series.uid.encode()) % 7 == 3
        return [
            Image(
                template.sop_uid(place),
                acquisition := 1 + (has_two and place > self.count // 2),
                place,
                size_bytes,
                partial(template.pieces, place, acquisition),
            )
            for place in range(1, self.count + 1)
        ]

    def image_count(self, series: Series) -> int:
        """Return the number of images."""
        return self.count

    def size_bytes(self, series: Series) -> int:
        """Return the sum of the sizes."""
        return self.count * self._image_bytes(series)

    def revised(self, count: int | None) -> "Stamps":
        """Return a source of another number of images, any there is."""
        return self if count is None else replace(self, count=count)

    def _image_bytes(self, series: Series) -> int:
        return self.smallest_bytes + 2 * (zlib.crc32(series.uid.encode()) % SIZES)
