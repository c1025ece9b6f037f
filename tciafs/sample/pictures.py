"""Makers of image series: each turns a record into the encoded images of one series.

Defined here and only here: the image modules of CT, MR, MG, US, secondary capture and their
transfer syntaxes. A maker is a function of the series; `records.Made` calls it on demand.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import md5
from pathlib import Path
from typing import Any

import pydicom.data
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from tciafs.sample import phantoms
from tciafs.sample.dicom import encode, header, image_of_dataset, image_of_file, uid
from tciafs.sample.records import Deflated, Image, Series
from tciafs.sample.zips import deflated

__all__ = [
    "bench_ct",
    "captures",
    "deflated_dicom",
    "dynamic_mr",
    "head_ct",
    "implicit",
    "instance_uid",
    "mammogram",
    "rle",
    "syntax_file",
    "ultrasound",
]

SIDE = 32
"""Rows and columns of a small image."""

ACQUISITION_NUMBER, INSTANCE_NUMBER = b"\x20\x00\x12\x00", b"\x20\x00\x13\x00"
PLACEHOLDER = 987654321


def instance_uid(series_uid: str, place: int) -> str:
    """Return the SOP instance UID of the image at `place` (from 1) of a series."""
    return uid(series_uid, place)


def set_pixels(dataset: Dataset, pixels: NDArray[Any], *, bits_stored: int) -> None:
    """Add the image pixel module (PS3.3 C.7.6.3) for unsigned monochrome `pixels`."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits_stored
    dataset.HighBit = bits_stored - 1
    dataset.PixelRepresentation = 0
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.PixelData = _little_endian(pixels)


def _little_endian(pixels: NDArray[Any]) -> bytes:
    return pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


def _place(dataset: Dataset, grid: phantoms.Grid, index: int) -> None:
    """Add the frame of reference and image plane modules (PS3.3 C.7.4.1, C.7.6.2)."""
    position = [round(grid.left_mm, 3), round(grid.front_mm, 3), round(grid.z_mm(index), 3)]
    dataset.FrameOfReferenceUID = uid(dataset.StudyInstanceUID, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.PixelSpacing = [round(grid.spacing_mm, 6)] * 2
    dataset.SliceThickness = grid.thickness_mm
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = position
    dataset.SliceLocation = position[2]


def _ct_slice(series: Series, grid: phantoms.Grid, index: int, plane: NDArray[Any]) -> Dataset:
    sop_uid = instance_uid(series.uid, index + 1)
    dataset = header(series, CTImageStorage, sop_uid, instance=index + 1, acquisition=1)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP = 120
    dataset.XRayTubeCurrent = 280
    dataset.ConvolutionKernel = "STANDARD"
    dataset.PatientPosition = "HFS"
    _place(dataset, grid, index)
    dataset.RescaleIntercept = -phantoms.HU_OFFSET
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 90
    dataset.WindowCenterWidthExplanation = "BRAIN"
    set_pixels(dataset, plane, bits_stored=12)
    return dataset


def head_ct(series: Series) -> Sequence[Image]:
    """Return the 60 slices of the head, in no useful order, as a database returns them."""
    grid = phantoms.CT_GRID
    volume = phantoms.head_ct(grid)
    slices = [image_of_dataset(_ct_slice(series, grid, i, p)) for i, p in enumerate(volume)]
    return sorted(slices, key=lambda image: image.sop_uid[-6:])


def dynamic_mr(series: Series) -> Sequence[Image]:
    """Return a head before and after contrast: two acquisitions, instance numbers running on."""
    grid = phantoms.MR_GRID
    images = []
    for acquisition in (1, 2):
        volume = phantoms.head_mr(grid, contrast=acquisition == 2)
        for index, plane in enumerate(volume):
            instance = (acquisition - 1) * grid.slices + index + 1
            dataset = header(
                series,
                MRImageStorage,
                instance_uid(series.uid, instance),
                instance=instance,
                acquisition=acquisition,
            )
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
            dataset.ScanningSequence, dataset.SequenceVariant = "GR", "SP"
            dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
            dataset.RepetitionTime, dataset.EchoTime, dataset.FlipAngle = 220, 4.6, 70
            dataset.EchoTrainLength = 1
            dataset.MagneticFieldStrength = 3
            dataset.TemporalPositionIdentifier = acquisition
            dataset.NumberOfTemporalPositions = 2
            dataset.PatientPosition = "HFS"
            _place(dataset, grid, index)
            dataset.WindowCenter, dataset.WindowWidth = 380, 700
            set_pixels(dataset, plane, bits_stored=12)
            images.append(image_of_dataset(dataset))
    return images


def mammogram(series: Series) -> Sequence[Image]:
    """Return one digital mammogram, ready for presentation."""
    sop_class = DigitalMammographyXRayImageStorageForPresentation
    dataset = header(series, sop_class, instance_uid(series.uid, 1))
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality, dataset.ViewPosition = "L", "CC"
    dataset.PatientOrientation = ["A", "R"]
    dataset.ImagerPixelSpacing = [0.3, 0.3]
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    dataset.WindowCenter, dataset.WindowWidth = 1500, 3000
    set_pixels(dataset, phantoms.mammogram(), bits_stored=12)
    return [image_of_dataset(dataset)]


def ultrasound(series: Series) -> Sequence[Image]:
    """Return one multi-frame image: a heart beat."""
    sop_class = UltrasoundMultiFrameImageStorage
    dataset = header(series, sop_class, instance_uid(series.uid, 1))
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "TEE", "0001"]
    frames = phantoms.heart()
    dataset.FrameTime = 40
    dataset.FrameIncrementPointer = 0x00181063
    dataset.LossyImageCompression = "00"
    set_pixels(dataset, frames, bits_stored=8)
    return [image_of_dataset(dataset)]


