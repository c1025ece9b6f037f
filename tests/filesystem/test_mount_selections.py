"""Selections through the kernel: exactly what was chosen, what that costs, and what is said of it."""

import csv
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted, program, run
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount

SERIES = 60


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample("--many-series", str(SERIES)) as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.forget_requests()
    yield _archive
    _archive.restore()


def shown(mount: Mount) -> set[str]:
    """Return the folders of all series."""
    found = run("find", mount.path, "-mindepth", "4", "-maxdepth", "4", "-type", "d")
    assert found.returncode == 0, found.stderr
    return {os.path.relpath(line, mount.path) for line in found.stdout.splitlines()}


def paths(series: list[ExpectedSeries]) -> set[str]:
    return {each.path for each in series}


def written(path: Path, *series_uids: str) -> Path:
    path.write_text("manifestVersion=3.0\nListOfSeriesToDownload=\n" + "\n".join(series_uids))
    return path


def test_a_modality_and_a_collection_are_folders_of_what_has_both(sample: RunningSample) -> None:
    expected = [each for each in expected_series(sample, "Phantom-Head") if each.row["Modality"] == "SEG"]
    with mounted(sample.url, "--modality", "seg", "--collection", "Phantom-Head") as mount:
        assert shown(mount) == paths(expected)
        assert "1 collections" in mount.message


def test_what_only_series_tell_is_asked_for_once_a_collection(sample: RunningSample) -> None:
    expected = [each for each in expected_series(sample, "MANYSERIES") if each.image_count >= 6]
    sample.forget_requests()
    with mounted(sample.url, "--min-images", "6", "--collection", "MANYSERIES") as mount:
        assert shown(mount) == paths(expected)
    assert 0 < len(expected) < SERIES
    # The studies of the first patient are asked for alone, then those of all; of series all from the start.
    assert sample.tally() == {"getCollectionValues": 1, "getPatient": 1, "getSeries": 1, "getPatientStudy": 2}


def test_selections_of_one_server_share_what_was_listed(sample: RunningSample, tmp_path: Path) -> None:
    with mounted(sample.url, "--min-images", "6", "--collection", "MANYSERIES", folder=tmp_path) as mount:
        assert shown(mount)
    sample.forget_requests()
    expected = [each for each in expected_series(sample, "MANYSERIES") if each.image_count <= 4]
    sample.forget_requests()
    with mounted(sample.url, "--max-images", "4", "--collection", "MANYSERIES", folder=tmp_path) as mount:
        assert shown(mount) == paths(expected)
    assert sample.tally().total() == 0


def test_a_manifest_shows_its_series_and_says_what_is_missing(sample: RunningSample, tmp_path: Path) -> None:
    expected = [*expected_series(sample, "Numbering_Traps")[:3], *expected_series(sample, "Twin-Case")[:1]]
    manifest = written(tmp_path / "cohort.tcia", *(each.uid for each in expected), "1.2.840.99")
    sample.forget_requests()
    with mounted(sample.url, "--manifest", manifest) as mount:
        assert sample.tally() == {"getCollectionValues": 1, "getSeriesMetadata": 1}
        missing = "manifest cohort: 1 of 5 series do not exist or are not permitted: 1.2.840.99"
        assert missing in mount.message
        assert missing in program("status", mount.path).stdout
        assert shown(mount) == paths(expected)
        image = next((mount.path / expected[0].path).iterdir())
        assert image.read_bytes()[128:132] == b"DICM"


@pytest.mark.slow
def test_copies_of_a_selection_are_right_while_another_walks_the_whole_archive(
    sample: RunningSample, tmp_path: Path
) -> None:
    some = [each for each in expected_series(sample, "MANYSERIES") if each.image_count >= 8]
    images = {
        f"{each.path}/{name}": content
        for each in some
        for name, content in images_of(sample, each.uid).items()
    }
    chosen = ("--collection", "MANYSERIES", "--min-images", "8")
    with mounted(sample.url) as everything, mounted(sample.url, *chosen) as mount:
        walk = subprocess.Popen(["find", everything.path], stdout=subprocess.DEVNULL)
        try:
            for place, command in (
                ("cp", f"cp -r --no-preserve=mode '{mount.path}/MANYSERIES' ."),
                ("tar", f"tar -C '{mount.path}' -cf - MANYSERIES | tar -xf -"),
            ):
                (tmp_path / place).mkdir()
                done = run("sh", "-c", f"cd '{tmp_path / place}' && {command}")
                assert (done.returncode, done.stderr) == (0, "")
                copied = (tmp_path / place).rglob("*.dcm")
                assert {
                    str(each.relative_to(tmp_path / place)): each.read_bytes() for each in copied
                } == images
            assert walk.wait(60) == 0
        finally:
            walk.kill()
            walk.wait()


