"""Annotation files beside the images of a series, without a kernel: listings, lookups, the unknown."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from tciafs.errors import SeriesDamaged
from tciafs.filesystem.images import ARRIVING_S, CERTAIN_S, FINAL_S, FoundImage, may_be_annotation
from tciafs.filesystem.provenance import LACKS, xattrs_of_state
from tests.fakes import make_series
from tests.filesystem.fakes import Core, context, running_core
from tests.filesystem.test_images import names_in, read

TWO = replace(make_series("1.2.3", 2), has_annotations=True)
LONE = replace(make_series("1.2.1", 1, size_bytes=4), has_annotations=True)
IMAGES = [("1-1.dcm", b"one"), ("1-2.dcm", b"second")]
XML = [("086.xml", b"<marks/>"), ("069.xml", b"<notes />")]
CONTENTS = {TWO.series_uid: [*IMAGES, *XML], LONE.series_uid: [("1-1.dcm", b"lone"), *XML]}


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """Nothing comes of itself: the test moves the transfers."""
    async with running_core(tmp_path, TWO, LONE) as core:
        yield core


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Core]:
    """Every series comes as soon as it is fetched."""
    async with running_core(tmp_path, TWO, LONE, contents=CONTENTS) as core:
        yield core


async def test_a_known_series_lists_its_annotations_behind_its_images(quick: Core) -> None:
    await quick.fetch(TWO)
    found = await read(quick.images.listing(TWO))
    assert found == [FoundImage(name, len(data), FINAL_S) for name, data in [*IMAGES, *XML]]
    assert await quick.images.find(TWO, "069.xml") == FoundImage("069.xml", 9, FINAL_S)
    assert await quick.images.find(TWO, "070.xml") is None


async def test_annotations_are_read_as_images_are(quick: Core) -> None:
    for name, data in [*XML, *IMAGES]:
        opened = await quick.images.open(TWO, name)
        assert opened is not None
        assert opened.read(0, 100) == data
        opened.close()
    assert quick.fetched == [TWO.series_uid]


async def test_a_look_lists_them_as_they_arrive(core: Core) -> None:
    listing = core.images.look(TWO)
    transfer = await core.fetcher.begun()
    for name, data in IMAGES:
        transfer.bring(name, data)
    transfer.bring_annotation(*XML[0])
    await listing.wait_for(2)
    assert listing.at(2) == FoundImage("086.xml", 8, ARRIVING_S)
    assert listing.at(3) is None
    transfer.bring_annotation(*XML[1])
    transfer.finish()
    assert await names_in(listing) == ["1-1.dcm", "1-2.dcm", "086.xml", "069.xml"]


async def test_a_lone_image_is_certain_and_what_is_beside_it_is_not(quick: Core) -> None:
    """Its name and size come from the listing; a folder that showed it alone would lack files."""
    assert await quick.images.find(LONE, "1-1.dcm") == FoundImage("1-1.dcm", 4, CERTAIN_S)
    assert not quick.images.finding_fetches(LONE, "1-1.dcm")
    assert quick.images.listing(LONE) is None
    assert quick.fetched == []
    assert quick.images.finding_fetches(LONE, "069.xml")
    assert await names_in(quick.images.look(LONE)) == ["1-1.dcm", "086.xml", "069.xml"]


async def test_an_annotation_of_a_series_of_one_image_is_opened_without_a_listing(quick: Core) -> None:
    opened = await quick.images.open(LONE, "069.xml")
    assert opened is not None
    assert opened.read(0, 100) == b"<notes />"
    opened.close()
    assert quick.fetched == [LONE.series_uid]


async def test_a_walk_shows_none_and_downloads_nothing(quick: Core) -> None:
    walk = quick.images.walk(TWO)
    assert await names_in(walk) == ["1-1.dcm", "1-2.dcm"]
    assert quick.fetched == []


async def test_xml_is_looked_for_only_where_there_may_be_some(quick: Core) -> None:
    plain = replace(TWO, series_uid="1.2.9", has_annotations=False)
    assert not quick.images.finding_fetches(plain, "069.xml")
    assert await quick.images.find(plain, "069.xml") is None
    assert quick.fetched == []
    assert await quick.images.find(TWO, "069.xml") == FoundImage("069.xml", 9, ARRIVING_S)


@pytest.mark.parametrize("name", [".git", "desktop.ini", ".hidden.xml", "xml", "DICOMDIR", ""])
async def test_probes_of_programs_start_nothing(quick: Core, name: str) -> None:
    assert not may_be_annotation(name)
    assert await quick.images.find(TWO, name) is None
    assert quick.fetched == []


@pytest.mark.expect_log("series 1.2.3 is without annotations: none came")
async def test_what_did_not_come_is_an_error_and_no_missing_file(core: Core) -> None:
    download = core.store.fetch(TWO)
    transfer = await core.fetcher.begun()
    for name, data in IMAGES:
        transfer.bring(name, data)
    transfer.finish("none came")
    await download.over.wait()
    assert await names_in(core.images.listing(TWO)) == ["1-1.dcm", "1-2.dcm"]
    assert (await core.images.find(TWO, "1-1.dcm")) is not None
    with pytest.raises(SeriesDamaged, match="without annotations: none came"):
        await core.images.find(TWO, "069.xml")
    assert await core.images.find(TWO, "desktop.ini") is None
    assert xattrs_of_state(core.store, TWO)[LACKS] == "none came"


@pytest.mark.expect_log("without annotations")
async def test_who_waits_for_an_annotation_that_does_not_come_gets_that_error(core: Core) -> None:
    failures: list[str] = []

    async def look() -> None:
        try:
            await core.images.find(TWO, "069.xml")
        except SeriesDamaged as error:
            failures.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        transfer = await core.fetcher.begun()
        for name, data in IMAGES:
            transfer.bring(name, data)
        await wait_all_tasks_blocked()
        assert failures == []
        transfer.finish("none came")
    assert len(failures) == 1


async def test_image_inodes_do_not_depend_on_annotations(tmp_path: Path) -> None:
    plain = replace(TWO, has_annotations=False)
    async with running_core(tmp_path / "a", TWO, contents=CONTENTS) as core:
        node = await core.node("Lung", "P1", "NA-NA-1.2", "NA-1.2.3", "1-2.dcm")
    async with running_core(tmp_path / "b", plain, contents={plain.series_uid: IMAGES}) as core:
        assert (await core.node("Lung", "P1", "NA-NA-1.2", "NA-1.2.3", "1-2.dcm")).inode == node.inode


async def test_a_cache_from_before_the_flag_was_known_is_fetched_again(tmp_path: Path) -> None:
    plain = replace(TWO, has_annotations=False)
    async with running_core(tmp_path, plain, contents={plain.series_uid: IMAGES}) as core:
        await core.fetch(plain)
        assert core.store.state(TWO) == "remote"


async def test_a_new_mount_knows_annotations_and_why_there_are_none(tmp_path: Path) -> None:
    async with running_core(tmp_path, TWO, contents=CONTENTS) as core:
        await core.fetch(TWO)
    async with running_core(tmp_path, TWO, offline=True) as core:
        assert await names_in(core.images.listing(TWO)) == ["1-1.dcm", "1-2.dcm", "086.xml", "069.xml"]


async def test_only_images_are_said_to_have_an_sop_instance_uid(quick: Core) -> None:
    await quick.fetch(TWO)
    for name, has in [("1-1.dcm", True), ("069.xml", False)]:
        node = await quick.node("Lung", "P1", "NA-NA-1.2", "NA-1.2.3", name)
        names = await quick.operations.listxattr(node.inode, context())
        assert (b"user.tcia.SOPInstanceUID" in names) == has
        assert b"user.tcia.AnnotationsFlag" in names
