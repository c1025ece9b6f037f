"""The Imaging Data Commons mounted: from a real S3 server the same images as from NBIA, at the same paths."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tciafs.sample.__main__ import main as sample_archive
from tciafs.sample.as_idc import BUCKET
from tests.dicom_files import small_dicom
from tests.mounting import Mount, mounted, program, run, status_of, until
from tests.real_series import CRLM, NACT, unpacked
from tests.relay import Relay
from tests.s3 import RunningS3, needs_s3, running_s3
from tests.sample.running import RunningSample, running_sample

pytest.importorskip("duckdb")
pytestmark = [pytest.mark.mount, needs_s3]

DATABASE_ORDER = {"RESTARTING", "NO-INSTANCES", "ALL-ONE", "TEN-TWICE"}
"""Series whose images share a number, so that NBIA's names follow an order in its database."""

NOT_IN_THE_INDEX = {"avant gado", "02-11-2001", "decimal in the database"}
"""Descriptions with outer blanks, which IDC's index does not have, and a number that no header can have."""


ANNOTATIONS = {".xml"}
"""Files beside images that NBIA alone has."""


def options(s3: RunningS3, written: Path, *others: str | Path) -> tuple[str | Path, ...]:
    """Return the options that mount IDC."""
    index = written / "index"
    return ("--archive", "idc", "--idc-url", s3.url, "--idc-index", index, "--retries", "0", *others)


@pytest.fixture(scope="module")
def mount(s3: RunningS3, written: Path) -> Iterator[Mount]:
    with mounted("http://127.0.0.1:9", *options(s3, written)) as mount:
        yield mount


def tree(top: Path, *, skip: set[str]) -> dict[str, str]:
    """Return the MD5 of every file below a folder, by its path; what is named in `skip` is left out."""
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            if not any(word in str(path) for word in skip):
                digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                found[str(path.relative_to(top))] = digest
    return found


def numbers(top: Path) -> dict[str, int]:
    """Return the inode numbers of what is in a folder."""
    return {each.name: each.stat().st_ino for each in top.iterdir()}


def test_all_is_as_in_the_mount_of_nbia(mount: Mount, nbia: RunningSample) -> None:
    skip = DATABASE_ORDER | NOT_IN_THE_INDEX | ANNOTATIONS
    with mounted(nbia.url) as other:
        ours, theirs = tree(mount.path, skip=skip), tree(other.path, skip=skip)
        assert ours == theirs
        assert len(ours) > 200
        assert numbers(mount.path) == numbers(other.path)


def test_real_series_are_as_in_the_mount_of_nbia(shared: Path, tmp_path: Path) -> None:
    for packed in (CRLM, NACT):
        unpacked(shared, packed, tmp_path / "real")
    real = ("--sample-dir", str(tmp_path / "real"), "--sample-collection", "Real")
    sample_archive(["--write-idc", str(tmp_path / "idc"), *real])
    with (
        running_s3(tmp_path / "idc") as server,
        running_sample(*real) as sample,
        mounted("http://127.0.0.1:9", *options(server, tmp_path / "idc")) as ours,
        mounted(sample.url) as theirs,
    ):
        done = run("diff", "-r", ours.path / "Real", theirs.path / "Real")
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
        images = sorted((ours.path / "Real").glob("*/*/*/*.dcm"))
        assert len(images) > 80
        for path in images:
            same = theirs.path / path.relative_to(ours.path)
            assert (path.stat().st_ino, path.stat().st_size) == (same.stat().st_ino, same.stat().st_size)


def test_where_nbia_orders_by_its_database_the_images_are_the_same(mount: Mount, nbia: RunningSample) -> None:
    with mounted(nbia.url) as other:
        for trap in DATABASE_ORDER:
            ours = tree(mount.path / "Numbering_Traps" / trap, skip=set())
            theirs = tree(other.path / "Numbering_Traps" / trap, skip=set())
            assert sorted(ours.values()) == sorted(theirs.values())
            assert ours


def test_a_study_has_the_study_id_of_its_images(mount: Mount) -> None:
    assert os.listdir(mount.path / "Phantom-Head" / "HEAD-001") == [
        "05-20-2021-4711-CT HEAD WO CONTRAST-19098"
    ]


def test_what_came_agrees_with_the_bucket(mount: Mount) -> None:
    (series,) = (mount.path / "Phantom-Head" / "HEAD-001").glob("*/2.000000*")
    assert program("prefetch", series).returncode == 0
    assert len(os.listdir(series)) == 60
    assert os.getxattr(series, "user.tciafs.verified") == b"crc32,count,size,md5"
    assert os.getxattr(series, "user.tciafs.route") == b"idc"
    assert os.getxattr(series, "user.tcia.DataDescriptionURI") == b"https://doi.org/10.7937/sample.head"
    assert program("verify", series).returncode == 0


def test_a_look_has_sizes_without_images_and_reading_brings_the_same(
    s3: RunningS3, written: Path, tmp_path: Path
) -> None:
    with mounted("http://127.0.0.1:9", *options(s3, written), folder=tmp_path) as mount:
        (series,) = (mount.path / "Phantom-Brain-MR").glob("*/*/*")
        before = {each.name: each.stat().st_size for each in series.iterdir()}
        assert os.getxattr(series, "user.tciafs.state") == b"evicted"
        assert status_of(mount)["cache"]["series"] == 0
        assert len(before) > 20
        assert {name: len((series / name).read_bytes()) for name in before} == before
        assert {each.name: each.stat().st_size for each in series.iterdir()} == before
        until(lambda: os.getxattr(series, "user.tciafs.state") == b"local", "the series in its place")


