"""A table of half a million series in memory: dictionary-coded columns, and where patients lie in them.

Defined here and only here: the fields of an index row, and finding rows by UID or patient without a
Python object for each row. Rows of one patient are neighbours, and so are rows of one study in it.
Immutable once made. Must not import anything but numpy and the records.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tciafs.sample.records import Licence

__all__ = ["IndexRow", "IndexTable", "Places", "table_of_columns"]

LONGEST_UID = 64
BLOCK_ROWS = 1000
"""How many rows are made at a time, so that a long listing is begun at once and never held whole."""

Places: TypeAlias = NDArray[np.int64]
"""Row numbers, ascending."""


class IndexRow(NamedTuple):
    """What an index says of one series; None is a null column."""

    series_uid: str
    collection: str
    patient_id: str
    study_uid: str
    species: str | None
    sex: str | None
    age: str | None
    study_date: dt.date | None
    study_description: str | None
    modality: str | None
    number: int | None
    description: str | None
    series_date: dt.date | None
    body_part: str | None
    manufacturer: str | None
    model: str | None
    analysis_result: str | None
    doi: str | None
    licence: Licence
    submitted: dt.date | None
    released: dt.date | None
    image_count: int


@dataclass(frozen=True, slots=True)
class _Column:
    """The distinct values of a column, and for each row the place of its value among them."""

    codes: NDArray[np.int32]
    values: Sequence[Any]

    def take(self, places: Places) -> Iterator[Any]:
        return map(self.values.__getitem__, self.codes[places].tolist())


class _UidFinder:
    """Finds the places of a UID in an unordered column of UIDs."""

    def __init__(self, uids: NDArray[np.bytes_]) -> None:
        self._uids = uids
        self._order = np.argsort(uids)

    def places(self, uid: str) -> Places:
        """Return where the UID is, ascending."""
        if len(uid) > LONGEST_UID or not uid.isascii():
            return np.empty(0, np.int64)
        wanted = np.bytes_(uid, "ascii")
        first, end = (
            int(np.searchsorted(self._uids, wanted, side, sorter=self._order)) for side in ("left", "right")
        )
        return np.sort(self._order[first:end])


@dataclass(frozen=True)
class IndexTable:
    """All rows; `patient_starts` and `study_starts` are the first row of each, and the end."""

    series_uids: NDArray[np.bytes_]
    columns: Mapping[str, _Column]
    patient_starts: Places
    study_starts: Places

    def rows(self, places: Places) -> Iterator[IndexRow]:
        """Yield the rows at these places, made a block at a time."""
        for start in range(0, len(places), BLOCK_ROWS):
            block = places[start : start + BLOCK_ROWS]
            uids = (uid.decode() for uid in self.series_uids[block].tolist())
            others = (self.columns[name].take(block) for name in IndexRow._fields[1:])
            yield from map(IndexRow._make, zip(uids, *others, strict=True))

    @cached_property
    def collections(self) -> Mapping[str, range]:
        """The rows of each collection."""
        column = self.columns["collection"]
        starts = _starts(column.codes)
        names = column.take(starts[:-1])
        return {name: range(a, b) for name, a, b in zip(names, starts[:-1], starts[1:], strict=True)}

    def places_of_series(self, uid: str) -> Places:
        """Return the place of a series, if there is one."""
        return self._series_finder.places(uid)

    def places_of_study(self, uid: str) -> Places:
        """Return the places of the series of a study; the same study may lie under two patients."""
        spans = [self._span(self.study_starts, number) for number in self._study_finder.places(uid)]
        return np.concatenate([np.empty(0, np.int64), *spans])

    def places_of_patient(self, patient_id: str) -> Places:
        """Return the places of the series of a patient, in all collections, compared without case."""
        numbers = self._patients.get(patient_id.upper(), [])
        spans = [self._span(self.patient_starts, number) for number in numbers]
        return np.concatenate([np.empty(0, np.int64), *spans])

    def where(self, column: str, holds: Callable[[Any], bool]) -> NDArray[np.bool_]:
        """Return for each row whether its value holds; asked once for each distinct value."""
        coded = self.columns[column]
        return np.array([holds(value) for value in coded.values], bool)[coded.codes]

    @staticmethod
    def _span(starts: Places, number: int) -> Places:
        return np.arange(starts[number], starts[number + 1])

    @cached_property
    def _series_finder(self) -> _UidFinder:
        return _UidFinder(self.series_uids)

    @cached_property
    def _study_finder(self) -> _UidFinder:
        uids = list(self.columns["study_uid"].take(self.study_starts[:-1]))
        return _UidFinder(_uid_array(uids))

    @cached_property
    def _patients(self) -> Mapping[str, list[int]]:
        numbers: dict[str, list[int]] = {}
        for number, patient_id in enumerate(self.columns["patient_id"].take(self.patient_starts[:-1])):
            numbers.setdefault(patient_id.upper(), []).append(number)
        return numbers


def table_of_columns(columns: Iterable[tuple[str, Sequence[Any]]]) -> IndexTable:
    """Return the table of these (field of IndexRow, values) pairs, each coded as it comes.

    The rows must be ordered by collection, patient and study.
    """
    uids = _uid_array(())
    coded = {}
    for name, values in columns:
        if name == "series_uid":
            uids = _uid_array(values)
        else:
            coded[name] = _coded(values)
    patients = _starts(coded["collection"].codes, coded["patient_id"].codes)
    studies = _starts(coded["collection"].codes, coded["patient_id"].codes, coded["study_uid"].codes)
    return IndexTable(uids, coded, patients, studies)


def _uid_array(uids: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array(uids, f"S{LONGEST_UID}")


def _coded(values: Sequence[Any]) -> _Column:
    numbers: dict[Any, int] = {}
    codes = (numbers.setdefault(value, len(numbers)) for value in values)
    return _Column(np.fromiter(codes, np.int32, len(values)), list(numbers))


def _starts(*keys: NDArray[np.int32]) -> Places:
    """Return where a key differs from the row before, and the number of rows."""
    changes = np.any([np.diff(key, prepend=-1, append=-1) != 0 for key in keys], axis=0)
    return np.flatnonzero(changes)