@pytest.mark.parametrize("naming", ["descriptive", "classic"])
def test_a_manifest_has_a_table_of_its_series_and_where_they_are(
    sample: RunningSample, tmp_path: Path, naming: str
) -> None:
    expected = [*expected_series(sample, "Phantom-Head"), *expected_series(sample, "Numbering_Traps")[:3]]
    manifest = written(tmp_path / "cohort.tcia", *(each.uid for each in expected))
    with mounted(sample.url, "--manifest", manifest, "--naming", naming) as mount:
        table = mount.path / "metadata.csv"
        assert "metadata.csv" in os.listdir(mount.path)
        content = table.read_bytes()
        assert table.stat().st_size == len(content)
        rows = list(csv.DictReader(content.decode().splitlines()))
        assert {row["Series UID"] for row in rows} == {each.uid for each in expected}
        assert len(rows) == len(expected)
        for row in rows:
            assert (mount.path / row["File Location"]).is_dir()
        (ct,) = (row for row in rows if row["Modality"] == "CT" and row["Collection"] == "Phantom-Head")
        assert (ct["Study Date"], ct["Study Description"]) == ("05-20-2021", "CT HEAD WO CONTRAST")
        assert (ct["Number of Images"], ct["File Size"], ct["3rd Party Analysis"]) == ("60", "7.95 MB", "NO")
        sample.withdraw(ct["Series UID"])
        assert program("refresh", mount.path / "Phantom-Head" / "HEAD-001").returncode == 0
        assert ct["Series UID"] not in table.read_text()


def test_only_a_manifest_has_a_table(sample: RunningSample) -> None:
    with mounted(sample.url, "--collection", "Phantom-Head") as mount:
        assert os.listdir(mount.path) == ["Phantom-Head"]


def test_a_cart_shows_its_series_and_follows_it(sample: RunningSample) -> None:
    first, second = expected_series(sample, "Numbering_Traps")[:2]
    sample.share_cart("ours", first.uid)
    with mounted(sample.url, "--cart", "ours") as mount:
        assert shown(mount) == paths([first])
        sample.share_cart("ours", second.uid)
        assert program("refresh", mount.path).returncode == 0
        assert shown(mount) == paths([second])


def test_a_patient_with_nothing_left_disappears(sample: RunningSample) -> None:
    (ct,) = (each for each in expected_series(sample, "Phantom-Head") if each.row["Modality"] == "CT")
    with mounted(sample.url, "--modality", "CT", "--collection", "Phantom-Head") as mount:
        assert shown(mount) == paths([ct])
        sample.withdraw(ct.uid)
        patient = mount.path / Path(*Path(ct.path).parts[:2])
        assert program("refresh", patient).returncode == 0
        assert shown(mount) == set()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--modality", "MRI"), "the archive has no modality MRI; did you mean MR?"),
        (
            ("--collection", "Phantom-Hed"),
            "has no collection Phantom-Hed; did you mean Phantom-Head?",
        ),
        (
            ("--manifest", "/nonexistent"),
            "/nonexistent cannot be read: No such file or directory",
        ),
        (("--study-date", "2020"), "--study-date: expected a day such as 2026-01-31, not '2020'"),
    ],
)
def test_a_wrong_word_ends_the_command_and_mounts_nothing(
    sample: RunningSample, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "mnt").mkdir()
    done = program(tmp_path / "mnt", "--url", sample.url, "--cache-dir", tmp_path / "cache", *options)
    assert done.returncode == 2
    assert sentence in done.stderr


def _manifests(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "manifests").iterdir())


def test_the_real_manifests_mount_where_the_archive_knows_their_series(shared: Path, tmp_path: Path) -> None:
    uids = {
        path: re.findall(r"^\s*([0-9]+(?:\.[0-9]+)+)", path.read_text("utf-8"), re.MULTILINE)
        for path in _manifests(shared)
    }
    known = tmp_path / "uids"
    known.write_text("\n".join(dict.fromkeys(uid for each in uids.values() for uid in each)))
    with running_sample("--series-uids", str(known)) as sample:
        expected = {each.uid: each.path for each in expected_series(sample, "NAMED")}
        for path in uids:
            with mounted(sample.url, "--manifest", path, folder=tmp_path) as mount:
                assert "do not exist" not in mount.message
                assert shown(mount) == {expected[uid] for uid in uids[path]}
                rows = list(csv.DictReader((mount.path / "metadata.csv").read_text().splitlines()))
                assert sorted(row["Series UID"] for row in rows) == sorted(set(uids[path]))
                for row in rows:
                    assert row["File Location"] == f"./{expected[row['Series UID']]}"
                    assert (mount.path / row["File Location"]).is_dir()


def test_ten_thousand_series_are_asked_for_a_thousand_at_a_time_and_then_known(tmp_path: Path) -> None:
    uids = [f"1.3.6.1.4.1.14519.5.2.1.7777.9002.{number:010}" for number in range(10_000)]
    known = tmp_path / "uids"
    known.write_text("\n".join(uids))
    manifest = written(tmp_path / "long.tcia", *uids)
    with running_sample("--series-uids", str(known)) as sample:
        with mounted(sample.url, "--manifest", manifest, folder=tmp_path) as mount:
            assert "do not exist" not in mount.message
            patients = os.listdir(mount.path / "NAMED")
            # A mount does not wait for a slow archive: on a busy machine they are asked for behind it.
            assert sample.tally()["getSeriesMetadata"] == 10
        sample.forget_requests()
        with mounted(sample.url, "--manifest", manifest, folder=tmp_path) as mount:
            assert os.listdir(mount.path / "NAMED") == patients
            assert sample.tally() == {}
