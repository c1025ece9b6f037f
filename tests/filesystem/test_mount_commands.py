"""Commands that ask the daemon of a real mount: at any moment, also while nothing else gets an answer."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import PROGRAM, Mount, mounted, program, run, status_of, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

CONTROL = Path(__file__).parents[2] / "docs/control.md"


@pytest.fixture
def series(sample: RunningSample) -> Iterator[ExpectedSeries]:
    """The CT of 60 images, whose download a test may hold."""
    (found,) = (one for one in expected_series(sample, "Phantom-Head") if one.image_count == 60)
    yield found
    sample.pace(found.uid, None)
    sample.clear_faults()
    sample.restore()


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_a_mount_says_what_it_is_as_soon_as_it_is_there(background: bool, sample: RunningSample) -> None:
    with mounted(sample.url, background=background) as mount:
        done = program("status", "--json", mount.path)
        assert (done.returncode, done.stderr) == (0, "")
        status = json.loads(done.stdout)
        assert status.keys() == status_of(mount).keys()
        assert (status["mountpoint"], status["archive"], status["pid"]) == (
            str(mount.path),
            sample.url,
            mount.pid,
        )
        assert status["catalogue"] == {"requests": 1, "remembered": 1, "events": []}
        assert (status["downloads"], status["failures"], status["inodes"]) == ([], [], 1)
        shown = program("status", mount.path / "Phantom-Head")
        assert shown.stdout.startswith(f"{mount.path}\n  archive    {sample.url}\n")


def test_a_download_under_way_is_shown(sample: RunningSample, series: ExpectedSeries) -> None:
    sample.pace(series.uid, 3)
    with mounted(sample.url) as mount:
        assert (mount.path / series.path / "1-02.dcm").read_bytes()
        until(lambda: status_of(mount)["downloads"][0]["images"] == 3, "the third image")
        (download,) = status_of(mount)["downloads"]
        folder = mount.path / series.path
        sizes_bytes = [(folder / name).stat().st_size for name in ("1-01.dcm", "1-02.dcm", "1-03.dcm")]
        assert download == {
            "series_uid": series.uid,
            "collection": "Phantom-Head",
            "patient": "HEAD-001",
            "state": "arriving",
            "images": 3,
            "image_count": 60,
            "arrived_bytes": sum(sizes_bytes),
            "received_bytes": download["received_bytes"],
            "listed_bytes": series.size_bytes,
            "description": "Head 2.5 mm, brain",
            "modality": "CT",
        }
        assert download["received_bytes"] > 0
        assert f"arriving Phantom-Head/HEAD-001 {series.uid}: 3 of 60" in program("status", mount.path).stdout
        sample.pace(series.uid, None)
        until(lambda: not status_of(mount)["downloads"], "the end of the download")
        cache = status_of(mount)["cache"]
        assert (cache["series"], cache["used_bytes"] > series.size_bytes) == (1, True)
        (arrival,) = status_of(mount)["arrivals"]
        assert (arrival["series_uid"], arrival["images"]) == (series.uid, 60)
        assert arrival["checks"] == ["crc32", "count", "size", "md5"]
        (folder / "1-03.dcm").read_bytes()
        assert status_of(mount)["since_start"] == {
            "opened_cached": 1,
            "opened_waiting": 1,
            "received_bytes": status_of(mount)["received_today_bytes"],
            "series_fetched": 1,
            "series_failed": 0,
            "refused": 0,
        }


def test_bytes_that_came_in_are_counted_inflated_as_help_and_documentation_say(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    zipped_bytes = len(sample.get("v4/getImage", SeriesInstanceUID=series.uid).content)
    with mounted(sample.url) as mount:
        assert os.listdir(mount.path / series.path)
        until(lambda: not status_of(mount)["downloads"], "the end of the download")
        status, metrics = status_of(mount), program("metrics", mount.path).stdout
    inflated_bytes = sum(map(len, images_of(sample, series.uid).values()))
    assert zipped_bytes < 0.9 * inflated_bytes
    assert status["received_today_bytes"] == inflated_bytes == series.size_bytes
    assert status["since_start"]["received_bytes"] == inflated_bytes
    (said,) = (line for line in metrics.splitlines() if line.startswith("tciafs_received_bytes_total{"))
    assert float(said.split()[-1]) == inflated_bytes
    (helped,) = (line for line in metrics.splitlines() if "HELP tciafs_received_bytes" in line)
    documented = re.findall(r"^\|.*received_(?:today_)?bytes.*", CONTROL.read_text(), re.MULTILINE)
    assert len(documented) == 3
    assert all("inflated" in line for line in (helped, *documented))


def test_a_failure_is_shown_with_its_sentence(sample: RunningSample, series: ExpectedSeries) -> None:
    with mounted(sample.url, "--retries", "0") as mount:
        sample.fault("status", series=series.uid, code=500)
        with pytest.raises(OSError, match="No route to host"):
            os.listdir(mount.path / series.path)
        (failure,) = status_of(mount)["failures"]
        assert (failure["series_uid"], failure["error"]) == (series.uid, "Unreachable")
        assert failure["message"] in mount.log()
        assert failure["message"] in program("status", mount.path).stdout


def test_a_damaged_series_fails_at_once_after_a_restart_and_is_asked_for_again_after_a_refresh(
    sample: RunningSample, series: ExpectedSeries, tmp_path: Path
) -> None:
    table = tmp_path / "failed.csv"
    sample.fault("short", series=series.uid, times=99, images=7)
    with (
        mounted(sample.url, "--retries", "0", folder=tmp_path / "place") as mount,
        pytest.raises(OSError, match=os.strerror(errno.EIO)),
    ):
        os.listdir(mount.path / series.path)
    sample.clear_faults()
    sample.forget_requests()
    with mounted(sample.url, "--retries", "0", folder=tmp_path / "place") as mount:
        folder = mount.path / series.path
        for call in (os.listdir, lambda folder: (folder / "1-01.dcm").read_bytes()):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                call(folder)
        sentence = f"series {series.uid} came with 53 of 60 images"
        assert os.getxattr(folder, "user.tciafs.error").decode().startswith(sentence)
        assert os.getxattr(folder, "user.tciafs.state") == b"failed"
        assert sentence in program("status", mount.path).stdout
        assert program("status", "--failed", table, mount.path).stdout == f"1 failed series in {table}\n"
        (row,) = csv.DictReader(table.read_text().splitlines())
        assert (row["Series UID"], row["Collection"], row["Reason"]) == (series.uid, "Phantom-Head", sentence)
        assert sample.requests("getImage") == []
        assert program("refresh", folder).returncode == 0
        assert len(os.listdir(folder)) == 60
        assert len(sample.requests("getImage")) == 1
        until(lambda: os.getxattr(folder, "user.tciafs.state") == b"local", "the series in its place")
        assert status_of(mount)["failures"] == []


def test_a_status_comes_while_the_archive_is_frozen_and_readers_wait(series: ExpectedSeries) -> None:
    with running_sample() as archive, mounted(archive.url) as mount:
        os.listdir(mount.path)
        archive.process.send_signal(signal.SIGSTOP)
        try:
            reader = subprocess.Popen(
                ["ls", mount.path / "Phantom-Head"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            until(lambda: status_of(mount)["catalogue"]["requests"] == 2, "a question that hangs")
            assert reader.poll() is None
            waiting = subprocess.Popen(refresh(mount.path), stderr=subprocess.DEVNULL)
            until(lambda: status_of(mount)["catalogue"]["requests"] == 3, "a command that waits")
            assert waiting.poll() is None
            mount.signal(signal.SIGTERM)
            mount.wait_ended()
        finally:
            archive.process.send_signal(signal.SIGCONT)
        assert waiting.wait(20) == 1
        reader.wait(20)


def test_a_dead_mount_is_said_to_be_dead(sample: RunningSample) -> None:
    with mounted(sample.url) as mount:
        mount.kill()
        sentence = f"the daemon of {mount.path} is dead; clear it with: tciafs umount {mount.path}"
        for command in ("status", "refresh"):
            done = program(command, mount.path / "Phantom-Head")
            assert (done.returncode, done.stdout, done.stderr) == (1, "", f"tciafs: {sentence}\n")


def test_a_mount_after_a_dead_one_answers(sample: RunningSample, tmp_path: Path) -> None:
    with mounted(sample.url, folder=tmp_path) as mount:
        mount.kill()
        with mounted(sample.url, folder=tmp_path) as again:
            assert status_of(again)["pid"] == again.pid


def test_where_nothing_is_mounted_there_is_no_status(tmp_path: Path) -> None:
    for command in ("status", "refresh"):
        done = program(command, tmp_path)
        assert (done.returncode, done.stderr) == (3, f"tciafs: no tciafs is mounted at {tmp_path}\n")


def refresh(path: Path) -> list[str]:
    return [*PROGRAM, "refresh", str(path)]


# Asking again


def test_what_the_archive_lists_anew_is_there_after_a_refresh_and_not_before(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    with mounted(sample.url) as mount:
        study = (mount.path / series.path).parent
        assert Path(series.path).name in os.listdir(study)
        sample.revise(series.uid, SeriesDescription="brand new")
        assert not [name for name in os.listdir(study) if "brand new" in name]
        old_name, inside = Path(series.path).name, Path(series.path).parent
        done = program("refresh", mount.path / series.path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"tciafs: {old_name!r} is not in /{inside}")
        (renamed,) = (name for name in os.listdir(study) if "brand new" in name)
        done = program("refresh", study / renamed / "1-01.dcm")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"asked again: {study}/{renamed}/1-01.dcm\n"
        assert os.getxattr(study / renamed, "user.tcia.SeriesInstanceUID") == series.uid.encode()


def test_a_refresh_asks_one_level_and_forgets_what_is_below(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    with mounted(sample.url) as mount:
        study = (mount.path / series.path).parent
        os.listdir(study)
        sample.revise(series.uid, SeriesDescription="brand new")
        sample.forget_requests()
        for path in (mount.path, mount.path / "Phantom-Head"):
            assert program("refresh", path).returncode == 0
        assert [request.endpoint for request in sample.requests()] == ["getCollectionValues", "getPatient"]
        os.listdir(study)  # the old listing, while the archive is asked behind it
        until(lambda: any("brand new" in name for name in os.listdir(study)), "the new listing")


def test_a_refresh_that_fails_says_why_and_changes_nothing(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    with mounted(sample.url, "--retries", "0") as mount:
        before = os.listdir(mount.path / "Phantom-Head")
        sample.fault("status", "getPatient", code=500)
        done = program("refresh", mount.path / "Phantom-Head")
        assert (done.returncode, done.stdout) == (1, "")
        assert "answered getPatient with status 500" in done.stderr
        assert os.listdir(mount.path / "Phantom-Head") == before
        done = program("refresh", mount.path / "no such collection")
        assert (done.returncode, "is not in /" in done.stderr) == (1, True)


# Reading what is on disk again


def _pack_of(mount: Mount, size_bytes: int) -> Path:
    """Return the pack on disk that is about as large."""
    packs = (mount.cache / "series").rglob("*.pack")
    return min(packs, key=lambda path: abs(path.stat().st_size - size_bytes))


def test_a_pack_that_was_damaged_on_disk_is_found_dropped_and_fetched_again(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    expected = images_of(sample, series.uid)
    (other,) = expected_series(sample, "Phantom-Echo-NC")[:1]
    with mounted(sample.url) as mount:
        folder = mount.path / series.path
        for each in (series, other):
            run("cp", "-r", mount.path / each.path, mount.cache.parent / each.uid)
        until(lambda: status_of(mount)["cache"]["series"] == 2, "both series in their places")
        good = program("verify", mount.path)
        assert (good.returncode, good.stderr) == (0, "")
        assert f"Phantom-Head/HEAD-001 {series.uid}: OK, 60 images, 7.6M" in good.stdout
        assert good.stdout.splitlines()[-1].startswith("2 series checked, ")
        pack = _pack_of(mount, series.size_bytes)
        with pack.open("r+b") as file:
            file.seek(series.size_bytes // 2)
            file.write(b"damaged")
        sample.forget_requests()
        assert program("verify", mount.path / other.path).returncode == 0
        bad = program("verify", "--quiet", mount.path / "Phantom-Head")
        assert bad.returncode == 1
        assert f"Phantom-Head/HEAD-001 {series.uid}: DAMAGED, the bytes of 1-" in bad.stdout
        assert bad.stdout.splitlines()[-1].endswith(": 1 damaged")
        assert os.getxattr(folder, "user.tciafs.state") == b"evicted"
        assert len(os.listdir(folder)) == 60
        assert sample.requests("getImage") == []
        assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == expected
        assert len(sample.requests("getImage")) == 1
        until(lambda: os.getxattr(folder, "user.tciafs.state") == b"local", "the series in its place")
        assert program("verify", folder / "1-01.dcm").returncode == 0


def test_what_is_on_disk_can_be_checked_while_the_archive_is_away(series: ExpectedSeries) -> None:
    with running_sample() as archive, mounted(archive.url) as mount:
        folder = mount.path / series.path
        os.listdir(folder)
        until(lambda: os.getxattr(folder, "user.tciafs.state") == b"local", "the series in its place")
        archive.stop()
        assert program("verify", folder).returncode == 0
        assert "1 series checked" in program("verify", mount.path).stdout
        missing = program("verify", mount.path / "Phantom-Head" / "nobody")
        assert (missing.returncode, missing.stdout) == (1, "")


# Pausing


def test_a_download_stands_still_while_paused_and_goes_on_afterwards(
    sample: RunningSample, series: ExpectedSeries
) -> None:
    sample.pace(series.uid, 3)
    with mounted(sample.url) as mount:
        folder = mount.path / series.path
        assert (folder / "1-01.dcm").read_bytes()
        assert program("pause", mount.path).returncode == 0
        assert ", paused: tciafs resume lets them go on" in program("status", mount.path).stdout
        sample.pace(series.uid, None)
        assert (folder / "1-01.dcm").read_bytes()
        with pytest.raises(PermissionError):
            (folder / "1-60.dcm").read_bytes()
        another = next(one for one in expected_series(sample, "Phantom-Brain-MR"))
        with pytest.raises(PermissionError):
            os.listdir(mount.path / another.path)
        assert status_of(mount)["downloads"][0]["images"] <= 4
        assert program("resume", mount.path).returncode == 0
        assert len(os.listdir(folder)) == 60
        assert (folder / "1-60.dcm").read_bytes()


def test_a_mount_can_be_ended_while_paused(sample: RunningSample, series: ExpectedSeries) -> None:
    sample.pace(series.uid, 3)
    with mounted(sample.url) as mount:
        assert (mount.path / series.path / "1-01.dcm").read_bytes()
        assert program("pause", mount.path).returncode == 0


# Keeping, and dropping


def test_a_file_that_is_made_in_the_root_stands_for_nothing_and_not_for_all(
    sample: RunningSample, series: ExpectedSeries, tmp_path: Path
) -> None:
    manifest = tmp_path / "one.tcia"
    manifest.write_text(f"manifestVersion=3.0\nListOfSeriesToDownload=\n{series.uid}\n")
    with mounted(sample.url, "--manifest", manifest) as mount:
        assert (mount.path / series.path / "1-01.dcm").read_bytes()
        until(lambda: os.getxattr(mount.path / series.path, "user.tciafs.state") == b"local", "the series")
        assert "metadata.csv" in os.listdir(mount.path)
        for command in ("evict", "pin", "unpin", "refresh", "prefetch"):
            done = program(command, mount.path / "metadata.csv")
            assert (command, done.returncode, done.stdout) == (command, 2, "")
            assert "/metadata.csv is made by tciafs and stands for no series; name a folder" in done.stderr
        assert os.getxattr(mount.path / series.path, "user.tciafs.state") == b"local"


def test_what_is_pinned_stays_whatever_is_evicted(sample: RunningSample, series: ExpectedSeries) -> None:
    with mounted(sample.url) as mount:
        folder = mount.path / series.path
        contents = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
        patient = folder.parent.parent
        assert program("pin", patient).stdout == f"pinned: {patient}\n"
        done = program("evict", mount.path)
        stays = f"{mount.path}: 0 series dropped, 0B freed; not dropped: 1 pinned\n"
        assert (done.returncode, done.stdout) == (1, stays)
        assert program("unpin", folder).stderr.startswith("tciafs: it lies in a folder that is pinned")
        assert program("unpin", patient).returncode == 0
        done = program("evict", folder / "1-01.dcm")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{folder}/1-01.dcm: 1 series dropped, 7.6M freed\n"
        assert os.getxattr(folder, "user.tciafs.state") == b"evicted"
        assert list(mount.cache.glob("series/*/*")) == []
        assert sorted(os.listdir(folder)) == sorted(contents)
        assert (folder / "1-01.dcm").read_bytes() == contents["1-01.dcm"]
