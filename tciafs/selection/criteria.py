"""Criteria: what a user wants of series, as a test that a record passes or not.

All that is asked for must hold; of several values of one kind, one. Words are compared without regard to case
where the archive does so too, names of collections and patients exactly. What the archive did not say of a
series passes no test. Values only: no I/O.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from tciafs.model import Series

__all__ = ["Criteria", "Days"]

T = TypeVar("T", dt.date, int)

Days: TypeAlias = tuple[dt.date | None, dt.date | None]
"""From the first day to the last; None is open."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is wanted; an empty tuple, or None, is anything. `most_bytes` is of a series.

    `nothing` is wanted where two wishes exclude each other.
    """

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
    nothing: bool = False

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
            not self.nothing
            and self.wants_collection(series.collection)
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
        return not self.nothing and (not self.collections or name in self.collections)

    def wants_patient(self, patient_id: str) -> bool:
        """Return whether a patient may have what is wanted."""
        return not self.nothing and (not self.patients or patient_id in self.patients)

    def __and__(self, other: "Criteria") -> "Criteria":
        """Return what passes both."""
        words = {}
        for name in ("collections", "patients"):
            words[name] = _common(getattr(self, name), getattr(other, name), str)
        for name in ("modalities", "body_parts", "manufacturers", "models"):
            words[name] = _common(getattr(self, name), getattr(other, name), str.casefold)
        none_left = any(each is None for each in words.values())
        return Criteria(
            **{name: each or () for name, each in words.items()},
            studied=(_last(self.studied[0], other.studied[0]), _first(self.studied[1], other.studied[1])),
            released_since=_last(self.released_since, other.released_since),
            fewest_images=_last(self.fewest_images, other.fewest_images),
            most_images=_first(self.most_images, other.most_images),
            most_bytes=_first(self.most_bytes, other.most_bytes),
            only_commercial=self.only_commercial or other.only_commercial,
            nothing=self.nothing or other.nothing or none_left,
        )

    def words_of(self, field_name: str) -> tuple[str, ...]:
        """Return the words wanted in a field that archives have lists of values of."""
        words = {
            "modality": self.modalities,
            "body_part": self.body_parts,
            "manufacturer": self.manufacturers,
        }
        return words[field_name]

    def with_words(self, field_name: str, words: tuple[str, ...]) -> "Criteria":
        """Return the same with these words wanted in such a field."""
        match field_name:
            case "modality":
                return replace(self, modalities=words)
            case "body_part":
                return replace(self, body_parts=words)
            case _:
                return replace(self, manufacturers=words)

    @property
    def but_for_release(self) -> "Criteria":
        """The same without a day of release."""
        return replace(self, released_since=None)


def _common(
    one: tuple[str, ...], other: tuple[str, ...], spelt: Callable[[str], str]
) -> tuple[str, ...] | None:
    """Return the words that are in both, where no words are all; None: there are none left."""
    if not one or not other:
        return one or other
    known = set(map(spelt, other))
    return tuple(each for each in one if spelt(each) in known) or None


def _last(one: T | None, other: T | None) -> T | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _first(one: T | None, other: T | None) -> T | None:
    return min((each for each in (one, other) if each is not None), default=None)


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
