"""The chapter "Listing and sizes" of docs/semantics.md, statement by statement."""

import datetime as dt
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.behaviour.conftest import ExpectFailure, Fresh, Opener, Sharing
from tests.behaviour.filesystems import FileSystem
from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of, md5
from tests.sample.running import RunningSample

LOOKS = 3
"""As many series are fetched for a process before it counts as walking."""


def downloads(archive: RunningSample, *series: ExpectedSeries) -> int:
    """Return how often the images of these series were asked for (none named: of any)."""
    wanted = {one.uid for one in series}
    return sum(
        not wanted or request.query["SeriesInstanceUID"] in wanted for request in archive.requests("getImage")
    )


def provisional(count: int) -> list[str]:
    return [f"1-{place:0{len(str(count))}}.dcm" for place in range(1, count + 1)]


async def until_asked(archive: RunningSample, series: ExpectedSeries) -> None:
    """Return once the images of a series were asked for."""
    with trio.fail_after(30):
        while not await trio.to_thread.run_sync(downloads, archive, series):  # noqa: ASYNC110  # elsewhere
            await trio.sleep(0.01)


async def until_local(files: FileSystem, series: ExpectedSeries) -> None:
    """Return once a series is on disk for good, which is a moment after its last image was read."""
    with trio.fail_after(30):
        while await files.getxattr(series.path, "user.tciafs.state") != "local":  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_looking_above_the_series_downloads_nothing(files: FileSystem, archive: RunningSample) -> None:
    for folder in ["", "MANYSERIES", "Phantom-Head", "Phantom-Head/HEAD-001"]:
        for name in await files.listdir(folder):
            await files.stat(f"{folder}/{name}".lstrip("/"))
    for series in expected_series(archive, "Phantom-Head"):
        assert (await files.stat(series.path)).is_folder
    assert downloads(archive) == 0


async def test_a_series_of_one_image_lists_at_once_with_its_size(
    files: FileSystem, archive: RunningSample
) -> None:
    (series,) = expected_series(archive, "Phantom-Mammography")
    assert await files.listdir(series.path) == ["1-1.dcm"]
    assert (await files.stat(f"{series.path}/1-1.dcm")).size_bytes == series.size_bytes
    assert downloads(archive) == 0


