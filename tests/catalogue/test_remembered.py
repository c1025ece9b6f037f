"""Listings in memory and on disk: bounded, the longest unused leaving first, all read again from disk."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tciafs.catalogue import remembered as remembered_module
from tciafs.catalogue.remembered import Remembered
from tciafs.catalogue.table import Listing, Question, Table, pack
from tciafs.model import Patient, Study

SLOW_S = 2 * remembered_module.SLOW_READ_S


def patients(collection: str, count: int) -> Listing[Patient]:
    return Listing(tuple(Patient(collection, str(number)) for number in range(count)), 1.0)


@pytest.fixture
async def remembered(tmp_path: Path) -> AsyncIterator[Remembered]:
    with closing(Remembered(tmp_path)) as remembered:
        yield remembered


async def test_memory_is_bounded_and_the_longest_unused_leaves(
    remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered_module, "WEIGHT_IN_MEMORY", 7)
    for collection in "ABAC":
        if remembered.peek(("patients", collection)) is None:
            remembered.hold(("patients", collection), patients(collection, 2))
    assert (list(remembered._memory), remembered._weight) == ([("patients", "A"), ("patients", "C")], 6)
    remembered.hold(("patients", "E"), patients("E", 9))
    assert (list(remembered._memory), remembered._weight) == ([("patients", "E")], 10)


async def test_a_listing_held_again_is_counted_once(remembered: Remembered) -> None:
    for _ in range(3):
        remembered.hold(("patients", "A"), patients("A", 2))
    assert remembered._weight == 3
    remembered.forget(("patients", "A"))
    assert remembered._weight == 0


async def test_what_left_memory_is_read_from_disk(remembered: Remembered) -> None:
    question = ("patients", "A")
    remembered.hold(question, patients("A", 2))
    await remembered.write(question, patients("A", 2))
    remembered.forget_collection("patients", "A")
    assert remembered.peek(question) is None
    assert await remembered.get(question) == patients("A", 2)
    assert remembered.peek(question) == patients("A", 2)


async def test_only_the_listings_of_that_kind_and_collection_are_forgotten(remembered: Remembered) -> None:
    questions = [("studies", "A", "1"), ("studies", "A", "2"), ("series", "A", "1"), ("studies", "B", "1")]
    for question in questions:
        remembered.hold(question, Listing((), 1.0))
    remembered.forget_collection("studies", "A")
    assert list(remembered._memory) == questions[2:]


async def test_the_number_of_listings_on_disk_is_known(tmp_path: Path) -> None:
    with closing(Remembered(tmp_path)) as remembered:
        before = remembered.on_disk
        for collection in "ABA":
            await remembered.write(("patients", collection), patients(collection, 1))
        assert remembered.on_disk == before + 2
    with closing(Remembered(tmp_path)) as remembered:
        assert remembered.on_disk == before + 2


async def test_another_process_may_write_what_is_read_here(remembered: Remembered, tmp_path: Path) -> None:
    with closing(Table.opened(tmp_path)) as table:
        table.put(("patients", "A"), patients("A", 3))
    assert await remembered.get(("patients", "A")) == patients("A", 3)


async def test_a_long_listing_is_read_as_a_short_one_is(remembered: Remembered) -> None:
    many = patients("A", remembered_module.LONG_ROW_BYTES // 4)
    await remembered.write(("patients", "A"), many)
    assert await remembered.get(("patients", "A")) == many


async def test_a_table_that_somebody_holds_is_waited_for_in_another_thread(
    remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    class HeldTable:
        def row(self, question: object) -> None:
            tried.append(question)
            raise sqlite3.OperationalError("database is locked")

        def close(self) -> None:
            pass

    await remembered.write(("patients", "A"), patients("A", 1))
    remembered._without_waiting.close()
    monkeypatch.setattr(remembered, "_without_waiting", HeldTable())
    assert await remembered.get(("patients", "A")) == patients("A", 1)
    assert tried == [("patients", "A")]


async def test_a_slow_disk_is_left_to_another_thread_for_a_while(
    remembered: Remembered, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    tried: list[float] = []
    row = Table.row

    def slow(table: Table, question: Question) -> bytes | None:
        if table is remembered._without_waiting:
            tried.append(trio.current_time())
            mock_clock.jump(SLOW_S)
        return row(table, question)

    await remembered.write(("patients", "A"), patients("A", 1))
    monkeypatch.setattr(Table, "row", slow)
    for _ in range(3):
        for _ in range(5):
            remembered.forget(("patients", "A"))
            assert await remembered.get(("patients", "A")) == patients("A", 1)
        mock_clock.jump((remembered_module.SLOW_FOR_TIMES + 1) * SLOW_S)
    assert len(tried) == 3


async def test_nothing_is_at_hand_while_the_disk_is_slow_or_held(
    remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(table: Table, question: Question) -> bytes | None:
        raise sqlite3.OperationalError("database is locked")

    await remembered.write(("patients", "A"), patients("A", 1))
    remembered._slow_until = trio.current_time() + 1
    assert remembered.at_hand(("patients", "A")) is None
    remembered._slow_until = 0.0
    with monkeypatch.context() as patched:
        patched.setattr(Table, "row", held)
        assert remembered.at_hand(("patients", "A")) is None
    assert remembered.at_hand(("patients", "A")) == patients("A", 1)


async def test_what_takes_long_to_decode_is_not_at_hand(
    remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remembered.write(("patients", "A"), patients("A", 1))
    monkeypatch.setattr(remembered_module, "LONG_ROW_BYTES", 1)
    assert remembered.at_hand(("patients", "A")) is None
    assert await remembered.get(("patients", "A")) == patients("A", 1)
    assert remembered.at_hand(("patients", "A")) == patients("A", 1)


async def test_a_folder_that_is_read_to_its_end_has_nothing_open_in_it_when_closed(tmp_path: Path) -> None:
    with closing(Remembered(tmp_path)) as remembered:
        await remembered.write(("patients", "A"), patients("A", 1))
    assert [file.name for file in tmp_path.iterdir()] == ["cache.db"]


WRITTEN = ("studies", "Lung", "P1")


def studies(uid: str) -> Listing[Study]:
    return Listing((Study("Lung", "P1", uid),), 1.0)


def row_of_p1(uid: str) -> list[tuple[str, bytes]]:
    return [("P1", pack(WRITTEN, studies(uid)))]


async def test_a_row_that_was_just_written_takes_no_look_at_the_disk(remembered: Remembered) -> None:
    remembered.begin_to_write("studies", "Lung")
    remembered.written("studies", "Lung", row_of_p1("1.2"))
    assert remembered.at_hand(WRITTEN) == studies("1.2")
    remembered.forget(WRITTEN)
    assert await remembered.get(WRITTEN) is None, "the row was given away, and is on no disk here"


@pytest.mark.parametrize("newer", ["held", "written", "begun"])
async def test_an_older_row_never_comes_back(remembered: Remembered, newer: str) -> None:
    remembered.begin_to_write("studies", "Lung")
    remembered.written("studies", "Lung", row_of_p1("1.2"))
    expected: Listing[Study] | None = studies("1.3")
    if newer == "held":
        remembered.hold(WRITTEN, studies("1.3"))
        await remembered.write(WRITTEN, studies("1.3"))
        remembered.forget(WRITTEN)
    elif newer == "written":
        remembered.written("studies", "Lung", row_of_p1("1.3"))
    else:
        remembered.begin_to_write("studies", "Lung")
        expected = None
    assert await remembered.get(WRITTEN) == expected


async def test_rows_of_the_last_two_collections_wait_to_be_read(remembered: Remembered) -> None:
    for collection in ("Lung", "Breast", "Head"):
        remembered.begin_to_write("studies", collection)
        remembered.written("studies", collection, row_of_p1("1.2"))
    remembered.written("studies", "Lung", row_of_p1("1.2"))  # which comes late
    here = [name for name in ("Lung", "Breast", "Head") if remembered.at_hand(("studies", name, "P1"))]
    assert here == ["Breast", "Head"]
