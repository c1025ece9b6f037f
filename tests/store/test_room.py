"""The limit: what is granted, what grows, who waits for whom, and that every pack in any state is counted."""

import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs.errors import NoSpace, SeriesDamaged
from tciafs.model import Series
from tciafs.store.disk import BLOCK_BYTES, bytes_on_disk, most_bytes_on_disk, sync_folder
from tciafs.store.layout import PackedImage
from tciafs.store.room import LEAST_STEP_BYTES
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeFetcher, Transfer, make_series

LIMIT_BYTES = 1_000_000


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(tmp_path / "cache", LIMIT_BYTES, patience_s=10.0)


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
async def store(config: StoreConfig, fetcher: FakeFetcher) -> AsyncIterator[Store]:
    async with Store.running(config, fetcher) as store:
        yield store


def of_unknown_size(uid: str) -> Series:
    return make_series(uid, image_count=None)


async def settled(store: Store) -> None:
    while store._nursery.child_tasks:
        await trio.lowlevel.checkpoint()


async def fill(store: Store, fetcher: FakeFetcher, uid: str, size_bytes: int) -> Series:
    series = make_series(uid, 1, size_bytes)
    fetcher.contents[uid] = [("1-1.dcm", bytes(size_bytes))]
    store.fetch(series)
    await settled(store)
    assert store.state(series) == "local"
    return series


async def bring(transfer: Transfer, name: str, size_bytes: int) -> None:
    await transfer.make_room(size_bytes)
    transfer.bring(name, bytes(size_bytes))


def on_disk(folder: Path) -> int:
    return sum(bytes_on_disk(file.stat()) for file in folder.rglob("*") if file.is_file())


def packs_on_disk(config: StoreConfig) -> int:
    return on_disk(config.folder / "series") + on_disk(config.folder / "incoming")


# -- growth --


