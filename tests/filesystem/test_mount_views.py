"""Views through the kernel: folders of what matches, one download and one inode for an image, manifests."""

import csv
import datetime as dt
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series, images_of
from tests.mounting import Mount, mounted, program, run, until
from tests.sample.running import RunningSample, running_sample

pytestmark = pytest.mark.mount


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample() as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    _archive.forget_requests()
    yield _archive
    _archive.restore()


@pytest.fixture(scope="module")
def mount(_archive: RunningSample) -> Iterator[Mount]:
    """A mount for tests that look, or add manifests of their own."""
    with mounted(_archive.url) as mount:
        yield mount


def everything(sample: RunningSample) -> list[ExpectedSeries]:
    collections = [row["Collection"] for row in sample.rows("v4/getCollectionValues")]
    return [each for name in collections for each in expected_series(sample, name)]


def shown(folder: Path) -> set[str]:
    """Return the paths of all series below a folder that shows collections."""
    found = run("find", folder, "-mindepth", "4", "-maxdepth", "4", "-type", "d")
    assert found.returncode == 0, found.stderr
    return {os.path.relpath(line, folder) for line in found.stdout.splitlines()}


def manifest(command: str, mount: Mount, *words: str | Path) -> str:
    done = program("manifest", command, *words, "--mount", mount.path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(path: Path, *series_uids: str) -> Path:
    path.write_text("manifestVersion=3.0\nListOfSeriesToDownload=\n" + "\n".join(series_uids))
    return path


def test_views_are_found_and_not_listed_and_show_what_has_the_value(
    sample: RunningSample, mount: Mount
) -> None:
    series = everything(sample)
    assert ".tciafs" not in os.listdir(mount.path)
    views = mount.path / ".tciafs"
    assert set(os.listdir(views)) == {
        "by-body-part",
        "by-manifest",
        "by-manufacturer",
        "by-modality",
        "collections.csv",
        "new-since",
    }
    for kind, column in (("by-modality", "Modality"), ("by-body-part", "BodyPartExamined")):
        words = {each.row[column] for each in series if each.row.get(column)}
        assert set(os.listdir(views / kind)) == words
        for word in words:
            matching = {each.path for each in series if each.row.get(column) == word}
            assert shown(views / kind / word) == matching
    assert not (views / "by-modality" / "XX").exists()


def test_an_image_is_one_inode_and_its_series_one_download_wherever_it_is_found(
    sample: RunningSample,
) -> None:
    ct = next(each for each in expected_series(sample, "Phantom-Head") if each.row["Modality"] == "CT")
    sample.forget_requests()
    with mounted(sample.url) as mount:
        main, view = mount.path / ct.path, mount.path / ".tciafs" / "by-modality" / "CT" / ct.path
        names = sorted(os.listdir(view))
        assert names == sorted(os.listdir(main))
        assert len(names) == ct.image_count
        for name in (names[0], names[-1]):
            assert (view / name).read_bytes() == (main / name).read_bytes()
            assert (view / name).stat().st_ino == (main / name).stat().st_ino
        assert view.stat().st_ino != main.stat().st_ino
        assert sample.tally()["getImage"] == 1


def test_tables_and_manifests_of_a_collection_are_found_and_not_listed(
    sample: RunningSample, mount: Mount
) -> None:
    expected = expected_series(sample, "Phantom-Echo-NC")
    collection = mount.path / "Phantom-Echo-NC"
    assert "series.csv" not in os.listdir(collection)
    content = (collection / "series.csv").read_bytes()
    assert (collection / "series.csv").stat().st_size == len(content)
    rows = list(csv.DictReader(content.decode().splitlines()))
    assert {row["Series UID"] for row in rows} == {each.uid for each in expected}
    assert {row["NonCommercial"] for row in rows} == {"yes"}
    assert all((mount.path / row["File Location"]).is_dir() for row in rows)
    uids = (mount.path / "Phantom-Echo-NC.tcia").read_text().split("\n")[2:-1]
    assert set(uids) == {each.uid for each in expected}
    hidden = mount.path / ".tciafs"
    assert (hidden / "Phantom-Echo-NC.tcia").read_text().split("\n")[2:-1] == uids
    assert (hidden / "Phantom-Echo-NC" / "series.csv").read_bytes() == content
    collections = list(csv.DictReader((hidden / "collections.csv").read_text().splitlines()))
    assert {each["Collection"] for each in collections} == set(os.listdir(mount.path))
    with pytest.raises(FileNotFoundError):
        (mount.path / "Nothing.tcia").read_bytes()


def test_a_manifest_that_is_added_is_a_folder_at_once_and_over_a_restart(
    sample: RunningSample, tmp_path: Path
) -> None:
    one, other = expected_series(sample, "Numbering_Traps")[:2]
    file = written(tmp_path / "cohort.tcia", one.uid, "1.2.840.99")
    with mounted(sample.url, folder=tmp_path) as mount:
        view = mount.path / ".tciafs" / "by-manifest" / "cohort"
        assert not view.exists(), "which the kernel remembers"
        said = manifest("add", mount, file)
        assert "1 of 2 series" in said
        assert "1 of 2 series do not exist or are not permitted: 1.2.840.99" in said
        assert shown(view) == {one.path}
        (row,) = csv.DictReader((view / "metadata.csv").read_text().splitlines())
        assert row["File Location"] == f"./{one.path}"
    with mounted(sample.url, folder=tmp_path) as mount:
        assert manifest("list", mount).split() == ["2", "cohort"]
        assert shown(view) == {one.path}
        manifest("add", mount, written(tmp_path / "another", other.uid), "--name", "cohort")
        assert shown(view) == {other.path}
        manifest("remove", mount, "cohort")
        assert not view.exists()
        assert program("manifest", "remove", "cohort", "--mount", mount.path).returncode == 1


def test_a_manifest_that_a_mount_shows_itself_can_be_added_to_it(sample: RunningSample, mount: Mount) -> None:
    manifest("add", mount, mount.path / "Phantom-Head.tcia")
    view = mount.path / ".tciafs" / "by-manifest" / "Phantom-Head"
    assert shown(view) == {each.path for each in expected_series(sample, "Phantom-Head")}


def test_images_outlive_the_view_that_they_were_found_in(
    sample: RunningSample, mount: Mount, tmp_path: Path
) -> None:
    one = expected_series(sample, "Numbering_Traps")[0]
    manifest("add", mount, written(tmp_path / "mine.tcia", one.uid))
    view = mount.path / ".tciafs" / "by-manifest" / "mine" / one.path
    name = min(os.listdir(mount.path / one.path))
    inode = (mount.path / one.path / name).stat().st_ino
    assert (view / name).stat().st_ino == inode
    manifest("remove", mount, "mine")
    assert (mount.path / one.path / name).read_bytes()[128:132] == b"DICM"


def test_a_view_is_a_part_of_what_the_mount_shows(sample: RunningSample, tmp_path: Path) -> None:
    head = expected_series(sample, "Phantom-Head")
    ct = next(each for each in head if each.row["Modality"] == "CT")
    chosen = ("--modality", "CT", "--collection", "Phantom-Head")
    with mounted(sample.url, *chosen) as mount:
        views = mount.path / ".tciafs"
        assert os.listdir(views / "by-modality") == ["CT"]
        assert shown(views / "by-body-part" / "HEAD") == {ct.path}
        said = manifest("add", mount, written(tmp_path / "all.tcia", *(each.uid for each in head)))
        assert f"{len(head) - 1} of its series are not among those that this mount shows" in said
        assert shown(views / "by-manifest" / "all") == {ct.path}


def test_any_day_is_a_folder_of_what_was_released_since_for_one_question(sample: RunningSample) -> None:
    one = expected_series(sample, "Phantom-Head")[0]
    today = dt.datetime.now(dt.UTC).date()
    sample.revise(one.uid, SeriesDescription="new")
    expected = next(each for each in expected_series(sample, "Phantom-Head") if each.uid == one.uid)
    sample.forget_requests()
    with mounted(sample.url) as mount:
        days = mount.path / ".tciafs" / "new-since"
        view = days / (today - dt.timedelta(days=1)).isoformat()
        assert os.listdir(view) == ["Phantom-Head"]
        assert sample.tally() == {"getCollectionValues": 1, "getUpdatedSeries": 1}
        assert shown(view) == {expected.path}
        assert os.listdir(days) == [view.name]
        assert set(os.listdir(days / "1990-01-01")) == set(os.listdir(mount.path))
        for word in ("2026-13-01", "20260101", "yesterday"):
            assert not (days / word).exists()


def test_a_series_that_changes_changes_in_its_views(sample: RunningSample) -> None:
    ct = next(each for each in expected_series(sample, "Phantom-Head") if each.row["Modality"] == "CT")
    with mounted(sample.url) as mount:
        view = mount.path / ".tciafs" / "by-modality" / "CT"
        assert ct.path in shown(view)
        sample.withdraw(ct.uid)
        patient = view / Path(*Path(ct.path).parts[:2])
        assert program("refresh", patient).returncode == 0
        assert ct.path not in shown(view)
        assert not (view / ct.path).exists()


def test_commands_take_paths_in_views(sample: RunningSample, tmp_path: Path) -> None:
    ct = next(each for each in expected_series(sample, "Phantom-Head") if each.row["Modality"] == "CT")
    with mounted(sample.url) as mount:
        collection = mount.path / ".tciafs" / "by-modality" / "CT" / "Phantom-Head"
        assert "1 series fetched" in program("prefetch", collection).stdout
        assert f"{ct.image_count}       1  {collection}" in program("du", collection, "-d", "0").stdout
        assert "[Data set, 1 series]" in program("cite", collection).stdout
        assert program("export", "--to", tmp_path / "copy", collection).returncode == 0
        assert len(os.listdir(tmp_path / "copy" / ct.path)) == ct.image_count
        assert program("pin", collection / Path(*Path(ct.path).parts[1:])).returncode == 0
        refused = program("pin", collection)
        assert refused.returncode == 2
        assert "is a view, which shows a part" in refused.stderr


def test_views_are_read_only_and_end_where_they_end(sample: RunningSample, mount: Mount) -> None:
    view = mount.path / ".tciafs" / "by-modality"
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (view / "new").mkdir()
    for name in (".tciafs", "LICENSE", "by-modality"):
        assert not (view / name).exists()
        assert not (view / "CT" / name).exists()
    assert os.listxattr(view) == []


def test_what_lies_in_a_folder_is_in_its_attributes_once_it_was_listed(sample: RunningSample) -> None:
    names = ("series", "images", "size")
    expected = expected_series(sample, "Phantom-Head")
    ct = next(each for each in expected if each.row["Modality"] == "CT")
    study = Path(ct.path).parent

    def costs(folder: Path) -> list[int]:
        return [int(os.getxattr(folder, f"user.tciafs.{name}")) for name in names]

    def local_bytes(folder: Path) -> int:
        until(lambda: "user.tciafs.local_bytes" in os.listxattr(folder), "the attribute")
        return int(os.getxattr(folder, "user.tciafs.local_bytes"))

    whole = [
        len(expected),
        sum(each.image_count for each in expected),
        sum(each.row["FileSize"] for each in expected),
    ]
    with mounted(sample.url) as mount:
        before = sample.tally()
        assert not [name for name in os.listxattr(mount.path / study.parent) if name == "user.tciafs.size"]
        assert sample.tally()["getSeries"] == before["getSeries"]
        os.listdir(mount.path / study)
        assert costs(mount.path / study) == whole
        assert costs(mount.path / study.parent) == whole
        view = mount.path / ".tciafs" / "by-modality" / "CT" / study
        assert costs(view) == [1, ct.image_count, ct.row["FileSize"]]
        assert local_bytes(mount.path / study) == local_bytes(mount.path / "Phantom-Head") == 0
        assert program("prefetch", mount.path / ct.path).returncode == 0
        for folder in (mount.path / study, mount.path / study.parent, mount.path / "Phantom-Head", view):
            assert local_bytes(folder) == ct.row["FileSize"]
        assert local_bytes(mount.path / ".tciafs" / "by-modality" / "SR" / study) == 0
        echo = mount.path / "Phantom-Echo-NC"
        (echo / "series.csv").read_bytes()
        patient = echo / min(set(os.listdir(echo)) - {"LICENSE"})
        assert int(os.getxattr(patient, "user.tciafs.noncommercial")) > 0


def test_a_manifest_in_a_mount_stands_for_its_collection(sample: RunningSample) -> None:
    with mounted(sample.url) as mount:
        assert program("pin", mount.path / "Phantom-Head.tcia").returncode == 0
        expected = len(expected_series(sample, "Phantom-Head"))
        assert f"{expected} series fetched" in program("prefetch", mount.path / "Phantom-Head.tcia").stdout
        assert program("pin", mount.path / "Nothing.tcia").returncode == 1


def test_what_was_read_is_cited_and_not_what_was_only_listed(sample: RunningSample, tmp_path: Path) -> None:
    head, echo = (expected_series(sample, name)[0] for name in ("Phantom-Head", "Phantom-Echo-NC"))
    with mounted(sample.url, folder=tmp_path) as mount:
        os.listdir(mount.path / head.path)
        folder = mount.path / echo.path
        (folder / min(os.listdir(folder))).read_bytes()
        assert "Phantom-Echo-NC [Data set, 1 series]" in program("cite", "--used", mount.path).stdout
    with mounted(sample.url, folder=tmp_path) as mount:
        said = program("cite", "--used", "--since", "2026-01-01", mount.path).stdout
        assert "Phantom-Echo-NC [Data set, 1 series]" in said
        assert "Phantom-Head" not in said
        nothing = program("cite", "--used", "--since", "9999-01-01", mount.path)
        assert ("Phantom" in nothing.stdout, "nothing was read there" in nothing.stderr) == (False, True)
        assert "Phantom-Echo-NC" in program("cite", "--used", mount.path / "Phantom-Echo-NC").stdout
        assert "Phantom" not in program("cite", "--used", mount.path / "Phantom-Head").stdout
        deeper = program("cite", "--used", mount.path / "Phantom-Head" / "HEAD-001")
        assert (deeper.returncode, "is no collection" in deeper.stderr) == (2, True)
        assert program("cite", "--since", "2026-01-01", mount.path).returncode == 2
    with mounted(sample.url, "--usage", "off", folder=tmp_path) as mount:
        refused = program("cite", "--used", mount.path)
        assert refused.returncode == 2
        assert "keeps no note of what is read (--usage off)" in refused.stderr


@pytest.mark.parametrize(
    "copy",
    ["cp -r --no-preserve=mode '{}/.' .", "tar -C '{}' --mode=u+w -cf - . | tar -xf -"],
    ids=["cp", "tar"],
)
def test_a_copy_of_a_view_is_right_while_another_walks_the_whole_mount(
    sample: RunningSample, tmp_path: Path, copy: str
) -> None:
    chosen = [each for each in everything(sample) if each.row["Modality"] == "MR"]
    images = {
        f"{each.path}/{name}": content
        for each in chosen
        for name, content in images_of(sample, each.uid).items()
    }
    with mounted(sample.url) as mount:
        walk = subprocess.Popen(["find", mount.path], stdout=subprocess.DEVNULL)
        try:
            command = copy.format(mount.path / ".tciafs" / "by-modality" / "MR")
            done = run("sh", "-c", f"cd '{tmp_path}' && {command}")
            assert (done.returncode, done.stderr) == (0, "")
            copied = {str(each.relative_to(tmp_path)): each.read_bytes() for each in tmp_path.rglob("*.dcm")}
            assert copied == images
            assert walk.wait(60) == 0
        finally:
            walk.kill()
            walk.wait()
