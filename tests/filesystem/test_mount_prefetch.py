"""`tciafs prefetch`, the real command with a real mount."""

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import PROGRAM, Mount, marked_environment, mounted, program, status_of, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

ESCAPE, COLOUR = b"\x1b[", b"\x1b[3"
NOTHING_FAILED = "nothing has failed\n"


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", "20") as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.forget_requests()
    yield _archive
    _archive.clear_faults()


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url, "--retries", "0") as mount:
        yield mount


@pytest.fixture
def series(sample: RunningSample) -> list[ExpectedSeries]:
    return sorted(expected_series(sample, "MANYSERIES"), key=lambda one: one.path)


def _asked(sample: RunningSample) -> list[str]:
    return [request.query["SeriesInstanceUID"] for request in sample.requests("getImage")]


def test_what_was_prefetched_is_read_without_the_archive_and_a_second_time_nothing_is_fetched(
    mount: Mount, sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    patient = mount.path / series[0].path.rsplit("/", 2)[0]
    others = {one.uid for one in series if not (mount.path / one.path).is_relative_to(patient)}
    done = program("prefetch", patient, mount.path / series[-1].path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("11 series fetched (")
    assert len(_asked(sample)) == 11
    assert set(_asked(sample)) & others == {series[-1].uid}
    again = program("prefetch", patient)
    assert again.stdout.splitlines()[-1] == "0 series fetched (0B), 10 were here"
    assert len(_asked(sample)) == 11
    content = images_of(sample, series[0].uid)
    sample.fault("hang", times=99)
    assert {name: (mount.path / series[0].path / name).read_bytes() for name in content} == content


def test_what_failed_is_reported_and_the_others_come(
    mount: Mount, sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    sample.fault("status", series=series[3].uid, code=500, times=9)
    done = program("prefetch", mount.path / "MANYSERIES")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{series[3].path}: ")
    assert "status 500" in line
    assert "19 series fetched" in done.stdout
    assert "1 failed" in done.stdout


def test_a_cache_that_is_too_small_keeps_what_came_and_says_so(
    sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    room = sum(one.size_bytes for one in series[:8])
    with mounted(sample.url, "--cache-size", str(room)) as mount:
        done = program("prefetch", mount.path / "MANYSERIES")
        assert done.returncode == 1
        assert "not all could be fetched" in done.stderr
        assert "of the cache" in done.stderr
        fetched = int(done.stdout.splitlines()[-1].split()[0])
        assert 0 < fetched < 20
        again = program("prefetch", mount.path / "MANYSERIES")
        assert f"{fetched} were here" in again.stdout
        assert len(set(_asked(sample))) == len(_asked(sample)) - 1 or again.returncode == 1


def test_a_path_that_is_not_there_or_in_no_mount_is_said_so(mount: Mount, tmp_path: Path) -> None:
    assert program("prefetch", mount.path / "No such collection").returncode == 1
    assert program("prefetch", tmp_path).returncode == 3
    missing = program("prefetch", tmp_path / "cohort.tcia")
    assert (missing.returncode, missing.stderr) == (3, f"tciafs: {tmp_path}/cohort.tcia does not exist\n")


def test_ctrl_c_stops_the_asking_and_what_is_under_way_comes_to_its_end(
    mount: Mount, sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    for one in series[:3]:
        sample.pace(one.uid, 1)
    words = [*PROGRAM, "prefetch", str(mount.path / "MANYSERIES")]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=marked_environment("command")
    ) as command:
        until(lambda: len(_asked(sample)) == 3, "three series under way")
        command.send_signal(signal.SIGINT)
        said, _ = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "stopped: 0 series fetched" in said
    for one in series[:3]:
        sample.pace(one.uid, None)
    until(lambda: not mount.incoming(), "the end of those under way")
    assert sorted(_asked(sample)) == sorted(one.uid for one in series[:3])


@pytest.mark.parametrize("colours", [True, False], ids=["in colours", "NO_COLOR"])
def test_a_terminal_has_bars_and_a_pipe_has_lines(colours: bool, mount: Mount) -> None:
    ours, theirs = pty.openpty()
    environment = marked_environment("command") | {"TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    environment |= {} if colours else {"NO_COLOR": "1"}
    words = [*PROGRAM, "prefetch", str(mount.path / "MANYSERIES")]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=theirs, stdin=theirs, env=environment
    ) as command:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end of the other side
            while piece := os.read(ours, 65536):
                shown += piece
        assert command.stdout is not None
        said = command.stdout.read()
    os.close(ours)
    assert said.splitlines() == [said.splitlines()[-1]]
    assert said.startswith(b"20 series fetched")
    assert ESCAPE in shown
    assert b"of 20 series" in shown
    assert (COLOUR in shown) == colours


# What failed, once more


def test_what_failed_is_tried_again_and_nothing_else(
    mount: Mount, sample: RunningSample, series: list[ExpectedSeries]
) -> None:
    bad = [series[3], series[15]]
    for one in bad:
        sample.fault("status", series=one.uid, code=500, times=1)
        assert program("prefetch", mount.path / one.path).returncode == 1
    sample.forget_requests()

    nothing = program("retry", mount.path / series[0].path)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, NOTHING_FAILED, "")

    some = program("retry", mount.path / bad[0].path)
    assert (some.returncode, some.stdout.splitlines()[-1].startswith("1 series fetched (")) == (0, True)
    assert _asked(sample) == [bad[0].uid]

    sample.fault("status", series=bad[1].uid, code=500, times=1)
    again = program("retry", mount.path)
    assert again.returncode == 1
    assert again.stderr.startswith(f"{bad[1].path}: ")

    rest = program("retry", mount.path)
    assert (rest.returncode, rest.stdout.splitlines()[-1].startswith("1 series fetched (")) == (0, True)
    assert _asked(sample) == [bad[0].uid, bad[1].uid, bad[1].uid]
    assert program("retry", mount.path).stdout == NOTHING_FAILED
    assert status_of(mount)["failures_total"] == 0


# Manifests


def _manifest(folder: Path, *uids: str) -> Path:
    head = "downloadServerUrl=https://example.org/\nmanifestVersion=3.0\nListOfSeriesToDownload=\n"
    file = folder / "cohort.tcia"
    file.write_text(head + "".join(f"{uid}\n" for uid in uids))
    return file


def test_all_that_a_manifest_names_is_fetched_and_what_the_archive_has_not_is_said(
    mount: Mount, sample: RunningSample, series: list[ExpectedSeries], tmp_path: Path
) -> None:
    named = [series[19].uid, series[2].uid]
    done = program("prefetch", _manifest(tmp_path, *named), "--mount", mount.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("2 series fetched (")
    assert sorted(_asked(sample)) == sorted(named)

    file = _manifest(tmp_path, *named, "1.2.3.4")
    missing = program("prefetch", "--mount", mount.path, file)
    assert missing.returncode == 1
    assert missing.stderr == "1.2.3.4: not in the archive, or not permitted\n"
    assert missing.stdout.splitlines()[-1] == "0 series fetched (0B), 2 were here, 1 failed"


def test_a_file_that_names_no_series_is_wrong_use(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("buy milk\n")
    done = program("prefetch", tmp_path / "notes.txt")
    assert (done.returncode, "notes.txt names no series" in done.stderr) == (2, True)
