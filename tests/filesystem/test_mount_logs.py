"""The log of a real mount: what belongs together, secrets, and what signals and `tciafs log-level` do."""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series
from tests.mounting import PROGRAM, Mount, is_mounted, marked_environment, mounted, program, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

PASSWORD = "pa55-word"
TOKENS = ("sample-access", "sample-refresh")


@pytest.fixture(scope="module")
def sample() -> Iterator[RunningSample]:
    with running_sample("--login", f"ada:{PASSWORD}") as sample:
        yield sample


@pytest.fixture
def series(sample: RunningSample) -> ExpectedSeries:
    (found,) = expected_series(sample, "Phantom-Echo-NC")
    return found


def read(mount: Mount, series: ExpectedSeries) -> None:
    for name in os.listdir(mount.path / series.path):
        (mount.path / series.path / name).read_bytes()


def lines_with(mount: Mount, *words: str) -> list[str]:
    return [line for line in mount.log().splitlines() if all(word in line for word in words)]


def numbers(lines: list[str]) -> set[str]:
    return {found[1] for line in lines if (found := re.search(r" \[(\d+)\] [A-Z]", line))}


def test_what_the_archive_was_asked_bears_the_number_of_the_request_that_wanted_it(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    collection = series.path.split("/")[0]
    with mounted(sample.url, "--log-level", "debug") as mount:
        read(mount, series)
        for asked in (f"getPatient?Collection={collection} ", f"getImage?SeriesInstanceUID={series.uid}&"):
            (number,) = numbers(
                lines_with(mount, "INFO tciafs.archives.http.client: ", asked, "with status 200")
            )
            (wanted,) = lines_with(mount, f" [{number}] DEBUG tciafs.filesystem.operations: ")
            assert f"/{collection}" in wanted
            assert re.search(rf" for process {os.getpid()} \(.+\)$", wanted)
            fetched = lines_with(mount, f"/{series.uid} fetched")
            assert "getImage" not in asked or numbers(fetched) == {number}


def test_no_secret_is_logged_however_much_is(sample: RunningSample, tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(PASSWORD)
    words = ("--user", "ada", "--password-file", password_file, "--log-level", "debug")
    with mounted(sample.url, *words) as mount:
        image = next((mount.path / "Limited-Access").rglob("*.dcm"))
        assert image.read_bytes()[128:132] == b"DICM"
        assert lines_with(mount, "getImage")
        assert not [secret for secret in (PASSWORD, *TOKENS, "Bearer") if secret in mount.log()]


# Signals


def test_a_daemon_reopens_its_log_when_it_hangs_up_and_serves_on(
    sample: RunningSample, tmp_path: Path
) -> None:
    with mounted(sample.url, folder=tmp_path, background=True) as mount:
        moved = mount.log_file.rename(tmp_path / "log.moved")
        mount.signal(signal.SIGHUP)
        until(mount.log_file.exists, "a new log file")
        before = moved.read_text()
        os.listdir(mount.path / "Phantom-Head")
        assert lines_with(mount, "getPatient?Collection=Phantom-Head ")
        assert moved.read_text() == before


def test_a_mount_in_the_foreground_of_a_terminal_ends_when_that_is_closed(
    sample: RunningSample, tmp_path: Path
) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    words = [*PROGRAM, "--foreground", str(path), "--url", sample.url, "--cache-dir", str(tmp_path / "cache")]
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.execve(words[0], words, marked_environment("terminal"))
    assert b"collections." in os.read(terminal, 4096)
    assert is_mounted(path)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not is_mounted(path)


def test_what_it_is_doing_is_written_down_on_demand(sample: RunningSample) -> None:
    (series,) = (one for one in expected_series(sample, "Phantom-Head") if one.image_count == 60)
    sample.pace(series.uid, 1)
    with mounted(sample.url, "--log-level", "error", background=True) as mount:
        with subprocess.Popen(["ls", mount.path / series.path], stdout=subprocess.DEVNULL) as reader:
            try:
                until(lambda: mount.incoming(), "a download")
                mount.signal(signal.SIGUSR1)
                until(lambda: "Tasks at " in mount.log() and "carry_out" in mount.log(), "the tree of tasks")
            finally:
                sample.pace(series.uid, None)
        assert reader.returncode == 0
        text = mount.log()
    assert "Current thread 0x" in text
    assert re.search(r"^ +tciafs\.filesystem\.mount\.run_mount\n +/\S+/mount\.py:\d+ run_mount$", text, re.M)
    assert re.search(r"^ +\S+/pool\.py:\d+ carry_out$", text, re.M)


# The level


def test_the_level_of_a_running_mount_can_be_changed(sample: RunningSample) -> None:
    with mounted(sample.url, "--log-level", "warning") as mount:
        os.listdir(mount.path / "Phantom-Head")
        assert not lines_with(mount, "Phantom-Head")
        assert program("log-level", "debug", mount.path).returncode == 0
        os.listdir(mount.path / "Phantom-Brain-MR")
        assert lines_with(mount, "DEBUG", "opendir /Phantom-Brain-MR for process")
        assert program("log-level", "error", mount.path).returncode == 0
        os.listdir(mount.path / "Phantom-Echo-NC")
        assert not lines_with(mount, "Phantom-Echo-NC")
        wrong = program("log-level", "loud", mount.path)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
        assert "'loud' is not one of" in wrong.stderr
