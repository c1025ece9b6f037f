"""Who waits, waits alone: crowds of blocked readers stop nobody else, and Ctrl-C ends any wait."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted, program, run, status_of, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

CROWD = 150
"""More than ten times what the kernel lets wait of background requests (max_background), unless told."""

PROMPTLY_S = 5.0
"""Generous for a loaded machine: an answer that never comes is what is told from it."""


@pytest.fixture(scope="module")
def sample() -> Iterator[RunningSample]:
    with running_sample("--many-patients", str(CROWD), "--many-series", "10") as sample:
        yield sample


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url, "--read-ahead", "0") as mount:
        yield mount


def waiting_threads() -> int:
    """Return how many threads of ours wait for an answer of a file system in user space; see proc(5)."""
    stacks = [(task / "stack").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum("request_wait_answer" in stack for stack in stacks)


def test_150_readers_who_wait_do_not_stop_the_151st(sample: RunningSample, mount: Mount) -> None:
    cached = next((mount.path / "Phantom-Echo-NC").rglob("*.dcm"))
    content = cached.read_bytes()
    held = expected_series(sample, "MANY")
    assert len(held) == CROWD
    for series in held:
        (mount.path / series.path).stat()
        sample.pace(series.uid, 0)
    with ThreadPoolExecutor(CROWD) as crowd:
        reads = [crowd.submit((mount.path / series.path / "1-1.dcm").read_bytes) for series in held]
        try:
            until(lambda: waiting_threads() == CROWD, "a crowd that waits")
            os.posix_fadvise(descriptor := os.open(cached, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            shown = subprocess.run(["cat", cached], capture_output=True, timeout=PROMPTLY_S, check=True)
            assert shown.stdout == content
            assert run("ls", "-l", cached.parent, timeout_s=PROMPTLY_S).returncode == 0
            assert waiting_threads() == CROWD
        finally:
            for series in held:
                sample.pace(series.uid, None)
        for series, read in zip(held, reads, strict=True):
            assert read.result(60) == images_of(sample, series.uid)["1-1.dcm"]


def test_150_readers_who_wait_for_a_frozen_server_do_not_stop_commands(
    sample: RunningSample, mount: Mount
) -> None:
    held = expected_series(sample, "MANY")
    for series in held:
        (mount.path / series.path).stat()
    sample.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(CROWD) as crowd:
        try:
            reads = [crowd.submit((mount.path / series.path / "1-1.dcm").read_bytes) for series in held]
            until(lambda: waiting_threads() == CROWD, "a crowd that waits")
            until(lambda: status_of(mount)["downloads_total"] == CROWD, "a download for each of them")
            assert (
                f'tciafs_downloads{{mountpoint="{mount.path}"}} {CROWD}.0'
                in program("metrics", mount.path).stdout
            )
            assert waiting_threads() == CROWD
            assert program("pause", mount.path).returncode == 0
            for read in reads:
                assert isinstance(read.exception(60), PermissionError)
            assert status_of(mount)["paused"]
        finally:
            program("pause", mount.path)  # whoever waits is let go, also where something went wrong
            sample.process.send_signal(signal.SIGCONT)


COMMANDS = {
    "ls": ["ls", "-l"],
    "cp": ["cp", "-r", "--no-preserve=mode"],
    "stat": ["stat"],
    "cat": ["cat"],
    "find": ["find"],
}
ON_AN_IMAGE = ("stat", "cat")


@pytest.fixture
def held(sample: RunningSample, mount: Mount) -> Iterator[ExpectedSeries]:
    """A series that nobody has read, none of whose images come."""
    series = expected_series(sample, "MANYSERIES")[0]
    sample.pace(series.uid, 0)
    yield series
    sample.pace(series.uid, None)


def test_ctrl_c_ends_any_program_that_waits(
    held: ExpectedSeries, sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    folder, name = mount.path / held.path, f"1-{held.image_count}.dcm"
    folder.stat()
    for command, words in COMMANDS.items():
        target = folder / name if command in ON_AN_IMAGE else folder
        arguments = [*words, str(target), *([str(tmp_path / "copy")] if command == "cp" else [])]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                stack = Path(f"/proc/{process.pid}/stack")
                until(lambda stack=stack: "request_wait_answer" in stack.read_text(), command)  # type: ignore[misc]
                process.send_signal(signal.SIGINT)
                assert process.wait(PROMPTLY_S) == -signal.SIGINT
            finally:
                process.kill()
    sample.pace(held.uid, None)
    assert (folder / name).read_bytes() == images_of(sample, held.uid)[name]
