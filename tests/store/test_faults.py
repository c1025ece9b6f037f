"""Whatever fails, and wherever process or power die: the next start has all that was whole, and agrees."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tciafs.model import Series
from tciafs.store.disk import bytes_on_disk
from tciafs.store.shelf import Shelf
from tests.fakes import make_series, write_pack
from tests.store.faulty_disk import Crash, FaultyDisk, PowerLog

A, NEWER_A = make_series("1.1"), make_series("1.1", image_count=3)
B, C = make_series("1.2"), make_series("1.3")
CONTENTS = {
    (series.series_uid, series.version): [
        (f"1-{number}.dcm", f"{series.series_uid} {series.version} {number}".encode() * 50)
        for number in range(1, 4)
    ]
    for series in (A, NEWER_A, B, C)
}


def publish(shelf: Shelf, series: Series) -> None:
    file = shelf.new_pack(series)
    layout = write_pack(file, series, *CONTENTS[series.series_uid, series.version])
    with shelf.replacing(series.series_uid) as change:
        shelf.publish(layout, file, change)


def evict(shelf: Shelf, series: Series) -> None:
    with shelf.leaving(series.series_uid) as change:
        shelf.remove_pack(change)


class Story:
    """What a cache goes through; `whole` are the series that were in it for certain at each point."""

    def __init__(self) -> None:
        self.whole: set[Series] = set()
        self.shelf: Shelf | None = None

    def steps(self) -> Iterator[Callable[[Shelf], None]]:
        yield lambda shelf: self._publish(shelf, A)
        yield lambda shelf: self._publish(shelf, B)
        yield lambda shelf: self._read(shelf, A)
        yield lambda shelf: self._evict(shelf, B)
        yield lambda shelf: self._publish(shelf, NEWER_A, instead_of=A)
        yield lambda shelf: shelf.flush_recency()
        yield lambda shelf: self._publish(shelf, C)
        yield lambda shelf: self._publish(shelf, B)

    def _publish(self, shelf: Shelf, series: Series, instead_of: Series | None = None) -> None:
        self.whole.discard(series if instead_of is None else instead_of)
        publish(shelf, series)
        self.whole.add(series)

    def _evict(self, shelf: Shelf, series: Series) -> None:
        self.whole.discard(series)
        evict(shelf, series)

    def _read(self, shelf: Shelf, series: Series) -> None:
        name, data = CONTENTS[series.series_uid, series.version][0]
        opened = shelf.open_local(series, name)
        if opened is not None:
            with closing(opened):
                assert opened.read(0, 10_000) == data


def on_disk(folder: Path) -> int:
    return sum(bytes_on_disk(file.stat()) for file in folder.rglob("*") if file.is_file())


def check(folder: Path, whole: set[Series]) -> None:
    """Start anew: ledger and folder agree, what is there is right, and what must be there is."""
    with closing(Shelf(folder)) as shelf:
        assert shelf.used_bytes == on_disk(folder / "series")
        assert shelf.series_count == len([*(folder / "series").glob("*/*")])
        assert [*(folder / "incoming").glob("*/*")] == []
        assert shelf._ledger.unfinished() == []
        for series in (A, NEWER_A, B, C):
            for name, data in CONTENTS[series.series_uid, series.version]:
                opened = shelf.open_local(series, name)
                if opened is None:
                    assert series not in whole, "what was complete stays"
                else:
                    with closing(opened):
                        assert opened.read(0, 10_000) == data


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged differs from fault to fault; that it is logged is tested elsewhere."""
    monkeypatch.setattr(logging.getLogger("tciafs.store"), "disabled", True)
    for name in ("recovery", "shelf", "ledger"):
        monkeypatch.setattr(logging.getLogger(f"tciafs.store.{name}"), "disabled", True)


def live_through(story: Story, disk: FaultyDisk) -> None:
    """Go through a story; what fails is tried no more, and the rest goes on."""
    with suppress(OSError):
        story.shelf = Shelf(disk.folder)
    shelf = story.shelf
    if shelf is None:
        return
    for step in story.steps():
        with suppress(OSError):
            step(shelf)
        with disk.aside():
            assert shelf.used_bytes + shelf.hidden_bytes >= on_disk(disk.folder / "series"), "never too small"
    with suppress(OSError):
        shelf.close()


def number_of_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    disk, story = FaultyDisk(folder), Story()
    with disk.in_use(monkeypatch):
        live_through(story, disk)
    assert story.whole == {NEWER_A, B, C}
    check(folder, story.whole)
    shutil.rmtree(folder)
    folder.mkdir()
    return disk.steps


def failing(number: int) -> Callable[[], BaseException]:
    return lambda: OSError(number, os.strerror(number))


FAULTS: dict[str, dict[str, object]] = {
    "an error of the disk": {"error": failing(errno.EIO)},
    "a full disk": {"error": failing(errno.ENOSPC)},
    "an error that is told late": {"error": failing(errno.EIO), "late": True},
    "a disk that fails for good": {"error": failing(errno.EIO), "stays_broken": True},
    "a disk that stays full": {"error": failing(errno.ENOSPC), "stays_broken": True},
    "the end of the process": {"error": Crash, "stays_broken": True},
}


EVERY = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
"""Some of the steps, other ones for each fault, or all."""


@EVERY
@pytest.mark.parametrize("fault", FAULTS)
def test_at_whatever_step_a_fault_comes_the_next_start_has_all_that_was_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, every: int
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    first = 1 + list(FAULTS).index(fault) % every
    for fail_at in range(first, number_of_steps(folder, monkeypatch) + 1, every):
        disk, story = FaultyDisk(folder, fail_at=fail_at, **FAULTS[fault]), Story()  # type: ignore[arg-type]
        try:
            with disk.in_use(monkeypatch), suppress(Crash):
                live_through(story, disk)
            check(folder, story.whole)
        except BaseException as failure:
            failure.add_note(f"{fault} at step {fail_at}, {disk.names[fail_at - 1]}")
            raise
        shutil.rmtree(folder)
        folder.mkdir()


@EVERY
def test_whatever_a_power_failure_takes_the_next_start_has_all_that_was_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    folder, after = tmp_path / "cache", tmp_path / "after"
    folder.mkdir()
    story, moments, states = Story(), 0, 0

    def fail_power() -> None:
        nonlocal moments, states
        moments += 1
        if moments % (every // 2 + 1):
            return
        for names, ledger in log.leftovers():
            after.mkdir()
            log.restore(names, ledger, after)
            check(after, story.whole)
            shutil.rmtree(after)
            states += 1

    log = PowerLog(folder, fail_power)

    with log.recording(monkeypatch):
        shelf = Shelf(folder)
        for step in story.steps():
            step(shelf)
        shelf.close()
    assert states > 100 / every
