"""The metadata.csv of a selection: made once, anew after a change, and never of a failure."""

import pytest

from tciafs.errors import Unreachable
from tciafs.metadata import read_rows
from tciafs.naming import Naming
from tciafs.selection.manifests import Manifest
from tciafs.selection.table import Tables
from tests.fakes import FakeArchive
from tests.selection.conftest import CT, OTHER_PATIENT, SEG, Chosen

COHORT = Manifest("mine", (CT.series_uid, SEG.series_uid, OTHER_PATIENT.series_uid))


async def test_a_table_is_made_once_for_as_long_as_nothing_changes(
    chosen: Chosen, archive: FakeArchive
) -> None:
    async with chosen(COHORT) as selection:
        table = Tables(Naming.CLASSIC)
        text = await table.metadata(selection)
        rows = read_rows(text.decode())
        assert {row.series_uid for row in rows} == set(COHORT.uids)
        assert "./Lung/P1/1.1/1.1.1" in {row.location for row in rows}
        archive.asked.clear()
        assert await table.metadata(selection) == text
        assert archive.asked == []


async def test_a_change_makes_it_anew(chosen: Chosen, archive: FakeArchive) -> None:
    async with chosen(COHORT) as selection:
        table = Tables(Naming.CLASSIC)
        selection.on_replaced = lambda question, before, after: table.forget()
        await table.metadata(selection)
        archive.holdings.remove(SEG)
        await selection.refresh("Lung", "P1")
        assert {row.series_uid for row in read_rows((await table.metadata(selection)).decode())} == {
            "1.1.1",
            "1.3.1",
        }


async def test_a_failure_is_an_error_each_time_and_no_empty_table(
    chosen: Chosen, archive: FakeArchive
) -> None:
    async with chosen(COHORT) as selection:
        table = Tables(Naming.CLASSIC)
        archive.fail("series", Unreachable("away"))
        for _ in range(2):
            with pytest.raises(Unreachable):
                await table.metadata(selection)
