"""The chapters "Reading" and "The cache, and df" of docs/semantics.md, statement by statement."""

import random

import pytest
import trio

from tests.behaviour.conftest import ExpectFailure, Fresh, Opener, Sharing
from tests.behaviour.core_filesystem import CoreFileSystem
from tests.behaviour.filesystems import FileSystem
from tests.behaviour.retriever import images_of, middle_of_an_image
from tests.behaviour.test_listing import downloads, until_asked, until_local
from tests.sample.running import RunningSample

READERS = 200


async def test_every_image_reads_as_the_archive_sent_it(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh(acquisitions=2)
    images = images_of(archive, series.uid)
    assert {name: await files.read(f"{series.path}/{name}") for name in images} == images


async def test_any_part_of_an_image_can_be_read(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    name, image = images_of(archive, series.uid).popitem()
    places = random.Random(4)
    async with files.opened(f"{series.path}/{name}") as file:
        for _ in range(50):
            offset, length = places.randrange(len(image) + 10), places.randrange(1, len(image) + 10)
            assert await file.pread(offset, length) == image[offset : offset + length]
        assert await file.pread(len(image), 10) == b""


async def test_an_open_image_stays_readable_while_its_series_is_evicted(
    opening: Opener, archive: RunningSample, fresh: Fresh
) -> None:
    first, second = fresh(), fresh()
    name, image = images_of(archive, first.uid).popitem()
    room = first.size_bytes + second.size_bytes + 20_000
    async with opening(cache_bytes=room) as files, files.opened(f"{first.path}/{name}") as file:
        await until_local(files, first)
        await files.listdir(second.path)
        assert await file.pread(0, len(image)) == image


async def test_nothing_is_writable(files: FileSystem, fresh: Fresh) -> None:
    series = fresh()
    (name, *_) = await files.listdir(series.path)
    assert (await files.stat(series.path)).permissions == 0o555
    assert (await files.stat(f"{series.path}/{name}")).permissions == 0o444


async def test_local_bytes_are_read_without_asking_the_archive(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    names = await files.listdir(series.path)
    archive.forget_requests()
    for name in names:
        await files.read(f"{series.path}/{name}")
    assert archive.requests() == []


async def test_local_bytes_are_read_while_the_archive_refuses(
    opening: Opener, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    async with opening() as files:
        names = await files.listdir(series.path)
        await until_local(files, series)
    images = images_of(archive, series.uid)
    archive.fault("status", "", times=99, code=503)
    async with opening() as files:
        assert {name: await files.read(f"{series.path}/{name}") for name in names} == images


async def test_two_hundred_readers_cause_one_download(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh(acquisitions=2)
    images = list(images_of(archive, series.uid).items())
    archive.forget_requests()
    archive.pace(series.uid, 0)

    async def read(name: str, image: bytes) -> None:
        assert await files.read(f"{series.path}/{name}") == image

    try:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for place in range(READERS):
                    nursery.start_soon(read, *images[place % len(images)])
                await until_asked(archive, series)
                archive.pace(series.uid, None)
    finally:
        archive.pace(series.uid, None)
    assert downloads(archive, series) == 1


@pytest.mark.parametrize("kind", ["core"], indirect=True)
async def test_a_reader_that_gives_up_harms_nobody(
    files: CoreFileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    (name, image), *_others = images_of(archive, series.uid).items()
    archive.forget_requests()
    archive.pace(series.uid, 0)
    try:
        with trio.fail_after(30):
            async with trio.open_nursery() as both:
                async with trio.open_nursery() as first:
                    first.start_soon(files.read, f"{series.path}/{name}")
                    await until_asked(archive, series)
                    first.cancel_scope.cancel()
                both.start_soon(files.read, f"{series.path}/{name}")
                archive.pace(series.uid, None)
    finally:
        archive.pace(series.uid, None)
    assert await files.read(f"{series.path}/{name}") == image
    assert downloads(archive, series) == 1


@pytest.mark.parametrize("kind_of_damage", ["corrupt", "short", "wrong_md5"])
async def test_bytes_that_fail_their_check_are_not_served(
    kind_of_damage: str,
    sharing: Sharing,
    archive: RunningSample,
    fresh: Fresh,
    expect_failure: ExpectFailure,
) -> None:
    series = fresh()
    names = list(images_of(archive, series.uid))
    place = middle_of_an_image(archive, series.uid)
    archive.fault(kind_of_damage, series=series.uid, times=99, images=1, after_bytes=place)
    expect_failure(r"WARNING tciafs\.store")
    async with sharing() as files:
        with pytest.raises(OSError, match=r"."):
            await files.listdir(series.path)
        for name in names:
            with pytest.raises(OSError, match=r"Input/output error"):
                await files.read(f"{series.path}/{name}")


async def test_a_failure_in_transit_that_a_retry_mends_is_never_seen(
    sharing: Sharing, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    images = images_of(archive, series.uid)
    archive.forget_requests()
    archive.fault("cut", series=series.uid, times=1, after_bytes=1500)
    async with sharing(retries=2) as files:
        assert {name: await files.read(f"{series.path}/{name}") for name in images} == images
    assert downloads(archive, series) == 2


# -- the cache as a file system -------------------------------------------------------------------


async def test_a_series_finds_the_room_that_one_read_to_its_end_can_leave(
    opening: Opener, fresh: Fresh
) -> None:
    series = [fresh() for _ in range(4)]
    room = max(one.size_bytes for one in series) + 16_384  # a pack of its own, in whole blocks
    async with opening(cache_bytes=room) as files:
        for one in series:
            assert len(await files.listdir(one.path)) == one.image_count


async def test_df_shows_the_cache(opening: Opener, fresh: Fresh) -> None:
    limit = 64 << 20
    series = fresh()
    async with opening(cache_bytes=limit) as files:
        empty = await files.statfs()
        assert empty.total_bytes == limit
        await files.listdir(series.path)
        await until_local(files, series)
        filled = await files.statfs()
    assert filled.total_bytes == limit
    assert series.size_bytes <= empty.free_bytes - filled.free_bytes <= series.size_bytes + 8192


# -- where it comes from --------------------------------------------------------------------------


async def test_attributes_tell_where_an_image_comes_from_and_what_is_known_of_its_bytes(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    assert await files.getxattr(series.path, "user.tciafs.state") == "remote"
    assert await files.getxattr(series.path, "user.tcia.SeriesInstanceUID") == series.uid
    assert "user.tciafs.verified" not in await files.listxattr(series.path)
    assert downloads(archive, series) == 0
    (name, *_) = await files.listdir(series.path)
    await until_local(files, series)
    image = f"{series.path}/{name}"
    assert await files.getxattr(image, "user.tciafs.verified") == "crc32,count,size,md5"
    assert await files.getxattr(image, "user.tciafs.route") == "nbia"
    assert "user.tcia.SOPInstanceUID" in await files.listxattr(image)
    assert (await files.getxattr(image, "user.tcia.SOPInstanceUID")).startswith("1.2.")
    for attribute in await files.listxattr(image):
        assert await files.getxattr(image, attribute)
    with pytest.raises(OSError, match=r"No data available"):
        await files.getxattr(image, "user.no.such.attribute")
