"""Worker processes as the store uses them: against the sample archive, and against what goes wrong."""

import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.errors import (
    NoSpace,
    SeriesDamaged,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)
from tciafs.model import Series
from tciafs.store.download import Announcements, Grant
from tciafs.store.layout import PackedImage
from tciafs.store.pack import read_layout
from tciafs.store.store import Store, StoreConfig
from tciafs.worker import pool as pool_module
from tciafs.worker.__main__ import Worker
from tciafs.worker.messages import Failed, Fetch, Finished, Report, framed
from tciafs.worker.pool import WorkerPool
from tciafs.worker.process import process_for_a_mount
from tests.fakes import make_series, no_more_room
from tests.sample.running import RunningSample, running_sample

COLLECTION, PATIENT = "Phantom-Brain-MR", "BRAIN-001"
RETRIES = 2
PATIENCE_S = 30
ROOM = Grant(10**9, no_more_room)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSample]:
    with running_sample() as sample:
        yield sample


@pytest.fixture
def sample(running: RunningSample) -> Iterator[RunningSample]:
    yield running
    running.clear_faults()


@pytest.fixture
def config(sample: RunningSample) -> NbiaConfig:
    return NbiaConfig(sample.url, "v4", limits=HttpLimits(stall_timeout_s=10))


@pytest.fixture
async def series(config: NbiaConfig) -> Series:
    archive = NbiaArchive(config)
    (found,) = await archive.series(COLLECTION, PATIENT)
    await archive.aclose()
    return found


@pytest.fixture
def paced(sample: RunningSample, series: Series) -> Iterator[Series]:
    """A series whose download stops after three images, until `pace` lets it go on."""
    sample.pace(series.series_uid, 3)
    yield series
    sample.pace(series.series_uid, None)


@pytest.fixture
async def pool(config: NbiaConfig) -> AsyncIterator[WorkerPool]:
    with trio.fail_after(PATIENCE_S):
        async with WorkerPool.running(lambda: config, RETRIES, first_wait_s=0.001) as pool:
            yield pool


class Heard:
    """What a fetch announced."""

    def __init__(self) -> None:
        self.images: list[PackedImage] = []
        self.annotations: list[PackedImage] = []
        self.lacks: list[str] = []
        self.progress: list[int] = []
        self.checks: tuple[str, ...] | None = None
        self.routes: tuple[str, ...] = ()
        self.some = trio.Event()

    @property
    def announcements(self) -> Announcements:
        return Announcements(
            self._image, self.progress.append, self._verified, self.annotations.append, self.lacks.append
        )

    def _image(self, image: PackedImage) -> None:
        self.images.append(image)
        self.some.set()

    def _verified(self, checks: tuple[str, ...], routes: tuple[str, ...]) -> None:
        self.checks, self.routes = checks, routes


def truth(sample: RunningSample, series: Series) -> dict[str, bytes]:
    answer = sample.get("v4/getImage", SeriesInstanceUID=series.series_uid, NewFileNames="Yes")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".dcm")}


def contents(pack: Path) -> dict[str, bytes]:
    data = pack.read_bytes()
    return {each.name: data[each.offset : each.offset + each.size_bytes] for each in read_layout(pack).images}


def process_of(pool: WorkerPool) -> "subprocess.Popen[bytes]":
    """Return the process that waits for the next series."""
    return pool._idle[-1]._process


def is_running(process: "subprocess.Popen[bytes]") -> bool:
    return Path(f"/proc/{process.pid}").exists()


