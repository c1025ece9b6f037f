"""Whole collections, changes and wishes: how few questions a catalogue asks, and that none is missing."""

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace as altered
from trio.testing import MockClock

from tciafs.catalogue import freshness as freshness_module
from tciafs.catalogue import table as table_module
from tciafs.catalogue import walks
from tciafs.catalogue.catalogue import (
    REFRESH_AGAIN_S,
    REFRESHES_BEHIND,
    WISH_PATIENCE_S,
    Answer,
    Catalogue,
    CatalogueConfig,
)
from tciafs.catalogue.changes import VOUCHED_TTLS
from tciafs.catalogue.freshness import EMPTY_CONFIRMED_S, PARTIAL_TTL_S
from tciafs.catalogue.table import Listing, Table
from tciafs.catalogue.walks import PACE_OF_MANY_S, PACE_S
from tciafs.catalogue.wholes import WHOLE_AGAIN_S, WHOLE_PATIENCE_S
from tciafs.errors import Offline, Unreachable
from tciafs.model import Change, Partial, Patient, Series, Study
from tciafs.worker.listing import list_collection
from tciafs.worker.messages import Report, RowReplaced, RowsWritten
from tests.catalogue.conftest import SERIES, TTL_S, WallClock, opened, refreshed
from tests.fakes import FakeArchive

PATIENTS = [f"P{number:03}" for number in range(40)]


class InProcessLister:
    """What a worker process does, done here."""

    def __init__(self, archive: FakeArchive) -> None:
        self.archive = archive

    async def list_collection(
        self, kind: str, collection: str, folder: Path, asked_at: float, replaced: Any, written: Any
    ) -> bool:
        is_partial = False

        def tell(report: Report) -> None:
            nonlocal is_partial
            if isinstance(report, RowReplaced):
                replaced(report.question, report.before, report.after)
            elif isinstance(report, RowsWritten):
                is_partial = report.is_partial
                written(report.rows)

        await list_collection(self.archive, kind, collection, folder, asked_at, tell)
        return is_partial


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive(
        *(
            altered(SERIES, patient_id=patient, study_uid=f"1.{study}", series_uid=f"1.{study}.{place}")
            for patient in PATIENTS
            for study in (1, 2)
            for place in (1, 2)
        )
    )


async def walk(catalogue: Catalogue) -> list[Any]:
    """Ask what find asks, in its order, and return all answers."""
    answers: list[Any] = []
    for patient in (await catalogue.patients("Lung")).records:
        answers += (await catalogue.studies("Lung", patient.patient_id)).records
        answers += (await catalogue.series("Lung", patient.patient_id)).records
    return answers


WALK_OF_A_COLLECTION = [
    ("patients", "Lung"),
    ("studies", "Lung", "P000"),
    ("series", "Lung", "P000"),
    ("every_study", "Lung"),
    ("every_series", "Lung"),
]


