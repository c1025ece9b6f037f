"""kill -9 in the midst of downloads and evictions: no wrong byte, nothing left, never beyond the limit."""

import io
import os
import random
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trio
from isal.isal_zlib import crc32

from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.model import Series
from tciafs.store.disk import bytes_on_disk
from tests.mounting import until
from tests.sample.running import RunningSample
from tests.store.busy_process import Orders

SERIES, LIMIT_BYTES = 12, 1_500_000
"""So many of those that fit, the largest; they are twice as large together."""

MOST_LINES = 100
"""The process is killed after as many things have happened at most: about all that three downloads do."""

PATIENCE_S = 60.0


async def series_of(config: NbiaConfig) -> list[Series]:
    archive = NbiaArchive(config)
    found = [
        each
        for collection in await archive.collections()
        for patient in await archive.patients(collection.name)
        for each in await archive.series(collection.name, patient.patient_id)
    ]
    await archive.aclose()
    found = [each for each in found if each.size_bytes and each.size_bytes < LIMIT_BYTES]
    return sorted(found, key=lambda each: each.size_bytes or 0)[-SERIES:]


def checksums_of(sample: RunningSample, series: Series) -> dict[str, int]:
    answer = sample.get("v4/getImage", SeriesInstanceUID=series.series_uid, NewFileNames="Yes")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: crc32(archive.read(name)) for name in archive.namelist() if name.endswith(".dcm")}


@dataclass(slots=True)
class Killed:
    """What was seen of a process until it was killed."""

    here: int
    lines: list[str]
    packs_bytes: int


@contextmanager
def stopped(process: "subprocess.Popen[str]") -> Iterator[list[int]]:
    """Give the processes of a store while they stand still; then kill the store, and see its workers go."""
    pids = [process.pid, *children(process.pid)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    until(lambda: all(state(pid) in "TZX" for pid in pids), "processes that stand still")
    yield pids
    process.kill()
    for pid in pids[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    process.wait(PATIENCE_S)
    until(lambda: all(state(pid) in "ZX" for pid in pids), "workers that end with their store")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def state(pid: int) -> str:
    """Return the state of a process, X if there is none; see proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def packs_on_disk(folder: Path, pids: list[int]) -> int:
    """Return what packs take, those included that are removed and that a process has open."""
    files = [file for part in ("series", "incoming") for file in (folder / part).rglob("*")]
    for pid in pids:
        files += [link for link in Path(f"/proc/{pid}/fd").iterdir() if is_pack(folder, link)]
    taken = {(status := file.stat()).st_ino: bytes_on_disk(status) for file in files if file.is_file()}
    return sum(taken.values())


def is_pack(folder: Path, link: Path) -> bool:
    with suppress(OSError):
        return str(link.readlink()).startswith((f"{folder}/series", f"{folder}/incoming"))
    return False


def run_and_kill(orders: Orders, after_lines: int) -> Killed:
    """Let a store be busy until so much has happened, then kill it."""
    command = [sys.executable, "-m", "tests.store.busy_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.json.encode(orders).decode() + "\n")
            process.stdin.flush()
            ready = process.stdout.readline()
            assert ready.startswith("ready "), "it found something wrong: see its traceback"
            here = msgspec.json.decode(ready.removeprefix("ready "))["here"]
            lines = [process.stdout.readline().strip() for _ in range(after_lines)]
            assert all(lines), "it found something wrong: see its traceback"
            with stopped(process) as pids:
                return Killed(here, lines, packs_on_disk(Path(orders.folder), pids))
        finally:
            process.kill()


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_after_kill_9_at_a_random_moment_all_that_is_there_is_right(
    tmp_path: Path, sample: RunningSample, rounds: int
) -> None:
    config = NbiaConfig(sample.url, "v4")
    series = trio.run(series_of, config)
    moments = random.Random(rounds)
    orders = Orders(
        folder=str(tmp_path / "cache"),
        limit_bytes=LIMIT_BYTES,
        archive=config,
        # Of every other series the archive does not say how large it is.
        series=[
            msgspec.structs.replace(each, size_bytes=None if n % 2 else each.size_bytes)
            for n, each in enumerate(series)
        ],
        checksums={each.series_uid: checksums_of(sample, each) for each in series},
        seed=0,
    )
    rounds_seen = []
    for number in range(rounds):
        orders.seed = number
        killed = run_and_kill(orders, moments.randint(1, MOST_LINES))
        assert killed.packs_bytes <= orders.limit_bytes
        rounds_seen.append(killed)
    happened = [line for killed in rounds_seen for line in killed.lines]
    print(
        f"{rounds} rounds: {happened.count('put is done')} published, "
        f"{happened.count('remove_pack is done')} evicted, "
        f"{sum(line.startswith('failed') for line in happened)} failed, at most "
        f"{max(killed.packs_bytes for killed in rounds_seen):,} of {orders.limit_bytes:,} bytes"
    )
    assert "remove_pack is done" in happened
    assert any(killed.here for killed in rounds_seen)
