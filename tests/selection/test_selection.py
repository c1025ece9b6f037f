"""What is left of an archive: the right series, no empty folder, few questions, changes told."""

from typing import Any

import pytest
from msgspec.structs import replace

from tciafs.errors import Misuse, Unreachable
from tciafs.model import Collection, Patient, Series
from tciafs.selection.manifests import Manifest
from tciafs.selection.named import Lists
from tciafs.selection.selection import Choice
from tests.fakes import FakeArchive
from tests.selection.conftest import (
    ALL,
    BRAIN,
    BRAIN_CT,
    CT,
    OTHER_PATIENT,
    OTHER_STUDY,
    SEG,
    Chosen,
    tree_of,
)


def placed(*series: Series) -> set[tuple[str, str, str, str]]:
    return {(each.collection, each.patient_id, each.study_uid, each.series_uid) for each in series}


def questions(archive: FakeArchive, kind: str) -> list[tuple[str, ...]]:
    return [asked for asked in archive.asked if asked[0] == kind]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ({}, ALL),
        ({"collections": ("Lung",)}, (CT, SEG, OTHER_STUDY, OTHER_PATIENT)),
        ({"patients": ("P2",)}, (OTHER_PATIENT,)),
        ({"modalities": ("ct",)}, (CT, BRAIN_CT)),
        ({"modalities": ("CT", "MR"), "collections": ("Lung",)}, (CT, OTHER_STUDY)),
        ({"modalities": ("CT",), "body_parts": ("HEAD",)}, (BRAIN_CT,)),
        ({"body_parts": ("CHEST",), "manufacturers": ("ge",)}, (CT, OTHER_PATIENT)),
        ({"modalities": ("CT",), "patients": ("P1", "B1")}, (CT,)),
        ({"modalities": ("US",)}, ()),
    ],
)
async def test_only_what_is_wanted_is_left_and_no_empty_folder(
    chosen: Chosen, wanted: dict[str, Any], left: tuple[Series, ...]
) -> None:
    async with chosen(**wanted) as selection:
        assert await tree_of(selection) == placed(*left)


async def test_a_collection_is_left_out_by_a_list_of_values_without_listing_its_series(
    chosen: Chosen, archive: FakeArchive
) -> None:
    async with chosen(modalities=("SEG",)) as selection:
        assert (await selection.collections()).records == (Collection("Lung"),)
    assert not questions(archive, "series")
    assert not questions(archive, "patients")


async def test_a_collection_that_only_its_series_tell_of_appears_until_they_are_listed(
    chosen: Chosen,
) -> None:
    async with chosen(fewest_images=100) as selection:
        assert len((await selection.collections()).records) == 2
        assert not (await selection.patients("Lung")).records


async def test_a_collection_that_cannot_be_asked_about_appears(chosen: Chosen, archive: FakeArchive) -> None:
    archive.fail("values", Unreachable("away"), Unreachable("away"))
    async with chosen(modalities=("SEG",)) as selection:
        assert len((await selection.collections()).records) == 2


# Lists


async def test_a_manifest_leaves_its_series(chosen: Chosen, archive: FakeArchive) -> None:
    async with chosen(Manifest("mine", (SEG.series_uid, BRAIN.series_uid))) as selection:
        assert await tree_of(selection) == placed(SEG, BRAIN)
        assert selection.remarks == ()
    assert questions(archive, "named") == [("named", SEG.series_uid, BRAIN.series_uid)]
    assert not questions(archive, "collections")
    assert not questions(archive, "patients")


async def test_lists_are_taken_together_and_criteria_hold_for_each(
    chosen: Chosen, archive: FakeArchive
) -> None:
    archive.carts["shared"] = [CT.series_uid, BRAIN_CT.series_uid]
    async with chosen(
        Manifest("a", (SEG.series_uid,)), Manifest("b", (OTHER_PATIENT.series_uid,)), carts=("shared",)
    ) as selection:
        assert await tree_of(selection) == placed(SEG, OTHER_PATIENT, CT, BRAIN_CT)
    async with chosen(Manifest("a", (SEG.series_uid,)), carts=("shared",), modalities=("CT",)) as selection:
        assert await tree_of(selection) == placed(CT, BRAIN_CT)


