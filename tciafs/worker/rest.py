"""The rest of a series image by image, where a try broke off: whether it pays, and which name each image has.

**The rule**: the images that are missing are fetched one by one where their bytes, and 64 KiB more for each
request, are less than the whole takes again. If the archive sends wholes deflated, what that saves is
measured at the last image that is here.

A name is never guessed: it is what the archive's own rule makes of the headers of all images, and that must
make the known names of those that are here too. And since what comes one by one has no check of its own, the
archive must vouch for the MD5s of the whole. Where any of this is not to be had, the whole is fetched again.
"""

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from tciafs.errors import SeriesDamaged
from tciafs.model import ImageKey, Member, Series, SingleImages
from tciafs.store.layout import PackedImage, PackedImages
from tciafs.store.pack import PackWriter
from tciafs.worker.digests import md5s_of
from tciafs.worker.headers import image_keys

__all__ = ["NotSingly", "Rest", "is_less_work"]

REQUEST_BYTES = 64 * 1024
"""What a request costs beside its bytes: a way there and back, and a server that looks something up."""

MOST_HEADERS = 10_000
"""Headers take a millisecond each to read: of more images than this, the whole is fetched again."""

SAMPLE_BYTES = 1 << 20
DEFLATE_LEVEL = 6
"""The default level of java.util.zip, and of most other servers."""


class NotSingly(Exception):
    """The rest of a series cannot come image by image, or not be named for certain; `str()` says why."""


def is_less_work(series: Series, images: PackedImages, pack: Path, singles: SingleImages) -> bool:
    """Say whether what is missing beside `images` costs less one by one than the whole again."""
    if not 0 < len(images) <= MOST_HEADERS or not series.image_count or not series.size_bytes:
        return False
    missing, missing_bytes = series.image_count - len(images), series.size_bytes - images.size_bytes
    if missing <= 0 or missing_bytes <= 0:
        return False
    share = _deflated_share(pack, images[-1]) if singles.deflates_whole_series else 1.0
    return missing_bytes + missing * REQUEST_BYTES < share * series.size_bytes


def _deflated_share(pack: Path, image: PackedImage) -> float:
    with pack.open("rb") as file:
        file.seek(image.offset)
        data = file.read(min(image.size_bytes, SAMPLE_BYTES))
    return len(zlib.compress(data, DEFLATE_LEVEL)) / max(1, len(data))


class Rest:
    """What is missing of a series whose first images are in `writer`; it comes over as many tries as needed.

    `store` puts a member behind what is there. What has come so far stays in the pack, without names.
    """

    def __init__(
        self,
        singles: SingleImages,
        series: Series,
        pack: Path,
        writer: PackWriter,
        store: Callable[[Member], Awaitable[PackedImage]],
    ) -> None:
        self._singles = singles
        self._series = series
        self._pack = pack
        self._writer = writer
        self._store = store
        self._known_names = list(writer.images.names)
        self._keys: list[ImageKey] = []
        self._uids: Sequence[str] = ()
        self._agrees: Callable[[Sequence[str]], bool] | None = None

    async def bring(self) -> None:
        """Bring what is missing: all is then in the pack by its name, in the archive's order.

        Raises NotSingly; SeriesDamaged where the MD5s are not the archive's; what the archive raises.
        """
        if self._agrees is None:
            self._agrees = await self._prepared()
        here = {key.sop_instance_uid for key in self._keys}
        for uid in self._uids:
            if uid not in here:
                await self._bring_one(uid)
        self._name()
        if not self._agrees(md5s_of(self._pack, self._writer.images)):
            raise SeriesDamaged(
                f"series {self._series.series_uid} does not have the MD5 that the archive gives"
            )

    def drop(self) -> None:
        """Take out of the pack again what came one by one."""
        self._writer.keep(len(self._known_names))

    async def _prepared(self) -> Callable[[Sequence[str]], bool]:
        """Learn what is missing and what vouches for it. Raises NotSingly, before any image is fetched."""
        self._keys = image_keys(self._pack, self._writer.images)
        names = self._singles.names(self._keys)
        if names is None or list(map(_unpadded, names)) != list(map(_unpadded, self._known_names)):
            raise NotSingly("the names of its images do not follow from their headers")
        self._uids = await self._singles.image_uids(self._series)
        here = {key.sop_instance_uid for key in self._keys}
        if len(self._uids) != self._series.image_count or not here.issubset(self._uids):
            raise NotSingly(f"the archive names {len(self._uids)} images of it, and not those that are here")
        agrees = await self._singles.check_of(self._series)
        if agrees is None:
            raise NotSingly("the archive does not vouch for single images")
        return agrees

    async def _bring_one(self, uid: str) -> None:
        missing_bytes = (self._series.size_bytes or 0) - self._writer.images.size_bytes
        async with self._singles.image(self._series, uid) as member:
            image = await self._store(replace(member, chunks=_AtMost(missing_bytes, member.chunks)))
        (key,) = image_keys(self._pack, [image])
        if key.sop_instance_uid != uid:
            raise NotSingly(f"the archive sent another image than {uid}")
        self._keys.append(key)

    def _name(self) -> None:
        """Give all images their names, those that came one by one in the archive's order."""
        names, known = self._singles.names(self._keys), len(self._known_names)
        if names is None or list(names[:known]) != self._known_names or len(set(names)) < len(names):
            raise NotSingly("the names of its images do not follow from their headers")
        images = self._writer.images
        came = zip(islice(images, known, None), islice(names, known, None), strict=True)
        named = [replace(image, name=name) for image, name in came]
        self._writer.arrange([*islice(images, known), *sorted(named, key=lambda each: _unpadded(each.name))])


class _AtMost:
    """Passes on chunks; raises NotSingly where they become more bytes than the series can have.

    An iterator and no generator, so that leaving early is harmless.
    """

    def __init__(self, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        self._left_bytes = size_bytes
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            raise NotSingly("a single image has more bytes than the series lacks")
        return chunk


def _unpadded(name: str) -> tuple[object, ...]:
    """Return a name in which it does not matter with how many zeros a number is written."""
    return tuple(int(part) if part.isdecimal() else part for part in name.replace(".", "-").split("-"))
