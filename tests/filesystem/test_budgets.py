"""Budgets: what is counted, when it is refused, that a day ends, and that a restart forgets nothing."""

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from tciafs.errors import Refused, SeriesDamaged, Unreachable
from tciafs.filesystem.budgets import (
    WRITTEN_EVERY_S,
    Budgets,
    MeteredFetcher,
    MeteredRanges,
    MeteredSurveyor,
    said_bytes,
)
from tciafs.model import ListedImage, Series
from tciafs.store.download import Announcements, Grant
from tests.fakes import make_series

SERIES = make_series(size_bytes=600)


class Calendar:
    """A day that a test turns."""

    def __init__(self) -> None:
        self.day = dt.date(2026, 11, 25)

    def __call__(self) -> dt.date:
        return self.day


@pytest.fixture
def today() -> Calendar:
    return Calendar()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "received-today.json"


def test_a_day_that_has_brought_its_bytes_brings_no_more(today: Calendar, kept: Path) -> None:
    budgets = Budgets(1000, None, kept, today)
    budgets.count(999)
    budgets.admit("a", SERIES)
    budgets.count(1)
    with pytest.raises(Refused, match=r"0\.977K have come in since midnight UTC.* \(--daily-budget\)"):
        budgets.admit("b", SERIES)
    today.day += dt.timedelta(days=1)
    budgets.admit("b", SERIES)
    assert budgets.received_today_bytes == 0


def test_a_restart_goes_on_with_the_day_and_not_with_an_old_one(today: Calendar, kept: Path) -> None:
    budgets = Budgets(1000, None, kept, today)
    budgets.count(1000)
    budgets.write()
    assert kept.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused):
        Budgets(1000, None, kept, today).admit("a", SERIES)
    today.day += dt.timedelta(days=1)
    assert Budgets(1000, None, kept, today).received_today_bytes == 0


@pytest.mark.parametrize("text", ["", "{", '{"day": 1}', '{"day": "2026-11-25", "received_bytes": -5}'])
def test_a_file_that_is_none_of_ours_counts_nothing(today: Calendar, kept: Path, text: str) -> None:
    kept.write_text(text)
    assert Budgets(None, None, kept, today).received_today_bytes == 0


def test_a_disk_that_takes_no_file_is_no_failure(tmp_path: Path) -> None:
    budgets = Budgets(None, None, tmp_path / "absent" / "today.json")
    budgets.count(1)
    budgets.write()
    assert budgets.received_today_bytes == 1


def test_a_process_is_refused_once_it_has_asked_for_its_bytes(today: Calendar, kept: Path) -> None:
    budgets = Budgets(None, 1000, kept, today)
    for _ in range(2):
        budgets.admit("a", SERIES)
    with pytest.raises(Refused, match=r"caused 1\.17K of downloads.* 0\.977K \(--process-budget\)"):
        budgets.admit("a", SERIES)
    budgets.admit("b", replace(SERIES, size_bytes=None))
    budgets.admit("b", replace(SERIES, size_bytes=10**9))


def test_without_budgets_all_is_admitted_and_counted(today: Calendar, kept: Path) -> None:
    budgets = Budgets(None, None, kept, today)
    budgets.count(10**15)
    budgets.admit("a", SERIES)
    assert budgets.received_today_bytes == 10**15


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1023, "0.999K"), (5 << 30, "5G")]
)
def test_a_size_is_said_as_it_is_set(size: int, said: str) -> None:
    assert said_bytes(size) == said


class Bringing:
    """A fetcher that tells of so many bytes, try by try, and may fail at the end."""

    def __init__(self, *progress: int, fails: bool = False) -> None:
        self.progress = progress
        self.fails = fails
        self.is_paused = False

    async def fetch(self, series: object, pack: Path, announce: Announcements, grant: object) -> None:
        for received_bytes in self.progress:
            announce.progress(received_bytes)
        if self.fails:
            raise SeriesDamaged("short")

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


async def any_size(size_bytes: int) -> int:
    return size_bytes


GRANT = Grant(1000, any_size)


def heard(progress: list[int]) -> Announcements:
    return Announcements(
        lambda image: None,
        progress.append,
        lambda checks, routes: None,
        lambda image: None,
        lambda reason: None,
    )


async def test_what_comes_in_is_counted_also_of_tries_that_failed(today: Calendar, kept: Path) -> None:
    budgets, progress = Budgets(None, None, kept, today), list[int]()
    fetcher = MeteredFetcher(Bringing(0, 100, 250, 0, 300), budgets)
    await fetcher.fetch(SERIES, kept, heard(progress), GRANT)
    assert progress == [0, 100, 250, 0, 300]
    with pytest.raises(SeriesDamaged):
        await MeteredFetcher(Bringing(7, fails=True), budgets).fetch(SERIES, kept, heard([]), GRANT)
    assert budgets.received_today_bytes == 557
    assert Budgets(None, None, kept, today).received_today_bytes == 557


async def test_once_the_day_is_spent_nothing_begins(today: Calendar, kept: Path) -> None:
    budgets, progress = Budgets(1000, None, kept, today), list[int]()
    budgets.count(1000)
    with pytest.raises(Refused):
        await MeteredFetcher(Bringing(5), budgets).fetch(SERIES, kept, heard(progress), GRANT)
    assert progress == []


def test_a_pause_is_passed_on(today: Calendar, kept: Path) -> None:
    bringing = Bringing()
    fetcher = MeteredFetcher(bringing, Budgets(None, None, kept, today))
    fetcher.pause()
    assert bringing.is_paused
    fetcher.resume()
    assert not bringing.is_paused


# What comes in small parts


class Archive:
    """Names images, and gives parts of them; `asked` counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def survey(self, series: Series, received: Callable[[int], None]) -> Sequence[ListedImage]:
        self.asked += 1
        received(4096)
        received(4096)
        if self.asked > 1:
            raise Unreachable("away")
        return [ListedImage("1-1.dcm", 5)]

    def gives(self, series: Series) -> bool:
        return True

    async def part(self, series: Series, image: ListedImage, first: int, size_bytes: int) -> bytes:
        self.asked += 1
        return bytes(size_bytes)


async def test_bytes_of_headers_and_of_parts_are_bytes_of_the_day(today: Calendar, kept: Path) -> None:
    budgets, archive = Budgets(20_000, None, kept, today), Archive()
    surveyor, ranges = MeteredSurveyor(archive, budgets), MeteredRanges(archive, budgets)
    (image,) = await surveyor.survey(SERIES) or []
    assert await ranges.part(SERIES, image, 0, 3000) == bytes(3000)
    with pytest.raises(Unreachable):
        await surveyor.survey(SERIES)
    assert budgets.received_today_bytes == 2 * 8192 + 3000
    await ranges.part(SERIES, image, 0, 5000)
    for refused in (surveyor.survey(SERIES), ranges.part(SERIES, image, 0, 1)):
        with pytest.raises(Refused, match="daily-budget"):
            await refused
    assert archive.asked == 4


async def test_what_comes_in_parts_is_written_down_now_and_then(
    today: Calendar, kept: Path, autojump_clock: trio.testing.MockClock
) -> None:
    ranges = MeteredRanges(Archive(), Budgets(None, None, kept, today))
    for _ in range(3):
        await ranges.part(SERIES, ListedImage("1-1.dcm", 9000), 0, 3000)
    assert Budgets(None, None, kept, today).received_today_bytes == 3000
    await trio.sleep(WRITTEN_EVERY_S)
    await ranges.part(SERIES, ListedImage("1-1.dcm", 9000), 0, 1)
    assert Budgets(None, None, kept, today).received_today_bytes == 9001
