"""Listings remembered: asked once, fresh for a while, better old than none, and never code."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio
from msgspec.structs import replace as altered
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs.catalogue import asking
from tciafs.catalogue.asking import FAILURE_MEMORY_S, FAILURES_KEPT_S
from tciafs.catalogue.catalogue import REFRESH_AGAIN_S, Answer, Catalogue, CatalogueConfig
from tciafs.catalogue.freshness import EMPTY_CONFIRMED_S, EMPTY_TTL_S, PARTIAL_TTL_S
from tciafs.errors import Offline, SlowDown, TciafsError, Unreachable
from tciafs.model import Collection, Partial, Patient, Study
from tests.catalogue.conftest import LUNG, SERIES, TTL_S, WallClock, opened, refreshed
from tests.fakes import FakeArchive

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
        assert (await ask(catalogue)).records is first.records
    async with opened(archive, config) as catalogue:
        assert await ask(catalogue) == first
    assert archive.asked == [question]


@pytest.mark.parametrize(("ask", "question", "record"), QUESTIONS, ids=lambda each: str(each)[:20])
async def test_what_is_known_is_at_hand_from_memory_and_from_disk_as_long_as_it_is_fresh(
    archive: FakeArchive,
    config: CatalogueConfig,
    wall: WallClock,
    ask: Ask,
    question: tuple[str, ...],
    record: object,
) -> None:
    async with opened(archive, config) as catalogue:
        assert catalogue.at_hand(question) is None
        first = await ask(catalogue)
        assert catalogue.at_hand(question) == first
    async with opened(archive, config) as catalogue:
        assert catalogue.at_hand(question) == first
        wall.now += TTL_S
        assert catalogue.at_hand(question) is None
    assert archive.asked == [question]


async def test_what_a_user_wished_to_be_asked_again_is_not_at_hand(
    catalogue: Catalogue, wall: WallClock
) -> None:
    await catalogue.series("Lung", "P1")
    wall.now += 1
    await catalogue.refresh("Lung")
    assert catalogue.at_hand(("series", "Lung", "P1")) is None
    assert catalogue.at_hand(("patients", "Lung")) is not None


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
    archive.holdings.append(altered(SERIES, collection="Brain"))
    assert (await catalogue.collections()).records == (LUNG,)
    await refreshed(catalogue)
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
    await refreshed(catalogue)
    assert len(archive.asked) == 2
    archive.open.set()


async def test_an_answer_that_is_not_known_is_waited_for_however_it_was_asked_before(
    catalogue: Catalogue, archive: FakeArchive, nursery: trio.Nursery
) -> None:
    archive.open = trio.Event()
    nursery.start_soon(catalogue.collections)
    await refreshed(catalogue)
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
        mock_clock.jump(seconds)
        assert (await catalogue.collections()).records == (LUNG,)
        await refreshed(catalogue)
    assert (await catalogue.collections()).records == ()


async def test_a_listing_to_which_a_server_could_not_add_is_asked_for_again_soon(
    archive: FakeArchive, config: CatalogueConfig, wall: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def patients(collection: str) -> Sequence[Patient]:
        asked.append(collection)
        return Partial([Patient(collection, "P1")]) if len(asked) == 1 else [Patient(collection, "P2")]

    monkeypatch.setattr(archive, "patients", patients)
    async with opened(archive, replace(config, ttl_s=10 * PARTIAL_TTL_S)) as catalogue:
        assert (await catalogue.patients("Lung")).fresh_until == wall.now + PARTIAL_TTL_S
        wall.now += PARTIAL_TTL_S + 1
        assert (await catalogue.patients("Lung")).records == (Patient("Lung", "P1"),)
        await refreshed(catalogue)
        assert (await catalogue.patients("Lung")).records == (Patient("Lung", "P2"),)
        assert (await catalogue.patients("Lung")).fresh_until == wall.now + 10 * PARTIAL_TTL_S
    assert len(asked) == 2


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
        await refreshed(catalogue)
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


async def test_an_answer_of_a_clock_that_was_set_back_meanwhile_is_asked_for_again(
    archive: FakeArchive, catalogue: Catalogue, wall: WallClock
) -> None:
    wall.now += 1e9
    await catalogue.collections()
    wall.now -= 1e9
    assert (await catalogue.collections()).fresh_for_s == 0.0
    await refreshed(catalogue)
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
        mock_clock.jump(FAILURES_KEPT_S)
    await catalogue.collections()
    assert list(catalogue._questions._failed) == []


async def test_of_too_many_failures_the_latest_are_remembered(
    catalogue: Catalogue, archive: FakeArchive, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST_FAILURES", 2)
    archive.fail("patients", *(Unreachable("away") for _ in range(5)))
    for collection in ("Lung", "Brain", "Lung", "Breast"):
        mock_clock.jump(FAILURE_MEMORY_S)
        with pytest.raises(Unreachable):
            await catalogue.patients(collection)
    questions = catalogue._questions
    within = {
        each: questions.failed_within(("patients", each), REFRESH_AGAIN_S)
        for each in ("Lung", "Brain", "Breast")
    }
    assert within == {"Lung": True, "Brain": False, "Breast": True}


async def test_a_failure_that_is_remembered_holds_nothing_of_what_led_to_it(
    catalogue: Catalogue, archive: FakeArchive
) -> None:
    caused = SlowDown("too much", 7.0)
    caused.__cause__, caused.retryable = OSError("reset"), False
    archive.fail("collections", caused)
    for _ in range(3):
        with pytest.raises(SlowDown, match="too much") as raised:
            await catalogue.collections()
        assert (raised.value.retry_after_s, raised.value.retryable) == (7.0, False)
    assert len(archive.asked) == 1
    ((_at, kept),) = catalogue._questions._failed.values()
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)


@pytest.mark.expect_log("away; showing an older listing of collections")
async def test_an_old_answer_is_not_refreshed_again_right_after_that_failed(
    catalogue: Catalogue, archive: FakeArchive, wall: WallClock, mock_clock: MockClock
) -> None:
    await catalogue.collections()
    wall.now += TTL_S
    archive.fail("collections", Unreachable("away"))
    for _ in range(3):
        await catalogue.collections()
        await refreshed(catalogue)
    assert len(archive.asked) == 2
    mock_clock.jump(REFRESH_AGAIN_S)
    await catalogue.collections()
    await refreshed(catalogue)
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
    expect_log("WARNING tciafs.catalogue.catalogue: away; showing an older listing of patients/Lung")
    archive.changed = None
    async with opened(archive, config) as catalogue:
        first = await catalogue.patients("Lung")
        wall.now += TTL_S
        archive.fail("patients", Unreachable("away"))
        if not restarted:
            for _ in range(5):
                assert (await catalogue.patients("Lung")).records == first.records
                await refreshed(catalogue)
    if restarted:
        async with opened(archive, config) as catalogue:
            for _ in range(5):
                assert (await catalogue.patients("Lung")).records == first.records
                await refreshed(catalogue)
    assert len([record for record in caplog.records if record.name.startswith("tciafs.catalogue")]) == 1
    assert first.fresh_for_s == 0


@pytest.mark.expect_log("ERROR tciafs.catalogue.asking: listing collections failed in an unexpected way")
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

    async with trio.open_nursery() as askers, Catalogue.running(archive, config) as catalogue:
        askers.start_soon(asker, catalogue)
        while not archive.asked:
            await trio.lowlevel.checkpoint()
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
