"""Budgets on a real mount: what is over them is refused and shown, and what is here is read all the same."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series
from tests.mounting import Mount, mounted, program, status_of, until
from tests.sample.running import RunningSample

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def series(sample: RunningSample) -> list[ExpectedSeries]:
    """Two series of several images."""
    both = (*expected_series(sample, "Phantom-Head"), *expected_series(sample, "Phantom-Brain-MR"))
    return [one for one in both if (one.image_count or 0) > 1][:2]


def fetch(mount: Mount, series: ExpectedSeries) -> None:
    """Have a series fetched, and wait until it is here."""
    assert os.listdir(mount.path / series.path)
    until(lambda: not status_of(mount)["downloads"], "the end of the download")


def test_a_day_that_is_spent_brings_no_more_also_after_a_restart(
    sample: RunningSample, series: list[ExpectedSeries], tmp_path: Path
) -> None:
    first, second = series
    for _ in range(2):
        with mounted(sample.url, "--daily-budget", "1K", folder=tmp_path) as mount:
            fetch(mount, first)
            assert (mount.path / first.path / os.listdir(mount.path / first.path)[0]).read_bytes()
            with pytest.raises(PermissionError) as caught:
                os.listdir(mount.path / second.path)
            assert caught.value.errno == errno.EPERM
            error = os.getxattr(mount.path / second.path, "user.tciafs.error").decode()
            assert "a day may bring 1K (--daily-budget)" in error
            status = status_of(mount)
            assert status["received_today_bytes"] == first.size_bytes
            (refused,) = status["refusals"]
            assert (refused["pid"], refused["count"]) == (os.getpid(), 1)
            assert refused["reason"] in program("status", mount.path).stdout


def test_a_process_that_has_had_its_bytes_is_refused_and_others_are_not(
    sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    first, second = series
    with mounted(sample.url, "--process-budget", "1K") as mount:
        fetch(mount, first)
        with pytest.raises(PermissionError):
            os.listdir(mount.path / second.path)
        another = [sys.executable, "-c", "import os, sys; print(len(os.listdir(sys.argv[1])))"]
        listed = subprocess.check_output([*another, mount.path / second.path], text=True)
        assert int(listed) == second.image_count
