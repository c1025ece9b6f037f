"""How long a reader of what is cached, and who lists it, waits while three series come in at full speed."""

import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.comparing import Line
from tests.bench.parts import Options, Part
from tests.bench.stage import cat, line_before, tciafs_mounted
from tests.sample.running import running_sample

__all__ = ["LATENCY"]

SLICES = 1000
DOWNLOADS = 3
GOAL_S = 0.020
PAUSE_S = 0.002
"""Between two reads: a reader that never rests is itself what the machine is busy with."""


@dataclass(slots=True)
class _Waits:
    """Seconds that each of one kind of request took."""

    read_s: list[float] = field(default_factory=list)
    list_s: list[float] = field(default_factory=list)


def _latency(options: Options) -> Iterator[Line]:
    """Read 4 KiB of cached images, and list folders, at rest and while series come in."""
    rest, busy = _Waits(), _Waits()
    with (
        running_sample("--bench-slices", str(SLICES), "--bench-series", str(DOWNLOADS)) as sample,
        line_before(sample.url, options.scratch / "line") as url,
    ):
        for turn in range(options.rounds):
            with tciafs_mounted(url, options.scratch / str(turn)) as mount:
                images = sorted((mount.path / "Phantom-Head").glob("*/*/*/*.dcm"))
                cat(images)
                _observe(rest, mount.path, images, _for_a_second())
                _observe(busy, mount.path, images, _downloads(mount.path))
    yield from (
        _line(f"{what}, {len(busy_s):,} times", rest_s, busy_s)
        for what, rest_s, busy_s in (
            ("cached 4 KiB read", rest.read_s, busy.read_s),
            ("ls of a folder", rest.list_s, busy.list_s),
        )
    )


def _line(what: str, rest_s: Sequence[float], busy_s: Sequence[float]) -> Line:
    return Line(
        f"{what}: median, p99, most",
        f"{DOWNLOADS} downloads: {_shares(busy_s)}",
        f"none: {_shares(rest_s)}",
        f"p99 {1000 * _p99(busy_s):.1f} ms (goal: below {1000 * GOAL_S:.0f} ms)",
    )


def _p99(waits_s: Sequence[float]) -> float:
    return statistics.quantiles(waits_s, n=100)[98]


def _shares(waits_s: Sequence[float]) -> str:
    shown = (statistics.median(waits_s), _p99(waits_s), max(waits_s))
    return ", ".join(f"{1000 * each:.1f}" for each in shown) + " ms"


def _for_a_second() -> Callable[[], bool]:
    end = time.monotonic() + 1.0
    return lambda: time.monotonic() < end


def _downloads(mountpoint: Path) -> Callable[[], bool]:
    """Begin to read all series that are not here, and return what tells whether they still come."""
    folders = list((mountpoint / "BENCH").glob("*/*/*"))
    readers = [threading.Thread(target=os.listdir, args=(folder,)) for folder in folders]
    for reader in readers:
        reader.start()
    return lambda: any(reader.is_alive() for reader in readers)


def _observe(waits: _Waits, mountpoint: Path, images: Sequence[Path], goes_on: Callable[[], bool]) -> None:
    chance = random.Random(1)
    folders = (images[0].parent, mountpoint / "Phantom-Head", mountpoint)
    while goes_on():
        waits.read_s.append(_read_s(chance.choice(images), chance))
        time.sleep(PAUSE_S)
        folder = chance.choice(folders)
        begun = time.perf_counter()
        list(os.scandir(folder))
        waits.list_s.append(time.perf_counter() - begun)
        time.sleep(PAUSE_S)


def _read_s(image: Path, chance: random.Random) -> float:
    """Return how long it takes to open an image and to read a page that the kernel has dropped."""
    begun = time.perf_counter()
    descriptor = os.open(image, os.O_RDONLY)
    opened_s = time.perf_counter() - begun
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        offset = chance.randrange(0, max(1, os.fstat(descriptor).st_size - 4096), 4096)
        begun = time.perf_counter()
        os.pread(descriptor, 4096, offset)
        return opened_s + time.perf_counter() - begun
    finally:
        os.close(descriptor)


LATENCY = Part("latency", "waits for what is cached while three series come in", (), _latency)