async def test_a_walk_through_a_collection_is_five_questions_and_misses_nothing(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        answers = await walk(catalogue)
        assert len(answers) == len(PATIENTS) * 6
        assert set(archive.holdings) <= set(answers)
        assert archive.asked == WALK_OF_A_COLLECTION
        assert catalogue.requests == 5
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        assert await walk(catalogue) == answers
    assert archive.asked == WALK_OF_A_COLLECTION


async def test_without_a_lister_each_patient_is_asked_for(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config) as catalogue:
        await walk(catalogue)
    assert len(archive.asked) == 1 + 2 * len(PATIENTS)


async def test_who_looks_at_patients_with_pauses_asks_for_those_only(
    archive: FakeArchive, config: CatalogueConfig, mock_clock: MockClock
) -> None:
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        for patient in PATIENTS[:3]:
            await catalogue.studies("Lung", patient)
            mock_clock.jump(PACE_S + 1)
    assert archive.asked == [("studies", "Lung", patient) for patient in PATIENTS[:3]]


async def test_of_very_many_patients_two_in_a_second_are_asked_about_alone_and_a_walk_still_is_five_questions(
    archive: FakeArchive, config: CatalogueConfig, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "MANY_PATIENTS", len(PATIENTS) - 1)
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await catalogue.patients("Lung")
        for patient in PATIENTS[-2:]:
            mock_clock.jump(2 * PACE_OF_MANY_S)
            await catalogue.studies("Lung", patient)
        assert archive.asked[1:] == [("studies", "Lung", patient) for patient in PATIENTS[-2:]]
        mock_clock.jump(2 * PACE_OF_MANY_S)
        archive.asked.clear()
        await walk(catalogue)
    assert archive.asked == WALK_OF_A_COLLECTION[1:]


class WritesAsTold:
    """A lister whose rows of one study come when the test says so, by patient."""

    def __init__(self) -> None:
        self.send, self._receive = trio.open_memory_channel[str](0)

    async def list_collection(
        self, kind: str, collection: str, folder: Path, asked_at: float, replaced: Any, written: Any
    ) -> bool:
        table = Table.opened(folder)
        async for patient in self._receive:
            table.put((kind, collection, patient), Listing((Study("Lung", patient, "1.2"),), asked_at))
            written([])
        table.close()
        return False


async def test_who_walks_goes_on_as_soon_as_the_row_of_his_patient_is_written(
    archive: FakeArchive, config: CatalogueConfig, mock_clock: MockClock
) -> None:
    lister = WritesAsTold()
    came = {patient: trio.Event() for patient in PATIENTS[:4]}

    async def ask(patient: str) -> None:
        await catalogue.studies("Lung", patient)
        came[patient].set()

    async with opened(archive, config, lister) as catalogue, trio.open_nursery() as nursery:
        await ask("P000")
        for patient in ("P003", "P002", "P001"):
            nursery.start_soon(ask, patient)
        for patient in ("P001", "P002"):
            await lister.send.send(patient)
            await came[patient].wait()
        await refreshed(catalogue)
        assert not came["P003"].is_set()
        lister.send.close()
    assert came["P003"].is_set()
    assert archive.asked == [("studies", "Lung", "P000")]


async def test_a_patient_without_studies_is_known_by_the_whole_and_not_asked_for(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await walk(catalogue)
        assert (await catalogue.studies("Lung", "has none")).records == ()
    assert archive.asked == WALK_OF_A_COLLECTION


@pytest.mark.expect_log("too large; Lung is listed patient by patient")
async def test_a_collection_that_cannot_be_listed_at_once_is_listed_patient_by_patient(
    archive: FakeArchive, config: CatalogueConfig, mock_clock: MockClock
) -> None:
    archive.fail("every_study", Unreachable("too large"))
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        answers = await walk(catalogue)
        assert len(answers) == len(PATIENTS) * 6
        assert archive.asked.count(("every_study", "Lung")) == 1
        assert [event.message for event in catalogue.events] == [
            "too large; Lung is listed patient by patient"
        ]
        mock_clock.jump(WHOLE_AGAIN_S)
        archive.holdings += [altered(SERIES, patient_id=name) for name in ("Q1", "Q2")]
        await catalogue.studies("Lung", "Q1")
        await catalogue.studies("Lung", "Q2")
        assert archive.asked.count(("every_study", "Lung")) == 2


@pytest.mark.expect_log("the archive lists no studies in all of Lung; Lung is listed patient by patient")
async def test_nothing_in_answer_to_the_whole_is_not_believed(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    held, archive.holdings = archive.holdings, []
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await catalogue.studies("Lung", "P000")
        await catalogue.studies("Lung", "P001")
        archive.holdings = held
        assert len((await catalogue.studies("Lung", "P002")).records) == 2


class OfTheNextVersion(InProcessLister):
    """A worker that was started after tciafs had been replaced by another version."""

    async def list_collection(self, *args: Any) -> bool:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(table_module, "SCHEMA_VERSION", b"of another time")
            return await super().list_collection(*args)


@pytest.mark.expect_log("is of another version of tciafs; .*; Lung is listed patient by patient")
async def test_a_worker_of_another_version_leaves_the_table_of_the_daemon_alone(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config, OfTheNextVersion(archive)) as catalogue:
        for patient in PATIENTS[:5]:
            assert len((await catalogue.studies("Lung", patient)).records) == 2
        assert "is of another version" in catalogue.events[-1].message
    archive.asked.clear()
    async with opened(archive, config) as catalogue:
        for patient in PATIENTS[:5]:
            assert len((await catalogue.studies("Lung", patient)).records) == 2
    assert archive.asked == []


class SlowLister:
    """Lists when it is told to."""

    def __init__(self) -> None:
        self.go_on = trio.Event()

    async def list_collection(self, *_: Any) -> bool:
        await self.go_on.wait()
        return False


async def test_a_walker_waits_for_a_slow_whole_once_and_goes_on_patient_by_patient(
    archive: FakeArchive, config: CatalogueConfig, autojump_clock: MockClock
) -> None:
    lister = SlowLister()
    async with opened(archive, config, lister) as catalogue:
        await catalogue.studies("Lung", "P000")
        before = trio.current_time()
        for patient in PATIENTS[1:10]:
            await catalogue.studies("Lung", patient)
        assert trio.current_time() - before == WHOLE_PATIENCE_S
        assert archive.asked == [("studies", "Lung", patient) for patient in PATIENTS[:10]]
        lister.go_on.set()


@pytest.fixture
def partly(archive: FakeArchive, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Patients who are missing as long as a server is away, and then are in no listing of all series."""
    missing: set[str] = set()

    @asynccontextmanager
    async def every_series(collection: str) -> AsyncIterator[AsyncIterator[Sequence[Series]]]:
        archive.asked.append(("every_series", collection))

        async def batches() -> AsyncIterator[Sequence[Series]]:
            there = [each for each in archive.holdings if each.patient_id not in missing]
            yield Partial(there) if missing else there

        yield batches()

    monkeypatch.setattr(archive, "every_series", every_series)
    return missing


async def test_a_selection_from_a_whole_that_is_partial_is_asked_for_again_soon(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock, partly: set[str]
) -> None:
    async def chosen(catalogue: Catalogue) -> Answer[Patient]:
        return await catalogue.patients_with("Lung", lambda series: series.modality == "CT")

    partly.add("P039")
    async with opened(archive, daily, InProcessLister(archive)) as catalogue:
        some = await chosen(catalogue)
        assert (len(some.records), some.fresh_for_s) == (len(PATIENTS) - 1, PARTIAL_TTL_S)
    partly.clear()
    async with opened(archive, daily, InProcessLister(archive)) as catalogue:
        assert (await chosen(catalogue)) == some
        wall.now += PARTIAL_TTL_S
        assert (await chosen(catalogue)).fresh_for_s == REFRESH_AGAIN_S
        await refreshed(catalogue)
        everybody = await chosen(catalogue)
        assert [each.patient_id for each in everybody.records] == PATIENTS
        assert everybody.fresh_for_s == DAY_S - PARTIAL_TTL_S  # as old as the listing of the patients
    assert archive.asked.count(("every_series", "Lung")) == 2


# -- time --


async def test_old_listings_are_young_again_when_the_archive_tells_of_no_change(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await walk(catalogue)
        archive.asked.clear()
        wall.now += TTL_S
        for _ in range(2):
            await walk(catalogue)
            await refreshed(catalogue)
        assert archive.asked == [("changes", "2024-05-30")]
        assert (await catalogue.studies("Lung", "P001")).fresh_for_s == TTL_S


DAY_S = 86_400.0
RELEASED = [Change("Lung", "P007", dt.date(2024, 6, 5))]


@pytest.fixture
def daily(config: CatalogueConfig) -> CatalogueConfig:
    return replace(config, ttl_s=DAY_S)


async def twice(catalogue: Catalogue) -> None:
    """Walk, and again when what goes on behind has come to its end."""
    for _ in range(2):
        await walk(catalogue)
        await refreshed(catalogue)


async def test_only_those_of_whom_something_was_released_are_asked_for_again(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, daily) as catalogue:
        await walk(catalogue)
        archive.asked.clear()
        wall.now += 5 * DAY_S
        archive.changed = RELEASED
        await twice(catalogue)
    about_p007 = {("patients", "Lung"), ("studies", "Lung", "P007"), ("series", "Lung", "P007")}
    assert set(archive.asked) == {("changes", "2024-05-30"), *about_p007}


async def test_what_was_released_is_remembered_over_a_restart(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, daily) as catalogue:
        await catalogue.studies("Lung", "P007")
        await catalogue.studies("Lung", "P008")
        wall.now += 5 * DAY_S
        archive.changed = RELEASED
        await catalogue.studies("Lung", "P008")
        await refreshed(catalogue)
    archive.asked.clear()
    async with opened(archive, daily) as catalogue:
        assert (await catalogue.studies("Lung", "P008")).fresh_for_s == DAY_S
        assert (await catalogue.studies("Lung", "P007")).fresh_for_s == 0
        await refreshed(catalogue)
    assert archive.asked == [("studies", "Lung", "P007")]


async def test_a_listing_of_an_earlier_run_is_vouched_for_though_nobody_looked_for_changes_in_that_run(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, daily) as catalogue:
        await catalogue.studies("Lung", "P008")
    archive.asked.clear()
    wall.now += DAY_S
    async with opened(archive, daily) as catalogue:
        await catalogue.studies("Lung", "P008")
        await refreshed(catalogue)
        assert (await catalogue.studies("Lung", "P008")).fresh_for_s == DAY_S
    assert archive.asked == [("changes", "2024-05-30")]


async def test_what_was_withdrawn_is_noticed_after_some_times_to_live(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, daily) as catalogue:
        await catalogue.studies("Lung", "P007")
        archive.holdings = [each for each in archive.holdings if each.study_uid != "1.1"]
        for _ in range(VOUCHED_TTLS):
            wall.now += DAY_S
            assert len((await catalogue.studies("Lung", "P007")).records) == 2
            await refreshed(catalogue)
        assert len((await catalogue.studies("Lung", "P007")).records) == 1


async def test_an_archive_that_cannot_tell_is_asked_for_the_listings_themselves(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    archive.changed = None
    async with opened(archive, config) as catalogue:
        await catalogue.studies("Lung", "P001")
        for _ in range(2):
            wall.now += TTL_S
            await catalogue.studies("Lung", "P001")
            await refreshed(catalogue)
    question = ("studies", "Lung", "P001")
    assert archive.asked == [question, ("changes", "2024-05-30"), question, question]


async def test_a_failed_look_for_changes_is_no_matter_and_not_repeated_at_once(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    archive.fail("changes", Unreachable("away"), Unreachable("away"))
    async with opened(archive, config) as catalogue:
        for _ in range(3):
            await catalogue.studies("Lung", "P001")
            await catalogue.studies("Lung", "P002")
            wall.now += TTL_S
            await refreshed(catalogue)
    assert [question[0] for question in archive.asked].count("changes") == 1


async def test_a_walk_through_old_listings_asks_for_the_whole_and_not_for_each(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    archive.changed = None
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await walk(catalogue)
        archive.asked.clear()
        wall.now += TTL_S
        await twice(catalogue)
        assert (await catalogue.series("Lung", "P039")).fresh_for_s == TTL_S
    assert len(archive.asked) < 10
    assert {("every_study", "Lung"), ("every_series", "Lung")} <= set(archive.asked)


async def test_a_walk_through_old_listings_does_not_become_a_crowd_of_requests(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    archive.changed = None
    async with opened(archive, config) as catalogue:
        await walk(catalogue)
        wall.now += TTL_S
        archive.open = trio.Event()
        archive.asked.clear()
        await walk(catalogue)
        await refreshed(catalogue)
        assert len(archive.asked) <= REFRESHES_BEHIND
        archive.open.set()


# -- changes are told --


Told = list[tuple[tuple[str, ...], list[Any], list[Any]]]


def told_by(catalogue: Catalogue) -> Told:
    told: Told = []
    catalogue.on_replaced = lambda question, before, after: told.append((question, list(before), list(after)))
    return told


@pytest.mark.parametrize("by_whole", [False, True])
async def test_an_answer_that_differs_is_told_of_and_one_that_does_not_is_not(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, by_whole: bool
) -> None:
    archive.changed = None
    lister = InProcessLister(archive) if by_whole else None
    async with opened(archive, config, lister) as catalogue:
        await walk(catalogue)
        told = told_by(catalogue)
        old = [each for each in archive.holdings if each.patient_id == "P005"]
        new = [altered(each, image_count=99) for each in old]
        archive.holdings = [each for each in archive.holdings if each.patient_id != "P005"][::-1] + new
        wall.now += TTL_S
        for _ in range(2 * len(PATIENTS) // REFRESHES_BEHIND + 1):
            await walk(catalogue)
            await refreshed(catalogue)
        ((question, before, after),) = told
        assert question == ("series", "Lung", "P005")
        assert (set(before), set(after)) == (set(old), set(new))
        assert (await catalogue.series("Lung", "P005")).records == tuple(new)


@pytest.mark.expect_log("the archive lists nothing under .*/P005, which had")
async def test_a_patient_who_is_not_in_the_whole_any_more_is_asked_for_alone_before_he_is_gone(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, mock_clock: MockClock
) -> None:
    archive.changed = None
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await walk(catalogue)
        archive.holdings = [each for each in archive.holdings if each.patient_id != "P005"]
        wall.now += TTL_S
        await twice(catalogue)
        for _ in range(4):
            assert (await catalogue.studies("Lung", "P006")).records
            mock_clock.jump(TTL_S)
            wall.now += TTL_S
            await catalogue.studies("Lung", "P005")
            await catalogue.series("Lung", "P005")
            await refreshed(catalogue)
        assert (await catalogue.studies("Lung", "P005")).records == ()
        assert (await catalogue.series("Lung", "P005")).records == ()


# -- wishes --


@pytest.mark.parametrize(
    ("whose", "asked"),
    [
        ((), ("collections",)),
        (("Lung",), ("patients", "Lung")),
        (("Lung", "P001"), ("studies", "Lung", "P001")),
    ],
)
async def test_a_refresh_asks_at_once_and_for_all_below_when_somebody_looks(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, whose: tuple[str, ...], asked: Any
) -> None:
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
        await walk(catalogue)
        archive.asked.clear()
        wall.now += 1
        await catalogue.refresh(*whose)
        assert asked in archive.asked
        archive.holdings = [altered(each, study_uid="9.9") for each in archive.holdings]
        wall.now += 1
        await catalogue.refresh(*whose)
        assert {study.study_uid for study in (await catalogue.studies("Lung", "P001")).records} == {"9.9"}
        others = {study.study_uid for study in (await catalogue.studies("Lung", "P002")).records}
        assert others == ({"1.1", "1.2"} if len(whose) == 2 else {"9.9"})


async def test_a_refresh_asks_also_for_a_patient_of_whom_the_whole_had_nothing(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await walk(catalogue)
        wall.now += 1
        await catalogue.refresh("Lung")
        archive.holdings.append(altered(SERIES, patient_id="new"))
        assert len((await catalogue.studies("Lung", "new")).records) == 1


async def test_a_refresh_is_remembered_over_a_restart(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, config) as catalogue:
        await catalogue.studies("Lung", "P001")
        wall.now += 1
        await catalogue.refresh("Lung")
    archive.asked.clear()
    wall.now += 1
    async with opened(archive, config) as catalogue:
        await catalogue.studies("Lung", "P001")
        await catalogue.studies("Lung", "P001")
    assert archive.asked == [("studies", "Lung", "P001")]


@pytest.mark.expect_log("away; showing an older listing of studies/Lung/P001")
async def test_what_cannot_be_asked_again_stays_as_it_was(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, config) as catalogue:
        before = await catalogue.studies("Lung", "P001")
        wall.now += 1
        await catalogue.refresh("Lung")
        archive.fail("studies", Unreachable("away"))
        assert (await catalogue.studies("Lung", "P001")).records == before.records
    async with opened(archive, replace(config, offline=True)) as catalogue:
        assert (await catalogue.studies("Lung", "P001")).records == before.records


async def test_after_a_refresh_nobody_waits_for_a_frozen_archive_for_more_than_a_moment(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, autojump_clock: MockClock
) -> None:
    async with opened(archive, config) as catalogue:
        before = await catalogue.studies("Lung", "P001")
        wall.now += 1
        await catalogue.refresh("Lung")
        archive.open = trio.Event()
        start = trio.current_time()
        for _ in range(5):
            assert (await catalogue.studies("Lung", "P001")).records == before.records
        assert trio.current_time() - start == WISH_PATIENCE_S
        archive.open.set()


@pytest.mark.expect_log("away; showing an older listing of studies/Lung/P001")
async def test_a_failure_is_told_of_also_when_nobody_waits_for_it_any_more(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, autojump_clock: MockClock
) -> None:
    async with opened(archive, config) as catalogue:
        await catalogue.studies("Lung", "P001")
        wall.now += 1
        await catalogue.refresh("Lung")
        archive.open = trio.Event()
        archive.fail("studies", Unreachable("away"))
        await catalogue.studies("Lung", "P001")
        assert list(catalogue.events) == []
        archive.open.set()
        await refreshed(catalogue)
        assert [event.message for event in catalogue.events] == [
            "away; showing an older listing of studies/Lung/P001"
        ]


@pytest.mark.expect_log("away; showing an older listing of studies/Lung/P001")
async def test_what_could_not_be_asked_after_a_refresh_is_not_fresh_and_is_asked_again_a_while_later(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock, mock_clock: MockClock
) -> None:
    question = ("studies", "Lung", "P001")
    async with opened(archive, daily) as catalogue:
        before = await catalogue.answer(question)
        wall.now += 1
        await catalogue.refresh("Lung")
        archive.fail("studies", Unreachable("away"))
        archive.holdings = [altered(each, study_uid="9.9") for each in archive.holdings]
        archive.asked.clear()
        for _ in range(3):
            old = await catalogue.answer(question)
            assert (old.records, old.fresh_for_s) == (before.records, 0.0)
            assert catalogue.at_hand(question) is None
        assert archive.asked == [question]
        mock_clock.jump(REFRESH_AGAIN_S)
        wall.now += REFRESH_AGAIN_S
        new = await catalogue.answer(question)
        assert ({study.study_uid for study in new.records}, new.fresh_for_s) == ({"9.9"}, DAY_S)
    assert archive.asked == [question] * 2


async def test_what_is_slow_after_a_refresh_is_not_fresh_and_waited_for_once_also_with_all_siblings(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock, autojump_clock: MockClock
) -> None:
    lister = SlowLister()
    async with opened(archive, daily) as catalogue:
        await catalogue.studies("Lung", "P001")
        before = await catalogue.studies("Lung", "P002")
    wall.now += 1
    async with opened(archive, daily, lister) as catalogue:
        await catalogue.refresh("Lung")
        await catalogue.studies("Lung", "P001")
        start = trio.current_time()
        for _ in range(3):
            old = await catalogue.studies("Lung", "P002")
            assert (old.records, old.fresh_for_s) == (before.records, 0.0)
        assert trio.current_time() - start == WISH_PATIENCE_S
        lister.go_on.set()


@pytest.mark.expect_log("the archive lists nothing under studies/Lung/P001")
async def test_an_empty_answer_after_a_refresh_is_doubted_and_not_asked_for_at_each_look(
    archive: FakeArchive, daily: CatalogueConfig, wall: WallClock, mock_clock: MockClock
) -> None:
    async with opened(archive, daily) as catalogue:
        before = await catalogue.studies("Lung", "P001")
        wall.now += 1
        await catalogue.refresh("Lung")
        archive.asked.clear()
        archive.holdings = [each for each in archive.holdings if each.patient_id != "P001"]
        for _ in range(3):
            old = await catalogue.studies("Lung", "P001")
            assert (old.records, old.fresh_for_s) == (before.records, EMPTY_CONFIRMED_S)
        assert archive.asked == [("studies", "Lung", "P001")]
        mock_clock.jump(EMPTY_CONFIRMED_S)
        wall.now += EMPTY_CONFIRMED_S
        await catalogue.refresh("Lung")
        assert (await catalogue.studies("Lung", "P001")).records == ()


@pytest.mark.expect_log("away; showing an older listing of patients/Lung")
async def test_a_refresh_that_fails_leaves_all_as_it_was(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock
) -> None:
    async with opened(archive, config) as catalogue:
        await walk(catalogue)
        wall.now += 1
        archive.fail("patients", Unreachable("away"))
        with pytest.raises(Unreachable, match="away"):
            await catalogue.refresh("Lung")
        archive.asked.clear()
        await walk(catalogue)
    assert archive.asked == []


async def test_offline_a_refresh_says_that_nothing_is_asked_and_forgets_nothing(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config) as catalogue:
        await catalogue.collections()
    async with opened(archive, replace(config, offline=True)) as catalogue:
        with pytest.raises(Offline, match="--offline is set, so the archive is not asked"):
            await catalogue.refresh()
        assert (await catalogue.collections()).records


async def test_a_refresh_tells_what_the_archive_failed_with_also_a_moment_after_a_failure(
    archive: FakeArchive, config: CatalogueConfig
) -> None:
    archive.fail("collections", Unreachable("one"), Unreachable("other"))
    async with opened(archive, config) as catalogue:
        with pytest.raises(Unreachable, match="one"):
            await catalogue.collections()
        with pytest.raises(Unreachable, match="other"):
            await catalogue.refresh()


async def test_wishes_without_number_become_one_for_all(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness_module, "MOST_WISHES", 3)
    async with opened(archive, config) as catalogue:
        await catalogue.studies("Lung", "P039")
        wall.now += 1
        for patient in PATIENTS[:4]:
            await catalogue.refresh("Lung", patient)
        archive.asked.clear()
        await catalogue.studies("Lung", "P039")
    assert archive.asked == [("studies", "Lung", "P039")]


@pytest.mark.parametrize("name", ["changes", "forgotten"])
async def test_a_fact_that_cannot_be_read_makes_more_questions_and_no_crash(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, name: str
) -> None:
    async with opened(archive, config) as catalogue:
        await catalogue.studies("Lung", "P001")
    with closing(Table.opened(config.folder)) as table:
        table.put_fact(name, b"\xc1")
    wall.now += 1
    async with opened(archive, config) as catalogue:
        await catalogue.studies("Lung", "P001")
    assert archive.asked == [("studies", "Lung", "P001")] * 2
