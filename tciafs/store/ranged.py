"""Images that are brought in part: who asks the archive for what is read of them, and for how much at once.

What is read is asked for in whole blocks, each once however many want it. Who reads an image on and on gets
as much again as he has read, up to MOST_AHEAD_BYTES: so a header costs a header, and a large image few
requests. The first who needs a block asks for it, as a part of his own request; others wait, or go on where
he was interrupted. Defined here and only here: that rule. Used from the daemon's one thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import trio

from tciafs.errors import DeadlinePassed, NoSpace, Offline, Refused, TciafsError, UnreadableAnswer
from tciafs.model import ListedImage, Series
from tciafs.store.disk_errors import disk_errors
from tciafs.store.failures import Failures
from tciafs.store.layout import Layout, PackedImage
from tciafs.store.parts import BLOCK_BYTES, PartImage, Parts, blocks_of
from tciafs.store.room import Room

__all__ = ["Ranged", "Ranger"]

LONG_RUN_BYTES = 256 * 1024
"""Whoever has read so much in one go goes on; the kernel itself reads less ahead of a header."""

MOST_AHEAD_BYTES = 2 * 1024 * 1024


class Ranger(Protocol):
    """Whoever asks the archive; see `model.Ranges`."""

    def gives(self, series: Series) -> bool:
        """Return whether parts of this series can be had now; nothing is asked."""
        ...

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        """Return a part of an image. Raises TciafsError, and Refused where no bytes may come in."""
        ...


class Ranged:
    """The images of a store that may be here in part.

    `ranger` is for whoever builds the mount to set. None: images come with their series only. `refuse`
    raises what nobody may ask the archive with for now.
    """

    def __init__(
        self,
        parts: Parts,
        room: Room,
        failures: Failures,
        patience_s: float,
        refuse: Callable[[Series], None],
    ) -> None:
        self.ranger: Ranger | None = None
        self.received_bytes = 0
        self._parts = parts
        self._room = room
        self._failures = failures
        self._patience_s = patience_s
        self._refuse = refuse
        self._failed: set[str] = set()

    def are_to_be_had(self, series: Series) -> bool:
        """Return whether images can be read without their series."""
        return self.ranger is not None and self.ranger.gives(series)

    def bytes_of(self, series: Series) -> int:
        """Return how many bytes of a series are here in part."""
        found = self._parts.find(series)
        return 0 if found is None else found.size_bytes

    @property
    def disk_bytes(self) -> int:
        """What all parts take on disk."""
        return self._parts.disk_bytes

    async def open(self, series: Series, layout: Layout, image: PackedImage) -> PartImage:
        """Return an image of a series whose layout is known, of which nothing has to be here yet."""
        with disk_errors():
            while self._parts.has_another(series):
                await self._parts.drop(series.series_uid)
            return self._parts.open(series, layout, image)

    async def bring(self, opened: PartImage, offset: int, length: int) -> None:
        """Return once a part of an image is here.

        Raises what asking for it fails with, at once if that failed not long ago, or DeadlinePassed.
        """
        wanted = blocks_of(opened.image, offset, length)
        try:
            with trio.fail_after(self._patience_s):
                while missing := opened.parts.missing(opened.image, wanted):
                    await self._bring_some(opened, offset, missing)
        except trio.TooSlowError:
            raise DeadlinePassed(
                f"no bytes of {opened.image.name} of series {opened.series.series_uid} came for "
                f"{self._patience_s:g} s"
            ) from None

    async def _bring_some(self, opened: PartImage, offset: int, missing: list[int]) -> None:
        """Have the first of the blocks that are missing here, or see them come in."""
        name, flights = opened.image.name, opened.parts.flights
        if (flight := flights.get((name, missing[0]))) is not None:
            await flight.wait()
            return
        with suppress(NoSpace):  # what a series has no room for may be had in part
            self._refuse(opened.series)
        blocks = self._run(opened, offset, missing)
        landed = trio.Event()
        flights.update({(name, block): landed for block in blocks})
        try:
            with self._noting_failures(opened.series), disk_errors():
                await self._fetch(opened, blocks)
        finally:
            for block in blocks:
                del flights[name, block]
            landed.set()

    def _run(self, opened: PartImage, offset: int, missing: list[int]) -> range:
        """Return the blocks to ask for: those that are missing in one piece, and what is read ahead."""
        if not opened.run_start <= offset <= opened.run_end + LONG_RUN_BYTES:
            opened.run_start = opened.run_end = offset
        begins, ends = missing[0] * BLOCK_BYTES, (missing[-1] + 1) * BLOCK_BYTES
        if (run_bytes := begins - opened.run_start) >= LONG_RUN_BYTES:
            ends += min(run_bytes, MOST_AHEAD_BYTES)
        blocks = self._free(opened, blocks_of(opened.image, begins, ends - begins))
        opened.run_end = max(opened.run_end, blocks.stop * BLOCK_BYTES)
        return blocks

    def _free(self, opened: PartImage, blocks: range) -> range:
        """Return blocks up to one that is here, or on its way."""
        absent = set(opened.parts.missing(opened.image, blocks))
        for block in blocks:
            if block not in absent or (opened.image.name, block) in opened.parts.flights:
                return range(blocks.start, block)
        return blocks

    async def _fetch(self, opened: PartImage, blocks: range) -> None:
        if self.ranger is None:
            raise Offline(f"nobody can be asked for parts of series {opened.series.series_uid}")
        image, first = opened.image, blocks.start * BLOCK_BYTES
        size_bytes = min(blocks.stop * BLOCK_BYTES, image.size_bytes) - first
        reservation = self._room.reservation(opened.series)
        try:
            await reservation.grow_to(size_bytes)
            listed = ListedImage(image.name, image.size_bytes)
            data = await self.ranger.part(opened.series, listed, first, size_bytes)
            if len(data) != size_bytes:
                raise UnreadableAnswer(f"of {image.name} {len(data)} bytes came, and not {size_bytes}")
            # INVARIANT: no await between the two, so that what is written is always counted.
            reservation.end()
            place = self._parts.grow(opened.parts, size_bytes)
        finally:
            reservation.end()
        self.received_bytes += size_bytes
        await trio.to_thread.run_sync(opened.parts.write, place, data)
        opened.parts.note(image, blocks, place)

    @contextmanager
    def _noting_failures(self, series: Series) -> Iterator[None]:
        """Share a failure with those who come, and forget it once there are bytes again."""
        try:
            yield
        except Refused:
            raise  # that we do not ask says nothing of the series
        except TciafsError as error:
            # Where parts are not to be had any more, the series may be all the same.
            if self.are_to_be_had(series):
                self._failed.add(series.series_uid)
                self._failures.note(series, error)
            raise
        if series.series_uid in self._failed:
            self._failed.discard(series.series_uid)
            self._failures.note_had(series.series_uid)
