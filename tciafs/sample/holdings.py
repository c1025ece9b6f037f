"""The archive's index: which collections there are and who may see their series.

A collection's series are made or read when somebody first asks for them. Defined here and only
here: visibility (a restricted collection shows only to who has a token). Imports only the records.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tciafs.sample.records import Series

__all__ = ["Holdings", "Shelf"]


@dataclass(frozen=True)
class Shelf:
    """One collection, its series loaded on first use; `is_restricted` hides it from guests."""

    name: str
    load: Callable[[], Sequence[Series]]
    is_restricted: bool = False

    @cached_property
    def series(self) -> Sequence[Series]:
        """All series of the collection, in an order that says nothing."""
        return sorted(self.load(), key=lambda series: (series.uid[-7:], series.uid))

    @cached_property
    def by_uid(self) -> dict[str, Series]:
        """The series by SeriesInstanceUID."""
        return {series.uid: series for series in self.series}


class Holdings:
    """All collections of the archive."""

    def __init__(self, shelves: Sequence[Shelf]) -> None:
        self._shelves = tuple(sorted(shelves, key=lambda shelf: shelf.name[::-1]))

    def shelves(self, *, restricted: bool, collection: str | None = None) -> Iterator[Shelf]:
        """Yield the collections somebody may see; NBIA compares the name without case."""
        for shelf in self._shelves:
            if shelf.is_restricted and not restricted:
                continue
            if collection is None or shelf.name.upper() == collection.upper():
                yield shelf

    def series(self, *, restricted: bool, collection: str | None = None) -> Iterator[Series]:
        """Yield the series somebody may see."""
        for shelf in self.shelves(restricted=restricted, collection=collection):
            yield from shelf.series

    def find(self, series_uid: str, *, restricted: bool) -> Series | None:
        """Return one series, or None where there is none or it may not be seen."""
        for shelf in self.shelves(restricted=restricted):
            if series := shelf.by_uid.get(series_uid):
                return series
        return None
