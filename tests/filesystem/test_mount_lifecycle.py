"""Mounting and unmounting, cleanly and otherwise; what the cache keeps; with the archive away."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import PROGRAM, Mount, is_mounted, mounted, program, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

END_S = 5.0
"""How long a mount may take to go away (behaviour of `systemctl stop` and of impatient users)."""


@pytest.fixture
def series(sample: RunningSample) -> Iterator[ExpectedSeries]:
    """The CT of 60 images, whose download a test may hold."""
    (found,) = (one for one in expected_series(sample, "Phantom-Head") if one.image_count == 60)
    sample.forget_requests()
    yield found
    sample.pace(found.uid, None)


@pytest.fixture
def other(sample: RunningSample) -> ExpectedSeries:
    """A series of two images that nobody disturbs."""
    (found,) = expected_series(sample, "Phantom-Echo-NC")
    return found


def read_all(mount: Mount, series: ExpectedSeries) -> dict[str, bytes]:
    folder = mount.path / series.path
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def hold_in_mid_download(
    sample: RunningSample, mount: Mount, series: ExpectedSeries
) -> "subprocess.Popen[bytes]":
    """Give a reader that waits for the last image, when three have come."""
    sample.pace(series.uid, 3)
    folder = mount.path / series.path
    assert (folder / "1-02.dcm").read_bytes()
    reader = subprocess.Popen(["cat", folder / "1-60.dcm"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until(lambda: "request_wait_answer" in Path(f"/proc/{reader.pid}/stack").read_text(), "a waiting reader")
    assert len(mount.incoming()) == 1
    return reader


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_a_signal_unmounts(number: signal.Signals, background: bool, sample: RunningSample) -> None:
    with mounted(sample.url, background=background) as mount:
        os.listdir(mount.path)
        mount.signal(number)
        mount.wait_ended(END_S)
        assert mount.exit_code() == 0
        assert not is_mounted(mount.path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_in_the_moment_of_mounting_unmounts_also_where_it_is_repeated(
    number: signal.Signals, times: int, sample: RunningSample, tmp_path: Path
) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    words: list[str | Path] = [folder, "--url", sample.url, "--cache-dir", tmp_path / "cache", "--foreground"]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until(lambda: is_mounted(folder), "the mount", late_by=0)
        for _ in range(times):
            process.send_signal(number)
        _, complaints = process.communicate(timeout=END_S)
    assert (process.returncode, complaints) == (0, b"")
    assert not is_mounted(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_mid_download_unmounts_and_leaves_nothing(
    number: signal.Signals, sample: RunningSample, series: ExpectedSeries
) -> None:
    with mounted(sample.url) as mount:
        reader = hold_in_mid_download(sample, mount, series)
        mount.signal(number)
        mount.wait_ended(END_S)
        assert mount.exit_code() == 0
        assert not is_mounted(mount.path)
        assert mount.incoming() == []
        assert reader.wait(END_S) != 0
        reader.communicate()


def test_a_mount_in_use_is_not_unmounted_and_says_who_to_ask(sample: RunningSample) -> None:
    with mounted(sample.url) as mount:
        licence = mount.path / "Phantom-Head" / "LICENSE"
        with licence.open("rb"):
            refused = program("umount", mount.path)
            assert os.listdir(mount.path)
        assert refused.returncode == 3
        assert refused.stderr.count("\n") == 1
        assert "is in use" in refused.stderr
        assert "fuser -vm" in refused.stderr


def test_a_background_mount_is_unmounted_by_the_command(sample: RunningSample) -> None:
    with mounted(sample.url, background=True) as mount:
        assert mount.process.wait(END_S) == 0
        assert "10 collections" in mount.message


def test_unmounting_what_is_not_mounted_is_wrong_use(tmp_path: Path) -> None:
    refused = program("umount", tmp_path)
    assert refused.returncode == 2
    assert "nothing is mounted" in refused.stderr


def test_a_dead_mount_is_cleared_by_umount(sample: RunningSample) -> None:
    with mounted(sample.url) as mount:
        mount.kill()
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.listdir(mount.path)
        cleared = program("umount", mount.path)
        assert (cleared.returncode, cleared.stderr) == (0, "")
        assert not is_mounted(mount.path)


def test_a_dead_mount_is_cleared_by_the_next_mount(sample: RunningSample, tmp_path: Path) -> None:
    with mounted(sample.url, folder=tmp_path) as mount:
        mount.path.stat()  # which the kernel remembers for a while, also of the dead
        mount.kill()
        with mounted(sample.url, folder=tmp_path) as again:
            assert os.listdir(again.path)


def test_the_cache_is_handed_over_to_a_mount_right_after_an_unmount(
    sample: RunningSample, other: ExpectedSeries, tmp_path: Path
) -> None:
    for _ in range(4):
        with mounted(sample.url, folder=tmp_path, background=True) as mount:
            read_all(mount, other)
            # Not by our command, nor by Mount.unmount, which wait for the daemon to be gone.
            assert run("fusermount3", "-u", "--", mount.path).returncode == 0
            with mounted(sample.url, folder=tmp_path, background=True) as again:
                assert read_all(again, other) == images_of(sample, other.uid)


def test_a_second_mount_of_one_cache_folder_says_so_and_stops(sample: RunningSample, tmp_path: Path) -> None:
    with mounted(sample.url) as mount:
        refused = program(tmp_path, "--url", sample.url, "--cache-dir", mount.cache)
        assert refused.returncode == 3
        assert "another tciafs (process " in refused.stderr
        assert not is_mounted(tmp_path)


# -- what stays -----------------------------------------------------------------------------------


def test_after_kill_9_what_was_complete_stays_and_what_was_not_leaves_no_trace(
    sample: RunningSample, series: ExpectedSeries, other: ExpectedSeries, tmp_path: Path
) -> None:
    expected = images_of(sample, other.uid)
    with mounted(sample.url, folder=tmp_path) as mount:
        assert read_all(mount, other) == expected
        reader = hold_in_mid_download(sample, mount, series)
        mount.kill()
        assert reader.wait(END_S) != 0
        reader.communicate()
        sample.forget_requests()
        with mounted(sample.url, folder=tmp_path) as again:
            assert again.incoming() == []
            assert os.getxattr(again.path / series.path, "user.tciafs.state") == b"remote"
            assert os.getxattr(again.path / other.path, "user.tciafs.state") == b"local"
            assert read_all(again, other) == expected
            assert sample.requests("getImage") == []


def test_inode_numbers_are_the_same_after_a_remount(
    sample: RunningSample, other: ExpectedSeries, tmp_path: Path
) -> None:
    def inodes() -> dict[str, int]:
        with mounted(sample.url, folder=tmp_path) as mount:
            places = list(mount.path.joinpath(other.path).rglob("*"))
            places += [mount.path / other.path, *mount.path.joinpath(other.path).parents]
            shown = [place for place in places if place.is_relative_to(mount.path)]
            return {str(place.relative_to(mount.path)): place.stat().st_ino for place in shown}

    first = inodes()
    assert len(set(first.values())) == len(first)
    assert inodes() == first


# -- the archive away -----------------------------------------------------------------------------


def test_without_its_archive_a_mount_starts_and_says_so_and_a_listing_is_an_unreachable_host() -> None:
    with running_sample() as sample:
        url = sample.url
    with mounted(url, "--retries", "0") as mount:
        assert "the archive is not available" in mount.message
        assert "what is cached is readable" in mount.message
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)) as failed:
            os.listdir(mount.path)
        assert failed.value.errno == errno.EHOSTUNREACH
        assert mount.path.stat().st_ino == 1
        assert os.statvfs(mount.path).f_blocks > 0


@pytest.mark.parametrize("option", [(), ("--offline",), ("--listing-ttl", "0s")], ids=" ".join)
def test_what_is_cached_stays_readable_with_the_archive_away(option: tuple[str, ...], tmp_path: Path) -> None:
    with running_sample() as sample:
        (series,) = expected_series(sample, "Phantom-Brain-MR")
        expected = images_of(sample, series.uid)
        with mounted(sample.url, folder=tmp_path) as mount:
            assert read_all(mount, series) == expected
            (unknown,) = expected_series(sample, "Phantom-Echo-NC")
            os.listdir((mount.path / unknown.path).parent)
    with mounted(sample.url, *option, "--retries", "0", folder=tmp_path) as mount:
        assert read_all(mount, series) == expected
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            (mount.path / unknown.path / "1-1.dcm").read_bytes()


def test_what_is_cached_stays_readable_while_the_archive_is_frozen(tmp_path: Path) -> None:
    with running_sample() as sample, mounted(sample.url, folder=tmp_path) as mount:
        (series,) = expected_series(sample, "Phantom-Brain-MR")
        expected = read_all(mount, series)
        sample.process.send_signal(signal.SIGSTOP)
        try:
            assert read_all(mount, series) == expected
            mount.unmount()
            with mounted(sample.url, folder=tmp_path) as again:
                assert "the archive has not answered yet" in again.message or " collections." in again.message
                assert read_all(again, series) == expected
        finally:
            sample.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_what_a_daemon_writes_is_for_nobody_else(background: bool, sample: RunningSample) -> None:
    with mounted(sample.url, background=background) as mount:
        next((mount.path / "Phantom-Head").rglob("*.dcm")).read_bytes()
        for path in (mount.cache, *mount.cache.rglob("*")):
            assert path.lstat().st_mode & 0o077 == 0, path
        limits = Path(f"/proc/{mount.pid}/limits").read_text()
        (core,) = (line.split() for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core[4:6] == ["0", "0"]
