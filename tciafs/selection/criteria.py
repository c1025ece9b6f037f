"""Criteria: what a user wants of series, as a test that a record passes or not.

All that is asked for must hold; of several values of one kind, one. Words are compared without regard to case
where the archive does so too, names of collections and patients exactly. What the archive did not say of a
series passes no test. Values only: no I/O.
"""

import datetime as dt
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from tciafs.model import Series

__all__ = ["Criteria", "Days"]

T = TypeVar("T", dt.date, int)

Days: TypeAlias = tuple[dt.date | None, dt.date | None]
"""From the first day to the last; None is open."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is wanted; an empty tuple, or None, is anything. `most_bytes` is of a series."""

    collections: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    manufacturers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    studied: Days = (None, None)
    released_since: dt.date | None = None
    fewest_images: int | None = None
    most_images: int | None = None
    most_bytes: int | None = None
    only_commercial: bool = False

    @property
    def of_values(self) -> bool:
        """Whether anything is asked that the archive's lists of values answer."""
        return bool(self.modalities or self.body_parts or self.manufacturers)

    @property
    def beyond_values(self) -> bool:
        """Whether anything is asked that only the records of series tell."""
        return (
            bool(self.models)
            or self.studied != (None, None)
            or self.only_commercial
            or any(
                each is not None
                for each in (self.released_since, self.fewest_images, self.most_images, self.most_bytes)
            )
        )

    @property
    def of_series(self) -> bool:
        """Whether anything is asked of series, and not only of collections and patients."""
        return self.of_values or self.beyond_values

    def wants(self, series: Series) -> bool:
        """Return whether a series passes."""
        return (
            self.wants_collection(series.collection)
            and self.wants_patient(series.patient_id)
            and _is_one_of(series.modality, self.modalities)
            and _is_one_of(series.body_part, self.body_parts)
            and _is_one_of(series.manufacturer, self.manufacturers)
            and _is_one_of(series.model, self.models)
            and _is_within(series.studied, *self.studied)
            and _is_within(series.released, self.released_since, None)
            and _is_within(series.image_count, self.fewest_images, self.most_images)
            and _is_within(series.size_bytes, None, self.most_bytes)
            and not (self.only_commercial and not _allows_commercial_use(series))
        )

    def wants_collection(self, name: str) -> bool:
        """Return whether a collection may have what is wanted."""
        return not self.collections or name in self.collections

    def wants_patient(self, patient_id: str) -> bool:
        """Return whether a patient may have what is wanted."""
        return not self.patients or patient_id in self.patients


def _is_one_of(text: str | None, words: tuple[str, ...]) -> bool:
    if not words:
        return True
    return text is not None and text.casefold() in {word.casefold() for word in words}


def _is_within(value: T | None, least: T | None, most: T | None) -> bool:
    if least is None and most is None:
        return True
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _allows_commercial_use(series: Series) -> bool:
    """Return whether the licence of a series is known, and does not forbid it."""
    return bool(series.licence_name or series.licence_uri) and not series.forbids_commercial_use
