"""What was read: of each series the last day, written once in a while and never by a read."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from tciafs.filesystem import usage as usage_module
from tciafs.filesystem.usage import Source, Usage
from tests.fakes import make_series

ONE = replace(make_series("1.2.3"), data_uri="https://doi.org/10.1/x", licence_name="CC BY 4.0")
OTHER = replace(ONE, series_uid="1.2.4")
ELSEWHERE = replace(ONE, series_uid="1.2.5", collection="Brain", data_uri=None, licence_name=None)
LUNG = Source("Lung", "https://doi.org/10.1/x", "CC BY 4.0", "", "")
BRAIN = Source("Brain", "", "", "", "")
FIRST = dt.date(2026, 1, 31)


class Calendar:
    """A day that the test turns."""

    day = FIRST

    def __call__(self) -> dt.date:
        return self.day


def test_each_series_counts_once_and_from_its_last_day_on(tmp_path: Path) -> None:
    calendar = Calendar()
    usage = Usage(tmp_path / "usage", calendar)
    for series in (ONE, ONE, OTHER, ELSEWHERE):
        usage.note(series)
    assert usage.since(FIRST) == {LUNG: 2, BRAIN: 1}
    calendar.day = FIRST + dt.timedelta(days=1)
    usage._day = calendar.day.toordinal()
    usage.note(OTHER)
    assert usage.since(calendar.day) == {LUNG: 1}
    assert usage.since(dt.date.min) == {LUNG: 2, BRAIN: 1}
    assert usage.since(dt.date(2026, 3, 1)) == {}


async def test_it_outlives_the_daemon_and_a_second_reading_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "usage"
    async with Usage.running(file) as usage:
        usage.note(ONE)
        assert not file.exists()
    assert file.stat().st_mode & 0o077 == 0
    before = file.stat().st_ino
    async with Usage.running(file) as usage:
        assert usage.since(dt.date.min) == {LUNG: 1}
        assert not usage.is_news(ONE)
        assert usage.is_news(OTHER)
    assert file.stat().st_ino == before


async def test_it_is_written_while_the_daemon_runs(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, written, write = tmp_path / "usage", trio.Event(), Usage._write_text

    def write_and_tell(usage: Usage, text: bytes) -> None:
        write(usage, text)
        trio.from_thread.run_sync(written.set)

    monkeypatch.setattr(Usage, "_write_text", write_and_tell)
    async with Usage.running(file) as usage:
        usage.note(ONE)
        await written.wait()
        assert Usage(file).since(dt.date.min) == {LUNG: 1}


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"{}"])
def test_what_cannot_be_read_was_never_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "usage").write_bytes(content)
    assert Usage(tmp_path / "usage").since(dt.date.min) == {}


def test_the_longest_unread_are_forgotten_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "MOST_SERIES", 20)
    calendar = Calendar()
    usage = Usage(tmp_path / "usage", calendar)
    usage.note(ELSEWHERE)
    calendar.day = FIRST + dt.timedelta(days=1)
    for number in range(20):
        usage.note(replace(ONE, series_uid=f"1.9.{number}"))
    found = usage.since(dt.date.min)
    assert BRAIN not in found
    assert 18 <= found[LUNG] <= 20


async def test_a_folder_that_cannot_be_written_is_said_and_no_end(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("what was read could not be written down")
    async with Usage.running(tmp_path / "gone" / "usage") as usage:
        usage.note(ONE)
