"""Exports through a real mount: what the retriever would have left, and begun again where it broke off."""

import csv
import filecmp
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tciafs.metadata import COLUMNS
from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted, program, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

SERIES = 20


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", str(SERIES)) as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.forget_requests()
    yield _archive
    _archive.clear_faults()


@pytest.fixture(scope="module")
def mount(_archive: RunningSample) -> Iterator[Mount]:
    """A mount for tests to which it is the same what of the archive is here already."""
    with mounted(_archive.url, "--retries", "0") as mount:
        yield mount


def files_below(folder: Path) -> set[str]:
    return {os.path.relpath(each, folder) for each in folder.rglob("*") if each.is_file()}


def images_expected(sample: RunningSample, series: list[ExpectedSeries]) -> dict[str, bytes]:
    return {
        f"{each.path}/{name}": content
        for each in series
        for name, content in images_of(sample, each.uid).items()
    }


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_a_copy_is_what_the_retriever_would_have_left(
    sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    expected = expected_series(sample, "Phantom-Head", "Numbering_Traps")
    to = tmp_path / "out"
    done = program("export", "--to", to, mount.path / "Phantom-Head", mount.path / "Numbering_Traps")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{to}: {len(expected)} series\n"
    images = images_expected(sample, expected)
    licences = {"Phantom-Head/LICENSE", "Numbering_Traps/LICENSE"}
    assert files_below(to) == {*images, *licences, "metadata.csv"}
    assert all((to / name).read_bytes() == content for name, content in images.items())
    assert filecmp.cmp(to / "Phantom-Head/LICENSE", mount.path / "Phantom-Head/LICENSE", shallow=False)
    lines = (to / "metadata.csv").read_bytes()
    assert lines.startswith(",".join(COLUMNS).encode() + b"\r\n")
    rows = {row["File Location"].removeprefix("./"): row for row in rows_of(lines.decode())}
    assert {path: row["Series UID"] for path, row in rows.items()} == {
        each.path: each.uid for each in expected
    }
    (ct,) = (row for row in rows.values() if row["Number of Images"] == "60")
    assert (ct["SOP Class Name"], ct["SOP Class UID"]) == ("CT Image Storage", "1.2.840.10008.5.1.4.1.1.2")
    assert (ct["Study Date"], ct["Study Description"]) == ("05-20-2021", "CT HEAD WO CONTRAST")
    assert ct["File Size"] == "7.95 MB"


def test_what_is_there_is_not_fetched_again_and_what_is_not_is(
    sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    words = ("export", "--to", tmp_path / "out", mount.path / "MANYSERIES")
    assert program(*words).returncode == 0
    first = next((tmp_path / "out" / "MANYSERIES").rglob("*.dcm"))
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    notes, stale = first.with_name("my notes.txt"), first.with_name("1-99.dcm")
    notes.touch()
    stale.touch()
    sample.forget_requests()
    with mounted(sample.url) as another:  # with a cache of its own, which is empty
        again = program("export", "--to", tmp_path / "out", another.path / "MANYSERIES")
        assert again.stdout == f"{tmp_path / 'out'}: {SERIES} series ({SERIES - 1} were there already)\n"
    assert len(sample.requests("getImage")) == 1
    assert first.read_bytes() == content
    assert notes.exists(), "what is not ours stays"
    assert not stale.exists()
    assert len(rows_of((tmp_path / "out" / "metadata.csv").read_text())) == SERIES


@pytest.mark.parametrize("options", [(), ("--archive", "tar")])
def test_what_cannot_be_had_is_reported_and_the_rest_is_there(
    sample: RunningSample, tmp_path: Path, options: tuple[str, ...]
) -> None:
    broken, *others = expected_series(sample, "MANYSERIES")
    sample.fault("short", series=broken.uid, images=1, times=1000)
    to = tmp_path / "out"
    with mounted(sample.url, "--retries", "0", may_log_errors=True) as mount:
        done = program("export", "--to", to, *options, mount.path / "MANYSERIES")
        assert done.returncode == 1
        assert f"./{broken.path}: " in done.stderr
        assert "images" in done.stderr
        (row,) = rows_of((to / "downloadErrRpt.csv").read_text())
        assert row["File Location"] == f"./{broken.path}"
        if options:
            assert {each.name for each in to.glob("*.tar")} == {"MANYSERIES.incomplete.tar"}
        else:
            assert len(rows_of((to / "metadata.csv").read_text())) == len(others)
            assert not any((to / broken.path).glob("*"))
    sample.clear_faults()
    with mounted(sample.url) as mount:
        assert program("export", "--to", to, *options, mount.path / "MANYSERIES").returncode == 0
    assert not (to / "downloadErrRpt.csv").exists()
    assert len(rows_of((to / "metadata.csv").read_text())) == SERIES
    assert [each.name for each in to.glob("*.tar")] == (["MANYSERIES.tar"] if options else [])


@pytest.mark.parametrize("form", ["tar", "tar.xz", "tar.zst"])
def test_an_archive_has_what_the_mount_shows(
    sample: RunningSample, mount: Mount, tmp_path: Path, form: str
) -> None:
    images = images_expected(sample, expected_series(sample, "Numbering_Traps"))
    done = program("export", "--to", tmp_path, "--archive", form, mount.path / "Numbering_Traps")
    assert done.returncode == 0, done.stderr
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    assert run("tar", "-xf", tmp_path / f"Numbering_Traps.{form}", "-C", unpacked).returncode == 0
    assert files_below(unpacked) == {*images, "Numbering_Traps/LICENSE", "metadata.csv"}
    assert all((unpacked / name).read_bytes() == content for name, content in images.items())
    assert len(rows_of((unpacked / "metadata.csv").read_text())) == len(
        rows_of((tmp_path / "metadata.csv").read_text())
    )


def test_there_may_be_an_archive_for_each_patient(
    sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    patients = {Path(each.path).parts[1] for each in expected_series(sample, "MANYSERIES")}
    words = ("export", "--to", tmp_path, "--archive", "tar", "--per", "patient", mount.path / "MANYSERIES")
    assert program(*words).returncode == 0
    assert {each.name for each in (tmp_path / "MANYSERIES").iterdir()} == {f"{name}.tar" for name in patients}
    with tarfile.open(tmp_path / "MANYSERIES" / f"{min(patients)}.tar") as tar:
        assert {Path(name).parts[:2] for name in tar.getnames() if name.endswith(".dcm")} == {
            ("MANYSERIES", min(patients))
        }
    assert f"({SERIES} were there already)" in program(*words).stdout


def test_an_archive_of_other_series_is_not_taken_for_this_one(
    sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    first, second = sorted({Path(each.path).parts[1] for each in expected_series(sample, "MANYSERIES")})
    words = ("export", "--to", tmp_path, "--archive", "tar")
    assert program(*words, mount.path / "MANYSERIES" / first).returncode == 0
    done = program(*words, mount.path / "MANYSERIES" / second)
    assert done.returncode == 2
    assert "lacks 10 of these series; move it away" in done.stderr


def test_no_more_room_is_needed_than_for_two_series_and_a_little(tmp_path: Path) -> None:
    with running_sample("--bench-slices", "4", "--bench-series", "5") as sample:
        largest = max(each.size_bytes for each in expected_series(sample, "BENCH"))
        room = 2 * largest + largest // 2
        with mounted(sample.url, "--cache-size", str(room), folder=tmp_path) as mount:
            to = tmp_path / "out"
            done = program("export", "--to", to, "--archive", "tar", mount.path / "BENCH")
            assert (done.returncode, done.stderr) == (0, "")
            assert len(rows_of((to / "metadata.csv").read_text())) == 5


def test_how_much_lies_under_a_path_is_said_without_fetching_an_image(sample: RunningSample) -> None:
    (ct,) = (each for each in expected_series(sample, "Phantom-Head") if each.image_count == 60)
    sample.forget_requests()
    with mounted(sample.url) as mount:
        measured = program("du", "-d", "4", mount.path / "Phantom-Head")
        assert measured.returncode == 0, measured.stderr
        heading, *lines, total = (line.split(maxsplit=4) for line in measured.stdout.splitlines())
        assert heading == ["SIZE", "HERE", "IMAGES", "SERIES"]
        of_ct = ["7.6M", "0B", "60", "1", str(mount.path / ct.path)]
        assert of_ct in lines
        assert (total[1], total[3:]) == ("0B", ["4", str(mount.path / "Phantom-Head")])
        lines_of_json = program("du", "--json", mount.path / "Phantom-Head").stdout.splitlines()
        *_, whole = (json.loads(line) for line in lines_of_json)
        assert (whole["path"], whole["series"], whole["here_bytes"]) == (
            str(mount.path / "Phantom-Head"),
            4,
            0,
        )
        assert whole["size_bytes"] > ct.size_bytes
        assert not sample.requests("getImage")
        assert (mount.path / ct.path / "1-01.dcm").read_bytes()
        until(lambda: "7.6M  7.6M" in program("du", mount.path / ct.path).stdout, "the series on disk")


def test_what_lies_under_a_path_is_cited_without_fetching_an_image(
    sample: RunningSample, mount: Mount
) -> None:
    cited = program("cite", mount.path / "Phantom-Head", mount.path / "Phantom-Echo-NC")
    assert cited.returncode == 0, cited.stderr
    assert "Phantom-Head [Data set, " in cited.stdout
    assert "Phantom-Head (analysis results) [Data set, 2 series]" in cited.stdout
    assert "https://doi.org/10.5072/sample.head-analysis" in cited.stdout
    assert "NonCommercial" in cited.stdout
    assert not sample.requests("getImage")


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_what_is_no_series_in_a_mount_is_refused(mount: Mount, tmp_path: Path, place: str) -> None:
    inside = mount.path / place if place == "nowhere" else tmp_path
    assert program("export", "--to", tmp_path / "out", inside).returncode in (1, 3)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_said(mount: Mount, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = program("export", "--to", tmp_path / "file" / "out", mount.path / "Phantom-Head")
    assert (done.returncode, "could not be written: Not a directory" in done.stderr) == (1, True)
