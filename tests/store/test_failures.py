"""What is remembered of series that could not be had: for how long, over restarts, and what is forgotten."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.errors import (
    AccessDenied,
    DeadlinePassed,
    NoSpace,
    SeriesDamaged,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)
from tciafs.store import failures as failures_module
from tciafs.store.failures import LONGEST_PAUSE_S, FailedSeries, Failures
from tests.fakes import make_series

SERIES = make_series("1.2.3")
PAUSE_S = 20.0


class Clock:
    """Unix seconds, as the test sets them."""

    def __init__(self) -> None:
        self.at = 1e9

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def remembered(folder: Path, clock: Clock) -> Iterator[Failures]:
    failures = Failures(folder / "failures.sqlite", PAUSE_S, clock)
    yield failures
    failures.close()


@pytest.fixture
def failures(tmp_path: Path, clock: Clock) -> Iterator[Failures]:
    with remembered(tmp_path, clock) as failures:
        yield failures


def pauses(failures: Failures, clock: Clock, failure: TciafsError, times: int) -> list[float]:
    """Return how long a series is refused after failing once, twice ..., tried again as soon as it may be."""
    found = []
    for _ in range(times):
        failures.note(SERIES, failure)
        failed = failures.find(SERIES)
        assert failed is not None
        found.append(failed.retry_at - failed.at)
        clock.at = failed.retry_at - 0.001
        assert failures.refusal(SERIES) is failure
        clock.at = failed.retry_at
        assert failures.refusal(SERIES) is None
    return found


@pytest.mark.parametrize("kind", [SeriesDamaged, AccessDenied, UnreadableAnswer])
def test_what_is_wrong_with_a_series_is_believed_longer_each_time_but_no_longer_than_a_bound(
    kind: type[TciafsError], failures: Failures, clock: Clock
) -> None:
    assert pauses(failures, clock, kind("wrong"), 7) == [300, 1200, 4800, 19_200, *[LONGEST_PAUSE_S] * 3]


@pytest.mark.parametrize("kind", [Unreachable, DeadlinePassed, NoSpace, TciafsError])
def test_what_is_wrong_with_the_line_is_believed_shortly(
    kind: type[TciafsError], failures: Failures, clock: Clock
) -> None:
    assert pauses(failures, clock, kind("away"), 3) == [PAUSE_S] * 3


@pytest.mark.parametrize(("wish_s", "pause_s"), [(None, 20), (5.0, 20), (90.0, 90), (1e9, LONGEST_PAUSE_S)])
def test_a_server_is_left_alone_for_as_long_as_it_wants(
    wish_s: float | None, pause_s: float, failures: Failures, clock: Clock
) -> None:
    assert pauses(failures, clock, SlowDown("busy", wish_s), 1) == [pause_s]


def test_the_reason_stays_until_the_series_is_had(failures: Failures, clock: Clock) -> None:
    failures.note(SERIES, SeriesDamaged("short"))
    clock.at += LONGEST_PAUSE_S
    failed = failures.find(SERIES)
    assert failed is not None
    assert (str(failed.failure), failed.times, failures.refusal(SERIES)) == ("short", 1, None)
    failures.note_had("1.2.3")
    assert (failures.find(SERIES), failures.every()) == (None, ())


def test_a_new_version_of_a_series_has_not_failed(failures: Failures) -> None:
    failures.note(SERIES, SeriesDamaged("short"))
    newer = replace(SERIES, image_count=3)
    assert (failures.find(newer), failures.refusal(newer)) == (None, None)
    failures.note(newer, SeriesDamaged("short again"))
    assert [(each.series, each.times) for each in failures.every()] == [(newer, 1)]


def test_all_of_it_is_known_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    lasting, busy = SeriesDamaged("came with 1 of 2 images"), SlowDown("busy", 30.0)
    with remembered(tmp_path, clock) as failures:
        failures.note(SERIES, Unreachable("first"))
        clock.at += 1
        failures.note(make_series("1.4"), busy)
        clock.at += 1
        failures.note(SERIES, lasting)
    with remembered(tmp_path, clock) as failures:
        assert [(each.series.series_uid, str(each.failure)) for each in failures.every()] == [
            ("1.4", "busy"),
            ("1.2.3", "came with 1 of 2 images"),
        ]
        failed = failures.find(SERIES)
        assert failed is not None
        assert isinstance(failed.failure, SeriesDamaged)
        assert failed == FailedSeries(SERIES, clock.at, 2, clock.at + 1200, failed.failure)
        assert failures.refusal(SERIES) is failed.failure
        failures.note_had("1.2.3")
    with remembered(tmp_path, clock) as failures:
        assert [each.series.series_uid for each in failures.every()] == ["1.4"]


def test_a_clock_that_was_put_back_shuts_no_series_out(tmp_path: Path, clock: Clock) -> None:
    with remembered(tmp_path, clock) as failures:
        failures.note(SERIES, SeriesDamaged("short"))
    clock.at -= 365 * 86_400
    with remembered(tmp_path, clock) as failures:
        assert failures.refusal(SERIES) is None


def test_what_somebody_wants_to_be_asked_for_again_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    with remembered(tmp_path, clock) as failures:
        for uid, patient in (("1.1", "P1"), ("1.2", "P2"), ("1.3", "P1")):
            failures.note(replace(make_series(uid), patient_id=patient), SeriesDamaged("short"))
        failures.forget(lambda series: series.patient_id == "P1")
        assert [each.series.series_uid for each in failures.every()] == ["1.2"]
    with remembered(tmp_path, clock) as failures:
        assert [each.series.series_uid for each in failures.every()] == ["1.2"]


def test_of_very_many_the_oldest_are_forgotten(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures_module, "MOST_REMEMBERED", 3)
    with remembered(tmp_path, clock) as failures:
        for number in range(5):
            clock.at += 1
            failures.note(make_series(f"1.{number}"), Unreachable("away"))
        assert [each.series.series_uid for each in failures.every()] == ["1.2", "1.3", "1.4"]
    with remembered(tmp_path, clock) as failures:
        assert len(failures.every()) == 3


# -- a table that fails --


@pytest.mark.expect_log("the table of series that failed cannot be read")
@pytest.mark.parametrize("content", [b"no database at all " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_table_is_made_anew(tmp_path: Path, clock: Clock, content: bytes) -> None:
    (tmp_path / "failures.sqlite").write_bytes(content)
    with remembered(tmp_path, clock) as failures:
        failures.note(SERIES, SeriesDamaged("short"))
    with remembered(tmp_path, clock) as failures:
        assert len(failures.every()) == 1


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "UPDATE failures SET series = x'00ff'"])
def test_what_makes_no_sense_in_a_table_is_left_out(tmp_path: Path, clock: Clock, statement: str) -> None:
    with remembered(tmp_path, clock) as failures:
        failures.note(SERIES, SeriesDamaged("short"))
    db = sqlite3.connect(tmp_path / "failures.sqlite")
    with db:
        db.execute(statement)
    db.close()
    with remembered(tmp_path, clock) as failures:
        assert failures.every() == ()


def test_without_a_table_failures_are_remembered_until_the_end(
    tmp_path: Path, clock: Clock, expect_log: Callable[[str], None]
) -> None:
    expect_log("series that failed are not remembered on disk any more")
    (tmp_path / "failures.sqlite").mkdir()
    with remembered(tmp_path, clock) as failures:
        failures.note(SERIES, SeriesDamaged("short"))
        assert len(failures.every()) == 1
        failures.note_had("1.2.3")
        assert failures.every() == ()


def test_a_record_of_absurd_length_is_remembered_in_memory_only(tmp_path: Path, clock: Clock) -> None:
    with remembered(tmp_path, clock) as failures:
        failures.note(replace(SERIES, description="x" * 100_000), SeriesDamaged("short"))
        assert len(failures.every()) == 1
    with remembered(tmp_path, clock) as failures:
        assert failures.every() == ()


@settings(max_examples=30)
@given(uid=st.text(), message=st.text(), description=st.none() | st.text(st.characters()))
def test_whatever_an_archive_says_is_remembered_or_left_out_of_the_table(
    tmp_path_factory: pytest.TempPathFactory, uid: str, message: str, description: str | None
) -> None:
    series = replace(SERIES, series_uid=uid, description=description)
    with remembered(tmp_path_factory.mktemp("failures"), Clock()) as failures:
        failures.note(series, SeriesDamaged(message))
        failed = failures.find(series)
        assert failed is not None
        assert str(failed.failure) == message
        failures.note_had(uid)
        assert failures.every() == ()