@pytest.mark.expect_log(
    r"WARNING .*: manifest mine: 2 of 3 series do not exist or are not permitted: 9\.1, 9\.2$"
)
@pytest.mark.expect_log("WARNING .*: cart none: the archive knows nothing under that name")
@pytest.mark.expect_log("WARNING .*: manifest mine: 7 lines name no series")
async def test_what_is_missing_of_a_list_is_said_and_the_rest_is_shown(chosen: Chosen) -> None:
    async with chosen(Manifest("mine", ("9.1", CT.series_uid, "9.2"), 7), carts=("none",)) as selection:
        assert await tree_of(selection) == placed(CT)
        assert len(selection.remarks) == 3


@pytest.mark.expect_log("WARNING .*: 1 of 2 series must not be used commercially")
async def test_licences_that_forbid_commercial_use_are_said(chosen: Chosen, archive: FakeArchive) -> None:
    archive.holdings[1] = replace(SEG, licence_name="CC Attribution-NonCommercial 3.0")
    async with chosen(Manifest("mine", (CT.series_uid, SEG.series_uid))) as selection:
        await selection.collections()
        assert len(selection.remarks) == 1


async def test_long_lists_are_asked_about_in_parts_and_remembered(
    chosen: Chosen, archive: FakeArchive
) -> None:
    archive.holdings = [replace(CT, series_uid=f"3.{number}") for number in range(2500)]
    manifest = Manifest("long", tuple(each.series_uid for each in archive.holdings))
    async with chosen(manifest) as selection:
        assert len((await selection.series("Lung", "P1")).records) == 2500
    async with chosen(manifest) as selection:
        assert (await selection.collections()).records == (Collection("Lung"),)
    assert [len(asked) - 1 for asked in questions(archive, "named")] == [1000, 1000, 500]


async def test_a_list_that_cannot_be_looked_up_fails_until_it_can(
    chosen: Chosen, archive: FakeArchive
) -> None:
    archive.fail("named", Unreachable("away"))
    async with chosen(Manifest("mine", (CT.series_uid,))) as selection:
        with pytest.raises(Unreachable):
            await selection.collections()


# Words


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"collections": ("lung",)}, "no collection lung; did you mean Lung?"),
        ({"collections": ("Lung", "Liver-Meta")}, "no collection Liver-Meta$"),
        ({"modalities": ("CT", "MRI")}, "no modality MRI; did you mean MR?"),
        ({"body_parts": ("CHST",)}, "no body part CHST; did you mean CHEST?"),
        ({"manufacturers": ("Philips",)}, "no manufacturer Philips$"),
    ],
)
async def test_a_word_that_the_archive_does_not_know_is_an_error(
    chosen: Chosen, wanted: dict[str, Any], sentence: str
) -> None:
    async with chosen(**wanted) as selection:
        with pytest.raises(Misuse, match=sentence):
            await selection.check_words()


async def test_words_that_it_knows_are_none(chosen: Chosen) -> None:
    async with chosen(collections=("Lung",), modalities=("ct",), models=("whatever",)) as selection:
        await selection.check_words()


# Changes


async def test_changes_are_told_of_what_is_chosen_and_of_the_folders_around_it(chosen: Chosen) -> None:
    told: list[Any] = []
    async with chosen(modalities=("CT",)) as selection:
        selection.on_replaced = lambda question, before, after: told.append((question, before, after))
        selection.note(("series", "Lung", "P1"), (CT, SEG), (CT,))
        assert told == []
        selection.note(("series", "Lung", "P1"), (CT, SEG), (SEG,))
        assert told == [
            (("series", "Lung", "P1"), (CT,), ()),
            (("studies", "Lung", "P1"), (), ()),
            (("patients", "Lung"), (Patient("Lung", "P1"),), ()),
        ]


async def test_a_refresh_asks_for_lists_again(chosen: Chosen, archive: FakeArchive) -> None:
    archive.carts["shared"] = [CT.series_uid]
    async with chosen(carts=("shared",)) as selection:
        assert (await selection.collections()).records == (Collection("Lung"),)
        archive.carts["shared"] = [BRAIN.series_uid]
        await selection.refresh()
        assert (await selection.collections()).records == (Collection("Brain"),)


def test_nothing_chosen_is_everything() -> None:
    assert Choice().is_everything
    assert not Choice(lists=(Lists(carts=("shared",)),)).is_everything
