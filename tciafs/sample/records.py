"""What the sample archive holds: series, their images, and where the bytes of an image come from.

Defined here and only here: the record of a series as the archive's database keeps it (None is a
null column, an empty text an empty text) and the protocol of image sources. Values are frozen;
a source may remember what it made. Must not import starlette, pydicom or numpy.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

__all__ = [
    "CC_BY",
    "CC_BY_NC",
    "PIECE_BYTES",
    "Annotation",
    "Deflated",
    "Image",
    "ImageSource",
    "Licence",
    "Made",
    "Patient",
    "Series",
    "Study",
    "Uniform",
    "image_of_bytes",
]

PIECE_BYTES = 1 << 16
"""How much of an image is handed over at a time, so that no answer needs a whole one in memory."""


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as the archive shows it with each series."""

    name: str
    short_name: str
    uri: str


CC_BY = Licence(
    "Creative Commons Attribution 4.0 International License",
    "CC BY 4.0",
    "https://creativecommons.org/licenses/by/4.0/",
)
CC_BY_NC = Licence(
    "Creative Commons Attribution-NonCommercial 4.0 International License",
    "CC BY-NC 4.0",
    "https://creativecommons.org/licenses/by-nc/4.0/",
)


@dataclass(frozen=True, slots=True)
class Deflated:
    """An image that was compressed beforehand: raw DEFLATE pieces and what they stand for."""

    pieces: tuple[bytes, ...]
    crc32: int
    size_bytes: int
    md5_hex: str


@dataclass(frozen=True, slots=True)
class Image:
    """One image file; `pieces` yields its bytes, `deflated` the same compressed (None: not kept).

    `acquisition` is DICOM (0020,0012) and `instance` (0020,0013), None where the header has none.
    """

    sop_uid: str
    acquisition: int | None
    instance: int | None
    size_bytes: int
    pieces: Callable[[], Iterator[bytes]]
    suffix: str = ".dcm"
    deflated: Callable[[], Deflated] | None = None


def image_of_bytes(sop_uid: str, acquisition: int | None, instance: int | None, content: bytes) -> Image:
    """Return the image whose file is `content`."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]

    return Image(sop_uid, acquisition, instance, len(content), pieces)


@dataclass(frozen=True, slots=True)
class Annotation:
    """A file that somebody submitted beside the images of a series, under its own name."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient as the archive lists it; `is_phantom` is the column Phantom, a phantom has no species."""

    collection: str
    patient_id: str
    name: str | None = ""
    sex: str | None = None
    ethnic_group: str | None = None
    is_phantom: bool = True
    species: str = "Homo sapiens"


@dataclass(frozen=True, slots=True)
class Study:
    """A study of one patient."""

    patient: Patient
    uid: str
    date: dt.date | None = dt.date(2000, 1, 1)
    study_id: str | None = None
    description: str | None = None
    age: str | None = None
    admitting_diagnosis: str | None = None


class ImageSource(Protocol):
    """Gives the images of a series, in the order of the archive's database."""

    def images(self, series: "Series") -> Sequence[Image]:
        """Return the images of `series`; the same ones each time."""
        ...

    def image_count(self, series: "Series") -> int:
        """Return how many images there are, which may be known before they are made."""
        ...

    def size_bytes(self, series: "Series") -> int:
        """Return the sum of the image file sizes."""
        ...

    def revised(self, count: int | None) -> "ImageSource":
        """Return a source for a revised record, of `count` images (None: as many as this one).

        Raises ValueError where it has not so many.
        """
        ...


@dataclass(frozen=True, slots=True)
class Series:
    """A series and all columns the archive lists of it.

    `number` is DICOM (0020,0011), in the database a decimal. `listed_number`, where given, is what
    the database says instead: a decimal that a DICOM integer string cannot hold.
    """

    study: Study
    uid: str
    source: ImageSource = field(repr=False, compare=False)
    modality: str | None = "OT"
    number: int | None = 1
    listed_number: float | None = None
    description: str | None = None
    protocol: str | None = None
    date: dt.date | None = None
    body_part: str | None = None
    manufacturer: str | None = "Sample Phantoms"
    model: str | None = None
    software: str | None = None
    licence: Licence = CC_BY
    data_uri: str | None = None
    third_party: str | None = "NO"
    released: dt.date | None = dt.date(2021, 6, 1)
    submitted: dt.date | None = dt.date(2021, 5, 20)
    annotations: tuple[Annotation, ...] = field(default=(), repr=False)

    @property
    def patient(self) -> Patient:
        """The patient of the series' study."""
        return self.study.patient

    @property
    def collection(self) -> str:
        """The collection of the series' patient."""
        return self.study.patient.collection

    def images(self) -> Sequence[Image]:
        """Return the images in database order."""
        return self.source.images(self)

    @property
    def image_count(self) -> int:
        """The column ImageCount."""
        return self.source.image_count(self)

    @property
    def size_bytes(self) -> int:
        """The column FileSize: all image files together, in bytes."""
        return self.source.size_bytes(self)

    @property
    def annotation_bytes(self) -> int:
        """The column Annotation Size, which FileSize does not include."""
        return sum(len(each.content) for each in self.annotations)


class Made:
    """A source that makes the images when they are first asked for, and keeps them in memory."""

    def __init__(self, make: Callable[[Series], Sequence[Image]]) -> None:
        self._make = make
        self._images: Sequence[Image] | None = None

    def images(self, series: Series) -> Sequence[Image]:
        """Return the images, made on the first call."""
        if self._images is None:
            self._images = tuple(self._make(series))
        return self._images

    def image_count(self, series: Series) -> int:
        """Return the number of images, which makes them."""
        return len(self.images(series))

    def size_bytes(self, series: Series) -> int:
        """Return the sum of the sizes, which makes the images."""
        return sum(image.size_bytes for image in self.images(series))

    def revised(self, count: int | None) -> "Made":
        """Return a source that makes them for another record, and keeps the first `count`."""
        return Made(partial(_first, count, self._make))


def _first(count: int | None, make: Callable[[Series], Sequence[Image]], series: Series) -> Sequence[Image]:
    images = make(series)
    if count is not None and not 1 <= count <= len(images):
        raise ValueError(f"the series has {len(images)} images to choose from, not {count}")
    return images[:count]


class Uniform:
    """A source of images all of one size: it counts and adds up without making them.

    `image_size_bytes` is asked only when a size is; nothing is kept after a download.
    """

    def __init__(
        self,
        count: int,
        image_size_bytes: Callable[[], int],
        make: Callable[[Series], Sequence[Image]],
    ) -> None:
        self._count = count
        self._image_size_bytes = image_size_bytes
        self._make = make

    def images(self, series: Series) -> Sequence[Image]:
        """Return the images, made anew."""
        return self._make(series)

    def image_count(self, series: Series) -> int:
        """Return the number of images."""
        return self._count

    def size_bytes(self, series: Series) -> int:
        """Return the sum of the sizes."""
        return self._count * self._image_size_bytes()

    def revised(self, count: int | None) -> "ImageSource":
        """Return itself, or a source that makes the images at once to keep the first `count`."""
        return self if count is None else Made(self._make).revised(count)
