"""The store: one download for all who want a series, the limit, failures, and closing in any state."""

import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace as altered
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs.errors import (
    DeadlinePassed,
    NoSpace,
    Offline,
    Refused,
    SeriesDamaged,
    TciafsError,
    Unreachable,
    Unusable,
)
from tciafs.model import Series
from tciafs.store.disk import bytes_on_disk, most_bytes_on_disk, sync_folder
from tciafs.store.disk_errors import translate_disk_error
from tciafs.store.download import Download
from tciafs.store.layout import Layout
from tciafs.store.lease import TOUCH_EVERY_S
from tciafs.store.ledger import Ledger
from tciafs.store.room import OVERHEAD_BYTES_PER_IMAGE, PACK_OVERHEAD_BYTES
from tciafs.store.shelf import Change, Shelf
from tciafs.store.store import CLOSING_PATIENCE_S, USES_EVERY_S, Store, StoreConfig
from tests.fakes import FakeFetcher, jump_until, make_series

SERIES = make_series("1.2.3")
NEWER = make_series("1.2.3", image_count=3)
IMAGES = [("1-1.dcm", b"first image"), ("1-2.dcm", b"second")]
EXPECTED_BYTES = 2 * OVERHEAD_BYTES_PER_IMAGE + PACK_OVERHEAD_BYTES
"""What is reserved for two images of no size."""


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(tmp_path / "cache", limit_bytes=1_000_000, patience_s=10.0)


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
async def store(config: StoreConfig, fetcher: FakeFetcher) -> AsyncIterator[Store]:
    async with Store.running(config, fetcher) as store:
        yield store


async def read(store: Store, series: Series, name: str) -> bytes | None:
    opened = await store.open(series, name)
    if opened is None:
        return None
    with closing(opened):
        return opened.read(0, 1_000_000)


async def settled(store: Store) -> None:
    """Wait until all downloads are over and tidied up; no time passes meanwhile."""
    while store._nursery.child_tasks:
        await trio.lowlevel.checkpoint()


async def failure_of(store: Store, download: Download) -> TciafsError | None:
    await settled(store)
    assert download.over.is_set()
    return download.failure


def on_disk(file: Path) -> int:
    return bytes_on_disk(file.stat())


def files(config: StoreConfig, kind: str) -> list[Path]:
    return [file for file in (config.folder / kind).rglob("*") if file.is_file()]


# -- one download --


async def test_a_series_is_fetched_when_it_is_first_opened(store: Store, fetcher: FakeFetcher) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    assert store.open_local(SERIES, "1-1.dcm") is None
    assert [await read(store, SERIES, name) for name, _ in IMAGES] == [data for _, data in IMAGES]
    await settled(store)
    assert await read(store, SERIES, "9-9.dcm") is None
    assert len(fetcher.transfers) == 1
    opened = store.open_local(SERIES, "1-1.dcm")
    assert opened is not None
    opened.close()


async def test_two_hundred_readers_cause_one_download(
    store: Store, fetcher: FakeFetcher, nursery: trio.Nursery
) -> None:
    seen: list[tuple[str, bytes | None]] = []

    async def reader(name: str) -> None:
        seen.append((name, await read(store, SERIES, name)))

    for number in range(200):
        nursery.start_soon(reader, f"1-{number % 2 + 1}.dcm")
    transfer = await fetcher.begun()
    await wait_all_tasks_blocked()
    transfer.bring("1-2.dcm", b"second")
    await wait_all_tasks_blocked()
    assert seen == [("1-2.dcm", b"second")] * 100
    transfer.bring("1-1.dcm", b"first image")
    await wait_all_tasks_blocked()
    assert (len(seen), len(fetcher.transfers)) == (200, 1)
    transfer.finish()
    await settled(store)
    assert store.state(SERIES) == "local"


async def test_an_image_is_read_from_the_growing_pack_and_on_through_its_publication(
    store: Store, fetcher: FakeFetcher, nursery: trio.Nursery
) -> None:
    store.fetch(SERIES)
    transfer = await fetcher.begun()
    transfer.bring(*IMAGES[0])
    opened = await store.open(SERIES, "1-1.dcm")
    assert opened is not None
    with closing(opened):
        assert opened.read(6, 99) == b"image"
        transfer.bring(*IMAGES[1])
        transfer.finish()
        await settled(store)
        assert opened.read(0, 5) == b"first"


