"""The chapter "Names" of docs/semantics.md, statement by statement."""

import os

from tests.behaviour.conftest import Opener
from tests.behaviour.filesystems import FileSystem
from tests.behaviour.retriever import expected_series, images_of
from tests.sample.running import RunningSample

TRAPS = "CT Naming Traps"
NUMBERS = "Numbering_Traps"


async def test_folders_are_called_as_the_retriever_calls_them(
    files: FileSystem, archive: RunningSample
) -> None:
    expected = {series.path for series in expected_series(archive, TRAPS, "Phantom-Head", "Twin-Case")}
    found: set[str] = set()
    for top in (TRAPS, "Phantom-Head", "Twin-Case"):
        folders = [top]
        for _level in ("patients", "studies", "series"):
            folders = [
                f"{folder}/{name}"
                for folder in folders
                for name in await files.listdir(folder)
                if name != "LICENSE"
            ]
        found.update(folders)
    assert found == expected


async def test_image_names_are_those_that_the_archive_gives(opening: Opener, archive: RunningSample) -> None:
    async with opening(listing="exact") as files:
        for series in expected_series(archive, NUMBERS):
            names = await files.listdir(series.path)
            assert sorted(names) == sorted(images_of(archive, series.uid)), series.path


async def test_of_twins_the_smaller_uid_keeps_the_plain_name_and_both_can_be_read(
    files: FileSystem, archive: RunningSample
) -> None:
    twins = [series for series in expected_series(archive, TRAPS) if "/TWINS/" in series.path]
    plain = min((one for one in twins if "twin-" in one.path), key=lambda one: one.uid)
    assert not plain.path.endswith(")")
    for series in twins:
        images = images_of(archive, series.uid)
        assert {name: await files.read(f"{series.path}/{name}") for name in images} == images


async def test_what_a_name_cannot_hold_is_replaced_and_no_control_character_is_raw(
    files: FileSystem,
) -> None:
    patients = await files.listdir(TRAPS)
    assert {"SITE7%2F0003", "%2E.", ".hidden-01", "-rf"} <= set(patients)
    described = f"{TRAPS}/DESCRIPTIONS"
    names = [*patients, *(await files.listdir(described))]
    assert all(name.isprintable() and len(os.fsencode(name)) <= 255 for name in names)


async def test_each_collection_has_the_licence_of_its_series(
    files: FileSystem, archive: RunningSample
) -> None:
    for collection in await files.listdir(""):
        assert "LICENSE" in await files.listdir(collection)
        (row, *_) = (series.row for series in expected_series(archive, collection))
        text = await files.read(f"{collection}/LICENSE")
        assert (await files.stat(f"{collection}/LICENSE")).size_bytes == len(text)
        assert f"{collection} collection is distributed under the {row['LicenseName']}" in text.decode()
        assert row["LicenseURI"] in text.decode()
