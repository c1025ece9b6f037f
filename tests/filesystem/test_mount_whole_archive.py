"""Through the kernel, over all that TCIA has published: the hard cases in it, seen as folder names.

What is expected is computed from the server's own rows, by rules written down independently in
tests/behaviour/retriever. Needs the packages of the extra idc-sample, 80 MB, and is skipped without.
One archive and one mount for all tests: they look, and change nothing.
"""

import datetime as dt
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from tests.behaviour.retriever import ExpectedSeries, expected_series
from tests.mounting import Mount, mounted, run
from tests.sample.running import RunningSample, running_sample
from tests.sample.test_whole_archive import pytestmark as needs_the_index

pytestmark = [
    *needs_the_index,
    pytest.mark.mount,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is not there"),
]

LICENCE = "LICENSE"
TWO_STUDIES_OF_ONE_NAME = "PROSTATEx", "ProstateX-0204"
SUFFIX = re.compile(r" \([0-9.]{12}\)$")


@pytest.fixture(scope="module")
def archive() -> Iterator[RunningSample]:
    with running_sample("--idc-index") as sample:
        collection, patient = TWO_STUDIES_OF_ONE_NAME
        for study in sample.rows("v4/getPatientStudy", Collection=collection, PatientID=patient):
            # The sample makes up study IDs, which would tell these two apart.
            row, *_ = sample.rows("v4/getSeries", StudyInstanceUID=study["StudyInstanceUID"])
            sample.revise(row["SeriesInstanceUID"], StudyID=None)
        yield sample


@pytest.fixture(scope="module")
def mount(archive: RunningSample) -> Iterator[Mount]:
    with mounted(archive.url) as mount:
        yield mount


def series_shown(mount: Mount, folder: str) -> list[str]:
    """Return the series folders below a collection, patient or study, relative to the mount."""
    depth = str(3 - folder.count("/"))
    found = run("find", mount.path / folder, "-mindepth", depth, "-maxdepth", depth, "-type", "d", "-print0")
    assert found.returncode == 0, found.stderr
    return sorted(path.removeprefix(f"{mount.path}/") for path in found.stdout.split("\0")[:-1])


def paths(series: Iterable[ExpectedSeries]) -> list[str]:
    return sorted(one.path for one in series)


def text(series: ExpectedSeries) -> str:
    """Return what the archive says in the two descriptions of a series."""
    return "".join(str(series.row.get(column, "")) for column in ("StudyDesc", "SeriesDescription"))


def parts(series: Iterable[ExpectedSeries], level: int) -> set[str]:
    """Return the folders of some series on a level: 1 is collections, 3 is studies."""
    return {"/".join(one.path.split("/")[:level]) for one in series}


def day_of_study(series: ExpectedSeries) -> dt.date:
    return dt.datetime.strptime(series.row["StudyDate"], "%m-%d-%Y").date()


def patients_of(archive: RunningSample, collection: str) -> list[str]:
    return [row["PatientId"] for row in archive.rows("v4/getPatient", Collection=collection)]


def test_the_root_lists_each_collection_once_as_the_archive_spells_it(
    archive: RunningSample, mount: Mount
) -> None:
    names = [row["Collection"] for row in archive.rows("v4/getCollectionValues")]
    assert sorted(os.listdir(mount.path)) == sorted(names)
    assert len(names) > 141


def test_collections_with_blanks_in_their_names_can_be_entered(archive: RunningSample, mount: Mount) -> None:
    names = [name for name in os.listdir(mount.path) if " " in name and name != "CT Naming Traps"]
    assert len(names) == 18
    for name in names:
        assert sorted(os.listdir(mount.path / name)) == sorted([LICENCE, *patients_of(archive, name)])


def test_no_control_byte_of_a_description_is_in_a_name(archive: RunningSample, mount: Mount) -> None:
    series = expected_series(archive, "Phantom FDA")
    odd = [one for one in series if re.search(r"[\0\1\2]", text(one))]
    assert len(odd) == 720
    assert any("\0" in text(one) for one in odd)
    shown = series_shown(mount, "Phantom FDA")
    assert shown == paths(series)
    assert all(path.isprintable() for path in shown)


def test_slashes_of_descriptions_make_no_folders(archive: RunningSample, mount: Mount) -> None:
    series = expected_series(archive, "RIDER Pilot")
    assert sum("/" in text(one) for one in series) == 162
    assert series_shown(mount, "RIDER Pilot") == paths(series)


def test_letters_that_are_not_ascii_are_left_out_of_names(archive: RunningSample, mount: Mount) -> None:
    collection = "Prostate-MRI-US-Biopsy"
    everything = expected_series(archive, collection)
    odd = {one.row["PatientID"] for one in everything if not text(one).isascii()}
    assert odd
    for patient in odd:
        shown = series_shown(mount, f"{collection}/{patient}")
        assert shown == paths(one for one in everything if one.row["PatientID"] == patient)
        assert all(path.isascii() for path in shown)


def test_identifiers_that_end_in_dots_and_few_digits_end_names_so(
    archive: RunningSample, mount: Mount
) -> None:
    series = expected_series(archive, "RIDER PHANTOM MRI")
    assert all("." in one.uid[-5:] for one in series)
    shown = series_shown(mount, "RIDER PHANTOM MRI")
    assert shown == paths(series)
    assert {path[-5:] for path in shown} == {one.uid[-5:] for one in series}


