"""Crowds for benchmarks and walks: many patients, many series, one big CT, one series of very many images.

Records are made when a collection is first listed; images of the crowds only for their download.
Defined here and only here: the collections MANY, MANYSERIES, NAMED, BENCH and HUGE.
"""

import datetime as dt
from collections.abc import Sequence
from functools import cache

from tciafs.sample.dicom import uid
from tciafs.sample.holdings import Shelf
from tciafs.sample.pictures import bench_ct, captures
from tciafs.sample.records import Made, Patient, Series, Study, Uniform
from tciafs.sample.stamps import Stamps

__all__ = ["bench", "huge", "many_patients", "many_series", "named"]

DAY = dt.date(2010, 1, 1)
LONGEST_SERIES = 8
SHORTEST_SERIES = 3

TINY_SIDE = 8
TINY_BYTES = 1152
"""Pictures of the longest series: the largest of TCIA has 91,980 images, which should not take a disk."""


@cache
def _capture_bytes() -> int:
    """Return the size of one image of a crowd: all texts in its header have a fixed width."""
    series = _series_of_many("MANY", 1)
    return captures((1, 1))(series)[0].size_bytes


def _series_of_many(collection: str, number: int) -> Series:
    patient = Patient(collection, f"MANY-{number:06}")
    study = Study(patient, uid(collection, number), DAY, description="one of many")
    source = Uniform(1, _capture_bytes, captures((1, 1)))
    return Series(study, uid(collection, number, 1), source, description="one of many")


def many_patients(count: int) -> Shelf:
    """Return the collection MANY: `count` patients with one image each."""
    return Shelf("MANY", lambda: [_series_of_many("MANY", n) for n in range(1, count + 1)])


def many_series(count: int) -> Shelf:
    """Return the collection MANYSERIES: ten series a patient, of 3 to 8 images each.

    Every seventh has two acquisitions.
    """
    return Shelf("MANYSERIES", lambda: [_one_of_many_series(n) for n in range(count)])


def _one_of_many_series(place: int) -> Series:
    collection = "MANYSERIES"
    patient_number, number = divmod(place, 10)
    patient = Patient(collection, f"MANY-{patient_number + 1:06}")
    study = Study(patient, uid(collection, patient_number), DAY, description="one of many")
    images = SHORTEST_SERIES + place % (LONGEST_SERIES - SHORTEST_SERIES + 1)
    has_two_acquisitions = place % 7 == 3
    numbers = [(1 + (has_two_acquisitions and i > images // 2), i) for i in range(1, images + 1)]
    source = Uniform(images, _capture_bytes, captures(*numbers))
    series_uid = uid(collection, place, 1)
    return Series(study, series_uid, source, number=number, description="one of many")


def named(series_uids: Sequence[str]) -> Shelf:
    """Return the collection NAMED: a small series for each of these UIDs, ten a patient."""

    def load() -> Sequence[Series]:
        return [_one_named(place, series_uid) for place, series_uid in enumerate(series_uids)]

    return Shelf("NAMED", load)


def _one_named(place: int, series_uid: str) -> Series:
    patient = Patient("NAMED", f"NAMED-{place // 10 + 1:05}")
    study = Study(patient, uid("NAMED", place // 10), DAY, "7", "named by a manifest")
    source = Uniform(2, _capture_bytes, captures((1, 1), (1, 2)))
    return Series(study, series_uid, source, "CT", number=place % 10, description="one of many")


def bench(slices: int, series: int = 1) -> Shelf:
    """Return the collection BENCH: one study of `series` CT series of `slices` images of half a megabyte."""

    def load() -> Sequence[Series]:
        patient = Patient("BENCH", "BENCH-001")
        study = Study(patient, uid("bench"), DAY, description="CT THORAX")
        return [_one_of_bench(study, slices, place) for place in range(1, series + 1)]

    return Shelf("BENCH", load)


def _one_of_bench(study: Study, slices: int, place: int) -> Series:
    source = Made(bench_ct(slices))
    return Series(
        study, uid("bench", place), source, modality="CT", number=place + 1, description="Thin slices"
    )


def huge(images: int) -> Shelf:
    """Return the collection HUGE: one series of so many images, of one to two kilobytes."""

    def load() -> Sequence[Series]:
        study = Study(Patient("HUGE", "HUGE-001"), uid("huge"), DAY, description="very many images")
        source = Stamps(images, TINY_SIDE, TINY_BYTES)
        return [Series(study, uid("huge", 1), source, modality="MR", description="very many images")]

    return Shelf("HUGE", load)