async def test_a_series_fetched_once_lists_at_once_without_asking(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh(acquisitions=2)
    first = await files.listdir(series.path)
    archive.forget_requests()
    assert await files.listdir(series.path) == first
    assert archive.requests() == []


async def test_an_evicted_series_lists_at_once_with_its_sizes(
    opening: Opener, archive: RunningSample, fresh: Fresh
) -> None:
    first, second = fresh(acquisitions=2), fresh()
    room = max(first.size_bytes, second.size_bytes) + 16_384  # one pack in whole blocks, not two
    async with opening(cache_bytes=room) as files:
        names = await files.listdir(first.path)
        await until_local(files, first)
        await files.listdir(second.path)
        assert await files.getxattr(first.path, "user.tciafs.state") == "evicted"
        archive.forget_requests()
        assert await files.listdir(first.path) == names
        sizes = {name: (await files.stat(f"{first.path}/{name}")).size_bytes for name in names}
        assert archive.requests() == []
        assert sizes == {name: len(image) for name, image in images_of(archive, first.uid).items()}


async def test_a_look_answers_as_images_arrive(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    expected = list(images_of(archive, series.uid))
    archive.pace(series.uid, 2)
    try:
        with trio.fail_after(20):
            assert await files.first_names(series.path, 1) == expected[:1]
    finally:
        archive.pace(series.uid, None)


async def test_a_look_ends_when_the_series_is_complete(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh(acquisitions=2)
    expected = set(images_of(archive, series.uid))
    archive.forget_requests()
    archive.pace(series.uid, 2)
    listed: list[list[str]] = []

    async def look() -> None:
        listed.append(await files.listdir(series.path))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await until_asked(archive, series)
            assert listed == []
            archive.pace(series.uid, None)
    finally:
        archive.pace(series.uid, None)
    assert set(listed[0]) == expected
    assert len(listed[0]) == len(expected)


async def test_a_walk_gets_provisional_names_after_three_looks(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = [fresh(acquisitions=2) for _ in range(LOOKS + 2)]
    true_names = [sorted(images_of(archive, one.uid)) for one in series]
    archive.forget_requests()
    shown = [sorted(names) for names in await files.walk([one.path for one in series])]
    assert shown[:LOOKS] == true_names[:LOOKS]
    assert shown[LOOKS:] == [provisional(one.image_count) for one in series[LOOKS:]]
    assert downloads(archive) == LOOKS


async def test_who_looks_at_an_image_between_folders_is_no_walker(
    files: FileSystem, archive: RunningSample, fresh: Fresh
) -> None:
    series = [fresh(acquisitions=2) for _ in range(LOOKS + 2)]
    true_names = [sorted(images_of(archive, one.uid)) for one in series]
    shown = await files.walk([one.path for one in series], look_at_images=True)
    assert [sorted(names) for names in shown] == true_names


async def test_listing_exact_treats_all_as_looks(
    opening: Opener, archive: RunningSample, fresh: Fresh
) -> None:
    series = [fresh(acquisitions=2) for _ in range(LOOKS + 1)]
    async with opening(listing="exact") as files:
        shown = await files.walk([one.path for one in series])
    assert [set(names) for names in shown] == [set(images_of(archive, one.uid)) for one in series]


async def test_listing_names_treats_all_as_walks(
    sharing: Sharing, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh(acquisitions=2)
    async with sharing(listing="names") as files:
        assert await files.listdir(series.path) == provisional(series.image_count)
        assert downloads(archive) == 0


async def test_the_lookup_of_a_provisional_name_answers_as_soon_as_its_image_is_in(
    sharing: Sharing, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh()
    expected = images_of(archive, series.uid)
    async with sharing(listing="names") as files:
        name = (await files.listdir(series.path))[0]
        archive.pace(series.uid, 2)
        try:
            with trio.fail_after(20):
                assert (await files.stat(f"{series.path}/{name}")).size_bytes == len(expected[name])
                assert await files.read(f"{series.path}/{name}") == expected[name]
        finally:
            archive.pace(series.uid, None)


async def test_a_list_made_before_the_download_opens_every_image_once_and_later_lists_are_true(
    sharing: Sharing, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh(acquisitions=2)
    expected = images_of(archive, series.uid)
    archive.forget_requests()
    async with sharing(listing="names") as files:
        before = await files.listdir(series.path)
        assert set(before) != set(expected)
        read = [md5(await files.read(f"{series.path}/{name}")) for name in before]
        assert Counter(read) == Counter(md5(image) for image in expected.values())
        assert set(await files.listdir(series.path)) == set(expected)
        assert downloads(archive) == 1


async def test_every_size_is_the_true_one_also_of_provisional_names(
    sharing: Sharing, archive: RunningSample, fresh: Fresh
) -> None:
    series = fresh(acquisitions=2)
    async with sharing(listing="names") as files:
        for name in await files.listdir(series.path):
            told = await files.stat(f"{series.path}/{name}")
            assert told.size_bytes == len(await files.read(f"{series.path}/{name}")) > 0


async def test_a_short_series_ends_its_listing_with_an_error(
    sharing: Sharing, archive: RunningSample, fresh: Fresh, expect_failure: ExpectFailure
) -> None:
    series = fresh()
    archive.fault("short", series=series.uid, times=99, images=1)
    expect_failure(r"WARNING tciafs\.store.*came with \d of \d images")
    async with sharing() as files:
        with pytest.raises(OSError, match="Input/output error"):
            await files.listdir(series.path)


async def test_inode_numbers_are_the_same_in_another_mount(opening: Opener, fresh: Fresh) -> None:
    series = fresh()
    shown = []
    for place in ("one", "another"):
        async with opening(place) as files:
            names = await files.listdir(series.path)
            folders = [str(folder) for folder in (Path(series.path), *Path(series.path).parents)][:-1]
            paths = [*folders, *(f"{series.path}/{name}" for name in names)]
            shown.append({path: (await files.stat(path)).inode for path in paths})
    assert shown[0] == shown[1]
    assert len(set(shown[0].values())) == len(shown[0])


async def test_times_are_the_day_of_release(files: FileSystem, fresh: Fresh) -> None:
    series = fresh()
    day = dt.datetime.strptime(series.row["DateReleased"], "%m-%d-%Y").replace(tzinfo=dt.UTC)
    names = await files.listdir(series.path)
    for path in (series.path, f"{series.path}/{names[0]}"):
        assert (await files.stat(path)).mtime_ns == int(day.timestamp()) * 10**9
