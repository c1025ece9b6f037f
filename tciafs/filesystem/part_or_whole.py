"""Who gets what of a series that is not here, and whose images can be had in part.

An image that is opened brings its beginning, and each read what it asks for. The series is fetched as a
whole, its images side by side, once IMAGES_READ of them were read from end to end, or a SHARE of its bytes
was asked for; of an image of LARGE_BYTES, once that share of it was read in one go. What is open by then is
read on in parts, unless it is about to come in with the series. Defined here and only here: that rule, and
that each part is admitted as a download is.
"""

import logging
from typing import TYPE_CHECKING

import msgspec

from tciafs.errors import TciafsError
from tciafs.model import Series

if TYPE_CHECKING:
    from tciafs.filesystem.guard import Guard
    from tciafs.store.open_packs import OpenImage
    from tciafs.store.parts import PartImage
    from tciafs.store.store import Store

__all__ = ["PartOrWhole", "wants_whole"]

log = logging.getLogger(__name__)

IMAGES_READ = 2
SHARE = 4
LARGE_BYTES = 64 * 1024 * 1024
SOON_BYTES = 16 * 1024 * 1024
"""An image that lies so far behind what has come in of its series is not asked for a second time."""


def wants_whole(opened: "PartImage") -> bool:
    """Return whether what was read of an image, and of its series, is worth fetching all of it."""
    if opened.image.size_bytes >= LARGE_BYTES:
        return (opened.run_end - opened.run_start) * SHARE >= opened.image.size_bytes
    parts = opened.parts
    return len(parts.whole) >= IMAGES_READ or parts.size_bytes * SHARE >= parts.layout.image_bytes


class PartOrWhole:
    """Brings what is read of images that may be here in part only."""

    def __init__(self, store: "Store", guard: "Guard") -> None:
        self._store = store
        self._guard = guard

    async def bring(self, opened: "PartImage", pid: int, offset: int, length: int) -> None:
        """Return once a part of an image can be read, which a process wants.

        Raises Refused, and what bringing it fails with.
        """
        if await self._is_whole(opened):
            return
        lacking_bytes = opened.lacking_bytes(offset, length)
        self._guard.admit(pid, msgspec.structs.replace(opened.series, size_bytes=lacking_bytes))
        try:
            await self._store.ranged.bring(opened, offset, length)
        except TciafsError:
            if self._store.ranged.are_to_be_had(opened.series) or not await self._comes_whole(opened, pid):
                raise
            return
        if wants_whole(opened):
            self._begin_whole(opened.series, pid)

    async def _is_whole(self, opened: "PartImage") -> bool:
        """Return whether an image can be read from a pack, which it is from now on."""
        whole = self._store.open_local(opened.series, opened.image.name)
        if whole is None and self._comes_soon(opened):
            whole = await self._store.open(opened.series, opened.image.name)
        return self._taken(opened, whole)

    def _taken(self, opened: "PartImage", whole: "OpenImage | None") -> bool:
        if whole is None:
            return False
        if opened.whole is not None or whole.image.size_bytes != opened.image.size_bytes:
            whole.close()  # somebody was faster; or it is of another version
        else:
            opened.whole = whole
        return opened.whole is not None

    async def _comes_whole(self, opened: "PartImage", pid: int) -> bool:
        """Have the series brought in another way; return whether the image can be read from it."""
        self._guard.admit(pid, opened.series)
        self._store.fetch(opened.series)
        return self._taken(opened, await self._store.open(opened.series, opened.image.name))

    def _comes_soon(self, opened: "PartImage") -> bool:
        download = self._store.peek_download(opened.series)
        if download is None or not download.begun or download.series.version != opened.series.version:
            return False
        is_near = opened.image.offset <= download.arrived_bytes + SOON_BYTES
        return is_near and opened.image.size_bytes < LARGE_BYTES

    def _begin_whole(self, series: Series, pid: int) -> None:
        """Have a series fetched, if it may be; else it is read on in parts."""
        store = self._store
        if store.peek_download(series) is not None or store.failures.refusal(series) is not None:
            return
        size_bytes = series.size_bytes or 0
        if size_bytes >= store.usage().limit_bytes:
            return
        rest = msgspec.structs.replace(series, size_bytes=max(0, size_bytes - store.ranged.bytes_of(series)))
        if self._guard.admits_ahead(pid, rest):
            try:
                store.fetch(series)
            except TciafsError as error:
                log.info("series %s is read on in parts: %s", series.series_uid, error)
