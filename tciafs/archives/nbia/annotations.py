"""Series of NBIA with their annotation files: getDCMImage, and getSeriesMetaData for what these come to.

See `model.Annotations`. getDCMImage sends in one ZIP the images by the names of getImage, behind them the
annotations by their own, and last the MD5s, so that the images need no second download. Defined here and only
here: what those two are asked.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from tciafs.archives.http.client import HttpClient
from tciafs.archives.http.errors import RequestRejected
from tciafs.archives.nbia.images import SeriesReader
from tciafs.archives.nbia.listings import annotation_bytes_listing
from tciafs.archives.nbia.refusals import explained
from tciafs.model import Delivery, Series

__all__ = ["NbiaAnnotations"]

Address = Callable[[str], Awaitable[str]]


class NbiaAnnotations:
    """The annotations of a server's series.

    `address` tells where an endpoint is, `old_address` where one is that version 4 has not got.
    """

    def __init__(self, http: HttpClient, address: Address, old_address: Address) -> None:
        self._http = http
        self._address = address
        self._old_address = old_address

    @asynccontextmanager
    async def images(self, series: Series) -> AsyncIterator[AsyncIterator[Delivery]]:
        """Fetch a series with its annotations, without retries; raises as `NbiaArchive.images`.

        Where the server has lost a file it ends the ZIP there, well formed and without MD5s.
        """
        params = {
            "SeriesInstanceUID": series.series_uid,
            "IncludeAnnotation": "true",
            "MD5Verification": "true",
        }
        async with AsyncExitStack() as stack:
            path = await self._address("getDCMImage")
            try:
                chunks = await stack.enter_async_context(self._http.stream(path, params))
            except RequestRejected as rejected:
                raise explained(rejected) from rejected
            yield SeriesReader(chunks, series, gives_annotations=True)

    async def size_bytes(self, series: Series) -> int | None:
        """Return the column Annotation Size; None where the server has no such question, or no answer."""
        path = await self._old_address("getSeriesMetaData")
        query = {"SeriesInstanceUID": series.series_uid}
        try:
            sizes = await self._http.fetch(path, query, annotation_bytes_listing)
        except RequestRejected:
            return None
        return sizes[0] if sizes else None
