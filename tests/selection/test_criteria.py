"""What passes and what does not, one criterion at a time and together."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.model import Series
from tciafs.selection.criteria import Criteria

CT = Series(
    "Lung",
    "P1",
    "1.2",
    "1.2.3",
    modality="CT",
    image_count=100,
    size_bytes=50_000_000,
    released=dt.date(2024, 3, 1),
    studied=dt.date(2001, 2, 3),
    licence_name="Creative Commons Attribution 4.0 International License",
    licence_uri="https://creativecommons.org/licenses/by/4.0/",
    body_part="CHEST",
    manufacturer="SIEMENS",
    model="Sensation 16",
)
NON_COMMERCIAL = "Creative Commons Attribution-NonCommercial 3.0 Unported License"

PASSES: list[dict[str, Any]] = [
    {},
    {"collections": ("Brain", "Lung")},
    {"patients": ("P1",)},
    {"modalities": ("MR", "ct")},
    {"body_parts": ("Chest",)},
    {"manufacturers": ("Siemens",)},
    {"models": ("sensation 16",)},
    {"studied": (dt.date(2001, 2, 3), dt.date(2001, 2, 3))},
    {"studied": (None, dt.date(2001, 2, 3))},
    {"studied": (dt.date(2001, 2, 3), None)},
    {"released_since": dt.date(2024, 3, 1)},
    {"fewest_images": 100, "most_images": 100},
    {"most_bytes": 50_000_000},
    {"only_commercial": True},
]
FAILS: list[dict[str, Any]] = [
    {"collections": ("lung",)},
    {"patients": ("p1",)},
    {"modalities": ("MR",)},
    {"body_parts": ("HEAD",)},
    {"manufacturers": ("GE",)},
    {"models": ("Sensation",)},
    {"studied": (dt.date(2001, 2, 4), None)},
    {"studied": (None, dt.date(2001, 2, 2))},
    {"released_since": dt.date(2024, 3, 2)},
    {"fewest_images": 101},
    {"most_images": 99},
    {"most_bytes": 49_999_999},
]


@pytest.mark.parametrize("wanted", PASSES)
def test_what_is_asked_for_passes(wanted: dict[str, Any]) -> None:
    assert Criteria(**wanted).wants(CT)


@pytest.mark.parametrize("wanted", FAILS)
def test_what_is_not_does_not(wanted: dict[str, Any]) -> None:
    assert not Criteria(**wanted).wants(CT)


@given(st.sampled_from(PASSES), st.sampled_from(FAILS))
def test_all_criteria_must_hold(passes: dict[str, Any], fails: dict[str, Any]) -> None:
    assert not Criteria(**{**passes, **fails}).wants(CT)


@pytest.mark.parametrize(
    "wanted", [each for each in PASSES if each and not {"collections", "patients"} & each.keys()]
)
def test_what_the_archive_does_not_say_passes_no_test(wanted: dict[str, Any]) -> None:
    assert not Criteria(**wanted).wants(Series("Lung", "P1", "1.2", "1.2.3"))


def test_a_licence_without_commercial_use_fails_by_its_name_or_its_address() -> None:
    only = Criteria(only_commercial=True)
    assert not only.wants(replace(CT, licence_name=NON_COMMERCIAL))
    assert not only.wants(replace(CT, licence_uri="https://creativecommons.org/licenses/by-nc/4.0/"))


@pytest.mark.parametrize("wanted", [{}, *PASSES[1:], *FAILS])
def test_a_criterion_of_series_is_known_as_one(wanted: dict[str, Any]) -> None:
    criteria = Criteria(**wanted)
    assert criteria.of_series == bool(wanted.keys() - {"collections", "patients"})
    assert criteria.of_values == bool(wanted.keys() & {"modalities", "body_parts", "manufacturers"})