def _capture(series: Series, place: int, acquisition: int | None, instance: int | None) -> Dataset:
    sop_uid = instance_uid(series.uid, place)
    dataset = header(
        series,
        SecondaryCaptureImageStorage,
        sop_uid,
        instance=instance,
        acquisition=acquisition,
    )
    dataset.ConversionType = "SYN"
    set_pixels(dataset, phantoms.tile(SIDE, place), bits_stored=12)
    return dataset


def captures(
    *numbers: tuple[int | None, int | None],
) -> Callable[[Series], Sequence[Image]]:
    """Return a maker of small images with these (acquisition, instance) pairs, in this order."""

    def make(series: Series) -> Sequence[Image]:
        blank = _Blank.of(series)

        def image(place: int, acquisition: int | None, instance: int | None) -> Image:
            sop_uid = instance_uid(series.uid, place)
            content = blank.filled(sop_uid, acquisition, instance, place)
            return image_of_file(sop_uid, acquisition, instance, content)

        return [image(place, *pair) for place, pair in enumerate(numbers, start=1)]

    return make


@dataclass(frozen=True, slots=True)
class _Blank:
    """The file of a small image between what differs in a series: SOP UID (twice), numbers, pixels.

    Encoded once a series: to encode an image takes thirty times as long as to fill this in.
    """

    parts: tuple[bytes, bytes, bytes, bytes]

    @classmethod
    def of(cls, series: Series) -> "_Blank":
        """Return what the small images of a series have in common."""
        dataset = _capture(series, 0, None, PLACEHOLDER)
        head, between, rest = encode(dataset).split(dataset.SOPInstanceUID.encode())
        before_numbers, after = rest.split(_number_element(INSTANCE_NUMBER, PLACEHOLDER))
        return cls((head, between, before_numbers, after.removesuffix(dataset.PixelData)))

    def filled(self, sop_uid: str, acquisition: int | None, instance: int | None, place: int) -> bytes:
        """Return the file of one image, with the picture of its place."""
        head, between, before_numbers, after = self.parts
        numbers = _number_element(INSTANCE_NUMBER, instance)
        if acquisition is not None:
            numbers = _number_element(ACQUISITION_NUMBER, acquisition) + numbers
        named = head + sop_uid.encode() + between + sop_uid.encode()
        return named + before_numbers + numbers + after + _little_endian(phantoms.tile(SIDE, place))


