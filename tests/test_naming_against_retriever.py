"""The score of our names against names that the retriever wrote, row by row, all misses explained.

A reason explains a miss by correcting the record (or the generation of the retriever) and must then
give the very name of the row; the rows it explains are named here, and no other row may miss.
"""

import datetime as dt
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from tciafs.model import Collection, Series, Study
from tciafs.naming import (
    ImageKey,
    Naming,
    collection_names,
    image_names,
    is_retriever_image_name,
    series_names,
    study_names,
)

SHARED = Path(os.environ.get("TCIAFS_SHARED") or Path(__file__).resolve().parents[1] / "../shared")
FOLDERS = SHARED / "data/retriever-folder-names.tsv"
IMAGES = SHARED / "data/retriever-image-names.tsv"

with_folder_names = pytest.mark.skipif(not FOLDERS.exists(), reason=f"{FOLDERS.name} is absent")
with_image_names = pytest.mark.skipif(not IMAGES.exists(), reason=f"{IMAGES.name} is absent")


def rows_of(table: Path) -> Iterator[list[str]]:
    lines = table.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return (line.split("\t") for line in lines[1:])


# Folders


class Row(NamedTuple):
    """A folder that the retriever wrote, and what another index (IDC's) says of its records."""

    collection_folder: str
    patient_folder: str
    study_folder: str
    series_folder: str
    study_uid: str
    study_date: str
    study_description: str
    idc_collection: str
    series_uid: str
    series_number: str
    series_description: str
    modality: str

    def study(self) -> Study:
        """The study as the index has it, which lacks the StudyID."""
        date = dt.date.fromisoformat(self.study_date)
        return Study(
            self.idc_collection,
            self.patient_folder,
            self.study_uid,
            date,
            description=self.study_description,
        )

    def series(self) -> Series:
        return Series(
            self.idc_collection,
            self.patient_folder,
            self.study_uid,
            self.series_uid,
            number=float(self.series_number) if self.series_number else None,
            description=self.series_description,
        )


def study_name(study: Study) -> str:
    return next(iter(study_names([study], Naming.DESCRIPTIVE)))


def series_name(series: Series) -> str:
    return next(iter(series_names([series], Naming.DESCRIPTIVE)))


def study_as_indexed(row: Row) -> str:
    return study_name(row.study())


def series_as_indexed(row: Row) -> str:
    return series_name(row.series())


@dataclass(frozen=True)
class Reason:
    """Why some rows miss: which, and what name the rule gives once that is put right."""

    why: str
    rows: Callable[[Row], bool]
    name: Callable[[Row], str]


def before_na(name: str) -> str:
    """The name before May 2021, when missing texts were left out."""
    return re.sub(r"(?<![^-])NA-", "", name)


STUDY_ID_OF_PATIENT = {
    "1.3.6.1.4.1.9328.50.4.0001": "1",
    "1.3.6.1.4.1.9328.50.4.0045": "1",
    "1.3.6.1.4.1.9328.50.4.0518": "1",
    "DBT-P00003": "DBT-S01306",
    "DBT-P00013": "DBT-S00163",
    "DBT-P00060": "DBT-S00787",
    "ISPY1_1001": "690199",
    "LUNG1-001": "StudyID",
}

STUDY_REASONS = [
    Reason(
        "StudyID not in the index: it repeats the PatientID",
        lambda row: row.idc_collection in ("ct_lymph_nodes", "pancreas_ct"),
        lambda row: study_name(replace(row.study(), study_id=row.patient_folder)),
    ),
    Reason(
        "StudyID not in the index: taken from the folder",
        lambda row: (
            row.patient_folder in STUDY_ID_OF_PATIENT and row.study_folder != "09-18-2008-StudyID-69331"
        ),
        lambda row: study_name(replace(row.study(), study_id=STUDY_ID_OF_PATIENT[row.patient_folder])),
    ),
    Reason(
        "StudyID not in the index, and a retriever older than NA",
        lambda row: row.study_folder == "09-18-2008-StudyID-69331",
        lambda row: before_na(study_name(replace(row.study(), study_id="StudyID"))),
    ),
    Reason(
        "a retriever older than NA",
        lambda row: (
            row.study_folder
            in {
                "01-02-1999-NLST-LSS-70457",
                "01-08-2012-XR CHEST PA AND LATERAL-04866",
                "06-29-2003-threephaseabdomen-41748",
                "12-23-2021-40641",
                "05-10-2004-RTRCCTTHORAX8F Adult-73548",
                "07-07-2011-MR prostaat kanker detectie WDSmc MCAPRODETW-05711",
                "02-18-2019-CT-77226",
            }
        ),
        lambda row: before_na(study_as_indexed(row)),
    ),
    Reason(
        "the index has no study description, TCIA had one",
        lambda row: row.study_folder == "05-15-1996-NA-Breast CE-49782",
        lambda row: study_name(replace(row.study(), description="Breast CE")),
    ),
    Reason(
        "blanks became underscores after the download",
        lambda row: row.collection_folder == "NSCLC_Radiogenomics",
        lambda row: study_as_indexed(row).replace(" ", "_"),
    ),
    Reason(
        "date in the index differs from TCIA's, StudyID not in it, a retriever older than NA",
        lambda row: row.study_folder == "09-20-2006-1-96508",
        lambda row: before_na(
            study_name(
                replace(row.study(), date=dt.date(2006, 9, 20), study_id="1"),
            )
        ),
    ),
]

