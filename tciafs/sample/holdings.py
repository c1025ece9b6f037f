"""The archive's index: which collections there are, who may see their series, and how one is found.

A collection's series are made or read when somebody first asks for them. Defined here and only
here: visibility (a restricted collection shows only to who has a token). Imports only the records
and their revisions.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from tciafs.sample.records import Patient, Series, Study
from tciafs.sample.revisions import Revisions

__all__ = ["Collection", "Holdings", "Keys", "Shelf"]


@dataclass(frozen=True, slots=True)
class Keys:
    """What the wanted series have in common; None is anything.

    A patient is compared without case, UIDs exactly; `released_after` is exclusive.
    """

    patient_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    released_after: dt.date | None = None

    def match(self, series: Series) -> bool:
        """Return whether the series is wanted."""
        return (
            self.series_uid in (None, series.uid)
            and self.study_uid in (None, series.study.uid)
            and (self.patient_id is None or self.patient_id.upper() == series.patient.patient_id.upper())
            and (
                self.released_after is None
                or (series.released is not None and series.released > self.released_after)
            )
        )


class Collection(Protocol):
    """One collection; a restricted one shows only to who has a token."""

    @property
    def name(self) -> str:
        """The archive's spelling."""
        ...

    @property
    def is_restricted(self) -> bool:
        """Whether guests do not see it."""
        ...

    def select(self, keys: Keys) -> Iterator[Series]:
        """Yield the series that match, in an order that says nothing."""
        ...

    def patients(self, keys: Keys) -> Iterator[Patient]:
        """Yield the patients of the matching series, each once."""
        ...

    def studies(self, keys: Keys) -> Iterator[tuple[Study, int]]:
        """Yield the studies of the matching series, each once, and how many series each has."""
        ...

    def series_of_image(self, sop_uid: str) -> Series | None:
        """Return the series with this image, None where it cannot be found."""
        ...


def _patients(series: Iterable[Series]) -> Iterator[Patient]:
    """Yield the patients as the first series of each describes them."""
    first: dict[str, Patient] = {}
    for each in series:
        first.setdefault(each.patient.patient_id, each.patient)
    yield from first.values()


def _studies(series: Iterable[Series]) -> Iterator[tuple[Study, int]]:
    """Yield the studies as the first series of each describes them; one UID may lie under two patients."""
    first: dict[tuple[str, str], Study] = {}
    counts: dict[tuple[str, str], int] = {}
    for each in series:
        key = (each.patient.patient_id, each.study.uid)
        first.setdefault(key, each.study)
        counts[key] = counts.get(key, 0) + 1
    for key, study in first.items():
        yield study, counts[key]


@dataclass(frozen=True)
class Shelf:
    """A collection in memory, its series loaded on first use; `is_restricted` hides it from guests."""

    name: str
    load: Callable[[], Sequence[Series]]
    is_restricted: bool = False

    @cached_property
    def series(self) -> Sequence[Series]:
        """All series of the collection, in an order that says nothing."""
        return sorted(self.load(), key=lambda series: (series.uid[-7:], series.uid))

    @cached_property
    def _by_uid(self) -> dict[str, Series]:
        return {series.uid: series for series in self.series}

    @cached_property
    def _by_patient(self) -> dict[str, list[Series]]:
        found: dict[str, list[Series]] = {}
        for series in self.series:
            found.setdefault(series.patient.patient_id.upper(), []).append(series)
        return found

    def select(self, keys: Keys) -> Iterator[Series]:
        """Yield the series that match."""
        if keys.series_uid is not None:
            found = self._by_uid.get(keys.series_uid)
            return filter(keys.match, () if found is None else (found,))
        if keys.patient_id is not None:  # who asks for each of thousands must not read all of them each time
            return filter(keys.match, self._by_patient.get(keys.patient_id.upper(), ()))
        return filter(keys.match, self.series)

    def patients(self, keys: Keys) -> Iterator[Patient]:
        """Yield the patients of the matching series."""
        return _patients(self.select(keys))

    def studies(self, keys: Keys) -> Iterator[tuple[Study, int]]:
        """Yield the studies of the matching series, and how many series each has."""
        return _studies(self.select(keys))

    def series_of_image(self, sop_uid: str) -> Series | None:
        """Return the series with this image, which makes all images that are looked through."""
        for series in self.series:
            if any(image.sop_uid == sop_uid for image in series.images()):
                return series
        return None


class Holdings:
    """All collections of the archive, and what was revised in them since the start."""

    def __init__(self, collections: Sequence[Collection]) -> None:
        self._collections = tuple(sorted(collections, key=lambda collection: collection.name[::-1]))
        self.revisions = Revisions()

    def collections(self, *, restricted: bool, name: str | None = None) -> Iterator[Collection]:
        """Yield the collections somebody may see; NBIA compares the name without case."""
        for collection in self._collections:
            if collection.is_restricted and not restricted:
                continue
            if name is None or collection.name.upper() == name.upper():
                yield collection

    def series(self, keys: Keys, *, restricted: bool, collection: str | None = None) -> Iterator[Series]:
        """Yield the matching series somebody may see."""
        for each in self.collections(restricted=restricted, name=collection):
            yield from self._current(each, keys)

    def patients(self, keys: Keys, *, restricted: bool, collection: str | None = None) -> Iterator[Patient]:
        """Yield the patients of the matching series."""
        for each in self.collections(restricted=restricted, name=collection):
            if self.revisions.touch(each.name):
                yield from _patients(self._current(each, keys))
            else:
                yield from each.patients(keys)

    def studies(
        self, keys: Keys, *, restricted: bool, collection: str | None = None
    ) -> Iterator[tuple[Study, int]]:
        """Yield the studies of the matching series, and how many series each has."""
        for each in self.collections(restricted=restricted, name=collection):
            if self.revisions.touch(each.name):
                yield from _studies(self._current(each, keys))
            else:
                yield from each.studies(keys)

    def find(self, series_uid: str, *, restricted: bool) -> Series | None:
        """Return one series, or None where there is none or it may not be seen."""
        return next(self.series(Keys(series_uid=series_uid), restricted=restricted), None)

    def series_of_image(self, sop_uid: str, *, restricted: bool) -> Series | None:
        """Return the series with an image, or None where there is none or it may not be seen."""
        for collection in self.collections(restricted=restricted):
            if series := collection.series_of_image(sop_uid):
                return self.find(series.uid, restricted=restricted)
        return None

    def _current(self, collection: Collection, keys: Keys) -> Iterator[Series]:
        """Yield the matching series as they are now, the revised ones last."""
        for series in collection.select(keys):
            if not self.revisions.concern(series.uid):
                yield series
        yield from filter(keys.match, self.revisions.of_collection(collection.name))

    def withdraw(self, series_uid: str) -> None:
        """Show the series no more; raises LookupError where there is none."""
        self.revisions.withdraw(self._known(series_uid))

    def revise(self, series_uid: str, columns: dict[str, str | int]) -> None:
        """Change columns of a series, and those of its study in all series of that study.

        Raises LookupError where there is no such series, ValueError where a column cannot be so.
        """
        series = self._known(series_uid)
        keys = Keys(series.patient.patient_id, series.study.uid)
        siblings = list(self.series(keys, restricted=True, collection=series.collection))
        self.revisions.revise(series, siblings, columns)

    def _known(self, series_uid: str) -> Series:
        series = self.find(series_uid, restricted=True)
        if series is None:
            raise LookupError(f"there is no series {series_uid}")
        return series