def is_stopped(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether a process stands still by a signal; see proc(5)."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_until_stopped(process: "subprocess.Popen[bytes]") -> None:
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


async def test_a_series_is_byte_for_byte_what_the_archive_sends(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    settings = StoreConfig(tmp_path / "cache", limit_bytes=10**9)
    expected = truth(sample, series)
    assert len(expected) == series.image_count
    async with Store.running(settings, pool) as store:
        for name, data in expected.items():
            opened = await store.open(series, name)
            assert opened is not None
            with closing(opened):
                assert opened.read(0, len(data) + 1) == data
        while store.state(series) == "arriving":
            await trio.lowlevel.checkpoint()
        known = store.peek(series)
        assert known is not None
        assert known.layout.checks == ("crc32", "count", "size", "md5")


async def test_all_is_announced_and_the_process_is_used_again(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    process = process_of(pool)
    for number in range(2):
        heard = Heard()
        await pool.fetch(series, tmp_path / str(number), heard.announcements, ROOM)
        written = read_layout(tmp_path / str(number))
        assert (heard.images, heard.checks) == (list(written.images), written.checks)
        assert heard.routes == written.routes == ("nbia",)
        assert heard.progress[0] == 0
    assert [worker._process for worker in pool._idle] == [process]
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == truth(sample, series)


TWICE_WRONG: tuple[dict[str, Any], ...] = (
    {"kind": "status", "code": 500},
    {"kind": "cut", "after_bytes": 5000},
    {"kind": "corrupt", "after_bytes": 5000},
    {"kind": "short"},
    {"kind": "wrong_md5"},
    {"kind": "html"},
    {"kind": "empty"},
)


async def test_a_series_comes_whole_after_two_tries_that_failed(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    expected = truth(sample, series)
    for fault in TWICE_WRONG:
        sample.forget_requests()
        sample.fault(series=series.series_uid, times=RETRIES, **fault)
        pack = tmp_path / fault["kind"]
        await pool.fetch(series, pack, Heard().announcements, ROOM)
        assert len(sample.requests("getImage")) == RETRIES + 1, fault
        assert contents(pack) == expected, fault


SINGLY_WRONG: tuple[tuple[str, dict[str, Any]], ...] = (
    ("getSOPInstanceUIDs", {"kind": "empty"}),  # as NLST's server answered for a while
    ("getMD5Hierarchy", {"kind": "status", "code": 404}),
    ("getSingleImage", {"kind": "status", "code": 500}),
    ("getSingleImage", {"kind": "html"}),
    ("getSingleImage", {"kind": "cut", "after_bytes": 100}),
    ("getSingleImage", {"kind": "corrupt", "after_bytes": 5000}),
)


async def test_whatever_is_wrong_with_single_images_the_series_is_right(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    expected = truth(sample, series)
    zip_bytes = sample.requests("getImage")[-1].sent_bytes
    for number, (path, fault) in enumerate([("", {}), *SINGLY_WRONG]):
        sample.forget_requests()
        sample.fault("cut", series=series.series_uid, after_bytes=int(zip_bytes * 0.95))
        if fault:
            sample.fault(path=path, times=99, **fault)
        pack = tmp_path / str(number)
        heard = Heard()
        await pool.fetch(series, pack, heard.announcements, ROOM)
        assert contents(pack) == expected, fault
        assert [image.name for image in heard.images] == list(expected), fault
        assert len(sample.requests("getImage")) == (2 if fault else 1), fault
        sample.clear_faults()


ALWAYS_WRONG: tuple[tuple[dict[str, Any], type[TciafsError]], ...] = (
    ({"kind": "status", "code": 503, "retry_after": "3600"}, SlowDown),
    ({"kind": "status", "code": 500}, Unreachable),
    ({"kind": "short"}, SeriesDamaged),
    ({"kind": "html"}, UnreadableAnswer),
)


async def test_failures_cross_the_pipe_and_the_process_lives_on(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    process = process_of(pool)
    for number, (fault, failure) in enumerate(ALWAYS_WRONG):
        sample.fault(series=series.series_uid, times=RETRIES + 1, **fault)
        with pytest.raises(failure):
            await pool.fetch(series, tmp_path / str(number), Heard().announcements, ROOM)
        sample.clear_faults()
    await pool.fetch(series, tmp_path / "pack", Heard().announcements, ROOM)
    assert process_of(pool) is process


async def test_a_refused_request_is_put_once(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    sample.forget_requests()
    sample.fault("status", times=9, code=400, body="Image with given SeriesInstanceUID is unknown")
    with pytest.raises(UnreadableAnswer):
        await pool.fetch(series, tmp_path / "pack", Heard().announcements, ROOM)
    assert len(sample.requests("getImage")) == 1


async def test_a_disk_that_takes_no_more_is_no_space(
    tmp_path: Path, pool: WorkerPool, series: Series
) -> None:
    pid = process_of(pool).pid
    subprocess.run(["prlimit", f"--pid={pid}", "--fsize=1000"], check=True)
    with pytest.raises(NoSpace, match="full"):
        await pool.fetch(series, tmp_path / "pack", Heard().announcements, ROOM)


async def test_a_folder_that_is_gone_is_an_error_of_the_cache(
    tmp_path: Path, pool: WorkerPool, series: Series
) -> None:
    with pytest.raises(TciafsError, match="cache folder failed: No such file") as raised:
        await pool.fetch(series, tmp_path / "absent" / "pack", Heard().announcements, ROOM)
    assert type(raised.value) is TciafsError


# -- processes that end --


@pytest.mark.expect_log("the worker process ended unexpectedly .status -9")
async def test_a_killed_worker_fails_its_series_and_no_other(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, paced: Series
) -> None:
    process = process_of(pool)
    async with Store.running(StoreConfig(tmp_path, 10**9, failure_memory_s=0.0), pool) as store:
        download = store.fetch(paced)
        await download.wait_for_more(0, PATIENCE_S)
        process.send_signal(signal.SIGKILL)
        await download.over.wait()
        assert type(download.failure) is TciafsError
        sample.pace(paced.series_uid, None)
        again = store.fetch(paced)
        assert again is not download
        await again.over.wait()
        assert (again.failure, store.state(paced)) == (None, "local")
    assert process_of(pool) is not process


async def test_a_cancelled_fetch_ends_its_process(tmp_path: Path, pool: WorkerPool, paced: Series) -> None:
    process, heard = process_of(pool), Heard()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as fetching:
            fetching.start_soon(pool.fetch, paced, tmp_path / "pack", heard.announcements, ROOM)
            await heard.some.wait()
            scope.cancel()
    assert (process.returncode, is_running(process), pool._idle) == (-signal.SIGKILL, False, [])


async def test_a_process_that_died_while_idle_is_replaced(
    tmp_path: Path, pool: WorkerPool, series: Series
) -> None:
    process, commands = process_of(pool), pool._idle[-1]._commands
    process.kill()
    process.wait()
    await pool.fetch(series, tmp_path / "pack", Heard().announcements, ROOM)
    assert process_of(pool) is not process
    with pytest.raises(trio.ClosedResourceError):
        await commands.send_all(b"closed, not leaked")


async def test_closing_the_pool_ends_its_processes(config: NbiaConfig) -> None:
    async with WorkerPool.running(lambda: config, RETRIES) as pool:
        process = process_of(pool)
        assert is_running(process)
    assert not is_running(process)


async def test_a_process_that_was_started_already_is_used_and_gone_at_the_end(
    tmp_path: Path, config: NbiaConfig, sample: RunningSample, series: Series
) -> None:
    with trio.fail_after(PATIENCE_S), process_for_a_mount() as process:
        async with WorkerPool.running(lambda: config, RETRIES, first=process) as pool:
            await pool.fetch(series, tmp_path / "pack", Heard().announcements, ROOM)
            assert process_of(pool) is process
        assert not is_running(process)
    assert contents(tmp_path / "pack") == truth(sample, series)


def test_a_process_for_a_mount_that_never_came_is_gone_at_the_end() -> None:
    with process_for_a_mount() as process:
        assert is_running(process)
    assert not is_running(process)


async def test_no_room_for_a_process_is_said_so(config: NbiaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tciafs.worker.process.sys.executable", "/nowhere/python")
    with pytest.raises(TciafsError, match="could not be started: No such file"):
        async with WorkerPool.running(lambda: config, RETRIES):
            pass


async def test_a_worker_asks_for_room_as_its_pack_grows(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    asked: list[int] = []

    async def grow_to(size_bytes: int) -> int:
        asked.append(size_bytes)
        return size_bytes + 100_000

    await pool.fetch(series, tmp_path / "pack", Heard().announcements, Grant(0, grow_to))
    assert contents(tmp_path / "pack") == truth(sample, series)
    assert 1 < len(asked) < 100
    assert (tmp_path / "pack").stat().st_size <= asked[-1] + 100_000


async def test_a_worker_whose_pack_may_not_grow_fails_and_is_used_again(
    tmp_path: Path, pool: WorkerPool, series: Series
) -> None:
    process = process_of(pool)
    with pytest.raises(NoSpace, match=r"no .* bytes for you"):
        await pool.fetch(series, tmp_path / "1", Heard().announcements, Grant(1000, no_more_room))
    assert (tmp_path / "1").stat().st_size <= 1000
    await pool.fetch(series, tmp_path / "2", Heard().announcements, ROOM)
    assert process_of(pool) is process


@pytest.mark.expect_log("needs .* are open or coming in")
async def test_a_series_that_is_larger_than_it_was_listed_fails_with_no_byte_too_much(
    tmp_path: Path, pool: WorkerPool, series: Series
) -> None:
    lying = msgspec.structs.replace(series, size_bytes=1000, image_count=1)
    assert series.size_bytes is not None
    async with Store.running(StoreConfig(tmp_path, series.size_bytes // 2), pool) as store:
        download = store.fetch(lying)
        await download.over.wait()
        assert isinstance(download.failure, NoSpace)
        assert download.arrived_bytes <= series.size_bytes // 2


# -- a process that is not ours --


def put_in_place_of_the_worker(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes run a shell script instead of the worker."""
    stand_in = folder / "stand-in"
    stand_in.write_text(f"#!/bin/sh\n{script}\n")
    stand_in.chmod(0o700)
    monkeypatch.setattr("tciafs.worker.process.sys.executable", str(stand_in))


async def fetch_from(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerPool:
    """Fetch a series from a process that runs a shell script instead of the worker."""
    put_in_place_of_the_worker(script, folder, monkeypatch)
    with trio.fail_after(PATIENCE_S):
        async with WorkerPool.running(NbiaConfig, RETRIES) as pool:
            await pool.fetch(make_series(), folder / "pack", Heard().announcements, ROOM)
            return pool


@pytest.mark.parametrize("nonsense", [r"\377\377\377\377", r"\001\000\000\000\301", r"\001\000\000\000\001"])
async def test_a_process_that_talks_nonsense_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: str
) -> None:
    with pytest.raises(TciafsError, match="unintelligible"):
        await fetch_from(f"printf '{nonsense}'; exec cat >/dev/null", tmp_path, monkeypatch)


async def test_a_process_that_ends_without_a_word_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TciafsError, match=r"ended unexpectedly \(status 3\)"):
        await fetch_from("head -c 20 >/dev/null; exit 3", tmp_path, monkeypatch)


async def test_a_process_that_closes_its_ear_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "REAP_PATIENCE_S", 0.01)
    with pytest.raises(TciafsError, match=r"ended unexpectedly \(status None\)"):
        await fetch_from("exec <&- >&-; while :; do sleep 1; done", tmp_path, monkeypatch)


# -- standing still --


async def test_a_download_under_way_stands_still_until_it_may_go_on(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, paced: Series
) -> None:
    process, heard = process_of(pool), Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.fetch, paced, tmp_path / "pack", heard.announcements, ROOM)
        await heard.some.wait()
        pool.pause()
        wait_until_stopped(process)
        sample.pace(paced.series_uid, None)
        pool.resume()
    assert contents(tmp_path / "pack") == truth(sample, paced)


async def test_a_download_that_begins_during_a_pause_stands_still_too(
    tmp_path: Path, pool: WorkerPool, sample: RunningSample, series: Series
) -> None:
    process, heard = process_of(pool), Heard()
    pool.pause()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.fetch, series, tmp_path / "pack", heard.announcements, ROOM)
        while not is_stopped(process):
            assert heard.checks is None, "it came in during the pause"
            await trio.lowlevel.checkpoint()
        pool.resume()
    assert contents(tmp_path / "pack") == truth(sample, series)


async def test_a_process_that_was_done_before_it_was_stopped_can_be_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = "".join(f"\\{byte:03o}" for byte in framed(Finished()))
    put_in_place_of_the_worker(f"printf '{finished}'; exec cat >/dev/null", tmp_path, monkeypatch)
    with trio.fail_after(PATIENCE_S):
        async with WorkerPool.running(NbiaConfig, RETRIES) as pool, trio.open_nursery() as nursery:
            process, reports = process_of(pool), pool._idle[-1]._reports
            assert isinstance(reports, trio.lowlevel.FdStream)
            await trio.lowlevel.wait_readable(reports.fileno())
            nursery.start_soon(pool.fetch, make_series(), tmp_path / "pack", Heard().announcements, ROOM)
            while not pool._fetching:
                await trio.lowlevel.checkpoint()
            pool.pause()
            wait_until_stopped(process)  # and what it said is unread, as nothing else ran meanwhile
            while pool._fetching:
                await trio.lowlevel.checkpoint()
            assert (process_of(pool), is_stopped(process)) == (process, False)
            pool.resume()


# -- the process itself --


def worker_process() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tciafs.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_worker_ends_when_nobody_can_ask_it_any_more() -> None:
    with worker_process() as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


async def test_a_worker_ends_in_the_middle_of_a_series_when_its_daemon_dies(
    tmp_path: Path, config: NbiaConfig, paced: Series
) -> None:
    with worker_process() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(framed(Fetch(paced, str(tmp_path / "pack"), config, 0, 1.0, ROOM.size_bytes)))
        process.stdin.flush()
        assert process.stdout.read(4)
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


async def test_a_worker_that_nobody_listens_to_ends_quietly(
    tmp_path: Path, config: NbiaConfig, series: Series
) -> None:
    with worker_process() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(framed(Fetch(series, str(tmp_path / "pack"), config, 0, 1.0, ROOM.size_bytes)))
        process.stdin.flush()
        assert process.wait(PATIENCE_S) == 0


async def reports_of(*commands: Fetch) -> list[Report]:
    told: list[Report] = []
    send, receive = trio.open_memory_channel[Fetch](len(commands))
    for command in commands:
        send.send_nowait(command)
    send.close()
    await Worker(told.append).serve(receive)
    return told


@pytest.mark.expect_log("ERROR tciafs.worker: Fetch failed in an unexpected way")
async def test_an_unexpected_error_is_reported_and_the_next_command_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise next(errors)

    class OfTheArchive(UnreadableAnswer):
        """An error that only an archive knows."""

    errors: Iterator[Exception] = iter([ZeroDivisionError("by zero"), OfTheArchive("odd"), NoSpace("full")])
    monkeypatch.setattr("tciafs.worker.__main__.fetch_series", fail)
    command = Fetch(
        make_series(), str(tmp_path / "pack"), NbiaConfig("http://127.0.0.1:9/"), 0, 1.0, ROOM.size_bytes
    )
    other = msgspec.structs.replace(command, archive=NbiaConfig("http://127.0.0.1:8/"))
    assert await reports_of(command, command, other) == [
        Failed("TciafsError", "the worker failed: ZeroDivisionError('by zero')"),
        Failed("UnreadableAnswer", "odd"),
        Failed("NoSpace", "full"),
    ]
