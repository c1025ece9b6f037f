"""The annotation files of a series beside its images: all are kept, or none, and then it is said why.

A name that nobody may have, a sum of bytes that is not the archive's, a wrong MD5, or none at all where the
archive lists some: each costs the annotations and never the images. Handed what writes into the pack.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from tciafs.errors import TciafsError, UnreadableAnswer
from tciafs.model import Annotations, Member, Series
from tciafs.naming import image_name
from tciafs.store.pack import PackWriter
from tciafs.worker.digests import md5s_of

__all__ = ["ArrivingAnnotations"]

log = logging.getLogger(__name__)


class ArrivingAnnotations:
    """Those of one series coming in, over several tries; `lacks` says why it will have none ("": it has).

    `write` puts the bytes of a member behind what is in the pack.
    """

    def __init__(
        self, series: Series, pack: Path, writer: PackWriter, write: Callable[[Member], Awaitable[None]]
    ) -> None:
        self.lacks = ""
        self._series = series
        self._pack = pack
        self._writer = writer
        self._write = write
        self._given_names: list[str] = []

    def begin(self) -> None:
        """Forget those of an earlier try."""
        self.give_up("")

    def give_up(self, reason: str) -> None:
        """Do without: take what there is out of the pack again."""
        self.lacks = reason
        self._given_names.clear()
        self._writer.keep(len(self._writer.images))

    async def take(self, member: Member, seen: set[str]) -> None:
        """Take in an annotation, and note its name in `seen`; passes it by where they are given up already.

        Raises what reading it raises.
        """
        if self.lacks:
            return
        given = member.name or ""
        try:
            name = image_name(given)
        except UnreadableAnswer as error:
            self.give_up(str(error))
            return
        if name in seen:
            self.give_up(f"two files of series {self._series.series_uid} are called {name!a}")
            return
        seen.add(name)
        await self._write(member)
        self._writer.end_annotation(name)
        self._given_names.append(given)

    async def agreed(self, archive: Annotations, md5_by_given: Mapping[str, str]) -> list[str]:
        """Return what agrees of annotations that have all come; gives them up where something does not."""
        if self.lacks:
            return []
        if not self._given_names:
            self.give_up("the archive lists annotations, and sent none")
            return []
        if wrong := list(self._with_wrong_md5(md5_by_given)):
            self.give_up(f"{wrong[0]} does not have the MD5 that the archive gives")
            return []
        listed_bytes, came_bytes = await self._listed_bytes(archive), self._writer.annotations.size_bytes
        if listed_bytes is None:
            return []
        if came_bytes != listed_bytes:
            self.give_up(f"they came with {came_bytes:,} of {listed_bytes:,} bytes")
            return []
        return ["annotations"]

    async def _listed_bytes(self, archive: Annotations) -> int | None:
        try:
            return await archive.size_bytes(self._series)
        except TciafsError as error:
            uid = self._series.series_uid
            log.info("what the annotations of series %s come to is not known: %s", uid, error)
            return None

    def _with_wrong_md5(self, md5_by_given: Mapping[str, str]) -> Iterator[str]:
        """Yield those that the archive gives an MD5 of, which is another."""
        annotations = self._writer.annotations
        digests = md5s_of(self._pack, annotations)
        for annotation, given, digest in zip(annotations, self._given_names, digests, strict=True):
            if md5_by_given.get(given, digest) != digest:
                yield annotation.name
