"""One series coming in: who waits for what, what is already there, and how it ended.

A Download is the daemon's view of work that a Fetcher does elsewhere. Images are announced one by one
and can be read from the growing pack at once; the whole is `verified` when the archive's count, size
and checksums agree, and `over` when it is published or failed. State changes only through the
synchronous `announce`, `mark_...` and `end`, called by the task that owns the
download; everybody else waits. A waiter that is cancelled leaves no trace.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from tciafs.errors import DeadlinePassed, Refused, TciafsError
from tciafs.model import Series
from tciafs.store.layout import Held, Layout, PackedImage, PackedImages, file_at

__all__ = ["Announcements", "Arrival", "Arrivals", "Download", "Fetcher", "Grant"]


@dataclass(frozen=True, slots=True)
class Announcements:
    """What a Fetcher calls while it works, always from the task that runs `fetch`.

    `image(image)`: this image is in the pack, checked. `annotation(annotation)`: so is this annotation, of a
    series that is complete. `lacks(reason)`: annotations will not come. `progress(received_bytes)`: bytes are
    coming, counted on the wire. `verified(checks, routes)`: the images are all there are and agree with what
    the archive says; `checks` and `routes` as in Layout.
    """

    image: Callable[[PackedImage], None]
    progress: Callable[[int], None]
    verified: Callable[[tuple[str, ...], tuple[str, ...]], None]
    annotation: Callable[[PackedImage], None]
    lacks: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Grant:
    """How large a pack may be, `size_bytes`, layout and all, and what it may be made of.

    `grow_to(size_bytes)` asks for more before it is needed, may wait, and returns how large it may be now.
    It raises NoSpace where there is no room. `earlier` is a pack of another version of the series with as
    many images and bytes, which may vanish at any moment; None: there is none. `held` is what is here of
    it in part; None: nothing.
    """

    size_bytes: int
    grow_to: Callable[[int], Awaitable[int]]
    earlier: Path | None = None
    held: Held | None = None


ARRIVALS_REMEMBERED = 5


@dataclass(frozen=True, slots=True)
class Arrival:
    """A series that came whole and is kept, `at` a time in Unix seconds; `checks`, `routes` as in Layout."""

    series: Series
    at: float
    images: int
    checks: tuple[str, ...]
    routes: tuple[str, ...] = ()


class Arrivals:
    """The last few series that came, the latest last; `total` counts all since the start."""

    def __init__(self) -> None:
        self.total = 0
        self._last: deque[Arrival] = deque(maxlen=ARRIVALS_REMEMBERED)

    def append(self, arrival: Arrival) -> None:
        """Note a series that came."""
        self.total += 1
        self._last.append(arrival)

    def __iter__(self) -> Iterator[Arrival]:
        return iter(self._last)


class Fetcher(Protocol):
    """Whoever brings a series into a pack file: worker processes, or a fake in tests."""

    async def fetch(self, series: Series, pack: Path, announce: Announcements, grant: Grant) -> None:
        """Write the finished, fsynced pack of `series` to the new file `pack`, never larger than granted.

        Raises TciafsError when the series cannot be had; the file may then be left half written.
        Cancelling it stops the transfer.
        """
        ...

    def pause(self) -> None:
        """Have all that is coming in stand still."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...