def _number_element(tag: bytes, value: int | None) -> bytes:
    """Return an integer string as explicit little endian has it (PS3.5 7.1.2, 6.2); None is no value."""
    text = b"" if value is None else b"%d" % value
    text += b" " * (len(text) % 2)
    return tag + b"IS" + len(text).to_bytes(2, "little") + text


def rle(series: Series) -> Sequence[Image]:
    """Return two images compressed run-length by pydicom itself."""
    images = []
    for place in (1, 2):
        dataset = _capture(series, place, 1, place)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # what is to be compressed
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        images.append(image_of_dataset(dataset, RLELossless))
    return images


def _in_syntax(syntax: UID, series: Series) -> Sequence[Image]:
    return [image_of_dataset(_capture(series, place, 1, place), syntax) for place in (1, 2)]


deflated_dicom = partial(_in_syntax, DeflatedExplicitVRLittleEndian)
implicit = partial(_in_syntax, ImplicitVRLittleEndian)


@cache
def _packaged(file_name: str) -> Path | None:
    path = Path(pydicom.data.__file__).parent / "test_files" / file_name
    return path if path.is_file() else None


PIXEL_KEYWORDS = (
    "ImageType",
    "ConversionType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "PixelData",
)


def syntax_file(file_name: str) -> Callable[[Series], Sequence[Image]] | None:
    """Return a maker for pixels packaged with pydicom; None where this pydicom lacks them.

    The compressed pixels stay as they are; everything that identifies them is written anew.
    """
    path = _packaged(file_name)
    if path is None:
        return None

    def make(series: Series) -> Sequence[Image]:
        original = dcmread(path)
        dataset = header(series, original.SOPClassUID, instance_uid(series.uid, 1))
        for keyword in PIXEL_KEYWORDS:
            if keyword in original:
                dataset[keyword] = original[keyword]
        dataset["PixelData"].VR = "OB"  # what PS3.5 A.4 asks of compressed pixels
        return [image_of_dataset(dataset, original.file_meta.TransferSyntaxUID)]

    return make


class _Bench:
    """The slices of the benchmark CT: heads differ, bodies repeat, each body deflated once."""

    def __init__(self) -> None:
        self.planes = phantoms.bench_planes()
        self.grid = phantoms.Grid(500, 512, 512, 230 / 512, 1.0, lowest_z_mm=-250.0)
        self.bodies = [plane.tobytes() for plane in self.planes]
        self.packed_bodies = [deflated(body, is_last=True) for body in self.bodies]

    def image(self, series: Series, index: int) -> Image:
        """Return slice `index`, its file and ZIP data put together when they are asked for."""
        turn = index % len(self.planes)
        body = self.bodies[turn]
        content = encode(_ct_slice(series, self.grid, index, self.planes[turn]))
        head = content[: -len(body)]
        packed = (deflated(head, is_last=False), self.packed_bodies[turn])
        ready = Deflated(
            packed,
            zlib.crc32(content),
            len(content),
            md5(content, usedforsecurity=False).hexdigest(),
        )
        return Image(
            instance_uid(series.uid, index + 1),
            1,
            index + 1,
            len(content),
            lambda: iter((head, body)),
            deflated=lambda: ready,
        )


@cache
def _bench() -> _Bench:
    """Return what all slices are made of, deflated once."""
    return _Bench()


def bench_ct(slices: int) -> Callable[[Series], Sequence[Image]]:
    """Return a maker of a big CT series that costs its server next to nothing to send."""

    def make(series: Series) -> Sequence[Image]:
        bench = _bench()
        return [bench.image(series, index) for index in range(slices)]

    return make
