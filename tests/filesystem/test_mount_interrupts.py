"""A reader that is told to die while it waits is gone, and nobody else notices."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

DEADLY = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
PROMPTLY_S = 5.0
"""Generous for a loaded machine: an answer that never comes is what is told from it."""

CALLS = {
    "lookup": "import os, sys; os.stat(sys.argv[1])",
    "open": "import os, sys; os.open(sys.argv[1], os.O_RDONLY)",
    "readdir": "import os, sys; os.listdir(os.path.dirname(sys.argv[1]))",
}


@dataclass(frozen=True, slots=True)
class Held:
    """An image that the server holds back, of a series that somebody waits for in a certain call."""

    call: str
    series: ExpectedSeries
    path: Path
    expected: bytes


@pytest.fixture(scope="module")
def sample() -> Iterator[RunningSample]:
    with running_sample("--many-series", "20", "--many-patients", "10") as sample:
        yield sample


@pytest.fixture(scope="module")
def mount(sample: RunningSample) -> Iterator[Mount]:
    # What a test reads must not have the series of the next one fetched.
    with mounted(sample.url, "--read-ahead", "0") as mount:
        yield mount


@pytest.fixture(scope="module")
def untouched(sample: RunningSample) -> dict[str, list[ExpectedSeries]]:
    """Series that nobody has read yet, by their collection."""
    return {name: expected_series(sample, name) for name in ("MANY", "MANYSERIES")}


@pytest.fixture(params=list(CALLS))
def held(
    request: pytest.FixtureRequest,
    sample: RunningSample,
    mount: Mount,
    untouched: dict[str, list[ExpectedSeries]],
) -> Iterator[Held]:
    call = str(request.param)
    # The size of a lone image is in the listing: looking it up does not wait, opening it does.
    series = untouched["MANY" if call == "open" else "MANYSERIES"].pop()
    name, content = sorted(images_of(sample, series.uid).items())[-1]
    sample.forget_requests()
    sample.pace(series.uid, 0)
    try:
        yield Held(call, series, mount.path / series.path / name, content)
    finally:
        sample.pace(series.uid, None)


@contextmanager
def waiting(held: Held, sample: RunningSample) -> Iterator["subprocess.Popen[bytes]"]:
    """Give a process that waits in the call for the image."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", CALLS[held.call], held.path], stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: sample.requests("getImage"), "the download")
        until(lambda: waits_for_fuse(process.pid), "a process that waits")
        yield process
    finally:
        sample.pace(held.series.uid, None)
        process.kill()
        process.wait(PROMPTLY_S)


def waits_for_fuse(pid: int) -> bool:
    """Return whether a process is blocked in a request to a file system in user space; see proc(5)."""
    return "request_wait_answer" in Path(f"/proc/{pid}/stack").read_text()


@pytest.mark.parametrize("number", DEADLY)
def test_a_waiting_reader_that_is_killed_is_gone(
    number: signal.Signals, held: Held, sample: RunningSample, mount: Mount
) -> None:
    with waiting(held, sample) as reader:
        reader.send_signal(number)
        assert reader.wait(PROMPTLY_S) != 0
        sample.pace(held.series.uid, None)
        assert held.path.read_bytes() == held.expected
    assert len(sample.requests("getImage")) == 1


def test_the_death_of_one_of_two_waiting_readers_leaves_the_other_its_image(
    held: Held, sample: RunningSample, mount: Mount
) -> None:
    with waiting(held, sample) as first:
        other = subprocess.Popen(["cat", held.path], stdout=subprocess.PIPE)
        try:
            until(lambda: _is_in_the_mount(other.pid), "a second reader")
            first.kill()
            first.wait(PROMPTLY_S)
            sample.pace(held.series.uid, None)
            content, _ = other.communicate(timeout=30)
        finally:
            other.kill()
            other.communicate(timeout=PROMPTLY_S)
    assert content == held.expected
    assert len(sample.requests("getImage")) == 1


def _is_in_the_mount(pid: int) -> bool:
    """Return whether a process waits in the mount, be it for its own answer or for that to another.

    The kernel sends one lookup of a folder at a time; who asks for the same name, or for another one in
    that folder, waits its turn, and cannot be killed meanwhile.
    """
    stack = Path(f"/proc/{pid}/stack").read_text()
    return "fuse_" in stack or "d_alloc_parallel" in stack


def test_a_signal_that_ends_nothing_does_not_end_the_wait(
    sample: RunningSample, mount: Mount, held: Held
) -> None:
    with waiting(held, sample) as reader:
        reader.send_signal(signal.SIGWINCH)
        os.kill(reader.pid, signal.SIGCHLD)
        sample.pace(held.series.uid, None)
        assert reader.wait(30) == 0
