"""Looking around and reading through the kernel: what is downloaded, when, and that it is the truth."""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tciafs.filesystem.operations import LONG_FOLDER_BLOCK_BYTES
from tests.behaviour.retriever import expected_series, images_of, md5, unzip_series
from tests.mounting import Mount, mounted, run, until
from tests.real_series import CRLM, NACT, unpacked
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

SERIES = 500
READERS = 200


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", str(SERIES)) as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.forget_requests()
    yield _archive
    _archive.clear_faults()


@pytest.fixture
def mount(sample: RunningSample) -> Iterator[Mount]:
    with mounted(sample.url) as mount:
        yield mount


def _head_ct(sample: RunningSample) -> tuple[str, str]:
    """Return path and UID of the CT of 60 images."""
    (series,) = (one for one in expected_series(sample, "Phantom-Head") if one.image_count == 60)
    return series.path, series.uid


def _asked_for(sample: RunningSample) -> Counter[str]:
    """Return how often the images of each series were asked for."""
    return Counter(request.query["SeriesInstanceUID"] for request in sample.requests("getImage"))


def test_find_down_to_the_series_asks_for_no_image(sample: RunningSample, mount: Mount) -> None:
    found = run("find", mount.path, "-maxdepth", "4", "-mindepth", "4", "-type", "d")
    assert found.returncode == 0, found.stderr
    folders = {os.path.relpath(line, mount.path) for line in found.stdout.splitlines()}
    assert folders == {series.path for series in expected_series(sample)}
    assert not _asked_for(sample)


def test_ls_and_du_of_the_upper_folders_ask_for_no_image(sample: RunningSample, mount: Mount) -> None:
    listed = run("ls", "-l", *mount.path.glob("*"), *mount.path.glob("*/*"))
    assert listed.returncode == 0, listed.stderr
    assert not _asked_for(sample)


def test_an_image_can_be_read_while_the_rest_of_its_series_is_held_back(
    sample: RunningSample, mount: Mount
) -> None:
    path, uid = _head_ct(sample)
    expected = images_of(sample, uid)
    sample.pace(uid, 3)
    try:
        third = subprocess.run(
            ["cat", mount.path / path / "1-03.dcm"], check=True, capture_output=True, timeout=10
        )
        assert third.stdout == expected["1-03.dcm"]
        assert os.getxattr(mount.path / path, "user.tciafs.state") == b"arriving"
    finally:
        sample.pace(uid, None)
    folder = mount.path / path
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == expected


def test_a_copy_of_everything_is_what_unzip_gives(
    sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    shown, taken_out = tmp_path / "shown", tmp_path / "taken out"
    collections = [name for name in os.listdir(mount.path) if name != "MANYSERIES"]
    for series in expected_series(sample, *collections):
        unzip_series(sample, series, taken_out)
    shown.mkdir()
    copied = run("cp", "-r", *(mount.path / name for name in collections), shown)
    assert copied.returncode == 0, copied.stderr
    for collection in collections:
        (shown / collection / "LICENSE").unlink()
    compared = run("diff", "-r", shown, taken_out)
    assert (compared.returncode, compared.stdout, compared.stderr) == (0, "", "")


def test_classic_naming_copies_into_folders_called_by_uid(sample: RunningSample, tmp_path: Path) -> None:
    collection = "Phantom-Brain-MR"
    (series,) = expected_series(sample, collection, classic=True)
    unzip_series(sample, series, tmp_path / "taken out")
    with mounted(sample.url, "--naming", "classic") as mount:
        run("cp", "-r", mount.path / collection, tmp_path / "shown")
    (tmp_path / "shown" / "LICENSE").unlink()
    compared = run("diff", "-r", tmp_path / "shown", tmp_path / "taken out" / collection)
    assert (compared.returncode, compared.stdout) == (0, "")


def test_a_find_over_500_unknown_series_downloads_three_and_its_list_opens_every_image_once(
    sample: RunningSample, mount: Mount
) -> None:
    everything = expected_series(sample, "MANYSERIES")
    walked = run("find", mount.path / "MANYSERIES", "-name", "*.dcm")
    assert walked.returncode == 0, walked.stderr
    paths = walked.stdout.splitlines()
    assert len(paths) == sum(series.image_count for series in everything)
    assert _asked_for(sample).total() <= 3
    read = Counter(md5(Path(path).read_bytes()) for path in paths)
    assert max(_asked_for(sample).values()) == 1
    held = Counter(md5(image) for one in everything for image in images_of(sample, one.uid).values())
    assert read == held


def test_a_copy_of_a_cold_series_of_two_acquisitions_has_the_true_names(
    sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    (series,) = expected_series(sample, "Phantom-Brain-MR")
    copied = run("cp", "-r", mount.path / series.path, tmp_path / "copy")
    assert copied.returncode == 0, copied.stderr
    assert _asked_for(sample) == {series.uid: 1}
    copy = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert {name.partition("-")[0] for name in copy} == {"1", "2"}
    assert copy == images_of(sample, series.uid)


def test_two_hundred_readers_of_one_series_cause_one_download(sample: RunningSample, mount: Mount) -> None:
    path, uid = _head_ct(sample)
    expected = images_of(sample, uid)
    sample.forget_requests()
    sample.pace(uid, 0)
    names = [f"1-{1 + place % 60:02}.dcm" for place in range(READERS)]
    readers = [
        subprocess.Popen(["md5sum", mount.path / path / name], stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    try:
        until(lambda: _asked_for(sample), "the download")
        assert all(reader.poll() is None for reader in readers)
        sample.pace(uid, None)
        sums = [reader.communicate(timeout=30)[0].split()[0] for reader in readers]
    finally:
        sample.pace(uid, None)
        for reader in readers:
            reader.kill()
            reader.communicate(timeout=30)
    assert sums == [md5(expected[name]) for name in names]
    assert _asked_for(sample) == {uid: 1}


def test_a_crowd_of_26_000_patients_lists_completely() -> None:
    with running_sample("--many-patients", "26000") as sample, mounted(sample.url) as mount:
        listed = run("ls", "-U", mount.path / "MANY")
        assert listed.returncode == 0, listed.stderr
        names = listed.stdout.splitlines()
        assert set(names) == {"LICENSE", *(f"MANY-{number:06}" for number in range(1, 26_001))}
        assert len(names) == 26_001
        assert os.stat(mount.path / "MANY").st_blksize == LONG_FOLDER_BLOCK_BYTES


@pytest.mark.parametrize(
    ("tar", "inside"),
    [
        (CRLM, "crlm/CRLM-CT-1004/image"),
        (NACT, "nact/UCSF-BR-08/image_dce_3dfgre_orig"),
    ],
)
def test_a_real_series_has_the_names_and_bytes_that_the_retriever_gave_it(
    tar: str, inside: str, shared: Path, tmp_path: Path
) -> None:
    original = unpacked(shared, tar, tmp_path) / inside
    with running_sample("--sample-dir", str(original)) as sample, mounted(sample.url) as mount:
        (series,) = expected_series(sample, "SAMPLE")
        copied = run("cp", "-r", mount.path / series.path, tmp_path / "copy")
        assert copied.returncode == 0, copied.stderr
        compared = run("diff", "-r", tmp_path / "copy", original)
        assert (compared.returncode, compared.stdout) == (0, "")
