"""A whole collection into rows: all of it or nothing, in bounded memory, each patient's records together."""

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tciafs.catalogue.sums import Sum
from tciafs.catalogue.table import Listing, Table, unpack
from tciafs.errors import Unreachable, UnreadableAnswer
from tciafs.model import Partial, Series, Study
from tciafs.worker import listing as listing_module
from tciafs.worker.listing import list_collection
from tciafs.worker.messages import Finished, Report, RowReplaced, RowsWritten
from tests.fakes import FakeArchive, make_series

PATIENTS = ["P1", "P2", "with / and \0", "Ü", *(f"Q{number}" for number in range(200))]


@pytest.fixture
def archive() -> FakeArchive:
    series = [
        replace(make_series(f"1.2.{number}.{patient}"), patient_id=name, study_uid=f"1.{patient}")
        for patient, name in enumerate(PATIENTS)
        for number in range(5)
    ]
    random.Random(1).shuffle(series)
    return FakeArchive(*series)


async def listed(
    archive: FakeArchive, folder: Path, kind: str = "series", asked_at: float = 5.0
) -> list[Report]:
    reports: list[Report] = []
    Table.opened_or_made(folder).close()  # as the daemon does before all workers
    await list_collection(archive, kind, "Lung", folder, asked_at, reports.append)
    return reports


def rows(folder: Path, kind: str = "series") -> Iterator[tuple[str, Listing[Series]]]:
    with closing(Table.opened(folder)) as table:
        for patient in PATIENTS:
            if (found := table.get((kind, "Lung", patient))) is not None:
                yield patient, found


def unpacked(told: Sequence[Report]) -> dict[str, Listing[Series]]:
    """Return the listings in rows that were told of, by patient; nothing else may have been told."""
    assert all(isinstance(each, RowsWritten) for each in told)
    rows = [row for each in told if isinstance(each, RowsWritten) for row in each.rows]
    return {patient: unpack(("series", "Lung", patient), row) for patient, row in rows}