async def test_a_name_that_the_series_does_not_have_is_no_image(store: Store, fetcher: FakeFetcher) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    assert await store.open(SERIES, "9-9.dcm") is None


async def test_a_reader_who_goes_away_harms_nobody(store: Store, fetcher: FakeFetcher) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as readers:
            readers.start_soon(store.open, SERIES, "1-1.dcm")
            transfer = await fetcher.begun()
            await wait_all_tasks_blocked()
            scope.cancel()
    assert not transfer.cancelled
    transfer.bring(*IMAGES[0])
    assert await read(store, SERIES, "1-1.dcm") == b"first image"
    transfer.finish()
    await settled(store)
    assert len(fetcher.transfers) == 1


async def test_the_state_of_a_series_is_what_has_become_of_it(
    store: Store, fetcher: FakeFetcher, expect_log: Callable[[str], None]
) -> None:
    expect_log("WARNING tciafs.store.store: series 1.2.4: gone")
    assert store.state(SERIES) == "remote"
    store.fetch(SERIES)
    assert store.state(SERIES) == "arriving"
    transfer = await fetcher.begun()
    transfer.bring(*IMAGES[0])
    transfer.finish()
    await settled(store)
    assert (store.state(SERIES), store.peek_download(SERIES)) == ("local", None)
    with store._shelf.leaving("1.2.3") as change:
        assert store.state(SERIES) == "evicted", "from the moment on that it is decided"
        store._shelf.remove_pack(change)
    known = store.peek(SERIES)
    assert known is not None
    assert (store.state(SERIES), known.layout.images.names) == ("evicted", ["1-1.dcm"])
    other = make_series("1.2.4")
    download = store.fetch(other)
    (await fetcher.begun(2)).end(Unreachable("gone"))
    await failure_of(store, download)
    assert store.state(other) == "failed"


