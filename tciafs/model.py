"""The records of an imaging archive, and the protocol every archive speaks.

Values only: frozen and slotted, so they cross rooms and processes freely. A field is None when
the archive did not say; an empty string is what the archive said. Texts are raw, as the archive
stores them: `naming` alone decides what becomes of them in a file name. Imports nothing of ours.

Records are structs and not dataclasses, since listings have thousands: to make one takes a tenth of the time.
"""

import datetime as dt
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol, TypeAlias, TypeVar

import msgspec

__all__ = [
    "MOST_IMAGES",
    "Annotations",
    "Archive",
    "Change",
    "Checksums",
    "Collection",
    "Delivery",
    "ImageKey",
    "Layouts",
    "ListedImage",
    "Member",
    "Partial",
    "Patient",
    "Ranges",
    "Series",
    "SingleImages",
    "Study",
    "Value",
    "believed_image_count",
    "series_identity",
    "study_identity",
]


T_co = TypeVar("T_co", covariant=True)

MOST_IMAGES = 10_000_000
"""No series has more images: the largest of TCIA has 91,980."""


def believed_image_count(count: int | None) -> int | None:
    """Return how many images an archive says a series has; None for what no series can have."""
    return count if count is not None and 0 <= count <= MOST_IMAGES else None


class Collection(msgspec.Struct, frozen=True, gc=False):
    """A collection as the archive spells it, for example "CT Lymph Nodes"."""

    name: str


class Patient(msgspec.Struct, frozen=True, gc=False):
    """A patient of one collection; `patient_id` is DICOM (0010,0020)."""

    collection: str
    patient_id: str


class Study(msgspec.Struct, frozen=True, gc=False):
    """A study: `study_id` is DICOM (0020,0010), `description` (0008,1030), `date` (0008,0020)."""

    collection: str
    patient_id: str
    study_uid: str
    date: dt.date | None = None
    study_id: str | None = None
    description: str | None = None


class Series(msgspec.Struct, frozen=True, gc=False):
    """A series and what the archive says of it.

    `number` is DICOM (0020,0011), which the NBIA database keeps as a decimal. `image_count` and
    `size_bytes` count and add up the images, annotations left out; they are what a download must
    agree with. `released`, `submitted` and `studied` are days, in order of trust as a file time.
    `has_annotations` says that the archive keeps files beside the images which are none (AIM, LIDC XML).
    """

    collection: str
    patient_id: str
    study_uid: str
    series_uid: str
    modality: str | None = None
    number: float | None = None
    description: str | None = None
    image_count: int | None = None
    size_bytes: int | None = None
    released: dt.date | None = None
    submitted: dt.date | None = None
    studied: dt.date | None = None
    licence_name: str | None = None
    licence_uri: str | None = None
    data_uri: str | None = None
    body_part: str | None = None
    manufacturer: str | None = None
    third_party: str | None = None
    model: str | None = None
    has_annotations: bool = False

    @property
    def forbids_commercial_use(self) -> bool:
        """Whether its licence is a NonCommercial one; the retriever warns of these too."""
        name, uri = (self.licence_name or "").lower(), (self.licence_uri or "").lower()
        return "noncommercial" in name.replace("-", "").replace(" ", "") or "/by-nc" in uri

    @property
    def path(self) -> tuple[str, str, str, str]:
        """Collection, patient ID, study and series UID: the way to it."""
        return self.collection, self.patient_id, self.study_uid, self.series_uid

    @property
    def version(self) -> str:
        """What changes when the archive changes the series: count, bytes, release day, and the flag."""
        annotated = ":annotated" if self.has_annotations else ""
        return f"{self.image_count}:{self.size_bytes}:{self.released}{annotated}"


study_identity: Callable[[Study], Hashable] = attrgetter("study_uid")
"""What tells a study from the others of its patient; of those that are the same the first one counts."""

series_identity: Callable[[Series], Hashable] = attrgetter("study_uid", "series_uid")
"""The same of a series."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A patient of whom the archive has released series, and the latest day on which it did."""

    collection: str
    patient_id: str
    released: dt.date


class Value(msgspec.Struct, frozen=True, gc=False):
    """Something that a field of series is somewhere, for example the modality "CT"."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageKey:
    """What orders an image: DICOM (0020,0012), (0020,0013), (0008,0018); None: empty or absent."""

    acquisition_number: int | None
    instance_number: int | None
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Member:
    """One image, or annotation file, in transfer; it is good only once `chunks` has ended without an error.

    `name` is the file name the archive gives, not yet checked (None: it gives none);
    `size_bytes` None means known only at the end. `chunks` must be read to its end before the
    next member is asked for; it raises UnreadableAnswer where bytes fail the transfer's own check.
    `route` is the archive that it comes from, "nbia" or "idc"; "" is not said. The bytes before `first` do
    not come: whoever asked has them (see `Ranges.images_behind`).
    """

    name: str | None
    size_bytes: int | None
    chunks: AsyncIterator[bytes]
    route: str = ""
    is_annotation: bool = False
    first: int = 0


@dataclass(frozen=True, slots=True)
class Checksums:
    """The MD5 of each image as the archive knows it: pairs of file name and lower-case hex."""

    md5_by_name: tuple[tuple[str, str], ...]


Delivery: TypeAlias = Member | Checksums
"""What comes out of `Archive.images`: members, and at any time the checksums of some of them."""


class SingleImages(Protocol):
    """What an archive may be able to do besides: give the images of a series one by one.

    Methods raise what those of Archive raise.
    """

    @property
    def deflates_whole_series(self) -> bool:
        """Whether `Archive.images` takes fewer bytes than these images do, as it sends them deflated."""
        ...

    async def image_uids(self, series: Series) -> Sequence[str]:
        """Return the SOP Instance UIDs (0008,0018) of a series, in no particular order."""
        ...

    def image(self, series: Series, sop_instance_uid: str) -> AbstractAsyncContextManager[Member]:
        """Fetch one image, without retries."""
        ...

    def names(self, images: Sequence[ImageKey]) -> Sequence[str] | None:
        """Return what `Archive.images` calls each of `images`, which are all of a series or its first ones.

        None: that cannot be known for certain. The names of the first ones alone may lack zeros in front of
        a number.
        """
        ...

    async def check_of(self, series: Series) -> Callable[[Sequence[str]], bool] | None:
        """Return what says whether images with these MD5s (lower-case hex) are those of a series.

        None: the archive cannot tell, and what came one by one has no check of its own.
        """
        ...


class ListedImage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An image as `Archive.images` will bring it: its name, checked already, and its size."""

    name: str
    size_bytes: int


