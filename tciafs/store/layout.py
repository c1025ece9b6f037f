"""What a series consists of: its images and annotations in columns, and how those are written down.

The largest series of TCIA has 91,980 images, and to know it must cost little: as columns they take 90
bytes an image instead of 260, the garbage collector has nothing to look through, and they are read back
in 8 ms instead of 110. Names come in order, and are then found by bisection; else there is an index.
Defined here and only here: that table and its bytes. Values only, no I/O.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import lt

import msgspec

__all__ = ["Held", "Layout", "PackedImage", "PackedImages", "decode_layout", "encode_layout", "file_at"]

BYTES_8, BYTES_4 = "Q", "I"


@dataclass(frozen=True, slots=True)
class PackedImage:
    """One image inside a pack: `offset` and `size_bytes` in the file, `crc32` of its bytes."""

    name: str
    offset: int
    size_bytes: int
    crc32: int


class Held(msgspec.Struct, frozen=True):
    """Beginnings of images in a file that may vanish: by name the (place, size) of their pieces, in order."""

    path: str
    pieces: dict[str, list[tuple[int, int]]]


class PackedImages:
    """The images of one series in the archive's order, found by place or by name; grows at its end only."""

    __slots__ = ("_columns", "_names", "_places")

    def __init__(self, images: Iterable[PackedImage] = ()) -> None:
        self._names: list[str] = []
        self._columns = array(BYTES_8), array(BYTES_8), array(BYTES_4)
        self._places: dict[str, int] | None = None
        for image in images:
            self.append(image)

    @classmethod
    def of_columns(cls, names: list[str], *columns: bytes) -> "PackedImages":
        """Return the images that `columns` gave. Raises ValueError where they do not fit together."""
        images = cls()
        for column, data in zip(images._columns, columns, strict=True):
            column.frombytes(data)
            _swap_where_big(column)
        if {len(column) for column in images._columns} != {len(names)}:
            raise ValueError("the columns of a layout differ in length")
        images._names = names
        if not all(map(lt, names, islice(names, 1, None))):
            images._index()
        return images

    def columns(self) -> tuple[list[str], bytes, bytes, bytes]:
        """Return the names, and offsets, sizes and checksums as little-endian numbers of 8, 8 and 4 bytes."""
        return self._names, *(_little_endian(column) for column in self._columns)  # type: ignore[return-value]

    def append(self, image: PackedImage) -> None:
        """Add an image behind the last one."""
        if self._places is None and self._names and image.name <= self._names[-1]:
            self._index()
        if self._places is not None:
            self._places[image.name] = len(self._names)
        self._names.append(image.name)
        for column, value in zip(self._columns, (image.offset, image.size_bytes, image.crc32), strict=True):
            column.append(value)

    def find(self, name: str) -> PackedImage | None:
        """Return the image called `name`, None if there is none."""
        if self._places is not None:
            place = self._places.get(name, len(self))
        else:
            place = bisect_left(self._names, name)
        return self[place] if place < len(self) and self._names[place] == name else None

    def _index(self) -> None:
        """Make the index that names need which do not ascend."""
        self._places = dict(zip(self._names, range(len(self._names)), strict=True))

    @property
    def names(self) -> list[str]:
        """The names in order; not to be changed."""
        return self._names

    @property
    def size_bytes(self) -> int:
        """The sum of the images' sizes, in bytes."""
        return sum(self._columns[1])

    def __getitem__(self, place: int) -> PackedImage:
        offsets, sizes, checksums = self._columns
        return PackedImage(self._names[place], offsets[place], sizes[place], checksums[place])

    def __iter__(self) -> Iterator[PackedImage]:
        return map(PackedImage, self._names, *self._columns)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedImages):
            return NotImplemented
        return (self._names, self._columns) == (other._names, other._columns)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PackedImages({list(self)!r})"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a series consists of, in the archive's own order; it outlives the bytes.

    `version` is `Series.version` at the time of the download. `checks` names what agreed:
    "crc32", "count", "size", "md5". The images of a layout are complete: nobody adds to them. `path` is
    `Series.path` at that time; () is not known. `routes` are the archives that images came from.
    `annotations` are files that are no images; `lacks` says why there are not those that the archive lists
    ("" where none are missing). Places count images first.
    """

    series_uid: str
    version: str
    images: PackedImages
    checks: tuple[str, ...]
    path: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    annotations: PackedImages = field(default_factory=PackedImages)
    lacks: str = ""

    @property
    def image_bytes(self) -> int:
        """The sum of the images' sizes, in bytes."""
        return self.images.size_bytes

    @property
    def file_count(self) -> int:
        """How many images and annotations there are."""
        return len(self.images) + len(self.annotations)

    def file(self, place: int) -> PackedImage:
        """Return the image or annotation at a place."""
        return file_at(self.images, self.annotations, place)

    def find(self, name: str) -> PackedImage | None:
        """Return the image or annotation called `name`, None if there is none."""
        return self.images.find(name) or self.annotations.find(name)


def file_at(images: PackedImages, annotations: PackedImages, place: int) -> PackedImage:
    """Return what is at a place, counted through the images and then the annotations."""
    return images[place] if place < len(images) else annotations[place - len(images)]


class _Written(msgspec.Struct, frozen=True, array_like=True):
    """A layout as MessagePack; numbers are little-endian."""

    series_uid: str
    version: str
    checks: tuple[str, ...]
    names: list[str]
    offsets: bytes
    sizes: bytes
    checksums: bytes
    path: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    annotations: tuple[list[str], bytes, bytes, bytes] | None = None
    lacks: str = ""


def encode_layout(layout: Layout) -> bytes:
    """Return a layout as bytes."""
    written = _Written(
        layout.series_uid,
        layout.version,
        layout.checks,
        *layout.images.columns(),
        layout.path,
        layout.routes,
        layout.annotations.columns() if layout.annotations else None,
        layout.lacks,
    )
    return msgspec.msgpack.encode(written)


def decode_layout(data: bytes) -> Layout:
    """Return the layout that was encoded. Raises ValueError where it is none."""
    try:
        read = msgspec.msgpack.decode(data, type=_Written)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    images = PackedImages.of_columns(read.names, read.offsets, read.sizes, read.checksums)
    annotations = PackedImages.of_columns(*read.annotations) if read.annotations else PackedImages()
    return Layout(
        read.series_uid,
        read.version,
        images,
        read.checks,
        read.path,
        read.routes,
        annotations,
        read.lacks,
    )


def _little_endian(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _swap_where_big(column: "array[int]") -> None:
    if sys.byteorder == "big":
        column.byteswap()
