"""Images of an NBIA series one by one: getSOPInstanceUIDs, getSingleImage, getMD5Hierarchy.

See `model.SingleImages`. Defined here and only here: what those three are asked and how they answer. None of
them is in NBIA's documentation of v4 but the last, which v1 has not got: a server without them refuses.
"""

import hashlib
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from tciafs.archives.http.client import HttpClient
from tciafs.archives.http.errors import RequestRejected
from tciafs.archives.nbia.listings import image_uids_listing
from tciafs.archives.nbia.names import ROUTE, retriever_names
from tciafs.errors import UnreadableAnswer
from tciafs.model import ImageKey, Member, Series

__all__ = ["NbiaSingleImages"]

_MD5_LENGTH = 32
_LONGEST_HASH_BYTES = 1024


class NbiaSingleImages:
    """The images of a server's series; `api` gives the version that it speaks."""

    deflates_whole_series = True

    def __init__(self, http: HttpClient, api: Callable[[], Awaitable[str]]) -> None:
        self._http = http
        self._api = api

    async def image_uids(self, series: Series) -> Sequence[str]:
        """Return the SOP Instance UIDs of a series (getSOPInstanceUIDs), each once."""
        path = f"{await self._api()}/getSOPInstanceUIDs"
        return await self._http.fetch(path, {"SeriesInstanceUID": series.series_uid}, image_uids_listing)

    @asynccontextmanager
    async def image(self, series: Series, sop_instance_uid: str) -> AsyncIterator[Member]:
        """Fetch one image (getSingleImage), which comes without a name.

        NBIA answers with status 500, which is Unreachable, for an image that it has lost.
        """
        params = {"SeriesInstanceUID": series.series_uid, "SOPInstanceUID": sop_instance_uid}
        async with AsyncExitStack() as stack:
            path = f"{await self._api()}/getSingleImage"
            chunks = await stack.enter_async_context(self._http.stream(path, params))
            yield Member(None, None, chunks, ROUTE)

    def names(self, images: Sequence[ImageKey]) -> Sequence[str] | None:
        """Return the names that getImage gives, None where they depend on the order in the database."""
        return retriever_names(images)

    async def check_of(self, series: Series) -> Callable[[Sequence[str]], bool] | None:
        """Return what compares MD5s with the archive's (getMD5Hierarchy of v4); None where it has none."""
        if await self._api() == "v1":
            return None
        form = {"SeriesInstanceUID": series.series_uid}
        try:
            told = await self._http.fetch("v4/getMD5Hierarchy", {}, _Md5Reader, form)
        except RequestRejected:
            return None
        return None if told is None else lambda md5s: _md5_of_md5s(md5s) == told


def _md5_of_md5s(md5s: Sequence[str]) -> str:
    """Return NBIA's hash of a series: that of its images' hashes, sorted, one behind the other."""
    return hashlib.md5("".join(sorted(md5s)).encode(), usedforsecurity=False).hexdigest()


class _Md5Reader:
    """Reads a body of 32 hexadecimal digits; of an empty one None is made."""

    def __init__(self) -> None:
        self._text = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._text += piece
        if len(self._text) > _LONGEST_HASH_BYTES:
            raise UnreadableAnswer("more than an MD5")

    def finish(self) -> str | None:
        """Return the digits in lower case."""
        text = self._text.decode(errors="replace").strip().lower()
        if not text:
            return None
        if len(text) != _MD5_LENGTH or not set(text) <= set(string.hexdigits):
            raise UnreadableAnswer("not an MD5")
        return text