NLST_DESCRIPTIONS = {  # as the folders show them; the index spells kernels out and drops ".0"
    "1.000000-1OPAGELSPLUSD3602.512080.00.11.5-72875": "1,OPA,GE,LSPLUS,D,360,2.5,120,80.0,0.1,1.5",
    "2.000000-0OPASEVZOOMB50f340212080.040.0null-84839":
        "0,OPA,SE,VZOOM,B50f,340,2,120,80.0,40.0,null",
    "4.000000-0OPATOAQUL4FC51301.62-23374": "0,OPA,TO,AQUL4,FC51,301.6,2",
}  # fmt: skip

SERIES_REASONS = [
    Reason(
        "the index has another description than TCIA had",
        lambda row: row.series_folder in NLST_DESCRIPTIONS,
        lambda row: series_name(replace(row.series(), description=NLST_DESCRIPTIONS[row.series_folder])),
    ),
    Reason(
        "a retriever older than NA",
        lambda row: row.series_folder in {"20566.000000-32081", "98844"},
        lambda row: before_na(series_as_indexed(row)),
    ),
    Reason(
        "a retriever older than NA and than the six decimals",
        lambda row: row.series_folder == "4-24533",
        lambda row: before_na(series_as_indexed(row)).replace(".000000", ""),
    ),
    Reason(
        "somebody put a zero before the number",
        lambda row: row.series_folder == "07.000000-twist20sdynTRA h20 ex B17TT49.6s-18302",
        lambda row: f"0{series_as_indexed(row)}",
    ),
    Reason(
        "blanks became underscores after the download",
        lambda row: row.collection_folder == "NSCLC_Radiogenomics",
        lambda row: series_as_indexed(row).replace(" ", "_"),
    ),
]

UNSCORABLE_SERIES = {  # the index knows no such series: why
    "": "the path that was found ends at the study",
    "1.000000-P4P113S303I10349": "the path that was found ends at a blank",
    "1.000000-P4P114S301I00007": "the path that was found ends at a blank",
    "3000524.000000-Nodule 1 - Annotation MI01411691": "the path that was found ends at a blank",
    "3000562.000000-Nodule 2 - Annotation MI01411887": "the path that was found ends at a blank",
    "0-95085": "from before the six decimals, with a UID that the index does not have",
}


def folder_rows() -> list[Row]:
    return [Row(*fields) for fields in rows_of(FOLDERS)]


def check_misses(
    rows: Sequence[Row],
    folder: Callable[[Row], str],
    predicted: Callable[[Row], str],
    reasons: Sequence[Reason],
) -> str:
    """Assert that exactly the explained rows miss, each once; return the score in a sentence."""
    misses = [row for row in rows if predicted(row) != folder(row)]
    explained = [(reason, row) for reason in reasons for row in rows if reason.rows(row)]
    assert sorted(row for _, row in explained) == sorted(misses)
    for reason, row in explained:
        assert reason.name(row) == folder(row), reason.why
    counts = [f"{sum(r is reason for r, _ in explained)} {reason.why}" for reason in reasons]
    return f"{len(rows) - len(misses)} of {len(rows)} as indexed; the rest: {'; '.join(counts)}"


@with_folder_names
def test_every_study_folder_is_ours_or_explained(capsys: pytest.CaptureFixture[str]) -> None:
    score = check_misses(folder_rows(), lambda row: row.study_folder, study_as_indexed, STUDY_REASONS)
    with capsys.disabled():
        print(f"\n{FOLDERS.name}, study folders: {score}")


@with_folder_names
def test_every_series_folder_is_ours_or_explained(capsys: pytest.CaptureFixture[str]) -> None:
    rows = folder_rows()
    unknown = {row.series_folder for row in rows if not row.series_uid}
    assert unknown == UNSCORABLE_SERIES.keys()
    known = [row for row in rows if row.series_uid]
    score = check_misses(known, lambda row: row.series_folder, series_as_indexed, SERIES_REASONS)
    with capsys.disabled():
        print(
            f"\n{FOLDERS.name}, series folders: {score};"
            f" not scored: {len(rows) - len(known)} rows whose series the index does not know"
        )