def test_patient_ids_keep_their_blanks_and_equals_signs(archive: RunningSample, mount: Mount) -> None:
    assert "ZZ RIDER MR8 1" in os.listdir(mount.path / "RIDER PHANTOM MRI")
    patient = "GBM_DSC_MRI_DRO_Bo=15T"
    series = expected_series(archive, "GBM-DSC-MRI-DRO", patient=patient)
    assert len(series) > 100
    assert series_shown(mount, f"GBM-DSC-MRI-DRO/{patient}") == paths(series)


def test_one_study_under_two_patients_is_two_folders_with_each_patients_series(
    archive: RunningSample, mount: Mount
) -> None:
    by_patient = {p: expected_series(archive, "NLST", patient=p) for p in ("108001", "123342")}
    for patient, series in by_patient.items():
        assert series_shown(mount, f"NLST/{patient}") == paths(series)
    folders = {p: {one.row["StudyInstanceUID"]: one.path for one in each} for p, each in by_patient.items()}
    first, second = folders.values()
    (shared,) = first.keys() & second.keys()
    both = [mount.path / os.path.dirname(each[shared]) for each in (first, second)]
    assert [os.getxattr(folder, "user.tcia.StudyInstanceUID") for folder in both] == [shared.encode()] * 2
    assert not os.path.samefile(*both)


def test_two_studies_that_would_have_one_name_are_two_folders(archive: RunningSample, mount: Mount) -> None:
    collection, patient = TWO_STUDIES_OF_ONE_NAME
    series = expected_series(archive, collection, patient=patient)
    plain, suffixed = sorted(parts(series, 3))
    assert SUFFIX.sub("", suffixed) == plain
    assert series_shown(mount, f"{collection}/{patient}") == paths(series)
    by_study = {one.row["StudyInstanceUID"]: os.path.dirname(one.path) for one in series}
    for uid, folder in by_study.items():
        assert os.getxattr(mount.path / folder, "user.tcia.StudyInstanceUID") == uid.encode()


def test_series_of_a_study_that_would_have_one_name_are_a_folder_each(
    archive: RunningSample, mount: Mount
) -> None:
    series = expected_series(archive, "QIBA CT-1C")
    wanted = Counter(SUFFIX.sub("", one.path) for one in series)
    alike = [one for one in series if wanted[SUFFIX.sub("", one.path)] > 1]
    assert len(alike) - sum(count > 1 for count in wanted.values()) == 74
    for one in alike:
        assert os.getxattr(mount.path / one.path, "user.tcia.SeriesInstanceUID") == one.uid.encode()


@pytest.mark.parametrize("collection", ["QIBA CT-1C", "PROSTATEx"])
def test_each_folder_of_a_large_collection_has_the_name_that_the_rules_give_it(
    collection: str, archive: RunningSample, mount: Mount
) -> None:
    series = expected_series(archive, collection)
    assert len(series) in (1599, 18_485)
    assert series_shown(mount, collection) == paths(series)


def test_a_patient_of_a_thousand_studies_is_listed_completely(archive: RunningSample, mount: Mount) -> None:
    collection = "CT4Harmonization-Multicentric"
    series = expected_series(archive, collection)
    (patient,) = parts(series, 2)
    studies = os.listdir(mount.path / patient)
    assert len(studies) == 1378
    assert {f"{patient}/{study}" for study in studies} == parts(series, 3)
    shown = series_shown(mount, collection)
    assert len(shown) == 2756
    assert shown == paths(series)


def test_a_study_of_before_1900_has_a_time_before_1970(archive: RunningSample, mount: Mount) -> None:
    series = expected_series(archive, "RIDER Breast MRI")
    days = {os.path.dirname(one.path): day_of_study(one) for one in series}
    old = {folder: day for folder, day in days.items() if day.year < 1900}
    assert len(old) == 10
    for folder, day in old.items():
        seconds = (day - dt.date(1970, 1, 1)).days * 86_400
        assert seconds < 0
        assert os.stat(mount.path / folder).st_mtime_ns == seconds * 10**9
        assert run("stat", "--format", "%Y", mount.path / folder).stdout == f"{seconds}\n"


def test_the_folder_of_nlst_lists_all_its_patients(archive: RunningSample, mount: Mount) -> None:
    patients = patients_of(archive, "NLST")
    assert len(patients) == 26_254
    assert sorted(os.listdir(mount.path / "NLST")) == sorted([LICENCE, *patients])
    found = run("find", mount.path / "NLST", "-mindepth", "1", "-maxdepth", "1", "-printf", "%y %P\n")
    assert found.returncode == 0, found.stderr
    assert sorted(found.stdout.splitlines()) == sorted([f"f {LICENCE}", *(f"d {name}" for name in patients)])


def test_a_patient_of_several_collections_has_in_each_what_belongs_there(
    archive: RunningSample, mount: Mount
) -> None:
    collections = "PDMR-Texture-Analysis", "PDMR-521955-158-R4"
    first, second = (set(patients_of(archive, collection)) for collection in collections)
    patient = min(first & second)
    by_collection = [expected_series(archive, collection, patient=patient) for collection in collections]
    assert all(by_collection)
    assert not {one.uid for one in by_collection[0]} & {one.uid for one in by_collection[1]}
    for collection, series in zip(collections, by_collection, strict=True):
        assert series_shown(mount, f"{collection}/{patient}") == paths(series)