@pytest.mark.parametrize("in_memory", [20_000, 7, 300])
async def test_each_patient_gets_all_of_his_series_and_no_others(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(listing_module, "RECORDS_IN_MEMORY", in_memory)
    *told, end = await listed(archive, tmp_path)
    assert end == Finished()
    found = dict(rows(tmp_path))
    assert unpacked(told) == found
    assert list(found) == PATIENTS
    for patient, listing in found.items():
        assert listing.asked_at == 5.0
        assert len(listing.records) == 5
        assert set(listing.records) == {each for each in archive.holdings if each.patient_id == patient}


async def test_rows_are_told_up_to_a_bound_and_that_there_are_more_behind_it(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "ROWS_AT_ONCE", 50)
    first, *_others = await listed(archive, tmp_path / "all")
    assert isinstance(first, RowsWritten)
    size_bytes = sum(len(row) + listing_module.ROW_IN_MEMORY_BYTES for _patient, row in first.rows)
    monkeypatch.setattr(listing_module, "TOLD_BYTES", size_bytes)
    told = await listed(archive, tmp_path / "bounded")
    assert told == [first, *[RowsWritten([])] * 4, Finished()]
    assert dict(rows(tmp_path / "bounded")) == dict(rows(tmp_path / "all"))


@pytest.mark.parametrize("in_memory", [20_000, 7])
async def test_all_listings_are_partial_where_the_archive_could_not_give_all(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(listing_module, "RECORDS_IN_MEMORY", in_memory)

    @asynccontextmanager
    async def every_series(collection: str) -> AsyncIterator[AsyncIterator[Sequence[Series]]]:
        async def batches() -> AsyncIterator[Sequence[Series]]:
            yield archive.holdings[:20]
            yield Partial(archive.holdings[20:])

        yield batches()

    monkeypatch.setattr(archive, "every_series", every_series)
    *told, _end = await listed(archive, tmp_path)
    assert [each.is_partial for each in told if isinstance(each, RowsWritten)] == [True] * len(told)
    assert [listing.is_partial for _, listing in rows(tmp_path)] == [True] * len(PATIENTS)


async def test_studies_are_listed_once_though_they_come_twice(archive: FakeArchive, tmp_path: Path) -> None:
    archive.holdings += archive.holdings
    await listed(archive, tmp_path, "studies")
    assert all(len(listing.records) == 1 for _, listing in rows(tmp_path, "studies"))
    await listed(archive, tmp_path)
    assert all(len(listing.records) == 5 for _, listing in rows(tmp_path))


@pytest.mark.parametrize("in_memory", [20_000, 7])
async def test_of_what_comes_twice_and_differs_the_first_is_listed_and_added_up(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(listing_module, "RECORDS_IN_MEMORY", in_memory)
    first = [replace(each, model="first", image_count=3) for each in archive.holdings]
    elsewhere = [replace(each, study_uid="2", model="first") for each in first[:1]]
    archive.holdings = [*first, *elsewhere, *(replace(each, model="other") for each in first)]
    await listed(archive, tmp_path)
    found = [record for _patient, listing in rows(tmp_path) for record in listing.records]
    assert sorted(found, key=lambda each: each.path) == sorted(
        [*first, *elsewhere], key=lambda each: each.path
    )
    with closing(Table.opened(tmp_path)) as table:
        total = table.sum("Lung")
    assert total is not None
    assert (total.series, total.images) == (len(first) + 1, 3 * (len(first) + 1))


@pytest.mark.parametrize("in_memory", [20_000, 7])
async def test_studies_that_come_twice_and_differ_are_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(listing_module, "RECORDS_IN_MEMORY", in_memory)
    studies = [Study("Lung", patient, "1.2", description=text) for text in "ab" for patient in PATIENTS]
    archive = FakeArchive()

    @asynccontextmanager
    async def every_study(collection: str) -> AsyncIterator[AsyncIterator[Sequence[Study]]]:
        async def batches() -> AsyncIterator[Sequence[Study]]:
            for each in studies:
                yield [each]

        yield batches()

    monkeypatch.setattr(archive, "every_study", every_study)
    await listed(archive, tmp_path, "studies")
    found: list[Any] = [listing.records for _patient, listing in rows(tmp_path, "studies")]
    assert found == [(each,) for each in studies[: len(PATIENTS)]]


@pytest.mark.parametrize("in_memory", [20_000, 7])
async def test_what_changed_is_told_with_both_rows_and_what_came_in_another_order_is_not(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(listing_module, "RECORDS_IN_MEMORY", in_memory)
    await listed(archive, tmp_path)
    old = next(each for each in archive.holdings if each.patient_id == "P2")
    archive.holdings = [each for each in archive.holdings[::-1] if each is not old]
    (changed, *end) = await listed(archive, tmp_path, asked_at=6.0)
    assert unpacked(end[:-1]) == dict(rows(tmp_path))
    assert isinstance(changed, RowReplaced)
    assert changed.question == ("series", "Lung", "P2")
    before = unpack(changed.question, changed.before).records
    after = unpack(changed.question, changed.after).records
    assert set(before) - set(after) == {old}


async def test_what_all_series_come_to_is_written_behind_the_last_of_them(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Sum()
    for patient in PATIENTS:
        expected.add_patient(each for each in archive.holdings if each.patient_id == patient)
    await listed(archive, tmp_path)
    with closing(Table.opened(tmp_path)) as table:
        assert table.sum("Lung") == expected
        await listed(archive, tmp_path, "studies")
        assert table.sum("Lung") == expected
        monkeypatch.setattr(listing_module, "_write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await listed(archive, tmp_path)
        assert table.sum("Lung") is None


async def test_a_failure_writes_nothing(archive: FakeArchive, tmp_path: Path) -> None:
    archive.fail("every_series", Unreachable("cut"))
    with pytest.raises(Unreachable):
        await listed(archive, tmp_path)
    assert list(rows(tmp_path)) == []


async def test_nothing_at_all_is_not_believed(archive: FakeArchive, tmp_path: Path) -> None:
    archive.holdings = []
    with pytest.raises(UnreadableAnswer, match="the archive lists no series in all of Lung"):
        await listed(archive, tmp_path)


async def test_temporary_files_have_no_names_and_nothing_stays(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "RECORDS_IN_MEMORY", 7)
    seen: list[set[str]] = []
    put_rows = Table.put_rows

    def looking(table: Table, rows: Any) -> list[bytes | None]:
        seen.append({file.name for file in tmp_path.iterdir()})
        return put_rows(table, rows)

    monkeypatch.setattr(Table, "put_rows", looking)
    await listed(archive, tmp_path)
    assert {name for names in seen for name in names} <= {"cache.db", "cache.db-wal", "cache.db-shm"}
    assert [file.name for file in tmp_path.iterdir()] == ["cache.db"]


async def test_an_old_row_that_nobody_can_read_is_replaced_without_a_word(
    archive: FakeArchive, tmp_path: Path
) -> None:
    with closing(Table.opened_or_made(tmp_path)) as table:
        table.put_rows([(("series", "Lung", "P1"), b"\xc1")])
    *told, _end = await listed(archive, tmp_path)
    assert unpacked(told) == dict(rows(tmp_path))
    assert len(dict(rows(tmp_path))["P1"].records) == 5
