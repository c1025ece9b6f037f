"""Names and sizes in advance: asked once however many want them, kept for good, and checked."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from tciafs.errors import DeadlinePassed, SeriesDamaged, Unreachable
from tciafs.model import ListedImage, Series
from tciafs.store.shelf import KnownSeries
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeFetcher, make_series

SERIES = make_series("1.2.3", image_count=2, size_bytes=30)
IMAGES = [ListedImage("1-1.dcm", 10), ListedImage("1-2.dcm", 20)]


class FakeSurveyor:
    """Names `images` once `open` is set, or fails with `failure`; `asked` counts."""

    def __init__(self) -> None:
        self.images: Sequence[ListedImage] | None = IMAGES
        self.failure: Exception | None = None
        self.open = trio.Event()
        self.open.set()
        self.asked = 0

    async def survey(self, series: Series) -> Sequence[ListedImage] | None:
        self.asked += 1
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return self.images


async def ensured(store: Store, series: Series = SERIES) -> KnownSeries:
    """Return what is known of a series that the archive can name in advance."""
    known = await store.surveys.ensure(series)
    assert known is not None
    return known


@asynccontextmanager
async def opened(folder: Path, surveyor: FakeSurveyor, fetcher: FakeFetcher) -> AsyncIterator[Store]:
    async with Store.running(StoreConfig(folder, 1 << 20, patience_s=5), fetcher) as store:
        store.surveys.surveyor = surveyor
        yield store


@pytest.fixture
async def surveyor() -> FakeSurveyor:
    return FakeSurveyor()


async def test_sizes_are_known_without_any_bytes(tmp_path: Path, surveyor: FakeSurveyor) -> None:
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        known = await ensured(store)
        found = [(each.name, each.size_bytes) for each in known.layout.images]
        assert found == [("1-1.dcm", 10), ("1-2.dcm", 20)]
        assert (store.state(SERIES), store.usage().used_bytes) == ("evicted", 0)


async def test_many_who_want_it_ask_once(tmp_path: Path, surveyor: FakeSurveyor) -> None:
    surveyor.open = trio.Event()
    async with opened(tmp_path, surveyor, FakeFetcher()) as store, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(store.surveys.ensure, SERIES)
        await trio.testing.wait_all_tasks_blocked()
        surveyor.open.set()
    assert surveyor.asked == 1


async def test_one_who_is_interrupted_leaves_the_work_to_the_next(
    tmp_path: Path, surveyor: FakeSurveyor
) -> None:
    surveyor.open = trio.Event()
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        with trio.CancelScope() as first:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.surveys.ensure, SERIES)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
        surveyor.open.set()
        assert len((await ensured(store)).layout.images) == 2
    assert surveyor.asked == 2


async def test_it_is_kept_for_good_until_the_archive_changes_the_series(
    tmp_path: Path, surveyor: FakeSurveyor
) -> None:
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        await store.surveys.ensure(SERIES)
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        assert store.peek(SERIES) is not None
        revised = msgspec.structs.replace(SERIES, image_count=1, size_bytes=10)
        assert store.peek(revised) is None
        surveyor.images = IMAGES[:1]
        assert len((await ensured(store, revised)).layout.images) == 1
    assert surveyor.asked == 2


@pytest.mark.parametrize("images", [IMAGES[:1], [*IMAGES[:1], ListedImage("1-2.dcm", 21)]])
async def test_images_that_are_not_what_the_archive_lists_are_refused(
    tmp_path: Path, surveyor: FakeSurveyor, images: Sequence[ListedImage]
) -> None:
    surveyor.images = images
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        with pytest.raises(SeriesDamaged, match="is listed with"):
            await store.surveys.ensure(SERIES)
        assert store.peek(SERIES) is None


async def test_a_failure_is_shared_for_a_while_and_then_asked_about_again(
    tmp_path: Path, surveyor: FakeSurveyor
) -> None:
    surveyor.failure = Unreachable("away")
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        with pytest.raises(Unreachable):
            await store.surveys.ensure(SERIES)
        surveyor.failure = None
        with pytest.raises(Unreachable):
            await store.surveys.ensure(SERIES)
        assert (surveyor.asked, store.state(SERIES)) == (1, "failed")
        store.failures.forget(lambda _: True)
        assert await store.surveys.ensure(SERIES)
        assert not store.failures.every()


async def test_nobody_waits_for_ever(
    tmp_path: Path, surveyor: FakeSurveyor, autojump_clock: trio.testing.MockClock
) -> None:
    surveyor.open = trio.Event()
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        with pytest.raises(DeadlinePassed, match="within 5 s"):
            await store.surveys.ensure(SERIES)


async def test_what_an_older_version_left_on_disk_is_not_lost_sight_of(
    tmp_path: Path, surveyor: FakeSurveyor
) -> None:
    fetcher = FakeFetcher({"1.2.3": [("1-1.dcm", b"a" * 10), ("1-2.dcm", b"b" * 25)]})
    older = make_series("1.2.3", image_count=2, size_bytes=None)
    async with opened(tmp_path, surveyor, fetcher) as store:
        await store.fetch(older).wait_settled(5)
        download = store.peek_download(older)
        if download is not None:
            await download.over.wait()
        used_bytes = store.usage().used_bytes
        assert used_bytes > 0
        assert (await ensured(store)).pack_bytes == 0
        assert store.usage().used_bytes == used_bytes
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        assert store.usage().used_bytes == used_bytes


async def test_what_cannot_be_named_in_advance_is_not_known_and_no_failure(
    tmp_path: Path, surveyor: FakeSurveyor
) -> None:
    surveyor.images = None
    async with opened(tmp_path, surveyor, FakeFetcher()) as store:
        assert store.surveys.are_to_be_had(SERIES)
        assert await store.surveys.ensure(SERIES) is None
        assert store.peek(SERIES) is None
        assert store.failures.find(SERIES) is None
        store.surveys.can_name = lambda series: series != SERIES
        assert not store.surveys.are_to_be_had(SERIES)
