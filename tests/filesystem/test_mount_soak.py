"""A soak: random readers, random faults, evictions, pauses and restarts, with the archive as the judge.

Whatever a program on the mount is given, bytes, names or sizes, must be what the archive has; an error in
its place must be one that users are promised. In the end all is well again, everything can be read, and the
daemon has no more files open and no more memory than it had early on. The choices are those of a seed; how
the readers interleave is not.
"""

import errno
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tciafs.control.client import ask_pause
from tciafs.errors import TciafsError
from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of, middle_of_an_image
from tests.filesystem.seen import BRIEF, FORGETS
from tests.mounting import Mount, mounted, program, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

SERIES = 20
CACHE_SHARE = 3
"""The cache holds one in so many of the series."""

READERS = 3
OPTIONS = (*BRIEF, "--retries", "1", "--listing", "exact", "--read-ahead", "1")

PROMISED = {
    errno.EACCES,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.EBUSY,
    errno.EPROTO,
    errno.EIO,
    errno.ENOSPC,
    errno.EPERM,
}
"""What docs/semantics.md promises of a file that is there: none of them is ENOENT."""

WHILE_IT_DIES = {errno.ENOTCONN, errno.ECONNABORTED}

MORE_FILES = 4
MORE_MEMORY_BYTES = 24 << 20
"""What the daemon may have gained: the packs of series just read, what the allocator once had."""

MOST_SOCKETS = 24
"""Of these eight are kept to the archive (HttpLimits.connections), as many may be closing, and a few are
the daemon's own; how many of them are open says nothing about a leak, unlike the number of files."""


@dataclass(slots=True)
class Soak:
    """The judge: what each series is, what was seen, and what was wrong."""

    sample: RunningSample
    series: Sequence[ExpectedSeries]
    truth: Mapping[str, Mapping[str, bytes]]
    middles: Mapping[str, int]
    scratch: Path
    mount: Mount
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    dying: bool = False

    def step(self, chance: random.Random) -> None:
        """Do one thing, and judge what comes of it."""
        deed = chance.choices(DEEDS, WEIGHTS)[0]
        series = chance.choice(self.series)
        try:
            deed(self, chance, series)
        except OSError as error:
            self._judge_error(error, f"{deed.__name__} of {series.path}")
        except TciafsError:
            self.seen["command failed"] += 1  # a daemon that is being restarted cannot be asked
        else:
            self.seen[deed.__name__] += 1

    def _judge_error(self, error: OSError, what: str) -> None:
        number = error.errno or 0
        self.seen[errno.errorcode.get(number, str(error))] += 1
        if number not in PROMISED | (WHILE_IT_DIES if self.dying else set()):
            self.wrong.append(f"{what}: {error}")

    def expect(self, is_so: bool, what: str) -> None:
        """Note what is not as the archive has it."""
        if not is_so:
            self.wrong.append(what)

    def folder(self, series: ExpectedSeries) -> Path:
        """Return where a series is."""
        return self.mount.path / series.path


# -- deeds --------------------------------------------------------------------------------------------


def read_image(soak: Soak, chance: random.Random, series: ExpectedSeries) -> None:
    name, expected = chance.choice(list(soak.truth[series.uid].items()))
    soak.expect((soak.folder(series) / name).read_bytes() == expected, f"bytes of {series.path}/{name}")


def read_part(soak: Soak, chance: random.Random, series: ExpectedSeries) -> None:
    name, expected = chance.choice(list(soak.truth[series.uid].items()))
    descriptor = os.open(soak.folder(series) / name, os.O_RDONLY)
    try:
        for _ in range(3):
            start = chance.randrange(len(expected))
            length = chance.randrange(1, 1 << 14)
            soak.expect(
                os.pread(descriptor, length, start) == expected[start : start + length],
                f"{length} bytes at {start} of {series.path}/{name}",
            )
    finally:
        os.close(descriptor)


def list_folder(soak: Soak, _chance: random.Random, series: ExpectedSeries) -> None:
    names = os.listdir(soak.folder(series))
    soak.expect(sorted(names) == sorted(soak.truth[series.uid]), f"names in {series.path}: {names}")


def list_above(soak: Soak, _chance: random.Random, series: ExpectedSeries) -> None:
    path = Path(series.path)
    soak.expect(path.name in os.listdir(soak.mount.path / path.parent), f"{path.name} in its study")


def measure(soak: Soak, chance: random.Random, series: ExpectedSeries) -> None:
    name, expected = chance.choice(list(soak.truth[series.uid].items()))
    size = (soak.folder(series) / name).stat().st_size
    soak.expect(size == len(expected), f"size of {series.path}/{name}: {size}")


def copy(soak: Soak, chance: random.Random, series: ExpectedSeries) -> None:
    target = soak.scratch / f"{threading.get_ident()}"
    try:
        shutil.copytree(soak.folder(series), target, copy_function=shutil.copyfile)
        copied = {path.name: path.read_bytes() for path in target.iterdir()}
        soak.expect(copied == soak.truth[series.uid], f"a copy of {series.path}")
    except shutil.Error as error:
        _source, _target, why = error.args[0][0]
        raise OSError(next(n for n in errno.errorcode if os.strerror(n) in why), why) from error
    finally:
        shutil.rmtree(target, ignore_errors=True)


FAULTS: list[dict[str, Any]] = [
    {"kind": "status", "code": 500},
    {"kind": "status", "code": 429, "retry_after": "0"},
    {"kind": "status", "code": 401},
    {"kind": "cut"},
    {"kind": "corrupt"},
    {"kind": "short", "images": 1},
    {"kind": "wrong_md5"},
    {"kind": "html"},
    {"kind": "empty"},
    {"kind": "stall"},
]


