"""What the daemon says of itself: what the rooms know, nothing guessed, no more than an answer holds."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace as altered

from tciafs.control.server import MOST_ANSWER_BYTES
from tciafs.control.values import DownloadStatus, FailurePage
from tciafs.errors import Refused, Unreachable
from tciafs.filesystem.budgets import Budgets
from tciafs.filesystem.guard import Guard
from tciafs.filesystem.status import About, Rooms, failures_after, snapshot
from tciafs.store.download import Arrival
from tciafs.store.store import Store, StoreConfig
from tests.fakes import FakeFetcher, make_series

SERIES = make_series("1.2.3", image_count=2, size_bytes=30)
ABOUT = About("/mnt/tcia", "https://example.org/services", 1e9, 125.0)
SPENT = Budgets(None, None, Path("/nonexistent/today"))


@dataclass
class Noted:
    at: float
    message: str


@dataclass
class FakeListings:
    requests: int = 7
    remembered: int = 5
    events: list[Noted] = field(default_factory=list)


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
async def store(fetcher: FakeFetcher, tmp_path: Path) -> AsyncIterator[Store]:
    config = StoreConfig(tmp_path / "cache", limit_bytes=1_000_000, parallel=1)
    async with Store.running(config, fetcher) as store:
        yield store


async def test_a_mount_where_nothing_happens_says_so(store: Store) -> None:
    status = snapshot(ABOUT, Rooms(store, ["one inode"], FakeListings(), Guard(), SPENT))
    assert (status.mountpoint, status.archive, status.mounted_at) == (
        ABOUT.mountpoint,
        ABOUT.archive,
        ABOUT.mounted_at,
    )
    assert (status.patience_s, status.inodes) == (125.0, 1)
    assert (status.cache.limit_bytes, status.cache.used_bytes, status.cache.series) == (1_000_000, 0, 0)
    assert (status.downloads, status.failures, status.catalogue.events) == ((), (), ())
    assert (status.catalogue.requests, status.catalogue.remembered) == (7, 5)


async def test_a_download_is_shown_as_far_as_it_has_come(store: Store, fetcher: FakeFetcher) -> None:
    store.fetch(SERIES)
    transfer = await fetcher.begun()
    store.fetch(make_series("1.2.4", image_count=None))
    transfer.bring("1-1.dcm", b"twelve bytes")
    transfer.announce.progress(9)
    status = snapshot(ABOUT, Rooms(store, [], FakeListings(), Guard(), SPENT))
    assert status.downloads == (
        DownloadStatus("1.2.3", "Lung", "P1", "arriving", 1, 2, 12, 9, 30, None, "CT"),
        DownloadStatus("1.2.4", "Lung", "P1", "queued", 0, None, 0, 0, None, None, "CT"),
    )
    assert status.downloads_total == 2
    transfer.finish()
    (await fetcher.begun(2)).finish()
    while downloads := store.downloads():
        await downloads[0].over.wait()
    status = snapshot(ABOUT, Rooms(store, [], FakeListings(), Guard(), SPENT))
    assert (status.downloads, status.cache.series) == ((), 2)
    assert status.cache.used_bytes > 0
    assert (status.since_start.series_fetched, status.since_start.series_failed) == (2, 0)


async def test_a_failure_is_shown_with_its_sentence_and_its_hint_and_when(
    store: Store, fetcher: FakeFetcher, expect_log: Callable[[str], None]
) -> None:
    expect_log("series 1.2.3: no route")
    download = store.fetch(SERIES)
    (await fetcher.begun()).end(Unreachable("no route"))
    await download.over.wait()
    (failure,) = snapshot(ABOUT, Rooms(store, [], FakeListings(), Guard(), SPENT)).failures
    (failed,) = store.failures.every()
    assert (failure.series_uid, failure.collection, failure.patient) == ("1.2.3", "Lung", "P1")
    assert (failure.error, failure.message, failure.hint) == ("Unreachable", "no route", Unreachable.hint)
    assert snapshot(ABOUT, Rooms(store, [], FakeListings(), Guard(), SPENT)).since_start.series_failed == 1
    assert (failure.at, failure.retry_at, failure.times) == (failed.at, failed.retry_at, 1)
    assert (failure.study_uid, failure.modality, failure.image_count) == ("1.2", "CT", 2)
    assert failures_after(store, "") == FailurePage((failure,), more=False)
    assert failures_after(store, "1.2.3") == FailurePage((), more=False)


@pytest.mark.parametrize("character", ["x", "ß", "\x01", "\udcff", "\\"])
async def test_of_many_failures_each_is_listed_once_and_no_page_is_too_large(
    character: str, store: Store
) -> None:
    long = character * 10_000
    for number in range(50):
        series = altered(make_series(f"1.{number:02}"), collection=long, patient_id=long, description=long)
        store.failures.note(series, Unreachable(long))
    found: list[str] = []
    more = True
    while more:
        page = failures_after(store, found[-1] if found else "")
        assert len(msgspec.json.encode(page)) < MOST_ANSWER_BYTES
        found += [each.series_uid for each in page.failures]
        more = page.more
    assert found == [f"1.{number:02}" for number in range(50)]


@pytest.mark.parametrize("character", ["x", "ß", "\x01", "\udcff", "\\"])
async def test_whatever_archives_say_and_however_much_the_answer_can_be_sent(
    character: str, store: Store, expect_log: Callable[[str], None]
) -> None:
    long = character * 100_000
    for number in range(1000):
        series = make_series(f"1.{number}")
        store.fetch(altered(series, collection=long, patient_id=long, description=long, modality=long))
    for number in range(30):
        series = altered(make_series(f"2.{number}"), collection=long, patient_id=long, description=long)
        store.failures.note(series, Unreachable(long))
        store.arrivals.append(Arrival(series, 1e9, 2, ("crc32",)))
    events = [Noted(float(number), long) for number in range(100)]
    about = replace(ABOUT, mountpoint=long, archive=long)
    status = snapshot(about, Rooms(store, [], FakeListings(events=events), Guard(), SPENT))
    assert len(msgspec.json.encode(status)) < MOST_ANSWER_BYTES
    assert (len(status.downloads), status.downloads_total) == (50, 1000)
    assert [event.at for event in status.catalogue.events] == [float(number) for number in range(80, 100)]
    assert all(event.message.endswith("...") for event in status.catalogue.events)


async def test_what_was_refused_and_what_came_in_today_is_told(store: Store) -> None:
    guard = Guard(crawlers=("updatedb",), names=lambda pid: ("updatedb",))
    for pid in (7, 8):
        with pytest.raises(Refused):
            guard.admit(pid, SERIES)
    budgets = Budgets(None, None, Path("/nonexistent/today"))
    budgets.count(1000)
    status = snapshot(ABOUT, Rooms(store, [], FakeListings(), guard, budgets))
    (refused,) = status.refusals
    assert (refused.program, refused.pid, refused.count) == ("updatedb", 8, 2)
    assert "not allowed to cause downloads" in refused.reason
    assert status.received_today_bytes == 1000
    assert (status.since_start.refused, status.since_start.received_bytes) == (2, 1000)
