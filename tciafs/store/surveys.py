"""Names and sizes of a series without its images, from archives that can tell them for a few kilobytes.

What was learnt is kept as the layout of a series that was evicted is: for good, until the archive changes it.
The first who asks does the work, as a part of his own request; others wait for him, or go on where he was
interrupted. Defined here and only here: that rule. Used from the daemon's one thread.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from tciafs.errors import DeadlinePassed, Offline, Refused, SeriesDamaged, TciafsError
from tciafs.model import ListedImage, Series
from tciafs.store.failures import Failures
from tciafs.store.layout import Layout, PackedImage, PackedImages
from tciafs.store.shelf import KnownSeries, Shelf

__all__ = ["Surveyor", "Surveys"]

SURVEYS_AT_ONCE = 2
"""Each is many requests at once, and a process."""


class Surveyor(Protocol):
    """Whoever asks the archive: worker processes, or a fake in tests."""

    async def survey(self, series: Series) -> Sequence[ListedImage] | None:
        """Return the images of a series in order, None where they cannot be named in advance.

        Raises TciafsError, and Refused where no bytes may come in; cancelling it stops the requests.
        """
        ...


class Surveys:
    """The layouts of series whose bytes are not here.

    `surveyor` is for whoever builds the mount to set, and `can_name`, which says of which series it is worth
    to ask. None: nobody can be asked.
    """

    def __init__(self, shelf: Shelf, failures: Failures, disk: trio.Lock, patience_s: float) -> None:
        self.surveyor: Surveyor | None = None
        self.can_name: Callable[[Series], bool] = lambda _: True
        self._shelf = shelf
        self._failures = failures
        self._disk = disk
        self._patience_s = patience_s
        self._at_work = trio.CapacityLimiter(SURVEYS_AT_ONCE)
        self._asked: dict[str, _Turn] = {}

    def are_to_be_had(self, series: Series) -> bool:
        """Return whether a series that was never here may be listed without its images."""
        return self.surveyor is not None and self.can_name(series)

    async def ensure(self, series: Series) -> KnownSeries | None:
        """Return what is known of a series, asking the archive if need be; None: it cannot tell in advance.

        Raises what that fails with, at once if it failed not long ago, or DeadlinePassed.
        """
        turn = self._asked.setdefault(series.series_uid, _Turn())
        turn.waiting += 1
        try:
            with trio.fail_after(self._patience_s):
                async with turn.lock:
                    return self._shelf.find(series) or await self._survey(series)
        except trio.TooSlowError:
            raise DeadlinePassed(
                f"the images of series {series.series_uid} were not named within {self._patience_s:g} s"
            ) from None
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._asked.pop(series.series_uid, None)

    async def _survey(self, series: Series) -> KnownSeries | None:
        if self.surveyor is None:
            raise Offline(f"nobody can be asked for the images of series {series.series_uid}")
        if failure := self._failures.refusal(series):
            raise failure.with_traceback(None)
        try:
            async with self._at_work:
                images = await self.surveyor.survey(series)
            if images is None:
                return None
            layout = _layout(series, images)
        except Refused:
            raise  # that we do not ask says nothing of the series
        except TciafsError as error:
            self._failures.note(series, error)
            raise
        self._failures.note_had(series.series_uid)
        async with self._disk:
            await trio.to_thread.run_sync(self._shelf.record_layout, layout)
        return self._shelf.remember_layout(layout)


class _Turn:
    """Whose turn it is to ask for one series, and how many want it."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.waiting = 0


def _layout(series: Series, listed: Sequence[ListedImage]) -> Layout:
    """Return the layout of a pack of these images. Raises SeriesDamaged where they are too few or many."""
    images, end = PackedImages(), 0
    for each in listed:
        images.append(PackedImage(each.name, end, each.size_bytes, 0))
        end += each.size_bytes
    if series.image_count not in (None, len(images)) or series.size_bytes not in (None, 0, end):
        raise SeriesDamaged(
            f"series {series.series_uid} is listed with {len(images)} images of {end:,} bytes, not with "
            f"{series.image_count} of {series.size_bytes or 0:,}"
        )
    return Layout(series.series_uid, series.version, images, (), series.path)