def break_download(soak: Soak, chance: random.Random, series: ExpectedSeries) -> None:
    fault = dict(chance.choice(FAULTS))
    if fault["kind"] in ("cut", "corrupt", "stall"):
        fault["after_bytes"] = soak.middles[series.uid]
    soak.sample.fault(times=chance.choice((1, 1, 2, 4)), **fault)


def break_listing(soak: Soak, chance: random.Random, _series: ExpectedSeries) -> None:
    endpoint = chance.choice(("getPatient", "getPatientStudy", "getSeries"))
    soak.sample.fault(chance.choice(("html", "truncate_json", "status", "empty")), endpoint)


def mend(soak: Soak, _chance: random.Random, _series: ExpectedSeries) -> None:
    soak.sample.clear_faults()


def pause(soak: Soak, _chance: random.Random, _series: ExpectedSeries) -> None:
    ask_pause(soak.mount.path, paused=True)


def resume(soak: Soak, _chance: random.Random, _series: ExpectedSeries) -> None:
    ask_pause(soak.mount.path, paused=False)


DEEDS: list[Callable[[Soak, random.Random, ExpectedSeries], None]] = [
    *(read_image, read_part, list_folder, list_above, measure, copy),
    *(break_download, break_listing, mend, pause, resume),
]
WEIGHTS = [30, 20, 15, 5, 15, 8, 6, 1, 3, 1, 4]


# -- the soak -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample() -> Iterator[RunningSample]:
    with running_sample("--many-series", str(SERIES)) as sample:
        yield sample


def all_at_once(soak: Soak, seed: int, steps: int) -> None:
    """Let all readers do so many steps each."""

    def read(number: int) -> None:
        chance = random.Random(f"{seed}:{number}")
        for _ in range(steps):
            soak.step(chance)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for each in readers:
        each.start()
    for each in readers:
        each.join()


def make_well(soak: Soak) -> None:
    """End all faults and pauses, and see every series whole."""
    soak.sample.clear_faults()
    ask_pause(soak.mount.path, paused=False)
    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(partial(_read_whole, soak), soak.series))


def _read_whole(soak: Soak, series: ExpectedSeries) -> None:
    until(partial(_is_read, soak, series), f"{series.path}, with all well")


def _is_read(soak: Soak, series: ExpectedSeries) -> bool:
    """Return whether all of a series could be read, and judge what was."""
    try:
        names = os.listdir(soak.folder(series))
        images = {name: (soak.folder(series) / name).read_bytes() for name in names}
    except OSError:  # what failed a moment ago may still be on its way
        return False
    soak.expect(images == soak.truth[series.uid], f"{series.path} in the end")
    return True


def files_and_sockets_of(mount: Mount) -> tuple[int, int]:
    """Return how many files the daemon has open that are no sockets, and how many sockets."""
    are_sockets = [file.is_socket() for file in Path(f"/proc/{mount.pid}/fd").iterdir()]
    return are_sockets.count(False), are_sockets.count(True)


def memory_of(mount: Mount) -> int:
    """Return the bytes of memory of the daemon's own; see proc(5), statm."""
    _size, resident, shared, *_ = map(int, Path(f"/proc/{mount.pid}/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


# httpcore leaves a socket to the garbage collector that could not be connected to a dead daemon's.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("seed", "rounds", "steps"),
    [pytest.param(1, 2, 30, id="short"), pytest.param(2, 6, 150, id="long", marks=pytest.mark.slow)],
)
def test_a_soak(
    seed: int, rounds: int, steps: int, sample: RunningSample, tmp_path: Path, record_property: Any
) -> None:
    series = expected_series(sample, "MANYSERIES")
    truth = {each.uid: images_of(sample, each.uid) for each in series}
    middles = {each.uid: middle_of_an_image(sample, each.uid) for each in series}
    limit_bytes = sum(len(image) for images in truth.values() for image in images.values()) // CACHE_SHARE
    options = (*OPTIONS, "--cache-size", str(limit_bytes))
    chance, wrong, seen = random.Random(seed), list[str](), Counter[str]()
    for turn in range(rounds):
        with mounted(sample.url, *options, folder=tmp_path / "mount", command=FORGETS) as mount:
            soak = Soak(sample, series, truth, middles, tmp_path, mount, wrong, seen)
            make_well(soak)
            (files, _sockets), memory_bytes = files_and_sockets_of(mount), memory_of(mount)
            all_at_once(soak, chance.getrandbits(32), steps)
            make_well(soak)
            until(lambda: mount.incoming() == [], "the end of all downloads")
            assert used_bytes(mount) <= limit_bytes
            files_now, sockets_now = files_and_sockets_of(mount)
            assert files_now <= files + MORE_FILES
            assert sockets_now <= MOST_SOCKETS
            assert memory_of(mount) <= memory_bytes + MORE_MEMORY_BYTES
            if turn % 2 == 0:
                soak.dying = True
                die_under_readers(soak, chance)
        assert wrong == []
    record_property("soak", f"{seen.total()} deeds, {dict(seen.most_common())}")
    with mounted(sample.url, *options, folder=tmp_path / "mount") as mount:
        checked = program("verify", mount.path)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def die_under_readers(soak: Soak, chance: random.Random) -> None:
    """Kill the daemon as a crash does, while the readers are at it."""
    readers = threading.Thread(target=all_at_once, args=(soak, chance.getrandbits(32), 10))
    readers.start()
    soak.mount.kill()
    readers.join()
    soak.sample.clear_faults()


def used_bytes(mount: Mount) -> int:
    """Return what the packs in the cache folder take on disk."""
    packs = [path for path in (mount.cache / "series").rglob("*") if path.is_file()]
    return sum(path.stat().st_blocks * 512 for path in packs)