@with_folder_names
def test_every_collection_folder_is_tcias_spelling_or_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The index has only its own id of a collection: what may differ is case, blanks and dashes."""
    rows = folder_rows()
    for row in rows:
        assert re.sub("[ -]", "_", row.collection_folder.lower()) == row.idc_collection
    spelt_with_blanks = {row.collection_folder for row in rows if " " in row.collection_folder}
    underscored = {folder.replace(" ", "_") for folder in spelt_with_blanks}
    misses = {row for row in rows if row.collection_folder in underscored}
    assert {row.collection_folder for row in misses} == {"CT_Lymph_Nodes", "NSCLC_Radiogenomics"}
    for row in set(rows) - misses:
        assert list(collection_names([Collection(row.collection_folder)])) == [row.collection_folder]
    with capsys.disabled():
        print(
            f"\n{FOLDERS.name}, collection folders: {len(rows) - len(misses)} of {len(rows)};"
            f" {len(misses)} have underscores where TCIA's name has blanks"
        )


@with_folder_names
@with_image_names
def test_study_ids_agree_with_the_headers_there_are_but_for_one_patient() -> None:
    """LUNG1-001's headers have an empty StudyID today; the retriever once wrote "StudyID"."""
    in_headers: dict[str, set[str]] = {}
    for fields in rows_of(IMAGES):
        in_headers.setdefault(fields[7], set()).add(fields[5])
    checked = [row for row in folder_rows() if row.study_uid in in_headers]
    agreeing = {
        row.patient_folder
        for row in checked
        if STUDY_ID_OF_PATIENT.get(row.patient_folder, "") in in_headers[row.study_uid]
    }
    assert agreeing == {"113_HM10395", "R01-001", "STS_001"}
    assert {row.patient_folder for row in checked} - agreeing == {"LUNG1-001"}


# Images

SeriesKey = tuple[str, str]
NamedImages = dict[SeriesKey, list[tuple[str, ImageKey]]]


def number_in(field: str) -> int | None:
    return int(field) if field not in ("", r"\N") else None


def images_by_series() -> NamedImages:
    """The file name and the key of each image, by folder and SeriesInstanceUID."""
    series: NamedImages = {}
    for fields in rows_of(IMAGES):
        folder, _, name = fields[0].rpartition("/")
        acquisition, instance, sop_uid = fields[14:17]
        image = ImageKey(number_in(acquisition), number_in(instance), sop_uid)
        series.setdefault((folder, fields[10]), []).append((name, image))
    return series


RENAMED = (  # files that never had, or lost, the retriever's names: repositories' and IBSI's own
    "test/data/ibsi_1_ct_radiomics_phantom/",
    "test/data/ibsi_1_digital_phantom/",
    "test/data/seg_dicom4qi/data_1/",
    "test/data/seg_dicom4qi/data_3/mask",
    "test/data/seg_dicom4qi/data_5/",
    "test/data/spect_images_pt/",
    "test/data/sts_images/",
    "test/data/sts_images_flat/",
)
LOOKS_ALIKE = "test/data/seg_dicom4qi/data_3/image"


def is_numbered_by_another_tool(names: Sequence[str]) -> bool:
    """Whether first parts vary in length: 1-103.dcm beside 99-201.dcm; the retriever pads them."""
    return len({len(name.partition("-")[0]) for name in names}) > 1


def is_complete(names: Sequence[str]) -> bool:
    """Whether both parts count from 1 without a gap: no image of the series was left out."""
    numbers = sorted(tuple(map(int, name.removesuffix(".dcm").split("-"))) for name in names)
    groups = [
        (first, [second for _, second in group])
        for first, group in itertools.groupby(numbers, lambda pair: pair[0])
    ]
    return [first for first, _ in groups] == list(range(1, len(groups) + 1)) and all(
        seconds == list(range(1, len(seconds) + 1)) for _, seconds in groups
    )


Rule = Callable[[Sequence[ImageKey]], list[str]]


def right_rows(series: NamedImages, rule: Rule) -> set[tuple[SeriesKey, str]]:
    """Return the images, as series and file name, which get their file's name by the rule."""
    return {
        (key, true)
        for key, images in series.items()
        for (true, _), name in zip(images, rule([image for _, image in images]), strict=True)
        if true == name
    }


