"""What a collection comes to is added up once, and again when one of its listings has changed."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tciafs.catalogue import summing
from tciafs.catalogue.remembered import Remembered
from tciafs.catalogue.summing import sum_known
from tciafs.catalogue.sums import Sum
from tciafs.catalogue.table import Listing, Question, Table
from tciafs.model import Patient, Series

SERIES = Series("Lung", "P1", "1.1", "1.1.1", image_count=2, size_bytes=30, licence_name="CC BY 3.0")
OTHER = replace(SERIES, patient_id="P2", study_uid="1.2", series_uid="1.2.1", size_bytes=None)
BOTH = Sum(patients=2, series=2, listed_images=4, listed_bytes=30, unsized=1, licences={"CC BY 3.0"})
WHOLE = ("Lung", "", "")


@pytest.fixture
async def remembered(tmp_path: Path) -> AsyncIterator[Remembered]:
    """A collection of two patients, which was listed at once."""
    with closing(Remembered(tmp_path)) as remembered:
        patients = Listing((Patient("Lung", "P1"), Patient("Lung", "P2")), 1.0)
        await remembered.write(("patients", "Lung"), patients)
        for each in (SERIES, OTHER):
            await remembered.write(("series", "Lung", each.patient_id), Listing((each,), 1.0))
        yield remembered


@pytest.fixture
def added_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were read each time that rows were added up."""
    counts: list[int] = []
    summed = Remembered.summed

    async def counting(
        remembered: Remembered, questions: Sequence[Question], wants: Callable[[Any], bool]
    ) -> Sum:
        counts.append(len(questions))
        return await summed(remembered, questions, wants)

    monkeypatch.setattr(Remembered, "summed", counting)
    return counts


async def test_a_collection_is_added_up_once_and_kept_on_disk(
    remembered: Remembered, added_up: list[int], tmp_path: Path
) -> None:
    await remembered.write_whole("series", "Lung", 1.0)
    for _again in range(2):
        assert await sum_known(remembered, WHOLE, None) == BOTH
    with closing(Remembered(tmp_path)) as tomorrow:
        assert await sum_known(tomorrow, WHOLE, None) == BOTH
    assert added_up == [2]


async def test_few_patients_are_added_up_one_by_one_once_all_of_them_are_known(
    remembered: Remembered, added_up: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await sum_known(remembered, WHOLE, None) == BOTH
    third = (Patient("Lung", "P3"),)
    patients = await remembered.get(("patients", "Lung"))
    assert patients is not None
    remembered.hold(("patients", "Lung"), Listing(patients.records + third, 2.0))
    assert await sum_known(remembered, WHOLE, None) is None
    remembered.hold(("series", "Lung", "P3"), Listing((), 2.0))
    assert await sum_known(remembered, WHOLE, lambda each: each.patient_id == "P2") == Sum(
        1, 1, 2, unsized=1, licences={"CC BY 3.0"}
    )
    monkeypatch.setattr(summing, "FEW_PATIENTS", 2)
    assert await sum_known(remembered, WHOLE, None) is None
    assert await sum_known(remembered, ("Brain", "", ""), None) is None
    assert added_up == []


async def test_who_wants_some_series_is_not_given_the_sum_of_all(
    remembered: Remembered, added_up: list[int]
) -> None:
    await remembered.write_whole("series", "Lung", 1.0)
    await sum_known(remembered, WHOLE, None)
    some = await sum_known(remembered, WHOLE, lambda each: each.patient_id == "P1")
    assert some == Sum(patients=1, series=1, listed_images=2, listed_bytes=30, licences={"CC BY 3.0"})
    assert added_up == [2, 2]
    assert await sum_known(remembered, ("Lung", "P1", ""), None) == some
    assert await sum_known(remembered, ("Lung", "P1", "1.9"), None) == Sum()
    assert await sum_known(remembered, ("Lung", "P3", ""), None) is None


async def test_a_listing_of_series_that_is_written_makes_it_be_added_up_again(
    remembered: Remembered, added_up: list[int]
) -> None:
    await remembered.write_whole("series", "Lung", 1.0)
    await sum_known(remembered, WHOLE, None)
    more = replace(OTHER, size_bytes=5)
    await remembered.write(("series", "Lung", "P2"), Listing((more,), 2.0))
    assert await sum_known(remembered, WHOLE, None) == Sum(2, 2, 4, 35, licences={"CC BY 3.0"})
    assert added_up == [2, 2]


@pytest.mark.parametrize("writes", ["here", "another process"])
async def test_a_sum_is_not_kept_of_what_changed_while_it_was_added_up(
    remembered: Remembered, monkeypatch: pytest.MonkeyPatch, writes: str, tmp_path: Path
) -> None:
    await remembered.write_whole("series", "Lung", 1.0)
    summed = Remembered.summed

    async def overtaken(
        remembered: Remembered, questions: Sequence[Question], wants: Callable[[Any], bool]
    ) -> Sum:
        total = await summed(remembered, questions, wants)
        if writes == "here":
            await remembered.write(("series", "Lung", "P2"), Listing((OTHER,), 2.0))
        else:
            remembered.begin_to_write("series", "Lung")
            remembered.end_to_write("series", "Lung")
        return total

    monkeypatch.setattr(Remembered, "summed", overtaken)
    assert await sum_known(remembered, WHOLE, None) == BOTH
    with closing(Table.opened(tmp_path)) as table:
        assert table.sum("Lung") is None


async def test_a_sum_is_not_kept_while_another_process_writes_nor_when_it_began_meanwhile(
    remembered: Remembered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await remembered.write_whole("series", "Lung", 1.0)
    summed = Remembered.summed
    steps = [
        lambda: remembered.begin_to_write("series", "Lung"),
        lambda: remembered.written("series", "Lung", []),  # some rows of it have been read, and others not
        lambda: remembered.end_to_write("series", "Lung"),  # it failed half-way
    ]

    async def overtaken(
        remembered: Remembered, questions: Sequence[Question], wants: Callable[[Any], bool]
    ) -> Sum:
        total = await summed(remembered, questions, wants)
        steps.pop(0)()
        return total

    monkeypatch.setattr(Remembered, "summed", overtaken)
    while steps:
        assert await sum_known(remembered, WHOLE, None) == BOTH
        with closing(Table.opened(tmp_path)) as table:
            assert table.sum("Lung") is None
    monkeypatch.setattr(Remembered, "summed", summed)
    assert await sum_known(remembered, WHOLE, None) == BOTH
    with closing(Table.opened(tmp_path)) as table:
        assert table.sum("Lung") == BOTH


@pytest.mark.expect_log("what Lung comes to is unreadable")
async def test_a_sum_that_nobody_can_read_is_added_up_again(
    remembered: Remembered, added_up: list[int], tmp_path: Path
) -> None:
    await remembered.write_whole("series", "Lung", 1.0)
    with closing(Table.opened(tmp_path)) as table:
        table.put_fact("sum/Lung", b"\xc1")
    assert await sum_known(remembered, WHOLE, None) == BOTH
    assert await sum_known(remembered, WHOLE, None) == BOTH
    assert added_up == [2]
