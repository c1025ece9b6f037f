"""What the archive says it has released, and which listings that leaves as good as new."""

import datetime as dt

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.catalogue.changes import LONGEST_LOOK_BACK_S, MARGIN, MOST_CHANGES, VOUCHED_TTLS, Changes
from tciafs.model import Change

DAY_S = 86_400.0
TTL_S = DAY_S
STUDIES = ("studies", "Lung", "P1")
PATIENTS = ("patients", "Lung")


def noon(day: str) -> float:
    return dt.datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp()


START = noon("2024-06-01")


def released(day: str, collection: str = "Lung", patient: str = "P1") -> Change:
    return Change(collection, patient, dt.date.fromisoformat(day))


def test_a_listing_that_nothing_contradicts_is_young_until_the_next_look() -> None:
    changes = Changes(START)
    changes.learn([released("2024-06-09", patient="P2")], START + 10 * DAY_S)
    for question in (STUDIES, ("series", "Lung", "P1"), ("patients", "Brain")):
        assert changes.vouches_until(question, START + 5 * DAY_S, TTL_S) == START + 11 * DAY_S


def test_what_was_released_since_a_listing_was_made_makes_it_and_its_collection_old() -> None:
    changes = Changes(START)
    changes.learn([released("2024-06-09")], START + 10 * DAY_S)
    for question in (STUDIES, ("series", "Lung", "P1"), PATIENTS):
        assert changes.vouches_until(question, noon("2024-06-05"), TTL_S) == 0.0


@pytest.mark.parametrize(("asked", "is_young"), [("2024-06-11", False), ("2024-06-12", True)])
def test_days_are_compared_with_a_margin_for_clocks_and_time_zones(asked: str, is_young: bool) -> None:
    changes = Changes(START)
    changes.learn([released("2024-06-09")], noon("2024-06-13"))
    assert dt.timedelta(days=2) == MARGIN
    assert (changes.vouches_until(STUDIES, noon(asked), TTL_S) > 0) == is_young


def test_a_listing_of_before_the_watch_began_is_vouched_for_by_nothing() -> None:
    changes = Changes(START)
    changes.learn([], START + DAY_S)
    assert changes.vouches_until(STUDIES, START - 1, TTL_S) == 0.0


def test_the_collections_are_always_asked_for() -> None:
    assert Changes(START).vouches_until(("collections",), START, TTL_S) == 0.0


def test_what_was_withdrawn_is_never_told_so_no_listing_is_young_for_ever() -> None:
    changes = Changes(START)
    changes.learn([], START + 100 * DAY_S)
    assert changes.vouches_until(STUDIES, START, TTL_S) == START + VOUCHED_TTLS * TTL_S


def test_the_archive_is_asked_from_some_days_before_the_last_look() -> None:
    changes = Changes(START)
    assert changes.day_to_ask_from(START + DAY_S) == dt.date(2024, 5, 30)
    changes.learn([], START + DAY_S)
    assert changes.day_to_ask_from(START + 2 * DAY_S) == dt.date(2024, 5, 31)


def test_who_was_away_for_long_begins_anew() -> None:
    changes = Changes(START)
    changes.learn([released("2024-05-31")], START)
    later = START + LONGEST_LOOK_BACK_S + 1
    assert changes.day_to_ask_from(later) is None
    assert changes.vouches_until(STUDIES, START + 1, TTL_S) == 0.0
    assert changes.vouches_until(STUDIES, later, TTL_S) == later + TTL_S


def test_too_many_changes_begin_anew_instead_of_filling_memory() -> None:
    changes = Changes(START)
    many = [released("2024-06-01", patient=f"P{number}") for number in range(MOST_CHANGES + 1)]
    changes.learn(many, START + DAY_S)
    assert changes._patients == {}
    assert changes.vouches_until(STUDIES, START, TTL_S) == 0.0


def test_of_several_days_the_last_one_counts() -> None:
    changes = Changes(START)
    changes.learn([released("2024-06-09"), released("2024-06-02")], START + 10 * DAY_S)
    changes.learn([released("2024-06-01")], START + 10 * DAY_S)
    assert changes.vouches_until(STUDIES, noon("2024-06-10"), TTL_S) == 0.0


TOLD = st.lists(st.builds(Change, st.sampled_from("ABC"), st.sampled_from("123"), st.dates()))


@given(TOLD, st.floats(0, 4e9), st.floats(0, 4e9))
def test_what_is_written_down_is_read_the_same(told: list[Change], since: float, now: float) -> None:
    changes = Changes(since)
    changes.learn(told, now)
    read = Changes.read(changes.written(), max(since, now))
    assert (read.since, read.looked_at, read._patients, read._collections) == (
        changes.since,
        changes.looked_at,
        changes._patients,
        changes._collections,
    )


@given(st.binary())
def test_what_cannot_be_read_is_a_clear_error(written: bytes) -> None:
    try:
        Changes.read(written, START)
    except msgspec.MsgspecError:
        return
    assert written, "nothing was read as something"