class Layouts(Protocol):
    """What an archive may be able to do besides: name the images of a series without bringing them.

    Raises what the methods of Archive raise.
    """

    def can_name(self, series: Series) -> bool:
        """Return whether the images of this series can be named, as far as is known; nothing is asked."""
        ...

    async def layout(
        self, series: Series, received: Callable[[int], None] = lambda size_bytes: None
    ) -> Sequence[ListedImage] | None:
        """Return the images of a series in the order of `Archive.images`, for a small part of its bytes.

        `received` is told of bytes of images as they come in. None: they cannot be named now, and come with
        their names.
        """
        ...


class Ranges(Protocol):
    """What an archive may be able to do besides: give a part of an image that its `layouts` have named.

    Raises what the methods of Archive raise.
    """

    def gives(self, series: Series) -> bool:
        """Return whether parts of this series can be had now, as far as is known; nothing is asked."""
        ...

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        """Return `size_bytes` bytes of an image from the byte `first` on, which counts from 0; with retries.

        Raises SeriesDamaged where the archive has another image in its place by now.
        """
        ...

    def images_behind(
        self, series: Series, held: Mapping[str, int]
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch a series as `Archive.images` does, but not what is held: so many first bytes of images.

        By their names. `Member.first` says what was left out, which may be nothing.
        """
        ...


class Partial(tuple[T_co, ...]):
    """Records of a listing to which one of two servers did not add its own: true, and to be asked for again
    soon.
    """

    __slots__ = ()


class Annotations(Protocol):
    """What an archive may be able to do besides: give the annotation files of a series with its images.

    Methods raise what those of Archive raise.
    """

    def images(self, series: Series) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch a series as `Archive.images` does, the images by the same names, and its annotations too."""
        ...

    async def size_bytes(self, series: Series) -> int | None:
        """Return what the annotations of a series come to, in bytes; None: the archive does not say."""
        ...


class Archive(Protocol):
    """Somebody's image archive.

    Listings come in no particular order. All raise AccessDenied, Unreachable, DeadlinePassed,
    SlowDown or UnreadableAnswer, after the retries. An unknown collection or patient is an empty
    listing, not an error: NBIA cannot tell the two apart.
    """

    async def collections(self) -> Sequence[Collection]:
        """Return all collections that this user may see."""
        ...

    async def patients(self, collection: str) -> Sequence[Patient]:
        """Return the patients of a collection."""
        ...

    async def studies(self, collection: str, patient: str) -> Sequence[Study]:
        """Return the studies of a patient."""
        ...

    async def series(self, collection: str, patient: str) -> Sequence[Series]:
        """Return the series of a patient."""
        ...

    def every_study(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Study]]]:
        """Ask once, without retries, for all studies of a collection, which come in batches.

        Memory is bounded however many there are. A record may come twice. What has come is only
        good once the iteration has ended without an error; entering and iterating raise what the
        other questions raise.
        """
        ...

    def every_series(self, collection: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Series]]]:
        """Ask once, without retries, for all series of a collection, as `every_study` does."""
        ...

    async def changes(self, since: dt.date) -> Sequence[Change] | None:
        """Return what has been released after the day `since`, each patient once.

        None: this archive cannot tell.
        """
        ...

    async def named(self, *series_uids: str) -> Sequence[Series]:
        """Return those of the series that this archive has and this user may see, of any collections."""
        ...

    async def cart(self, name: str) -> Sequence[Series]:
        """Return the series of a shared cart; what is said of them but their UIDs may be incomplete."""
        ...

    async def values(self, collection: str, field: str, modality: str, body_part: str) -> Sequence[Value]:
        """Return what a field ("modality", "body_part" or "manufacturer") is in some series.

        In the series of a collection, with a modality, of a body part; an empty text is any of them.
        """
        ...

    def images(self, series: Series) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch the images of a series, one after the other, in the archive's own order."""
        ...

    @property
    def single_images(self) -> SingleImages | None:
        """How to get at the images of a series one by one; None: only whole series are to be had."""
        ...

    @property
    def layouts(self) -> Layouts | None:
        """How to name the images of a series in advance; None: names come with them."""
        ...

    @property
    def annotations(self) -> Annotations | None:
        """How to have annotations with the images of a series; None: it has none, or gives none."""
        ...

    @property
    def ranges(self) -> Ranges | None:
        """How to get at parts of images; None: only whole ones are to be had."""
        ...

    async def aclose(self) -> None:
        """Close connections; the archive is not used afterwards."""
        ...
