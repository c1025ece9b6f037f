"""A table with damaged pages: all is answered still, it is said once, and the next start makes it anew."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tciafs.catalogue import remembered as remembered_module
from tciafs.catalogue.catalogue import CatalogueConfig
from tciafs.catalogue.damage import is_damage, leave_mark
from tciafs.catalogue.remembered import Remembered
from tciafs.catalogue.summing import sum_known
from tciafs.catalogue.table import Listing, Question, Table
from tciafs.errors import Unusable
from tciafs.model import Study
from tciafs.worker.listing import list_collection
from tests.catalogue.conftest import SERIES, damage, opened
from tests.catalogue.test_freshness import InProcessLister
from tests.fakes import FakeArchive

PATIENTS = [f"P{number:03}" for number in range(300)]
IN_THE_MIDDLE = "P150"
DAMAGED = r"the listings cache is damaged \(database disk image is malformed\): what cannot be read is asked"
PATIENT_BY_PATIENT = r"is damaged \(.*; Lung is listed patient by patient"
ANEW = "the listings cache was found to be damaged and starts anew"


@pytest.fixture
def archive() -> FakeArchive:
    return FakeArchive(
        *(
            replace(SERIES, patient_id=patient, study_uid=f"1.{number}", series_uid=f"1.{number}.1")
            for number, patient in enumerate(PATIENTS)
        )
    )


@pytest.fixture
async def damaged(archive: FakeArchive, config: CatalogueConfig) -> Path:
    """The folder of a collection that was listed at once, and of which some rows are damaged by now."""
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await catalogue.patients("Lung")
        for kind in ("studies", "series"):
            await catalogue._ensure_whole(kind, "Lung", catalogue._wholes)  # type: ignore[arg-type]
    for kind in ("studies", "series"):
        damage(config.folder / "cache.db", (kind, "Lung", IN_THE_MIDDLE))
    archive.asked.clear()
    return config.folder


def said_of_damage(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "damaged" in each.getMessage()]


@pytest.mark.expect_log(DAMAGED)
@pytest.mark.expect_log(ANEW)
async def test_no_patient_is_empty_because_his_row_is_damaged(
    damaged: Path, archive: FakeArchive, config: CatalogueConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(archive, config) as catalogue:
        for patient in PATIENTS:
            assert len((await catalogue.studies("Lung", patient)).records) == 1
        assert [event.message for event in catalogue.events] == said_of_damage(caplog)
    asked = [patient for _kind, _collection, patient in archive.asked]
    assert IN_THE_MIDDLE in asked
    assert len(asked) < len(PATIENTS) // 2
    assert len(said_of_damage(caplog)) == 1
    for _ in range(2):
        archive.asked.clear()
        async with opened(archive, config) as catalogue:
            assert len((await catalogue.studies("Lung", "P000")).records) == 1
    assert archive.asked == []
    assert said_of_damage(caplog)[1:] == [ANEW]


@pytest.mark.expect_log(PATIENT_BY_PATIENT)
@pytest.mark.expect_log(DAMAGED)
async def test_who_looks_for_series_finds_those_of_damaged_rows_too(
    damaged: Path, archive: FakeArchive, config: CatalogueConfig
) -> None:
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        found = await catalogue.patients_with("Lung", lambda series: series.patient_id >= IN_THE_MIDDLE)
        assert [patient.patient_id for patient in found.records] == PATIENTS[150:]
        assert await catalogue.known_sum("Lung", wants=lambda _: True) is None


@pytest.mark.expect_log(DAMAGED)
async def test_of_a_table_with_too_many_damaged_rows_it_is_said_so(
    damaged: Path, archive: FakeArchive, config: CatalogueConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered_module, "MOST_DAMAGED_ROWS", 1)
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        with pytest.raises(Unusable, match="malformed; mounting again starts it anew"):
            await catalogue.patients_with("Lung", lambda _: True)
    assert archive.asked == []


@pytest.mark.expect_log(DAMAGED)
async def test_what_cannot_be_written_for_damage_costs_no_line_of_its_own(
    damaged: Path, archive: FakeArchive, config: CatalogueConfig, caplog: pytest.LogCaptureFixture
) -> None:
    question: Question = ("studies", "Lung", IN_THE_MIDDLE)
    listing = Listing((Study("Lung", IN_THE_MIDDLE, "1.2"),), 1.0)
    with closing(Remembered(damaged)) as remembered:
        for _ in range(2):
            await remembered.write(question, listing)
        assert not await remembered.is_missing(question)
        assert not await remembered.is_missing(("studies", "Lung", "nobody"))
        assert await sum_known(remembered, ("Lung", "", ""), lambda _: True) is None
    assert len(caplog.records) == 1


@pytest.mark.expect_log(PATIENT_BY_PATIENT)
@pytest.mark.expect_log(DAMAGED)
async def test_a_worker_that_meets_damage_says_so_and_has_it_mended(
    damaged: Path, archive: FakeArchive, config: CatalogueConfig
) -> None:
    with pytest.raises(Unusable, match=r"is damaged \(.*malformed\); mounting again starts it anew"):
        await list_collection(archive, "studies", "Lung", damaged, 5.0, lambda _: None)
    assert (damaged / "damaged").exists()
    (damaged / "damaged").unlink()
    async with opened(archive, config, InProcessLister(archive)) as catalogue:
        await catalogue.refresh("Lung")
        for patient in PATIENTS[148:153]:
            assert len((await catalogue.studies("Lung", patient)).records) == 1
    assert (damaged / "damaged").exists()


class ListsNothing:
    """A lister that comes to a good end, and whose rows nobody can read."""

    async def list_collection(self, *_: Any) -> bool:
        return False


@pytest.mark.expect_log("the listings cache is damaged .trouble.: what cannot be read is asked")
async def test_a_walker_whose_row_is_damaged_once_it_was_written_is_not_told_of_nothing(
    archive: FakeArchive, config: CatalogueConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(_table: Table, question: Question) -> None:
        if question == ("studies", "Lung", "P001"):
            raise raised(sqlite3.SQLITE_CORRUPT)

    monkeypatch.setattr(Table, "row", row)
    async with opened(archive, config, ListsNothing()) as catalogue:
        for patient in PATIENTS[:2]:
            assert len((await catalogue.studies("Lung", patient)).records) == 1


@pytest.mark.expect_log("that the listings cache is damaged could not be noted .No such file.*: remove the")
def test_a_mark_that_cannot_be_left_is_logged(tmp_path: Path) -> None:
    leave_mark(tmp_path / "gone")


@pytest.mark.expect_log(ANEW)
async def test_a_marked_table_keeps_nothing_and_loses_its_mark(tmp_path: Path) -> None:
    question: Question = ("studies", "Lung", "P1")
    with closing(Remembered(tmp_path)) as remembered:
        await remembered.write(question, Listing((), 1.0))
    leave_mark(tmp_path)
    with closing(Table.opened(tmp_path)) as table:
        assert table.get(question) is not None, "only the first who opens it makes it anew"
    with closing(Remembered(tmp_path)) as remembered:
        assert await remembered.get(question) is None
    assert [file.name for file in tmp_path.iterdir()] == ["cache.db"]


def raised(code: int, behind: Exception | None = None) -> Exception:
    error = sqlite3.DatabaseError("trouble")
    error.sqlite_errorcode = code
    error.__context__ = behind
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised(sqlite3.SQLITE_CORRUPT), True),
        (raised(sqlite3.SQLITE_CORRUPT_INDEX), True),
        (raised(sqlite3.SQLITE_NOTADB), True),
        (raised(sqlite3.SQLITE_ERROR, raised(sqlite3.SQLITE_CORRUPT)), True),
        (raised(sqlite3.SQLITE_IOERR), False),
        (raised(sqlite3.SQLITE_FULL, raised(sqlite3.SQLITE_BUSY)), False),
        (sqlite3.ProgrammingError("trouble"), False),
        (MemoryError(), False),
    ],
    ids=range(8),
)
def test_damage_is_what_sqlite_calls_so(error: Exception, expected: bool) -> None:
    assert is_damage(error) is expected