def test_names_of_two_acquisitions_are_known_without_images(s3: RunningS3, written: Path) -> None:
    with mounted("http://127.0.0.1:9", *options(s3, written, "--listing", "exact")) as mount:
        (series,) = (mount.path / "Numbering_Traps" / "CONTINUED").glob("*/*")
        assert os.listdir(series) == ["1-1.dcm", "1-2.dcm", "1-3.dcm", "2-1.dcm", "2-2.dcm", "2-3.dcm"]
        assert os.getxattr(series, "user.tciafs.state") == b"evicted"


def test_dcmtk_reads_it(mount: Mount) -> None:
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmtk is not installed")
    (image,) = (mount.path / "Phantom-Head" / "HEAD-001").glob("*/2.000000*/1-01.dcm")
    assert "HEAD-001" in run("dcmdump", "+P", "PatientID", image).stdout


def test_a_series_that_is_not_what_the_index_says_is_an_error_and_not_kept(
    s3: RunningS3, written: Path, tmp_path: Path
) -> None:
    changed = sorted((written / BUCKET).glob("*/*.dcm"))
    by_series = {path.parent: [each for each in changed if each.parent == path.parent] for path in changed}
    folder, images = next((key, value) for key, value in by_series.items() if len(value) == 3)
    alien = f"{folder.name}/{images[0].name}"
    s3.put(BUCKET, alien, small_dicom("9.9", sop="7"))
    try:
        exact = options(s3, written, "--listing", "exact")
        with mounted("http://127.0.0.1:9", *exact, folder=tmp_path) as mount:
            failed = [path for path in mount.path.glob("*/*/*/*") if _refuses(path)]
            assert len(failed) == 1
            assert b"no image of it" in os.getxattr(failed[0], "user.tciafs.error")
    finally:
        s3.put(BUCKET, alien, images[0].read_bytes())


def _refuses(folder: Path) -> bool:
    try:
        os.listdir(folder)
    except OSError:
        return True
    return False


def test_what_is_here_outlives_the_server(written: Path, tmp_path: Path) -> None:
    place = "Phantom-Brain-MR/BRAIN-001"
    with running_s3(written) as server:
        with mounted("http://127.0.0.1:9", *options(server, written), folder=tmp_path) as mount:
            before = tree(mount.path / place, skip=set())
            server.stop()
            assert tree(mount.path / place, skip=set()) == before
            assert "Phantom-Head" in os.listdir(mount.path)
            # Above the studies nothing is asked; a study whose name was never learnt is not guessed.
            assert os.listdir(mount.path / "Phantom-Head") == ["HEAD-001", "LICENSE"]
            with pytest.raises(OSError, match="No route to host"):
                os.listdir(mount.path / "Phantom-Head" / "HEAD-001")
        with mounted("http://127.0.0.1:9", *options(server, written), folder=tmp_path) as mount:
            assert tree(mount.path / place, skip=set()) == before
            assert status_of(mount)["archive"] == server.url


def test_a_walk_while_the_buckets_are_away_waits_for_them_once(
    written: Path, s3: RunningS3, tmp_path: Path
) -> None:
    index = ("--archive", "idc", "--idc-index", written / "index", "--retries", "2")
    with Relay("http://127.0.0.1:9") as dead:
        with mounted("http://127.0.0.1:9", *index, "--idc-url", dead.url, folder=tmp_path) as mount:
            patients = [path for path in mount.path.glob("*/*") if path.is_dir()]
            assert len(patients) > 10
            assert all(map(_refuses, patients))
            # Three attempts by the daemon and by the worker, and one for each 15 s that this takes.
            assert dead.connections < len(patients)
            with pytest.raises(OSError, match="No route to host"):
                os.listdir(patients[0])
            said = os.getxattr(patients[-1], "user.tciafs.error").decode()
            assert "the Imaging Data Commons is not asked for a while (asked again in " in said
            shown = program("status", mount.path).stdout
            assert "the Imaging Data Commons is away, and asked again in " in shown
        # Nothing of that is remembered where it is back.
        words = (*index, "--idc-url", s3.url)
        with mounted("http://127.0.0.1:9", *words, folder=tmp_path) as mount:
            assert not any(map(_refuses, patients))
            assert status_of(mount)["archive_remark"] == ""


def test_a_selection_stands_above_it(s3: RunningS3, written: Path) -> None:
    wanted = options(s3, written, "--modality", "SEG")
    with mounted("http://127.0.0.1:9", *wanted) as mount:
        assert os.listdir(mount.path) == ["Phantom-Head"]


def test_the_doctor_looks_at_the_index_and_the_buckets(s3: RunningS3, written: Path) -> None:
    done = program("doctor", *options(s3, written))
    assert done.returncode == 0, done.stdout
    assert "of the Imaging Data Commons" in done.stdout


def test_an_index_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    done = program(
        *(tmp_path / "mnt", "--archive", "idc", "--idc-index", tmp_path, "--agree-to-policy"),
        *("--cache-dir", tmp_path / "cache", "--log-file", tmp_path / "log"),
    )
    assert done.returncode == 3
    assert "holds no index of the Imaging Data Commons" in done.stderr
