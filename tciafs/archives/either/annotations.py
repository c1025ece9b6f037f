"""Annotation files of a series, which NBIA alone has, with images that may be the IDC's too."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from tciafs.archives.either.images import EitherImages
from tciafs.archives.nbia.archive import NbiaArchive
from tciafs.model import Delivery, Series

__all__ = ["EitherAnnotations"]


class EitherAnnotations:
    """See `model.Annotations`."""

    def __init__(self, images: EitherImages, nbia: NbiaArchive) -> None:
        self._images = images
        self._nbia = nbia

    def images(self, series: Series) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Fetch a series with its annotations from NBIA. Raises Unreachable at once while it is away."""
        return self._images.annotated(series)

    async def size_bytes(self, series: Series) -> int | None:
        """Return what the annotations of a series come to; None: NBIA does not say."""
        return await self._nbia.annotations.size_bytes(series)
