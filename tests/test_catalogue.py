"""Listings remembered: asked once, fresh for a while, better old than none, and never code."""

import datetime as dt
import os
import pickle  # noqa: TID251 - to show that what it would do is not done
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import diskcache
import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs import catalogue as catalogue_module
from tciafs.catalogue import (
    EMPTY_CONFIRMED_S,
    EMPTY_TTL_S,
    FAILURE_MEMORY_S,
    REFRESH_AGAIN_S,
    Answer,
    Catalogue,
    CatalogueConfig,
)
from tciafs.errors import Offline, TciafsError, Unreachable, Unusable
from tciafs.model import Collection, Patient, Study
from tests.fakes import FakeArchive, make_series

SERIES = replace(make_series(), number=2.5, released=dt.date(2024, 2, 29), description="Ü \u65e5")
TTL_S = 100.0
LUNG = Collection("Lung")


class WallClock:
    """Stands in for `time.time` in the catalogue."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr(catalogue_module, "time", clock)
    return clock


@pytest.fixture
def config(tmp_path: Path) -> CatalogueConfig:
    return CatalogueConfig(tmp_path / "cache" / "listings", TTL_S)


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive(SERIES)


@asynccontextmanager
async def opened(archive: FakeArchive, config: CatalogueConfig) -> AsyncIterator[Catalogue]:
    """A catalogue; on leaving, what is still to be written is written."""
    async with trio.open_nursery() as nursery:
        catalogue = Catalogue(archive, config, nursery)
        yield catalogue
        while nursery.child_tasks:
            await trio.lowlevel.checkpoint()
    catalogue.close()


@pytest.fixture
async def catalogue(archive: FakeArchive, config: CatalogueConfig) -> AsyncIterator[Catalogue]:
    async with opened(archive, config) as catalogue:
        yield catalogue


async def refreshed() -> None:
    """Return when what goes on behind has come to its end, or to a wait for something outside."""
    await wait_all_tasks_blocked(0.01)


Ask = Callable[[Catalogue], Any]

QUESTIONS: list[tuple[Ask, tuple[str, ...], object]] = [
    (lambda each: each.collections(), ("collections",), LUNG),
    (lambda each: each.patients("Lung"), ("patients", "Lung"), Patient("Lung", "P1")),
    (lambda each: each.studies("Lung", "P1"), ("studies", "Lung", "P1"), Study("Lung", "P1", "1.2")),
    (lambda each: each.series("Lung", "P1"), ("series", "Lung", "P1"), SERIES),
]


@pytest.mark.parametrize(("ask", "question", "record"), QUESTIONS, ids=lambda each: str(each)[:20])
async def test_an_answer_is_given_from_memory_and_after_a_restart_from_disk(
    archive: FakeArchive, config: CatalogueConfig, ask: Ask, question: tuple[str, ...], record: object
) -> None:
    async with opened(archive, config) as catalogue:
        first = await ask(catalogue)
        assert (first.records, first.fresh_for_s) == ((record,), TTL_S)
        assert await ask(catalogue) is first
    async with opened(archive, config) as catalogue:
        assert await ask(catalogue) == first
    assert archive.asked == [question]


async def test_questions_are_told_apart(catalogue: Catalogue, archive: FakeArchive) -> None:
    for collection, patient in (("Lung", "P1"), ("Lung", "P2"), ("LungP", "1"), ("lung", "P1")):
        await catalogue.series(collection, patient)
        await catalogue.studies(collection, patient)
    assert len(archive.asked) == 8


# -- one request --


async def test_two_hundred_askers_cause_one_request(catalogue: Catalogue, archive: FakeArchive) -> None:
    archive.open = trio.Event()
    answers: list[Answer[Patient]] = []

    async def asker() -> None:
        answers.append(await catalogue.patients("Lung"))

    async with trio.open_nursery() as askers:
        for _ in range(200):
            askers.start_soon(asker)
        await wait_all_tasks_blocked()
        archive.open.set()
    assert [answer.records for answer in answers] == [(Patient("Lung", "P1"),)] * 200
    assert archive.asked == [("patients", "Lung")]


async def test_an_asker_who_goes_away_does_not_end_the_request(
    catalogue: Catalogue, archive: FakeArchive
) -> None:
    archive.open = trio.Event()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as askers:
            askers.start_soon(catalogue.collections)
            while not archive.asked:
                await trio.lowlevel.checkpoint()
            scope.cancel()
    archive.open.set()
    assert (await catalogue.collections()).records == (LUNG,)
    assert archive.asked == [("collections",)]


async def test_an_answer_that_came_while_the_disk_was_asked_is_not_lost(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
    wall.now += TTL_S
    async with opened(archive, config) as catalogue, trio.open_nursery() as askers:
        # Two at once: each finds the old answer on disk, one after the other.
        askers.start_soon(catalogue.collections)
        askers.start_soon(catalogue.collections)
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).fresh_for_s == TTL_S
    assert archive.asked == [("collections",)] * 2


# -- time --


async def test_an_answer_is_asked_for_again_when_its_time_has_passed(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock
) -> None:
    await catalogue.collections()
    wall.now += TTL_S - 1
    assert (await catalogue.collections()).fresh_for_s == 1
    assert len(archive.asked) == 1
    wall.now += 1
    archive.holdings.append(replace(SERIES, collection="Brain"))
    assert (await catalogue.collections()).records == (LUNG,)
    await refreshed()
    assert (await catalogue.collections()).records == (LUNG, Collection("Brain"))
    assert len(archive.asked) == 2


async def test_an_old_answer_is_shown_at_once_though_the_archive_is_frozen(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock
) -> None:
    first = await catalogue.collections()
    wall.now += TTL_S
    archive.open = trio.Event()
    for _ in range(3):
        assert await catalogue.collections() == first
    await refreshed()
    assert len(archive.asked) == 2
    archive.open.set()


async def test_an_answer_that_is_not_known_is_waited_for_however_it_was_asked_before(
    catalogue: Catalogue, archive: FakeArchive, nursery: trio.Nursery
) -> None:
    archive.open = trio.Event()
    nursery.start_soon(catalogue.collections)
    await refreshed()
    archive.open.set()
    assert (await catalogue.collections()).records == (LUNG,)
    assert len(archive.asked) == 1


# -- emptiness --


async def test_that_there_is_nothing_is_believed_for_a_short_while_only(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock
) -> None:
    nothing = await catalogue.patients("Heart")
    assert nothing.records == ()
    assert nothing.fresh_for_s == min(TTL_S, EMPTY_TTL_S)


@pytest.mark.expect_log("the archive lists nothing under collections, which had 1 records; keeping them")
async def test_a_listing_shrinks_to_nothing_only_when_a_later_answer_agrees(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock, mock_clock: MockClock
) -> None:
    await catalogue.collections()
    archive.holdings.clear()
    for seconds in (TTL_S, EMPTY_CONFIRMED_S / 2, EMPTY_CONFIRMED_S):
        wall.now += seconds
        assert (await catalogue.collections()).records == (LUNG,)
        await refreshed()
        mock_clock.jump(seconds)
    assert (await catalogue.collections()).records == ()


@pytest.mark.expect_log("the archive lists nothing under collections")
async def test_a_listing_that_was_empty_once_by_mistake_goes_on(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock, mock_clock: MockClock
) -> None:
    await catalogue.collections()
    held = list(archive.holdings)
    for holdings in ([], held, []):
        archive.holdings = holdings
        wall.now += TTL_S + EMPTY_CONFIRMED_S
        mock_clock.jump(EMPTY_CONFIRMED_S)
        await catalogue.collections()
        await refreshed()
        assert (await catalogue.collections()).records == (LUNG,)


async def test_a_clock_that_was_ahead_does_not_keep_an_answer_fresh_for_ever(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    wall.now += 1e9
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
    wall.now -= 1e9
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).fresh_for_s == TTL_S


# -- failures --


async def test_a_failure_reaches_all_askers_and_is_remembered_shortly(
    catalogue: Catalogue, archive: FakeArchive, mock_clock: MockClock
) -> None:
    archive.open = trio.Event()
    archive.fail("collections", Unreachable("away"))
    failures: list[TciafsError] = []

    async def asker() -> None:
        with pytest.raises(Unreachable) as raised:
            await catalogue.collections()
        failures.append(raised.value)

    async with trio.open_nursery() as askers:
        for _ in range(10):
            askers.start_soon(asker)
        await wait_all_tasks_blocked()
        archive.open.set()
    await asker()
    assert (len(failures), len(archive.asked)) == (11, 1)
    mock_clock.jump(FAILURE_MEMORY_S)
    assert (await catalogue.collections()).records == (LUNG,)


async def test_failures_are_not_kept_for_ever(
    catalogue: Catalogue, archive: FakeArchive, mock_clock: MockClock
) -> None:
    archive.fail("patients", Unreachable("away"), Unreachable("away"))
    for collection in ("Lung", "Brain"):
        with pytest.raises(Unreachable):
            await catalogue.patients(collection)
        mock_clock.jump(REFRESH_AGAIN_S)
    await catalogue.collections()
    assert catalogue._failed == {}


@pytest.mark.expect_log("away; showing an older listing of collections")
async def test_an_old_answer_is_not_refreshed_again_right_after_that_failed(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock, mock_clock: MockClock
) -> None:
    await catalogue.collections()
    wall.now += TTL_S
    archive.fail("collections", Unreachable("away"))
    for _ in range(3):
        await catalogue.collections()
        await refreshed()
    assert len(archive.asked) == 2
    mock_clock.jump(REFRESH_AGAIN_S)
    await catalogue.collections()
    await refreshed()
    assert len(archive.asked) == 3


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_old_answer_is_better_than_none_and_one_line_says_so(
    archive: FakeArchive,
    config: CatalogueConfig,
    wall: WallClock,
    caplog: pytest.LogCaptureFixture,
    expect_log: Callable[[str], None],
    restarted: bool,
) -> None:
    expect_log("WARNING tciafs.catalogue: away; showing an older listing of patients/Lung")
    async with opened(archive, config) as catalogue:
        first = await catalogue.patients("Lung")
        wall.now += TTL_S
        archive.fail("patients", Unreachable("away"))
        if not restarted:
            for _ in range(5):
                assert await catalogue.patients("Lung") == first
                await refreshed()
    if restarted:
        async with opened(archive, config) as catalogue:
            for _ in range(5):
                assert await catalogue.patients("Lung") == first
                await refreshed()
    assert len([record for record in caplog.records if record.name == "tciafs.catalogue"]) == 1
    assert first.fresh_for_s == 0


@pytest.mark.expect_log("ERROR tciafs.catalogue: listing collections failed in an unexpected way")
async def test_an_unexpected_failure_ends_the_question_and_not_the_catalogue(
    catalogue: Catalogue, archive: FakeArchive
) -> None:
    archive.fail("collections", ZeroDivisionError("by zero"))
    with pytest.raises(TciafsError, match="listing collections failed: ZeroDivisionError"):
        await catalogue.collections()
    assert (await catalogue.patients("Lung")).records == (Patient("Lung", "P1"),)


async def test_closing_ends_a_question_for_those_who_still_ask(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    archive.open = trio.Event()
    heard: list[TciafsError] = []

    async def asker(catalogue: Catalogue) -> None:
        with pytest.raises(Unreachable, match="tciafs closed before collections was listed") as raised:
            await catalogue.collections()
        heard.append(raised.value)

    async with trio.open_nursery() as askers:
        async with trio.open_nursery() as nursery:
            catalogue = Catalogue(archive, config, nursery)
            askers.start_soon(asker, catalogue)
            while not archive.asked:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        catalogue.close()
    assert len(heard) == 1


async def test_offline_shows_what_is_known_however_old_and_asks_nothing(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
    wall.now += 10 * TTL_S
    async with opened(archive, replace(config, offline=True)) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)
        with pytest.raises(Offline, match="the listing of patients/Lung is not in the cache"):
            await catalogue.patients("Lung")
    assert archive.asked == [("collections",)]


# -- memory --


async def test_answers_in_memory_are_bounded_and_the_longest_unused_leaves(
    catalogue: Catalogue, archive: FakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_module, "REMEMBERED_RECORDS", 5)
    archive.holdings = [replace(SERIES, collection=c, patient_id=p) for c in "ABCD" for p in "12"]
    for collection in "ABAC":
        await catalogue.patients(collection)
    assert (list(catalogue._memory), catalogue._memory_records) == ([("patients", "A"), ("patients", "C")], 4)
    archive.holdings = [replace(SERIES, collection="E", patient_id=str(number)) for number in range(9)]
    await catalogue.patients("E")
    assert (list(catalogue._memory), catalogue._memory_records) == ([("patients", "E")], 9)


async def test_a_renewed_answer_is_counted_once(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock
) -> None:
    for _ in range(3):
        await catalogue.collections()
        await refreshed()
        wall.now += TTL_S
    assert (len(archive.asked), catalogue._memory_records) == (3, 1)


# -- the table on disk --


@pytest.fixture
async def written(archive: FakeArchive, config: CatalogueConfig) -> Path:
    """A folder in which the collections are remembered; returns the database in it."""
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
    archive.asked.clear()
    return config.folder / "cache.db"


def execute(database: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(statement, values)


class Exploit:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.expect_log("the remembered listing of collections is unreadable: .* not plain bytes")
async def test_a_planted_pickle_is_refused_and_never_executed(
    written: Path, archive: FakeArchive, config: CatalogueConfig, tmp_path: Path
) -> None:
    code = pickle.dumps(Exploit(tmp_path / "executed"))
    execute(written, "UPDATE Cache SET mode = ?, value = ?", diskcache.core.MODE_PICKLE, code)
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)
    assert archive.asked == [("collections",)]
    assert not (tmp_path / "executed").exists()


@pytest.mark.expect_log("the remembered listing of collections is unreadable: .* not plain bytes")
@pytest.mark.parametrize(
    "mode",
    [
        diskcache.core.MODE_RAW,
        diskcache.core.MODE_BINARY,
        diskcache.core.MODE_TEXT,
        diskcache.core.MODE_PICKLE,
    ],
)
async def test_a_planted_file_name_is_refused_and_never_opened(
    written: Path, archive: FakeArchive, config: CatalogueConfig, tmp_path: Path, mode: int
) -> None:
    (tmp_path / "secret").write_bytes(msgspec.msgpack.encode(Answer((Collection("Secret"),), 9e9)))
    execute(written, "UPDATE Cache SET mode = ?, filename = '../../secret', value = NULL", mode)
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)


async def test_a_planted_key_is_never_unpickled(
    written: Path, archive: FakeArchive, config: CatalogueConfig, tmp_path: Path
) -> None:
    code = pickle.dumps(Exploit(tmp_path / "executed"))
    execute(written, "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 1, x'00')", code)
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
        with pytest.raises(ValueError, match="a key that is not text"):
            list(catalogue._table)
    assert not (tmp_path / "executed").exists()


def test_the_table_takes_nothing_but_bytes(tmp_path: Path) -> None:
    with closing(catalogue_module._open_table(tmp_path)) as table:
        for value in ("text", 1, None, [b"bytes"]):
            with pytest.raises(ValueError, match="bytes only"):
                table.set("key", value)
        with (tmp_path / "file").open("w+b") as file, pytest.raises(ValueError, match="bytes only"):
            table.set("key", file, read=True)
        table.set("key", b"bytes")
        assert (list(table), table["key"]) == (["key"], b"bytes")
        with pytest.raises(ValueError, match="not plain bytes"):
            table.get("key", read=True)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"records": []}),
        msgspec.msgpack.encode({"records": 1, "fresh_until": 2}),
    ],
)
@pytest.mark.expect_log("the remembered listing of collections is unreadable")
async def test_an_answer_of_another_shape_was_never_there(
    written: Path, archive: FakeArchive, config: CatalogueConfig, value: bytes
) -> None:
    execute(written, "UPDATE Cache SET value = ?", value)
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)


async def test_an_answer_of_another_version_of_the_program_was_never_there(
    written: Path, archive: FakeArchive, config: CatalogueConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_module, "SCHEMA_VERSION", 2)
    async with opened(archive, config) as catalogue:
        assert (await catalogue.collections()).records == (LUNG,)
    assert archive.asked == [("collections",)]


def no_database(database: Path) -> None:
    database.write_bytes(b"this is no database" * 1000)


def other_settings(database: Path) -> None:
    execute(database, "INSERT INTO Settings VALUES ('disk_surprise', 1)")


def other_table(database: Path) -> None:
    execute(database, "DROP TABLE Settings")
    execute(database, "CREATE TABLE Settings (something)")


@pytest.mark.parametrize("damage", [no_database, other_settings, other_table])
@pytest.mark.expect_log("WARNING tciafs.catalogue: the listings cache is damaged .* starts anew")
async def test_a_damaged_table_starts_anew(
    written: Path, archive: FakeArchive, config: CatalogueConfig, damage: Callable[[Path], None]
) -> None:
    assert [file.name for file in written.parent.iterdir()] == ["cache.db"]  # nobody has it open
    damage(written)
    for _ in range(2):
        async with opened(archive, config) as catalogue:
            assert (await catalogue.collections()).records == (LUNG,)
    assert archive.asked == [("collections",)]


@pytest.mark.expect_log("the remembered listing of collections is unreadable: no such")
@pytest.mark.expect_log("the listing of collections could not be kept: no such")
async def test_a_table_damaged_while_in_use_does_not_stop_listings(
    written: Path, archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config) as catalogue:
        execute(written, "DROP TABLE Cache")
        assert (await catalogue.collections()).records == (LUNG,)


@pytest.mark.expect_log("the listing of patients/.* could not be kept")
@pytest.mark.expect_log("the remembered listing of patients/.* is unreadable")
async def test_text_that_is_no_unicode_is_listed_but_not_kept(
    catalogue: Catalogue, archive: FakeArchive
) -> None:
    assert (await catalogue.patients("Lung\udcff")).records == ()


@pytest.fixture
def unreadable(config: CatalogueConfig) -> Path:
    """A folder in whose place there is a file."""
    config.folder.parent.mkdir(parents=True)
    config.folder.write_text("in the way")
    return config.folder


async def test_a_folder_that_is_a_file_is_unusable(
    unreadable: Path, archive: FakeArchive, config: CatalogueConfig, nursery: trio.Nursery
) -> None:
    with pytest.raises(Unusable, match="listings cannot be used: File exists"):
        Catalogue(archive, config, nursery)


@pytest.mark.parametrize("code", sorted(catalogue_module.WELL_AGAIN))
async def test_a_disk_in_trouble_is_no_reason_to_throw_listings_away(
    written: Path, config: CatalogueConfig, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("trouble")
        error.sqlite_errorcode = code | 3 << 8
        raise error

    monkeypatch.setattr("tciafs.catalogue.diskcache.Cache", fail)
    with pytest.raises(Unusable, match="trouble"):
        catalogue_module._open_table(config.folder)
    assert written.exists()


@pytest.mark.expect_log("the listings cache is damaged")
def test_a_table_that_cannot_be_made_anew_is_unusable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.DatabaseError("still damaged")

    monkeypatch.setattr("tciafs.catalogue.diskcache.Cache", fail)
    with pytest.raises(Unusable, match="still damaged"):
        catalogue_module._open_table(tmp_path)