class Download:
    """A series on its way; `images` holds what is in, in order of arrival.

    For one that nobody waits for nothing makes room that was used since `spares_since` (Unix seconds; None:
    somebody waits for it), and it may have to make way itself: `gave_way`.
    """

    def __init__(self, series: Series, pack: Path, spares_since: float | None = None) -> None:
        self.series = series
        self.pack = pack
        self.spares_since = spares_since
        self.gave_way = False
        self.images = PackedImages()
        self.annotations = PackedImages()
        self.lacks = ""
        self.received_bytes = 0
        self.begun = False
        self.layout: Layout | None = None
        self.failure: TciafsError | None = None
        self.over = trio.Event()
        self._paused: Refused | None = None
        self._waits: set[trio.CancelScope] = set()
        self._settled = trio.Event()
        self._signs_of_life = 0
        self._awaited: dict[str, trio.Event] = {}
        self._more = trio.Event()

    # -- for the task that owns the download ------------------------------------------------------

    def announcements(
        self, image: Callable[[PackedImage], None], progress: Callable[[int], None]
    ) -> Announcements:
        """Return what passes news on: these functions do for images and bytes, the rest is noted here."""
        return Announcements(image, progress, self.mark_verified, self.announce_annotation, self.note_lacks)

    def announce(self, image: PackedImage) -> None:
        """Make an image readable and wake whoever waits for it."""
        self.images.append(image)
        self._announced(image)

    def announce_annotation(self, annotation: PackedImage) -> None:
        """Make an annotation readable; no image may come behind it, since places count images first."""
        self.annotations.append(annotation)
        self._announced(annotation)

    def _announced(self, image: PackedImage) -> None:
        self._signs_of_life += 1
        awaited = self._awaited.pop(image.name, None)
        if awaited is not None:
            awaited.set()
        self._wake_listings()

    def note_lacks(self, reason: str) -> None:
        """Note why the series will be without annotations."""
        self.lacks = reason

    def mark_begun(self) -> None:
        """Note that its turn has come."""
        self.begun = True

    def mark_alive(self) -> None:
        """Note that it is not this download's fault that nothing comes: it waits for its turn."""
        self._signs_of_life += 1

    def pause(self, refusal: Refused) -> None:
        """Send away whoever waits, and who comes while it stands still, with a refusal."""
        self._paused = refusal
        for wait in self._waits:
            wait.cancel()

    def resume(self) -> None:
        """Let those who come wait again; their patience starts anew."""
        self._paused = None
        self._signs_of_life += 1

    def mark_progress(self, received_bytes: int) -> None:
        """Note that bytes are coming; waiters' patience starts anew."""
        self.received_bytes = received_bytes
        self._signs_of_life += 1

    def mark_verified(self, checks: tuple[str, ...], routes: tuple[str, ...] = ()) -> None:
        """Declare the series complete, what `checks` names having agreed; it still has to be published."""
        # The images are not handed over again: to read 91,980 of them takes longer than a reader may wait.
        series = self.series
        self.layout = Layout(
            series.series_uid,
            series.version,
            self.images,
            checks,
            series.path,
            routes,
            self.annotations,
            self.lacks,
        )
        self._settle()

    def end(self, failure: TciafsError | None = None) -> None:
        """End the download, well or badly; a verified series cannot fail its readers any more."""
        self.failure = failure
        self._settle()
        self.over.set()

    def _settle(self) -> None:
        self._signs_of_life += 1
        self._settled.set()
        for awaited in self._awaited.values():
            awaited.set()
        self._awaited.clear()
        self._wake_listings()

    def _wake_listings(self) -> None:
        self._more.set()
        self._more = trio.Event()

    # -- for everybody else -----------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """True once the series is complete and verified, or has failed."""
        return self._settled.is_set()

    @property
    def state(self) -> str:
        """Which of docs/architecture.md's states it is in: "queued", "arriving", "verified" or "over"."""
        if self.over.is_set():
            return "over"
        if self.layout is not None:
            return "verified"
        return "arriving" if self.begun else "queued"

    @property
    def arrived_bytes(self) -> int:
        """How many bytes of images are in."""
        return self.images.size_bytes

    def arrival(self) -> Arrival:
        """Return what there is to tell of a series that came whole and is kept now."""
        assert self.layout is not None
        layout = self.layout
        return Arrival(self.series, time.time(), len(layout.images), layout.checks, layout.routes)

    def raise_failure(self) -> None:
        """Raise what the download failed with, if it failed before it was verified."""
        if self.failure is not None and self.layout is None:
            # Shared by all who wait: its traceback would otherwise grow with each of them.
            raise self.failure.with_traceback(None)

    @property
    def file_count(self) -> int:
        """How many images and annotations are in."""
        return len(self.images) + len(self.annotations)

    def file(self, place: int) -> PackedImage:
        """Return the image or annotation at a place, which never changes."""
        return file_at(self.images, self.annotations, place)

    def _find(self, name: str) -> PackedImage | None:
        return self.images.find(name) or self.annotations.find(name)

    async def wait_for(self, name: str, patience_s: float) -> PackedImage | None:
        """Return the image or annotation called `name` as soon as it is in; None if the series has none.

        Raises the download's failure, Refused while it is paused, or DeadlinePassed once `patience_s` went by
        without a sign of life: after twice that at most.
        """
        while (image := self._find(name)) is None and not self.settled:
            await self._wait(self._awaited.setdefault(name, trio.Event()), patience_s)
        if image is None:
            self.raise_failure()
        return image

    async def wait_for_more(self, known: int, patience_s: float) -> None:
        """Return when more than `known` images and annotations are in, or when there will be no more.

        Raises DeadlinePassed after `patience_s` without a sign of life; a failure only once all
        images that did arrive are known.
        """
        while self.file_count <= known and not self.settled:
            await self._wait(self._more, patience_s)
        if self.file_count <= known:
            self.raise_failure()

    async def wait_settled(self, patience_s: float) -> Layout:
        """Return the layout of the complete, verified series. Raises as `wait_for`."""
        while not self.settled:
            await self._wait(self._settled, patience_s)
        self.raise_failure()
        assert self.layout is not None
        return self.layout

    async def _wait(self, event: trio.Event, patience_s: float) -> None:
        seen = self._signs_of_life
        if self._paused is None:
            with trio.move_on_after(patience_s) as wait:
                self._waits.add(wait)
                try:
                    await event.wait()
                    return
                finally:
                    self._waits.discard(wait)
        if self._paused is not None:
            raise self._paused.with_traceback(None)
        if self._signs_of_life == seen:
            raise DeadlinePassed(f"no byte of series {self.series.series_uid} came for {patience_s:g} s")
