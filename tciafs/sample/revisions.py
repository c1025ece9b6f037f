"""What the archive says otherwise than when it was started: series withdrawn, records revised.

Defined here and only here: which columns can be revised, spelt as v4 lists them. A revised record
has images of its own, whose headers agree with it; unless its day of release is given it is today's,
so that getUpdatedSeries tells of it. One event loop. Imports only the records.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tciafs.sample.records import Series

__all__ = ["Revisions"]

LONGEST_TEXT_BYTES = 1024

Value = str | int | None


def _text(value: Value) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"not a text: {value!r}")
    if value is not None and len(value.encode()) > LONGEST_TEXT_BYTES:
        raise ValueError(f"a text of more than {LONGEST_TEXT_BYTES} bytes")
    return value


def _number(value: Value) -> int | None:
    if value is not None and not isinstance(value, int):
        raise ValueError(f"not a number: {value!r}")
    return value


def _day(value: Value) -> dt.date | None:
    text = _text(value)
    return None if text is None else dt.datetime.strptime(text, "%m-%d-%Y").date()


SERIES_COLUMNS: Mapping[str, tuple[str, Callable[[Value], Any]]] = {
    "Modality": ("modality", _text),
    "ProtocolName": ("protocol", _text),
    "SeriesDate": ("date", _day),
    "SeriesDescription": ("description", _text),
    "BodyPartExamined": ("body_part", _text),
    "SeriesNumber": ("number", _number),
    "Manufacturer": ("manufacturer", _text),
    "ManufacturerModelName": ("model", _text),
    "SoftwareVersions": ("software", _text),
    "DataDescriptionURI": ("data_uri", _text),
    "DateReleased": ("released", _day),
    "MaxSubmissionTimestamp": ("submitted", _day),
}
STUDY_COLUMNS: Mapping[str, tuple[str, Callable[[Value], Any]]] = {
    "StudyDate": ("date", _day),
    "StudyDesc": ("description", _text),
    "StudyID": ("study_id", _text),
}
IMAGE_COUNT = "ImageCount"


class Revisions:
    """The series that are not as they were, by UID; None is one that was withdrawn."""

    def __init__(self) -> None:
        self._now: dict[str, Series | None] = {}
        self._collections: dict[str, str] = {}

    def concern(self, series_uid: str) -> bool:
        """Return whether the series is not as it was."""
        return series_uid in self._now

    def touch(self, collection: str) -> bool:
        """Return whether the collection has a series that is not as it was."""
        return collection in self._collections.values()

    def of_collection(self, collection: str) -> Iterator[Series]:
        """Yield the revised series of a collection as they are now."""
        for series in list(self._now.values()):
            if series is not None and series.collection == collection:
                yield series

    def withdraw(self, series: Series) -> None:
        """Let the series be gone."""
        self._now[series.uid] = None
        self._collections[series.uid] = series.collection

    def revise(self, series: Series, siblings: Sequence[Series], columns: Mapping[str, Value]) -> None:
        """Change columns of a series; those of its study change in all `siblings`, of which it is one.

        Raises ValueError, having changed nothing, where a column is not known or cannot be so.
        """
        unknown = columns.keys() - SERIES_COLUMNS.keys() - STUDY_COLUMNS.keys() - {IMAGE_COUNT}
        if unknown:
            raise ValueError(f"cannot be revised: {sorted(unknown)}")
        of_study = _fields(columns, STUDY_COLUMNS)
        of_series = {"released": dt.date.today(), **_fields(columns, SERIES_COLUMNS)}
        count = _number(columns.get(IMAGE_COUNT))
        changed = [_changed(series, of_series, of_study, count)]
        if of_study:
            released = {"released": of_series["released"]}
            others = (sibling for sibling in siblings if sibling.uid != series.uid)
            changed += [_changed(sibling, released, of_study, None) for sibling in others]
        for each in changed:
            self._now[each.uid] = each
            self._collections[each.uid] = each.collection

    def restore(self) -> None:
        """Let everything be as it was."""
        self._now.clear()
        self._collections.clear()


def _fields(
    columns: Mapping[str, Value], known: Mapping[str, tuple[str, Callable[[Value], Any]]]
) -> dict[str, Any]:
    pairs = ((known[name], value) for name, value in columns.items() if name in known)
    return {field: convert(value) for (field, convert), value in pairs}


def _changed(
    series: Series, of_series: Mapping[str, Any], of_study: Mapping[str, Any], count: int | None
) -> Series:
    """Return the revised series; raises ValueError where it has not so many images."""
    study = replace(series.study, **of_study)
    if "number" in of_series:
        of_series = {**of_series, "listed_number": None}
    revised = replace(series, study=study, source=series.source.revised(count), **of_series)
    if count is not None and revised.image_count != count:
        raise ValueError(f"the series cannot have {count} images")
    return revised
