"""An image of a pack as a picture that a person wants to see: windowed, in colour where it is, as PNG.

A window that the image has goes first, else what lies between its darkest and its brightest hundredth. Of an
image of many frames the middle one is shown. What cannot be shown is said in a sentence. Reads the pack
alone; blocks, and is to be used by one thread at a time (pydicom's imports are not safe for more).
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

__all__ = ["NoPicture", "picture"]

CODE = re.compile(r"[A-Z0-9 _]{1,16}", re.ASCII)
"""A text of DICOM's kind CS (PS3.5, 6.2), such as a modality; a damaged header has others there."""

LARGEST_FRAME_BYTES = 256 << 20
LARGEST_DEFLATED_BYTES = 2 << 20
"""What inflates to 2 GB at most, whatever is in it."""

DEFLATED = b"1.2.840.10008.1.2.1.99"
LONGEST_REASON = 200
LONGEST_META_BYTES = 16 << 10
LONGEST_SIDE = 768
PERCENTILES = (1.0, 99.0)
SQUARE_WITHIN = 0.01

Pixels = NDArray[Any]


class NoPicture(Exception):
    """Why there is no picture: a sentence without a full stop."""


def picture(pack: Path, offset: int, size_bytes: int) -> bytes:
    """Return the image that lies in a pack as PNG. Raises NoPicture, also where the pack is gone."""
    try:
        with pack.open("rb", buffering=0) as file, io.BufferedReader(_Part(file, offset, size_bytes)) as part:
            return _png(_shown(cast(BinaryIO, part)))
    except NoPicture:
        raise
    except FileNotFoundError:
        raise NoPicture("the series has made room for others meanwhile") from None
    except Exception as error:  # whatever is in a header, and whatever decoders make of it
        said = " ".join(f"{error}".split())[:LONGEST_REASON].rstrip(".")
        raise NoPicture(f"its pixels cannot be read: {said or type(error).__name__}") from error


class _Part(io.RawIOBase):
    """A part of an open file, to be read like a file of its own."""

    name = "image"  # for which pydicom asks every file

    def __init__(self, file: io.RawIOBase | io.FileIO, offset: int, size_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._offset = offset
        self._size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size_bytes - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(wanted) or b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _shown(file: BinaryIO) -> Image.Image:
    """Return an image as it should be looked at."""
    is_deflated = _is_deflated(file)
    header = pydicom.dcmread(file, stop_before_pixels=not is_deflated)
    _refuse(header)
    frame = int(header.get("NumberOfFrames") or 1) // 2
    file.seek(0)
    pixels = pixel_array(header if is_deflated else file, index=frame)
    described = _of_frame(header, frame)
    image = _colour(pixels, described) if _is_colour(header) else _grey(pixels, described)
    return _sized(Image.fromarray(image), described)


def _is_deflated(file: BinaryIO) -> bool:
    """Return whether a file has to be inflated as a whole. Raises NoPicture where that could be very much."""
    # The file meta information says so, which is at the beginning and is not deflated itself.
    is_deflated = DEFLATED in file.read(LONGEST_META_BYTES)
    if is_deflated and file.seek(0, io.SEEK_END) > LARGEST_DEFLATED_BYTES:
        raise NoPicture("a deflated image of this size is not inflated for a picture")
    file.seek(0)
    return is_deflated


def _refuse(header: Dataset) -> None:
    """Raise NoPicture for what has no pixels, too many, or such as nothing here can decode."""
    if "Rows" not in header or "Columns" not in header:
        modality = str(header.get("Modality", ""))
        raise NoPicture(f"a series of modality {modality if CODE.fullmatch(modality) else '?'} has no pixels")
    depth = int(header.get("SamplesPerPixel", 1)) * int(header.get("BitsAllocated", 16)) // 8
    if header.Rows * header.Columns * max(1, depth) > LARGEST_FRAME_BYTES:
        raise NoPicture(f"an image of {header.Columns} x {header.Rows} pixels is too large to be shown")
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        is_available = False
    if not is_available:
        raise NoPicture(f"nothing is installed that can decode {syntax.name}")


def _is_colour(header: Dataset) -> bool:
    return header.PhotometricInterpretation == "PALETTE COLOR" or int(header.get("SamplesPerPixel", 1)) > 1


def _of_frame(header: Dataset, frame: int) -> Dataset:
    """Return what is said of a frame: enhanced images say it in groups, of one frame or of all."""
    for group in _groups(header, frame):
        for sequence in group:
            if sequence.VR == "SQ" and sequence.value:
                header.update({each.tag: each for each in sequence.value[0]})
    return header


def _groups(header: Dataset, frame: int) -> Iterator[Dataset]:
    yield from header.get("SharedFunctionalGroupsSequence") or ()
    of_frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    if frame < len(of_frames):
        yield of_frames[frame]


def _colour(pixels: Pixels, header: Dataset) -> Pixels:
    """Return pixels as RGB of 8 bits; YBR was turned into it as it was decoded."""
    bits = int(header.BitsStored)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
        bits = pixels.dtype.itemsize * 8
    return (pixels >> max(0, bits - 8)).astype(numpy.uint8)


def _grey(pixels: Pixels, header: Dataset) -> Pixels:
    """Return pixels as grey of 8 bits, what is no part of the image black."""
    padding = None if header.get("PixelPaddingValue") is None else pixels == header.PixelPaddingValue
    values = apply_modality_lut(pixels, header).astype(numpy.float64)
    seen = values if padding is None or padding.all() else values[~padding]
    grey = _stretched(values, *_range(seen, header)) if "VOILUTSequence" not in header else None
    if grey is None:
        values = apply_voi_lut(apply_modality_lut(pixels, header), header).astype(numpy.float64)
        grey = _stretched(values, values.min(), values.max())
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    if padding is not None:
        grey[padding] = 0
    return grey


def _range(seen: Pixels, header: Dataset) -> tuple[float, float]:
    """Return which of the values that are seen is black, and which white."""
    low, high = (float(each) for each in numpy.percentile(seen, PERCENTILES))
    window = _window(header)
    if window is not None and high > window[0] and low < window[1]:  # else nothing would be seen
        return window
    return (low, high) if high > low else (float(seen.min()), float(seen.max()))


def _window(header: Dataset) -> tuple[float, float] | None:
    """Return the ends of the first window that the header has, None if it has none; PS3.3 C.11.2.1.2."""
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is None or width is None or width < 1:
        return None
    if header.get("VOILUTFunction", "LINEAR") == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def _first(value: Any) -> float | None:
    """Return the first number of an attribute that may have several, or none."""
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float) else value[0])


def _stretched(values: Pixels, low: float, high: float) -> Pixels:
    scale = 255 / (high - low) if high > low else 0.0
    return ((values.clip(low, high) - low) * scale).round().astype(numpy.uint8)


def _sized(image: Image.Image, header: Dataset) -> Image.Image:
    """Return an image with square pixels, no larger than a screen wants it."""
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or header.get("PixelAspectRatio")
    if spacing and len(spacing) == 2 and min(map(float, spacing)) > 0:
        ratio = float(spacing[0]) / float(spacing[1])
        if abs(ratio - 1) > SQUARE_WITHIN and 0.1 < ratio < 10:
            image = image.resize((image.width, max(1, round(image.height * ratio))))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image


def _png(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
