"""The MD5 of each image of a pack, by all processors. Blocks."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

from tciafs.store.layout import PackedImage, PackedImages
from tciafs.store.pack import md5_of_range

__all__ = ["md5s_of"]

BATCHES_A_PROCESSOR = 8


def md5s_of(pack: Path, images: PackedImages) -> list[str]:
    """Return the MD5s in the order of the images, as lower-case hex.

    Read back from the page cache after the last image, so that no reader waits for a digest, and on all
    processors, since whoever lists the series waits for the verdict: 0.2 instead of 0.4 s for 263 MB on two.
    """
    descriptor = os.open(pack, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(chain.from_iterable(threads.map(partial(_md5s, descriptor), _batches(list(images)))))
    finally:
        os.close(descriptor)


def _batches(images: Sequence[PackedImage]) -> Iterator[Sequence[PackedImage]]:
    """Yield the images in a few batches a processor: a task for each of 92,000 takes longer than its MD5."""
    size = len(images) // (BATCHES_A_PROCESSOR * (os.cpu_count() or 1)) + 1
    return (images[start : start + size] for start in range(0, len(images), size))


def _md5s(descriptor: int, images: Sequence[PackedImage]) -> list[str]:
    return [md5_of_range(descriptor, image.offset, image.size_bytes) for image in images]
