"""Worker processes that end or lack memory, as a reader of the mount gets to know it."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted, processes_marked, until
from tests.sample.running import RunningSample

pytestmark = pytest.mark.mount


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url, may_log_errors=True) as mount:
        yield mount


@pytest.fixture(scope="module")
def series(sample: RunningSample) -> ExpectedSeries:
    """The CT of 60 images."""
    (found,) = (one for one in expected_series(sample, "Phantom-Head") if one.image_count == 60)
    return found


def _reads_another_series(mount: Mount, sample: RunningSample) -> None:
    other = max(expected_series(sample, "Phantom-Brain-MR"), key=lambda one: one.image_count)
    for name, content in images_of(sample, other.uid).items():
        assert (mount.path / other.path / name).read_bytes() == content


def _worker(mount: Mount) -> int:
    (worker,) = (pid for pid in processes_marked(mount.mark) if pid != mount.pid)
    return worker


def _has_its_bound(worker: int) -> bool:
    return 0 < resource.prlimit(worker, resource.RLIMIT_DATA)[0] <= 1 << 30


def _failure_of_opening(image: Path) -> str:
    with pytest.raises(OSError, match=r".") as failed:
        os.open(image, os.O_RDONLY)
    return errno.errorcode[failed.value.errno or 0]


def test_a_worker_that_is_killed_fails_its_series_and_the_next_one_comes(
    mount: Mount, sample: RunningSample, series: ExpectedSeries
) -> None:
    sample.pace(series.uid, 2)
    first, second = (mount.path / series.path / name for name in ("1-01.dcm", "1-02.dcm"))
    with first.open("rb") as reader:
        assert reader.read(4)
        os.kill(_worker(mount), signal.SIGKILL)
        until(lambda: not mount.incoming(), "the end of the download")
        assert len(reader.read()) == first.stat().st_size - 4
    sample.pace(series.uid, None)
    assert _failure_of_opening(second) == "EIO"
    assert "the worker process ended unexpectedly" in mount.log()
    _reads_another_series(mount, sample)


def test_a_worker_without_memory_fails_its_series_and_the_next_one_comes(
    mount: Mount, sample: RunningSample, series: ExpectedSeries
) -> None:
    worker = _worker(mount)
    until(lambda: _has_its_bound(worker), "the worker's own bound, which would replace that of the test")
    resource.prlimit(worker, resource.RLIMIT_DATA, (1 << 20, 1 << 20))
    assert _failure_of_opening(mount.path / series.path / "1-01.dcm") == "EIO"
    assert not mount.incoming()
    _reads_another_series(mount, sample)
    assert _worker(mount) != worker


def test_a_worker_has_a_bound_on_its_memory(mount: Mount) -> None:
    worker = _worker(mount)
    until(lambda: _has_its_bound(worker), "the worker's own bound")
