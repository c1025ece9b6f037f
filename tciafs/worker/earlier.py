"""A series that is here already as another version: taken over, where the archive vouches for all its images.

A version is another one when a release day is, and two archives of one series give it two. So bytes need not
come again: the MD5s of what is here must be those that the archive gives, and names are what it calls such
images. Where either is not certain, the series comes as any other. Blocking reads are made inline.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tciafs.errors import SeriesDamaged, TciafsError
from tciafs.model import Series, SingleImages
from tciafs.store.layout import PackedImage
from tciafs.store.pack import PackWriter, read_layout
from tciafs.worker.digests import md5s_of
from tciafs.worker.headers import image_keys

__all__ = ["take_over"]

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20


Images = Sequence[tuple[PackedImage, str]]
"""Images of an earlier pack, with the names that they have now."""


async def take_over(
    earlier: Path,
    series: Series,
    singles: SingleImages | None,
    writer: PackWriter,
    make_room: Callable[[int], Awaitable[None]],
) -> tuple[str, ...] | None:
    """Copy the images of an earlier pack if they are those of `series` for certain, and return their routes.

    None: nothing was copied, and they must come. Raises NoSpace, or OSError where the disk fails.
    """
    if singles is None or series.has_annotations:  # for annotations nobody vouches
        return None
    try:
        file = earlier.open("rb")
    except OSError:
        return None  # it had to make room
    with file:
        pack = Path(f"/proc/self/fd/{file.fileno()}")  # also when it is unlinked meanwhile
        found = await _vouched_for(pack, series, singles)
        if found is None:
            return None
        images, routes = found
        for image, name in images:
            await make_room(writer.size_bytes + image.size_bytes)
            writer.begin()
            for piece in _pieces(file, image):
                writer.write(piece)
            writer.end(name)
    return routes


async def _vouched_for(
    pack: Path, series: Series, singles: SingleImages
) -> tuple[Images, tuple[str, ...]] | None:
    try:
        layout = read_layout(pack)
        agrees = await singles.check_of(series)
        names = singles.names(image_keys(pack, layout.images))
        if agrees is None or names is None or not agrees(md5s_of(pack, layout.images)):
            return None
    except (OSError, SeriesDamaged) as error:
        log.info("the earlier pack of series %s cannot be read: %s", series.series_uid, error)
        return None
    except TciafsError as error:
        log.info("nobody vouches for what is here of series %s: %s", series.series_uid, error)
        return None
    pairs = zip(layout.images, names, strict=True)
    return sorted(pairs, key=lambda pair: pair[1]), layout.routes


def _pieces(file: BinaryIO, image: PackedImage) -> Iterator[bytes]:
    file.seek(image.offset)
    left_bytes = image.size_bytes
    while left_bytes and (piece := file.read(min(left_bytes, PIECE_BYTES))):
        left_bytes -= len(piece)
        yield piece