@with_image_names
def test_every_image_name_is_ours_or_explained(capsys: pytest.CaptureFixture[str]) -> None:
    series = images_by_series()
    rows = {(key, name) for key, images in series.items() for name, _ in images}
    misses = rows - right_rows(series, image_names)
    renamed = {key for key in series if f"{key[0]}/".startswith(RENAMED)}
    alike = {key for key in series if key[0] == LOOKS_ALIKE}
    assert misses == {(key, name) for key, name in rows if key in renamed | alike}
    for key in renamed:
        assert not any(is_retriever_image_name(name) for name, _ in series[key])
    for key in alike:
        assert is_numbered_by_another_tool([name for name, _ in series[key]])
    for key in series.keys() - renamed - alike:
        assert is_complete([name for name, _ in series[key]]), "an incomplete series by luck"

    def count(keys: set[SeriesKey]) -> str:
        return f"{sum(len(series[key]) for key in keys)} images in {len(keys)} series"

    with capsys.disabled():
        print(
            f"\n{IMAGES.name}: {count(series.keys() - renamed - alike)} as computed, of"
            f" {count(set(series))}; the rest: {count(renamed)} renamed by others, {count(alike)}"
            " numbered by another tool; no series has images missing"
        )


# The server's algorithm, which sorts by instance number only


def server_names(images: Sequence[ImageKey]) -> list[str]:
    order = sorted(range(len(images)), key=lambda place: images[place].instance_number or 0)
    acquisitions = [images[place].acquisition_number for place in order]
    instances = [images[place].instance_number for place in order]
    acquisition_width = len(str(changes(acquisitions, acquisitions[0] or 0)))
    instance_width = len(str(changes(instances, instances[0])))
    names = [""] * len(images)
    previous: int | None = acquisitions[0] or 0
    acquisition_count, instance_count = 1, 0
    for place in order:
        instance_count += 1
        acquisition = images[place].acquisition_number
        if (acquisition or 0) != previous:
            previous, acquisition_count, instance_count = acquisition, acquisition_count + 1, 1
        names[place] = f"{acquisition_count:0{acquisition_width}}-{instance_count:0{instance_width}}.dcm"
    return names


def changes(numbers: Sequence[int | None], previous: int | None) -> int:
    """Return 1 and how often the number changes, the empty ones passed over."""
    present = [previous, *(number for number in numbers if number is not None)]
    return 1 + sum(one != other for one, other in itertools.pairwise(present))


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ([(1, 1)], "1-1"),
        ([(1, n) for n in range(10)], " ".join(f"1-{n:02}" for n in range(1, 11))),
        ([(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)], "1-1 1-2 1-3 2-1 2-2 2-3"),
        ([(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)], "1-1 2-1 3-1 4-1 5-1 6-1"),
        ([(1, 1)] * 12, " ".join(f"1-{n}" for n in range(1, 13))),
        ([(1, n // 2) for n in range(20)], " ".join(f"1-{n:02}" for n in range(1, 21))),
        ([(None, 1), (None, 2)], "1-1 1-2"),
        ([(None, 1), (5, 2), (5, 3)], "1-1 2-1 2-2"),
        ([(5, 1), (None, 2), (None, 3), (None, 4)], "1-1 2-1 3-1 4-1"),
        ([(0, 1), (None, 2), (1, 3)], "1-1 1-2 2-1"),
    ],
)
def test_the_servers_algorithm_is_imitated_here_down_to_its_quirks(
    keys: list[tuple[int | None, int | None]], names: str
) -> None:
    images = [ImageKey(*key, str(place)) for place, key in enumerate(keys)]
    assert " ".join(name.removesuffix(".dcm") for name in server_names(images)) == names


def by_width(width_of: Callable[[Mapping[int | None, int], int], int]) -> Rule:
    """Our rule with another width of the second part, from group sizes and distinct numbers."""

    def rule(images: Sequence[ImageKey]) -> list[str]:
        sizes: dict[int | None, int] = {}
        for image in images:
            sizes[image.acquisition_number] = sizes.get(image.acquisition_number, 0) + 1
        width = len(str(width_of(sizes, len({image.instance_number for image in images}))))
        parts = (name.removesuffix(".dcm").split("-") for name in image_names(images))
        return [f"{first}-{int(second):0{width}}.dcm" for first, second in parts]

    return rule


@with_image_names
def test_the_files_do_not_tell_the_rules_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Every series of the retriever has distinct instance numbers that grow with acquisitions."""
    series = images_by_series()
    rules = {
        "ours": image_names,
        "the server's code": server_names,
        "width of distinct instance numbers": by_width(lambda sizes, distinct: distinct),
        "width of the longest acquisition": by_width(lambda sizes, _: max(sizes.values())),
        "width of the image count": by_width(lambda sizes, _: sum(sizes.values())),
    }
    right = {name: right_rows(series, rule) for name, rule in rules.items()}
    with capsys.disabled():
        print(f"\n{IMAGES.name}, right by each rule:")
        for name, rows in right.items():
            print(f"  {len(rows)} images in {len({key for key, _ in rows})} series: {name}")
    assert all(rows == right["ours"] for rows in right.values())