async def test_a_pack_that_grows_is_granted_in_steps_and_never_written_beyond(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(replace(config, limit_bytes=100 * LEAST_STEP_BYTES), fetcher) as store:
        store.fetch(of_unknown_size("1.1"))
        transfer = await fetcher.begun()
        granted_bytes = transfer._writer.granted_bytes
        with pytest.raises(NoSpace, match="about to grow beyond"):
            transfer.bring("1-1.dcm", bytes(granted_bytes + 1))
        await bring(transfer, "1-1.dcm", granted_bytes + 1)
        assert transfer._writer.granted_bytes > granted_bytes + LEAST_STEP_BYTES
        reserved_bytes = store._room.reserved_bytes
        await bring(transfer, "1-2.dcm", 1000)
        assert store._room.reserved_bytes == reserved_bytes, "there was room left from the last time"
        transfer.finish()
        await settled(store)
        assert (store._room.reserved_bytes, store.usage().used_bytes) == (0, packs_on_disk(config))


async def test_what_is_reserved_is_not_free(store: Store, fetcher: FakeFetcher) -> None:
    store.fetch(make_series("1.1", 1, 600_000))
    await fetcher.begun()
    usage = store.usage()
    assert (usage.used_bytes, usage.free_bytes) == (0, LIMIT_BYTES - store._room.reserved_bytes)
    assert usage.free_bytes < 400_000


async def test_the_longest_unused_make_room_for_what_grows(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    kept = await fill(store, fetcher, "1.1", 600_000)
    store.fetch(of_unknown_size("1.2"))
    transfer = await fetcher.begun(2)
    await bring(transfer, "1-1.dcm", 300_000)
    assert store.state(kept) == "local"
    await bring(transfer, "1-2.dcm", 300_000)
    assert store.state(kept) == "evicted"
    assert packs_on_disk(config) <= LIMIT_BYTES
    transfer.finish()
    await settled(store)
    assert store.state(of_unknown_size("1.2")) == "local"


@pytest.mark.expect_log("series 1.1: series 1.1 needs .* are open or coming in")
async def test_what_outgrows_the_cache_fails_alone_and_leaves_nothing(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    fetcher.contents["1.1"] = [("1-1.dcm", bytes(900_000)), ("1-2.dcm", bytes(200_000))]
    outgrowing = store.fetch(of_unknown_size("1.1"))
    await outgrowing.over.wait()
    await settled(store)
    assert isinstance(outgrowing.failure, NoSpace)
    assert (packs_on_disk(config), store._room.taken_bytes) == (0, 0)
    await fill(store, fetcher, "1.2", 900_000)


async def test_what_grows_waits_for_others_that_come_in(
    store: Store, fetcher: FakeFetcher, nursery: trio.Nursery
) -> None:
    growing = store.fetch(of_unknown_size("1.1"))
    transfer = await fetcher.begun()
    other = store.fetch(make_series("1.2", 1, 600_000))
    other_transfer = await fetcher.begun(2)
    await bring(transfer, "1-1.dcm", 300_000)
    nursery.start_soon(bring, transfer, "1-2.dcm", 300_000)
    await wait_all_tasks_blocked(0.01)
    assert len(growing.images) == 1
    other_transfer.bring("1-1.dcm", b"short")
    other_transfer.finish()
    await other.over.wait()
    while len(growing.images) < 2:
        await trio.lowlevel.checkpoint()
    transfer.finish()
    await settled(store)
    assert growing.failure is None


@pytest.mark.expect_log("series 1.2: .*are open or coming in")
async def test_of_two_that_grow_and_have_no_room_one_fails_and_the_other_goes_on(
    store: Store, fetcher: FakeFetcher, nursery: trio.Nursery
) -> None:
    downloads, transfers = [], []
    for number, uid in enumerate(("1.1", "1.2"), 1):
        downloads.append(store.fetch(of_unknown_size(uid)))
        transfers.append(await fetcher.begun(number))
    for transfer in transfers:
        await bring(transfer, "1-1.dcm", 450_000)
    nursery.start_soon(bring, transfers[0], "1-2.dcm", 300_000)
    await wait_all_tasks_blocked(0.01)
    with pytest.raises(NoSpace) as refused:
        await bring(transfers[1], "1-2.dcm", 300_000)
    transfers[1].end(refused.value)
    await downloads[1].over.wait()
    while len(downloads[0].images) < 2:
        await trio.lowlevel.checkpoint()
    transfers[0].finish()
    await settled(store)
    assert downloads[0].failure is None


async def test_what_grows_does_not_wait_for_ever(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, autojump_clock: MockClock
) -> None:
    store.fetch(of_unknown_size("1.1"))
    transfer = await fetcher.begun()
    store.fetch(make_series("1.2", 1, 600_000))
    await fetcher.begun(2)
    await bring(transfer, "1-1.dcm", 300_000)
    with pytest.raises(NoSpace):
        await bring(transfer, "1-2.dcm", 300_000)
    assert trio.current_time() == config.patience_s


async def test_an_old_version_does_not_make_room_while_the_new_one_takes_its_place(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, fetcher, "1.1", 400_000)
    del fetcher.contents["1.1"]
    publishing, may_go_on, token = trio.Event(), threading.Event(), trio.lowlevel.current_trio_token()

    def sync_slowly(folder: Path) -> None:
        token.run_sync_soon(publishing.set)
        assert may_go_on.wait(30)
        sync_folder(folder)

    monkeypatch.setattr("tciafs.store.places.sync_folder", sync_slowly)
    other, newer = store.fetch(make_series("1.2", 1, 1000)), store.fetch(make_series("1.1", 2, 1000))
    begun = {
        transfer.series.series_uid: transfer for transfer in [await fetcher.begun(2), await fetcher.begun(3)]
    }
    begun["1.2"].finish()
    await publishing.wait()
    in_need = store.fetch(make_series("1.3", 1, 700_000))
    await wait_all_tasks_blocked(0.05)
    begun["1.1"].bring("1-1.dcm", b"new")
    begun["1.1"].finish()
    await wait_all_tasks_blocked(0.05)
    may_go_on.set()
    (await fetcher.begun(4)).finish()
    await settled(store)
    assert (other.failure, newer.failure, in_need.failure) == (None, None, None)
    assert store.usage().used_bytes == packs_on_disk(config) == store._room.taken_bytes
    assert store.usage().series_count == len(list((config.folder / "series").rglob("*.pack")))


# -- what counts --


@pytest.mark.expect_log("damaged")
async def test_a_failed_pack_that_somebody_reads_counts_until_it_is_closed(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    store.fetch(make_series("1.1", 1, 600_000))
    transfer = await fetcher.begun()
    transfer.bring("1-1.dcm", bytes(600_000))
    opened = await store.open(make_series("1.1", 1, 600_000), "1-1.dcm")
    transfer.end(SeriesDamaged("damaged"))
    await settled(store)
    assert opened is not None
    with closing(opened):
        assert packs_on_disk(config) == 0
        assert 600_000 <= store._room.taken_bytes <= 600_000 + BLOCK_BYTES
    assert store._room.taken_bytes == 0


async def test_a_replaced_pack_that_somebody_reads_counts_until_it_is_closed(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    old = await fill(store, fetcher, "1.1", 300_000)
    opened = store.open_local(old, "1-1.dcm")
    await fill(store, fetcher, "1.1", 200_000)
    assert opened is not None
    with closing(opened):
        assert store._room.taken_bytes >= 500_000
        assert opened.read(0, 10) == bytes(10)
    assert store._room.taken_bytes == packs_on_disk(config) < 210_000


@pytest.mark.expect_log("could not be removed: Input/output error")
@pytest.mark.expect_log("damaged")
@pytest.mark.expect_log("series 1.2 needs")
async def test_a_pack_that_cannot_be_removed_counts_on(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.fetch(make_series("1.1", 1, 600_000))
    transfer = await fetcher.begun()
    transfer.bring("1-1.dcm", bytes(600_000))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        transfer.end(SeriesDamaged("damaged"))
        await settled(store)
    assert packs_on_disk(config) <= store._room.taken_bytes
    with pytest.raises(NoSpace):
        await store.open(make_series("1.2", 1, 600_000), "1-1.dcm")


@pytest.mark.expect_log("series 1.2: the cache folder failed: Input/output error")
@pytest.mark.expect_log("could not be removed: Input/output error")
async def test_an_eviction_that_fails_counts_on_and_drops_no_other(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    first = await fill(store, fetcher, "1.0", 400_000)
    second = await fill(store, fetcher, "1.1", 400_000)
    store._shelf.flush_recency()
    failed = store.fetch(make_series("1.2", 1, 600_000))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        await failed.over.wait()
    await settled(store)
    assert (store.state(first), store.state(second)) == ("evicted", "local")
    assert store._room.taken_bytes == packs_on_disk(config)


async def test_a_limit_that_was_lowered_is_kept_from_the_start(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(config, fetcher) as store:
        for number in range(4):
            await fill(store, fetcher, f"1.{number}", 200_000)
    async with Store.running(replace(config, limit_bytes=500_000), fetcher) as store:
        assert store.usage().series_count == 2
        assert store.usage().used_bytes == packs_on_disk(config) <= 500_000


@pytest.mark.expect_log("the cache cannot be made smaller: Input/output error")
@pytest.mark.expect_log("the cache has .* bytes that cannot be dropped, more than its limit")
async def test_a_cache_that_cannot_be_made_smaller_says_so(
    config: StoreConfig, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with Store.running(config, fetcher) as store:
        await fill(store, fetcher, "1.1", 600_000)
    monkeypatch.setattr("tciafs.store.shelf.Shelf.remove_pack", fail)
    async with Store.running(replace(config, limit_bytes=500_000), fetcher) as store:
        assert store.usage().free_bytes == 0


@pytest.mark.parametrize("size_bytes", [0, 1, 4095, 4096, 4097, 1_000_000, 64 * 1024 * 1024 + 1])
def test_no_file_takes_more_than_is_counted_for_it(tmp_path: Path, size_bytes: int) -> None:
    file = tmp_path / "file"
    with file.open("wb") as writing:
        for _ in range(size_bytes // 1_000_000):
            writing.write(bytes(1_000_000))
        writing.write(bytes(size_bytes % 1_000_000))
        writing.flush()
        os.fsync(writing.fileno())
    assert size_bytes <= bytes_on_disk(file.stat()) <= most_bytes_on_disk(size_bytes, tmp_path)
    assert most_bytes_on_disk(size_bytes, tmp_path) <= size_bytes + 3 * BLOCK_BYTES


async def test_a_series_that_had_to_make_room_before_its_reader_woke_up_says_so(
    store: Store, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "the pack is being removed")

    monkeypatch.setattr(store._shelf, "open", gone)
    download = store.fetch(make_series("1.1", 1))
    download.announce(PackedImage("1-1.dcm", 0, 1, 0))
    with pytest.raises(NoSpace, match="had to make room before it could be read"):
        await store.open(make_series("1.1", 1), "1-1.dcm")