async def test_the_downloads_under_way_are_shown_in_the_order_they_were_asked_for(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(replace(config, parallel=1), fetcher) as store:
        assert store.downloads() == ()
        first = store.fetch(SERIES)
        transfer = await fetcher.begun()
        second = store.fetch(make_series("1.2.4"))
        assert store.downloads() == (first, second)
        assert [each.state for each in store.downloads()] == ["arriving", "queued"]
        transfer.bring(*IMAGES[0])
        transfer.finish()
        (await fetcher.begun(2)).finish()
        await settled(store)
        assert store.downloads() == ()


async def test_no_more_series_come_in_than_allowed(config: StoreConfig, fetcher: FakeFetcher) -> None:
    async with Store.running(replace(config, parallel=2), fetcher) as store:
        for number in range(5):
            store.fetch(make_series(f"1.{number}"))
        for number in range(1, 6):
            transfer = await fetcher.begun(number)
            await wait_all_tasks_blocked()
            assert fetcher.running <= 2
            transfer.finish()
        await settled(store)
    assert (len(fetcher.transfers), fetcher.most_running) == (5, 2)


# -- versions --


async def test_a_reader_of_the_old_version_gets_what_is_coming_in(
    store: Store, fetcher: FakeFetcher, nursery: trio.Nursery
) -> None:
    fetcher.contents["1.2.3"] = [("1-1.dcm", b"old " * 9), ("1-2.dcm", b"older")]
    assert await read(store, SERIES, "1-1.dcm") == b"old " * 9
    await settled(store)
    del fetcher.contents["1.2.3"]
    store._shelf._forget("1.2.3")
    store.fetch(NEWER)
    transfer = await fetcher.begun(2)
    transfer.bring("1-3.dcm", b"new")
    unlisted = altered(SERIES, image_count=99)
    opened = await store.open(unlisted, "1-3.dcm")
    assert opened is not None
    with closing(opened):
        assert (opened.read(0, 99), opened.version) == (b"new", NEWER.version)
    transfer.finish()


async def test_readers_of_a_replaced_version_keep_its_bytes(store: Store, fetcher: FakeFetcher) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    opened = await store.open(SERIES, "1-1.dcm")
    await settled(store)
    assert opened is not None
    fetcher.contents["1.2.3"] = [("1-1.dcm", b"new")]
    assert await read(store, NEWER, "1-1.dcm") == b"new"
    await settled(store)
    assert opened.read(0, 99) == b"first image"
    opened.close()
    assert len(files(store._config, "series")) == 1


# -- failures --


async def test_a_failure_is_shared_and_remembered_for_a_while(
    store: Store,
    config: StoreConfig,
    fetcher: FakeFetcher,
    autojump_clock: MockClock,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("series 1.2.3: gone")
    failures: list[Exception] = []

    async def reader() -> None:
        with pytest.raises(Unreachable) as raised:
            await store.open(SERIES, "1-2.dcm")
        failures.append(raised.value)

    async with trio.open_nursery() as readers:
        for _ in range(10):
            readers.start_soon(reader)
        transfer = await fetcher.begun()
        transfer.bring(*IMAGES[0])
        transfer.end(Unreachable("gone"))
    assert len(failures) == 10
    await trio.sleep(config.failure_memory_s - 1)
    with pytest.raises(Unreachable, match="gone"):
        await store.open(SERIES, "1-1.dcm")
    assert len(fetcher.transfers) == 1
    assert [(each.series, str(each.failure)) for each in store.failures.every()] == [(SERIES, "gone")]
    assert store.state(SERIES) == "failed"
    await trio.sleep(1)
    fetcher.contents["1.2.3"] = IMAGES
    assert await read(store, SERIES, "1-1.dcm") == b"first image"
    await settled(store)
    assert (store.failures.every(), store.state(SERIES)) == ((), "local")


@pytest.mark.expect_log("series 1.2.3: came short")
async def test_a_damaged_series_fails_at_once_after_a_restart_until_somebody_wants_it_asked_for_again(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(config, fetcher) as store:
        store.fetch(SERIES)
        (await fetcher.begun()).end(SeriesDamaged("came short"))
        await settled(store)
    fetcher.contents["1.2.3"] = IMAGES
    async with Store.running(config, fetcher) as store:
        assert store.state(SERIES) == "failed"
        with pytest.raises(SeriesDamaged, match="came short"):
            await store.open(SERIES, "1-1.dcm")
        assert len(fetcher.transfers) == 1
        store.failures.forget(lambda series: series == SERIES)
        assert await read(store, SERIES, "1-1.dcm") == b"first image"


async def test_a_series_that_was_under_way_when_the_store_closed_has_not_failed(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(config, fetcher) as store:
        store.fetch(SERIES)
        await fetcher.begun()
    fetcher.contents["1.2.3"] = IMAGES
    async with Store.running(config, fetcher) as store:
        assert store.failures.every() == ()
        assert await read(store, SERIES, "1-1.dcm") == b"first image"


@pytest.mark.expect_log("a day may bring no more")
async def test_a_download_that_was_refused_is_no_failure_of_the_series(
    store: Store, fetcher: FakeFetcher
) -> None:
    download = store.fetch(SERIES)
    (await fetcher.begun()).end(Refused("a day may bring no more"))
    await download.over.wait()
    assert isinstance(download.failure, Refused)
    assert store.failures.find(SERIES) is None


async def test_a_failed_download_leaves_nothing_behind(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, expect_log: Callable[[str], None]
) -> None:
    expect_log("damaged")
    download = store.fetch(SERIES)
    transfer = await fetcher.begun()
    transfer.bring(*IMAGES[0])
    opened = await store.open(SERIES, "1-1.dcm")
    transfer.end(SeriesDamaged("damaged"))
    assert isinstance(await failure_of(store, download), SeriesDamaged)
    assert opened is not None
    with closing(opened):
        assert opened.read(0, 99) == b"first image"
    assert (files(config, "incoming"), files(config, "series")) == ([], [])
    assert (store.usage().used_bytes, store.peek(SERIES), store._room.reserved_bytes) == (0, None, 0)


@pytest.mark.expect_log("ERROR .* failed in an unexpected way")
@pytest.mark.expect_log("WARNING .* series 1.2.3: the download of series 1.2.3 failed: ZeroDivisionError")
async def test_an_unexpected_failure_ends_the_download_and_not_the_store(
    store: Store, fetcher: FakeFetcher
) -> None:
    download = store.fetch(SERIES)
    (await fetcher.begun()).end(ZeroDivisionError("by zero"))
    failure = await failure_of(store, download)
    assert type(failure) is TciafsError
    fetcher.contents["1.2.4"] = IMAGES
    assert await read(store, make_series("1.2.4"), "1-2.dcm") == b"second"


@pytest.mark.expect_log("ended without being verified")
async def test_a_series_that_nobody_verified_is_not_published(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    download = store.fetch(SERIES)
    transfer = await fetcher.begun()
    transfer.bring(*IMAGES[0])
    transfer.end()
    assert isinstance(await failure_of(store, download), SeriesDamaged)
    assert files(config, "series") == []


@pytest.mark.expect_log("the cache folder failed: Input/output error")
async def test_a_series_that_cannot_be_published_fails_those_who_come_later(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    download = store.fetch(SERIES)
    transfer = await fetcher.begun()
    transfer.bring(*IMAGES[0])
    opened = await store.open(SERIES, "1-1.dcm")
    monkeypatch.setattr(Shelf, "publish", fail)
    transfer.finish()
    assert type(await failure_of(store, download)) is TciafsError
    assert download.layout is not None
    assert (await download.wait_settled(1.0)).images == download.layout.images
    assert opened is not None
    with closing(opened):
        assert opened.read(0, 99) == b"first image"
        with pytest.raises(TciafsError, match="Input/output"):
            await store.open(SERIES, "1-1.dcm")
    assert (files(config, "incoming"), files(config, "series")) == ([], [])


@pytest.mark.expect_log("Input/output error")
async def test_one_who_waited_while_publishing_failed_is_told_so(
    store: Store, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Shelf, "publish", fail)
    download = store.fetch(SERIES)
    transfer = await fetcher.begun()
    transfer.bring(*IMAGES[0])
    transfer.finish()
    await failure_of(store, download)
    store._downloads["1.2.3"] = download  # as if it had ended between the wake-up and the open
    with pytest.raises(TciafsError, match="Input/output"):
        await store.open(SERIES, "1-1.dcm")
    del store._downloads["1.2.3"]


@pytest.mark.expect_log("could not be removed: Is a directory")
@pytest.mark.expect_log("series 1.2.3: gone")
async def test_a_file_that_cannot_be_removed_ends_neither_download_nor_store(
    store: Store, fetcher: FakeFetcher
) -> None:
    download = store.fetch(SERIES)
    transfer = await fetcher.begun()
    transfer.pack.unlink()
    transfer.pack.mkdir()
    transfer.end(Unreachable("gone"))
    assert isinstance(await failure_of(store, download), Unreachable)


async def test_opening_says_why_when_the_system_is_out_of_descriptors(
    store: Store, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    fetcher.contents["1.2.3"] = IMAGES
    assert await read(store, SERIES, "1-1.dcm") == b"first image"
    await settled(store)
    monkeypatch.setattr("tciafs.store.open_packs.os.open", fail)
    with pytest.raises(TciafsError, match="Too many open files"):
        store.open_local(SERIES, "1-1.dcm")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_no_space(number: int) -> None:
    assert isinstance(translate_disk_error(OSError(number, "full")), NoSpace)
    assert type(translate_disk_error(OSError("nothing more"))) is TciafsError


async def test_silence_ends_the_wait_and_not_the_download(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, autojump_clock: MockClock
) -> None:
    with pytest.raises(DeadlinePassed):
        await store.open(SERIES, "1-1.dcm")
    assert (trio.current_time(), store.patience_s) == (config.patience_s, config.patience_s)
    (await fetcher.begun()).bring(*IMAGES[0])
    assert await read(store, SERIES, "1-1.dcm") == b"first image"


async def test_one_who_waits_for_a_turn_is_patient_while_others_come_in(
    config: StoreConfig, fetcher: FakeFetcher, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    seen: list[bytes | None] = []

    async def reader(store: Store) -> None:
        seen.append(await read(store, make_series("1.2.4"), "1-1.dcm"))

    async with Store.running(replace(config, parallel=1), fetcher) as store:
        store.fetch(SERIES)
        first = await fetcher.begun()
        nursery.start_soon(reader, store)
        for received_bytes in range(5):
            await wait_all_tasks_blocked()
            mock_clock.jump(config.patience_s - 1)
            first.announce.progress(received_bytes)
        fetcher.contents["1.2.4"] = IMAGES
        first.finish()
        await settled(store)
        await wait_all_tasks_blocked()
    assert seen == [b"first image"]


# -- the limit --


def large(uid: str, size_bytes: int, image_count: int = 2) -> Series:
    return make_series(uid, image_count, size_bytes)


async def fill(store: Store, fetcher: FakeFetcher, uid: str, size_bytes: int) -> Series:
    series = large(uid, size_bytes)
    fetcher.contents[uid] = [("1-1.dcm", bytes(size_bytes)), ("1-2.dcm", b"")]
    await read(store, series, "1-1.dcm")
    await settled(store)
    return series


@pytest.mark.expect_log("needs .* bytes")
async def test_a_series_larger_than_the_limit_evicts_nothing(store: Store, fetcher: FakeFetcher) -> None:
    kept = await fill(store, fetcher, "1.1", 1000)
    with pytest.raises(NoSpace, match="needs 1,004,352 bytes"):
        await store.open(large("1.2", 1_000_000), "1-1.dcm")
    assert store.state(kept) == "local"
    assert len(fetcher.transfers) == 1


async def test_the_longest_unused_make_room(
    store: Store, config: StoreConfig, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1, 999))
    monkeypatch.setattr("tciafs.store.shelf.time.time", lambda: float(next(clock)))
    series = [await fill(store, fetcher, f"1.{number}", 300_000) for number in range(3)]
    assert await read(store, series[0], "1-2.dcm") == b""
    await fill(store, fetcher, "1.9", 300_000)
    assert [store.state(each) for each in series] == ["local", "evicted", "local"]
    assert store.usage().used_bytes <= config.limit_bytes
    assert files(config, "incoming") == []
    assert sum(map(on_disk, files(config, "series"))) == store.usage().used_bytes


@pytest.mark.expect_log("are open or coming in")
async def test_what_is_open_stays(store: Store, fetcher: FakeFetcher) -> None:
    held = await fill(store, fetcher, "1.1", 600_000)
    free = await fill(store, fetcher, "1.2", 300_000)
    opened = store.open_local(held, "1-1.dcm")
    assert opened is not None
    with closing(opened):
        with pytest.raises(NoSpace):
            await store.open(large("1.3", 500_000), "1-1.dcm")
        assert (store.state(held), store.state(free)) == ("local", "local")
        await fill(store, fetcher, "1.4", 300_000)
        assert (store.state(held), store.state(free)) == ("local", "evicted")


async def test_an_evicted_series_is_fetched_again_when_it_is_read(store: Store, fetcher: FakeFetcher) -> None:
    first = await fill(store, fetcher, "1.1", 600_000)
    await fill(store, fetcher, "1.2", 600_000)
    assert store.state(first) == "evicted"
    assert await store.open(first, "9-9.dcm") is None
    assert len(fetcher.transfers) == 2
    assert await read(store, first, "1-1.dcm") == bytes(600_000)
    await settled(store)
    assert len(fetcher.transfers) == 3


async def test_downloads_under_way_have_their_room_and_others_wait_for_it(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    first = store.fetch(large("1.1", 600_000))
    first_transfer = await fetcher.begun()
    waiting = store.fetch(large("1.2", 600_000))
    small = store.fetch(large("1.3", 300_000))
    small_transfer = await fetcher.begun(2)
    expected_bytes = [most_bytes_on_disk(size + EXPECTED_BYTES, config.folder) for size in (600_000, 300_000)]
    assert store._room.reserved_bytes == sum(expected_bytes)
    first_transfer.finish()
    waiting_transfer = await fetcher.begun(3)
    await first.over.wait()
    for transfer in (small_transfer, waiting_transfer):
        transfer.finish()
    await settled(store)
    assert waiting.failure is None
    assert small.failure is None
    assert store._room.reserved_bytes == 0


@pytest.mark.expect_log("are open or coming in")
async def test_a_series_gives_up_its_wait_for_room_when_nothing_is_coming_in_any_more(
    store: Store, fetcher: FakeFetcher
) -> None:
    store.fetch(large("1.1", 600_000))
    transfer = await fetcher.begun()
    waiting = store.fetch(large("1.2", 600_000))
    transfer.bring("1-1.dcm", bytes(599_999))
    opened = await store.open(large("1.1", 600_000), "1-1.dcm")
    transfer.finish()
    await waiting.over.wait()
    assert isinstance(waiting.failure, NoSpace)
    assert opened is not None
    opened.close()


@pytest.mark.expect_log("are open or coming in")
async def test_a_series_of_unknown_size_must_fit_once_it_is_known(
    store: Store, config: StoreConfig, fetcher: FakeFetcher
) -> None:
    await fill(store, fetcher, "1.1", 600_000)
    fetcher.contents["1.2"] = [("1-1.dcm", bytes(600_000))]
    unknown = make_series("1.2", image_count=None)
    await read(store, unknown, "1-1.dcm")
    await settled(store)
    assert (store.state(unknown), store.state(large("1.1", 600_000))) == ("local", "evicted")
    fetcher.contents["1.3"] = [("1-1.dcm", bytes(1_200_000))]
    download = store.fetch(make_series("1.3", image_count=None))
    assert isinstance(await failure_of(store, download), NoSpace)
    assert (files(config, "incoming"), store.state(unknown)) == ([], "local")


async def test_an_old_version_makes_room_for_the_new(store: Store, fetcher: FakeFetcher) -> None:
    await fill(store, fetcher, "1.1", 600_000)
    newer = await fill(store, fetcher, "1.1", 700_000)
    assert store.state(newer) == "local"
    assert 700_000 < store.usage().used_bytes < 710_000


async def test_usage_is_the_limit_and_what_is_left_of_it(
    store: Store, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (store.usage().free_bytes, store.usage().series_count) == (1_000_000, 0)
    await fill(store, fetcher, "1.1", 600_000)
    usage = store.usage()
    assert (usage.limit_bytes, usage.free_bytes) == (1_000_000, 1_000_000 - usage.used_bytes)
    assert usage.series_count == 1

    class FullDisk:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr("tciafs.store.store.os.statvfs", lambda _: FullDisk)
    assert store.usage().free_bytes == 4096


# -- offline, closing, sharing --


async def test_offline_reads_what_is_here_and_fetches_nothing(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    async with Store.running(config, fetcher) as store:
        await read(store, SERIES, "1-1.dcm")
        await settled(store)
    async with Store.running(replace(config, offline=True), fetcher) as store:
        assert await read(store, SERIES, "1-1.dcm") == b"first image"
        with pytest.raises(Offline, match="--offline"):
            await store.open(make_series("1.2.4"), "1-1.dcm")
    assert len(fetcher.transfers) == 1


async def test_closing_ends_downloads_and_leaves_no_trace_of_them(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(replace(config, parallel=1), fetcher) as store:
        running, queued = store.fetch(SERIES), store.fetch(make_series("1.2.4"))
        transfer = await fetcher.begun()
        transfer.bring(*IMAGES[0])
    assert transfer.cancelled
    for download in (running, queued):
        assert isinstance(download.failure, Unreachable)
        with pytest.raises(Unreachable, match="tciafs closed"):
            await download.wait_for("1-2.dcm", 1.0)
    assert (files(config, "incoming"), files(config, "series")) == ([], [])
    async with Store.running(config, fetcher) as store:
        assert (store.state(SERIES), store.usage().used_bytes) == ("remote", 0)


async def test_closing_still_publishes_the_series_that_are_complete(
    config: StoreConfig, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = trio.Event(), threading.Event()
    publish, token = Shelf.publish, trio.lowlevel.current_trio_token()

    def publish_slowly(shelf: Shelf, layout: Layout, incoming: Path, change: Change) -> None:
        token.run_sync_soon(begun.set)
        assert go_on.wait(30)
        publish(shelf, layout, incoming, change)

    monkeypatch.setattr(Shelf, "publish", publish_slowly)
    fetcher.contents = {"1.2.3": IMAGES, "1.2.4": IMAGES}
    other = make_series("1.2.4")
    async with Store.running(config, fetcher) as store:
        downloads = [store.fetch(SERIES), store.fetch(other)]
        await begun.wait()
        await wait_all_tasks_blocked()  # one is being published, the other waits for that
        token.run_sync_soon(go_on.set)
    assert [download.failure for download in downloads] == [None, None]
    async with Store.running(config, fetcher) as store:
        assert [store.state(SERIES), store.state(other)] == ["local", "local"]


async def test_series_survive_a_restart(config: StoreConfig, fetcher: FakeFetcher) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    async with Store.running(config, fetcher) as store:
        await read(store, SERIES, "1-1.dcm")
        await settled(store)
        used_bytes = store.usage().used_bytes
    async with Store.running(config, fetcher) as store:
        assert await read(store, SERIES, "1-2.dcm") == b"second"
        assert store.usage().used_bytes == used_bytes
    assert len(fetcher.transfers) == 1


@asynccontextmanager
async def taken(config: StoreConfig) -> AsyncIterator[None]:
    async with Store.running(config, FakeFetcher()):
        yield


async def test_a_second_store_on_one_folder_says_so(
    store: Store, config: StoreConfig, autojump_clock: MockClock
) -> None:
    with pytest.raises(Unusable, match=r"another tciafs .* uses the cache folder .* --cache-dir"):
        async with taken(config):
            pass


async def test_a_store_waits_for_one_that_is_just_closing(
    config: StoreConfig, fetcher: FakeFetcher, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def hold() -> None:
        async with taken(config):
            await trio.sleep(3)

    nursery.start_soon(hold)
    await trio.sleep(1)
    async with taken(config):
        assert trio.current_time() >= 3


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_one_who_stops_waiting_for_the_folder_leaves_no_descriptor(
    store: Store, config: StoreConfig, autojump_clock: MockClock
) -> None:
    before = open_descriptors()
    with trio.move_on_after(1) as scope:
        async with taken(config):
            pass
    assert scope.cancelled_caught
    assert open_descriptors() == before


async def test_a_folder_that_is_a_file_is_unusable(config: StoreConfig) -> None:
    config.folder.write_text("in the way")
    with pytest.raises(Unusable, match="cannot be used"):
        async with taken(config):
            pass


async def test_a_folder_with_something_in_the_way_is_unusable(config: StoreConfig) -> None:
    (config.folder / "ledger.sqlite").mkdir(parents=True)
    with pytest.raises(Unusable, match="cannot be used"):
        async with taken(config):
            pass
    async with trio.open_nursery():
        (config.folder / "ledger.sqlite").rmdir()
        async with taken(config):  # the lock was let go
            pass


@pytest.mark.expect_log("was taken over by another tciafs; what is in it can still be read")
async def test_a_store_whose_folder_was_taken_away_reads_on_and_writes_nothing(
    config: StoreConfig, fetcher: FakeFetcher, autojump_clock: MockClock
) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    async with Store.running(config, fetcher) as store:
        await read(store, SERIES, "1-1.dcm")
        await settled(store)
        coming_in = store.fetch(make_series("1.2.4"))
        transfer = await fetcher.begun(2)
        transfer.bring(*IMAGES[0])
        (config.folder / "lease" / "2").touch()
        await coming_in.over.wait()
        assert isinstance(coming_in.failure, Unusable)
        assert transfer.cancelled
        assert await read(store, SERIES, "1-2.dcm") == b"second"
        with pytest.raises(Unusable, match="taken over"):
            await store.open(make_series("1.2.5"), "1-1.dcm")
        ledger = (config.folder / "ledger.sqlite-wal").read_bytes()
        with pytest.raises(OSError, match="belongs to somebody else"):
            store._shelf.flush_recency()
        assert (config.folder / "ledger.sqlite-wal").read_bytes() == ledger
    assert (config.folder / "lease" / "2").exists()


@pytest.mark.expect_log("was taken over by another tciafs")
@pytest.mark.expect_log("the pack of series 1.2.3 vanished")
async def test_what_another_removed_from_a_folder_that_was_lost_is_not_here(
    config: StoreConfig, fetcher: FakeFetcher, autojump_clock: MockClock
) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    async with Store.running(config, fetcher) as store:
        await read(store, SERIES, "1-1.dcm")
        await settled(store)
        (config.folder / "lease" / "2").touch()
        await jump_until(lambda: store._lost is not None, TOUCH_EVERY_S)
        for file in files(config, "series"):
            file.unlink()
        with pytest.raises(Unusable, match="taken over"):
            await read(store, SERIES, "1-1.dcm")


async def test_uses_are_written_down_now_and_then_and_not_at_each_read(
    store: Store, fetcher: FakeFetcher, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    really = Ledger.used

    def used(ledger: Ledger, used_at: Mapping[str, float]) -> None:
        really(ledger, used_at)
        written.append(len(used_at))

    monkeypatch.setattr(Ledger, "used", used)
    fetcher.contents["1.2.3"] = IMAGES
    for _ in range(50):
        await read(store, SERIES, "1-1.dcm")
    assert written == []
    await jump_until(lambda: bool(written), USES_EVERY_S)
    assert written == [1]


async def test_a_series_that_is_verified_is_still_published_when_the_store_closes(
    config: StoreConfig, fetcher: FakeFetcher, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    series = large("1.1", 600_000)
    async with Store.running(config, fetcher) as store:
        store.fetch(series)
        transfer = await fetcher.begun()
        transfer.bring("1-1.dcm", b"whole")
        transfer.verify()

        async def finish_while_the_store_closes() -> None:
            await trio.sleep(CLOSING_PATIENCE_S / 2)
            transfer.finish()

        nursery.start_soon(finish_while_the_store_closes)
    async with Store.running(config, FakeFetcher()) as store:
        assert store.state(series) == "local"


async def test_what_is_being_published_counts_once_when_another_needs_room(
    store: Store, fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, fetcher, "1.1", 400_000)
    publishing, may_go_on = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def sync_slowly(folder: Path) -> None:
        token.run_sync_soon(publishing.set)
        may_go_on.wait()
        sync_folder(folder)

    monkeypatch.setattr("tciafs.store.places.sync_folder", sync_slowly)
    unknown = store.fetch(make_series("1.3", image_count=1))
    of_unknown_size = await fetcher.begun(2)
    await of_unknown_size.make_room(450_000)
    of_unknown_size.bring("1-1.dcm", bytes(450_000))
    store.fetch(large("1.2", 300_000, image_count=1))
    other = await fetcher.begun(3)
    other.bring("1-1.dcm", bytes(300_000))
    other.finish()
    await publishing.wait()
    of_unknown_size.finish()
    await wait_all_tasks_blocked(0.01)
    may_go_on.set()
    await unknown.over.wait()
    assert unknown.failure is None
    await settled(store)


async def test_while_paused_nothing_begins_and_what_is_here_is_read(
    store: Store, fetcher: FakeFetcher
) -> None:
    fetcher.contents["1.2.3"] = IMAGES
    assert await read(store, SERIES, "1-1.dcm") == b"first image"
    store.pausing.begin()
    assert fetcher.is_paused
    assert str(store.pausing.refusal) == "downloads are paused; tciafs resume lets them go on"
    assert await read(store, SERIES, "1-2.dcm") == b"second"
    with pytest.raises(Refused, match="paused"):
        await store.open(make_series("1.2.4"), "1-1.dcm")
    store.pausing.end()
    assert (fetcher.is_paused, store.pausing.refusal) == (False, None)
    fetcher.contents["1.2.4"] = IMAGES
    assert await read(store, make_series("1.2.4"), "1-1.dcm") == b"first image"


async def test_a_pause_stops_downloads_where_they_are_and_those_in_the_queue(
    config: StoreConfig, fetcher: FakeFetcher
) -> None:
    async with Store.running(replace(config, parallel=1), fetcher) as store, trio.open_nursery() as nursery:
        other, refused = make_series("1.2.4"), list[str]()

        async def look(series: Series) -> None:
            with pytest.raises(Refused):
                await store.open(series, "1-1.dcm")
            refused.append(series.series_uid)

        nursery.start_soon(look, SERIES)
        transfer = await fetcher.begun()
        nursery.start_soon(look, other)
        await wait_all_tasks_blocked()
        store.pausing.begin()
        await wait_all_tasks_blocked()
        assert sorted(refused) == ["1.2.3", "1.2.4"]
        for name, data in IMAGES:
            transfer.bring(name, data)
        transfer.finish()
        await store.fetch(SERIES).over.wait()
        await wait_all_tasks_blocked()
        assert len(fetcher.transfers) == 1
        fetcher.contents["1.2.4"] = IMAGES
        store.pausing.end()
        assert await read(store, other, "1-1.dcm") == b"first image"
