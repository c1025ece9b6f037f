"""Names: the retriever's rules on real paths, and what must hold of any records whatever."""

import datetime as dt
import hashlib
import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.errors import UnreadableAnswer
from tciafs.model import Collection, Patient, Series, Study
from tciafs.naming import (
    NAME_LIMIT_BYTES,
    ImageKey,
    Naming,
    collection_names,
    image_name,
    image_names,
    is_retriever_image_name,
    legal_name,
    licence_text,
    original_name,
    patient_names,
    provisional_image_names,
    resolve_aliases,
    series_names,
    study_names,
)
from tciafs.policy import DATA_USAGE_POLICY_URL

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def a_study(
    uid: str = "1.2.3.4.30178",
    date: dt.date | None = None,
    study_id: str | None = None,
    description: str | None = None,
) -> Study:
    return Study("LIDC-IDRI", "LIDC-IDRI-0001", uid, date, study_id, description)


def a_series(
    uid: str = "1.2.3.4.03192", number: float | None = None, description: str | None = None
) -> Series:
    return Series(
        "LIDC-IDRI",
        "LIDC-IDRI-0001",
        "1.2.3.4.30178",
        uid,
        number=number,
        description=description,
    )


def study_name(study: Study, naming: Naming = Naming.DESCRIPTIVE) -> str:
    (name,) = study_names([study], naming)
    return name


def one_series_name(series: Series, naming: Naming = Naming.DESCRIPTIVE) -> str:
    (name,) = series_names([series], naming)
    return name


def is_legal(name: str) -> bool:
    return (
        name not in ("", ".", "..")
        and "/" not in name
        and CONTROL.search(name) is None
        and len(name.encode()) <= NAME_LIMIT_BYTES
    )


# Real paths, and the raw texts behind them: folders, StudyID, study description, series number,
# series description. Of the UIDs only the ends are known, which are read off the path.

# fmt: off
REAL_PATHS = [
    ("CBIS-DDSM/Calc-Test_P_00038_LEFT_CC_1/08-29-2017-DDSM-NA-94942",
     "1.000000-ROI mask images-18515", "DDSM", None, 1, "ROI mask images"),
    ("CBIS-DDSM/Calc-Test_P_00038_LEFT_CC/08-29-2017-DDSM-NA-96009",
     "1.000000-full mammogram images-63992", "DDSM", None, 1, "full mammogram images"),
    ("CBIS-DDSM/Calc-Training_P_01740_RIGHT_MLO/08-07-2016-DDSM-NA-60639",
     "1.000000-full mammogram images-72353", "DDSM", None, 1, "full mammogram images"),
    ("CBIS-DDSM/Mass-Training_P_02092_LEFT_CC_1/07-20-2016-DDSM-NA-75288",
     "1.000000-cropped images-03171", "DDSM", None, 1, "cropped images"),
    ("LIDC-IDRI/LIDC-IDRI-0011/01-01-2000-NA-NA-55602",
     "3000922.000000-NA-50814", None, None, 3000922, None),
    ("LIDC-IDRI/LIDC-IDRI-0066/01-01-2000-NA-NA-57395",
     "5569.000000-W Chest PA-43647", None, None, 5569, "W Chest PA"),
    ("LIDC-IDRI/LIDC-IDRI-0098/01-01-2000-NA-NA-97960",
     "3094.000000-ThoraxRoutine  3.0  B31s-45271", None, None, 3094, "ThoraxRoutine  3.0  B31s"),
    ("LIDC-IDRI/LIDC-IDRI-0118/01-01-2000-NA-CHEST PA - LAT-79139",
     "33297.000000-CHEST PA - LAT-94758", None, "CHEST PA - LAT", 33297, "CHEST PA - LAT"),
    ("LIDC-IDRI/LIDC-IDRI-0124/01-01-2000-NA-CHEST PA  LATERAL-83635",
     "28247.000000-CHEST PA  LATERAL-33321",
     None, "CHEST PA & LATERAL", 28247, "CHEST PA & LATERAL"),
    ("HNSCC/HNSCC-01-0001/12-05-1998-NA-RT SIMULATION-43582",
     "1.000000-NA-27032", None, "RT SIMULATION", 1, None),
    ("HNSCC/HNSCC-01-0001/12-01-1998-NA-PETCT HEAD  NECK CA-59359",
     "5.000000-PET NO AC-52932", None, "PET/CT HEAD & NECK CA", 5, "PET NO AC"),
    ("HNSCC/HNSCC-01-0001/12-05-1998-NA-RT SIMULATION-43582",
     "NA-28768", None, "RT SIMULATION", None, None),
    ("LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-NA-NA-30178",
     "3000566.000000-NA-03192", None, None, 3000566, None),
    ("LIDC-IDRI/LIDC-IDRI-0003/01-01-2000-NA-NA-94866",
     "3000611.000000-NA-03264", "", "", 3000611, ""),
    ("CMMD/D1-0001/07-18-2010-NA-NA-79377",
     "1.000000-NA-70244", None, None, 1, None),
    ("COVID-19-AR/COVID-19-AR-16406488/01-15-2012-NA-XR CHEST AP ONLY-24124",
     "1001.000000-NA-00046", None, "XR CHEST AP ONLY", 1001, None),
    ("NSCLC-Radiomics/LUNG1-001/09-18-2008-StudyID-NA-69331",
     "300.000000-Segmentation-9.554", "StudyID", None, 300, "Segmentation"),
    ("Pediatric-CT-SEG/Pediatric-CT-SEG-00DCF4D6/10-09-2009-NA-CT-45894",
     "30144.000000-CT-67414", None, "CT", 30144, "CT"),
    ("HCC-TACE-Seg/HCC_009/02-15-1998-NA-PP CAPLIVER PROTO.-10975",
     "300.000000-Segmentation-91221", None, "PP CAP/LIVER PROTO.", 300, "Segmentation"),
    ("Colorectal-Liver-Metastases/CRLM-CT-1001/06-06-1992-NA-CT ANGIO ABD WITH PEL-75163",
     "100.000000-Segmentation-46600", None, "CT ANGIO ABD WITH PEL", 100, "Segmentation"),
    ("C4KC-KiTS/KiTS-00209/10-23-2003-NA-abdomenpelvisw-99291",
     "300.000000-Segmentation-18083", None, "abdomen_pelvis_w", 300, "Segmentation"),
    ("4D-Lung/113_HM10395/11-26-1999-NA-p4-13296",
     "1.000000-P4P113S303I10349 Gated 40.0B-47.35",
     None, "p4", 1, "P4^P113^S303^I10349, Gated, 40.0%B"),
    ("PROSTATEx/ProstateX-0000/07-07-2011-NA-MR prostaat kanker detectie WDSmc MCAPRODETW-05711",
     "3.000000-t2tsesag-87368",
     None, "MR prostaat kanker detectie WDS_mc MCAPRODETW", 3, "t2_tse_sag"),
    ("Prostate-3T/Prostate3T-01-0001/03-15-2003-NA-MR prostaat kanker detectiemc MCAPRODET-79232",
     "2.000000-t2tsetra-49698", None, "MR prostaat kanker detectie_mc MCAPRODET", 2, "t2_tse_tra"),
    ("TCGA-BRCA/TCGA-AO-A0J9/05-11-2001-NA-NA-96851",
     "1.000000-Localization-18424", None, None, 1, "Localization"),
    ("TCGA-LUAD/TCGA-17-Z011/06-30-1982-NA-NA-32248",
     "2.000000-NA-43644", None, None, 2, None),
    ("Breast-Cancer-Screening-DBT/DBT-P00003/"
     "01-01-2000-DBT-S01306-MAMMO screening digital bilateral-33603",
     "18377.000000-NA-92351", "DBT-S01306", "MAMMO screening digital bilateral", 18377, None),
    ("RHUH-GBM/RHUH-0034/07-20-2014-NA-RM DE CRANEO SINCON CONTRASTE-27430",
     "13.000000-T1 3D VIBE AXIAL  avant gado -24651",
     None, "RM DE CRANEO SIN/CON CONTRASTE", 13, "T1 3D VIBE AXIAL  avant gado "),
    ("LDCT-and-Projection-data/C002/12-23-2021-NA-NA-62464",
     "1.000000-Low Dose Images-39882", None, None, 1, "Low Dose Images"),
    ("CT Lymph Nodes/ABD_LYMPH_001/09-14-2014-ABDLYMPH001-abdominallymphnodes-30274",
     "300.000000-Lymph node segmentations-27473",
     "ABD_LYMPH_001", "abdominal_lymph_nodes", 300, "Lymph node segmentations"),
]
# fmt: on


@pytest.mark.parametrize(
    ("folders", "series_folder", "study_id", "study_description", "number", "description"),
    REAL_PATHS,
)
def test_records_become_the_path_that_the_retriever_wrote(
    folders: str,
    series_folder: str,
    study_id: str | None,
    study_description: str | None,
    number: float | None,
    description: str | None,
) -> None:
    collection, patient, study_folder = folders.split("/")
    month, day, year = map(int, study_folder[:10].split("-"))
    uid = f"1.2.{study_folder[-5:]}"
    study = a_study(uid, dt.date(year, month, day), study_id, study_description)
    assert list(collection_names([Collection(collection)])) == [collection]
    assert list(patient_names([Patient(collection, patient)])) == [patient]
    assert study_name(study) == study_folder
    series = a_series(f"1.2.{series_folder[-5:]}", number, description)
    assert one_series_name(series) == series_folder


@pytest.mark.parametrize(
    "name",
    ["1-1.dcm", "1-001.dcm", "1-016.dcm", "1-2.dcm", "1-09.dcm", "1-15.dcm", "2-001.dcm"],
)
def test_image_names_that_the_retriever_wrote_are_known_and_kept(name: str) -> None:
    assert is_retriever_image_name(name)
    assert image_name(name) == name


def test_a_path_from_before_2021_differs_only_by_the_missing_NA() -> None:
    name = study_name(a_study("1.2.34834", dt.date(2007, 4, 25), None, "Thorax^A_ThoraxRoutine (Adult)"))
    assert name == "04-25-2007-NA-ThoraxAThoraxRoutine Adult-34834"
    assert name.replace("NA-", "") == "04-25-2007-ThoraxAThoraxRoutine Adult-34834"


def test_classic_naming_is_the_uid_whole() -> None:
    study_uid = "1.3.6.1.4.1.32722.99.99.239341353911714368772597187099978969331"
    series_uid = "1.2.276.0.7230010.3.1.3.2323910823.20524.1597260509.554"
    assert study_name(a_study(study_uid, dt.date(2008, 9, 18)), Naming.CLASSIC) == study_uid
    assert one_series_name(a_series(series_uid, 300.0), Naming.CLASSIC) == series_uid


# The parts of a folder name


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (None, "NA-"),
        ("", "NA-"),
        ("///", "NA-"),
        ("Ödem", "dem-"),
        ("__", "NA-"),
        ("   ", "   -"),
        ("-", ""),
        ("null", ""),
        ("nu_ll", ""),
        ("a\nb", "ab-"),
        ("t2_tse_sag", "t2tsesag-"),
        ("P4^P100^S300^I00003, Gated, 0.0%A", "P4P100S300I00003 Gated 0.0A-"),
        ("x" * 53, "x" * 53 + "-"),
        ("x" * 54, "x" * 53 + "-"),
        ("_" + "x" * 52 + " y", "x" * 52 + " -"),
    ],
)
def test_a_description_is_cleaned_and_then_cut_at_53_characters(raw: str | None, part: str) -> None:
    assert one_series_name(a_series(description=raw)) == part + "03192"
    assert study_name(a_study(description=raw)) == f"NA-{part}30178"


@pytest.mark.parametrize(
    ("raw", "part"),
    [(None, "NA-"), ("", "NA-"), ("null", ""), ("-", "--"), ("A_1", "A1-"),
     ("y" * 80, "y" * 80 + "-")],
)  # fmt: skip
def test_a_study_id_is_cleaned_but_never_cut(raw: str | None, part: str) -> None:
    assert study_name(a_study(study_id=raw)) == f"{part}NA-30178"


@pytest.mark.parametrize(
    ("number", "part"),
    [(None, ""), (0.0, "0.000000-"), (-0.0, "0.000000-"), (3000566, "3000566.000000-"),
     (2.5, "2.500000-"), (-1.0, "-1.000000-")],
)  # fmt: skip
def test_a_series_number_has_six_decimals_or_is_left_out(number: float | None, part: str) -> None:
    assert one_series_name(a_series(number=number)) == f"{part}NA-03192"


def test_a_missing_date_is_left_out_and_an_early_year_keeps_four_digits() -> None:
    assert study_name(a_study(date=None)) == "NA-NA-30178"
    assert study_name(a_study(date=dt.date(99, 1, 2))) == "01-02-0099-NA-NA-30178"


def test_a_uid_shorter_than_five_characters_is_taken_whole() -> None:
    assert one_series_name(a_series("1.2")) == "NA-1.2"


# Two records of one name


def test_of_two_series_of_one_name_the_smaller_uid_keeps_it() -> None:
    small, great = a_series("1.2.1111111111.03192"), a_series("1.2.2222222222.03192")
    assert series_names([great, small], Naming.DESCRIPTIVE) == {
        "NA-03192": small,
        "NA-03192 (222222.03192)": great,
    }


def test_twins_whose_uids_end_alike_are_told_apart_by_the_whole_uid() -> None:
    one, two, three = (a_series(f"1.{n}.777777777777.03192") for n in (1, 2, 3))
    assert series_names([three, one, two], Naming.DESCRIPTIVE) == {
        "NA-03192": one,
        "NA-03192 (777777.03192)": two,
        "NA-03192 (1.3.777777777777.03192)": three,
    }


def test_one_record_listed_twice_is_one_entry() -> None:
    study, other = a_study(date=dt.date(2000, 1, 1)), a_study(date=dt.date(2001, 1, 1))
    assert list(study_names([study, study], Naming.DESCRIPTIVE).values()) == [study]
    assert study_names([study, other], Naming.DESCRIPTIVE) == study_names([other, study], Naming.DESCRIPTIVE)
    assert len(study_names([study, other], Naming.DESCRIPTIVE)) == 1
    assert list(collection_names([Collection("A"), Collection("A")])) == ["A"]


def test_names_that_differ_by_case_are_different_names() -> None:
    assert list(collection_names([Collection("nlst"), Collection("NLST")])) == ["NLST", "nlst"]


def test_a_twin_with_an_overlong_name_still_ends_in_its_uid() -> None:
    one, two = (a_study(f"1.{n}.777777777777.30178", study_id="y" * 400) for n in (1, 2))
    names = study_names([one, two], Naming.DESCRIPTIVE)
    assert all(map(is_legal, names))
    assert {two} == {s for name, s in names.items() if name.endswith(" (777777.30178)")}


TEXTS = st.one_of(
    st.none(),
    st.text(max_size=6),
    st.text(alphabet="ab-_/ .%", max_size=4),
    st.text(min_size=250, max_size=300),
)
UIDS = st.one_of(
    st.text(alphabet="12.", min_size=1, max_size=16),
    st.sampled_from(["1.777777777777.03192", "2.777777777777.03192", "3.777777777777.03192"]),
    st.text(min_size=1, max_size=9),
)
STUDIES = st.lists(
    st.builds(
        a_study,
        uid=UIDS,
        date=st.one_of(st.none(), st.just(dt.date(2000, 1, 1))),
        study_id=TEXTS,
        description=TEXTS,
    ),
    max_size=12,
)
SERIES = st.lists(
    st.builds(
        a_series,
        uid=UIDS,
        number=st.one_of(st.none(), st.floats(), st.just(1.0)),
        description=TEXTS,
    ),
    max_size=12,
)


@given(STUDIES, st.sampled_from(Naming), st.randoms(use_true_random=False))
def test_any_studies_get_legal_names_of_their_own_whatever_their_order(
    studies: list[Study], naming: Naming, rng: random.Random
) -> None:
    names = study_names(studies, naming)
    assert {study.study_uid for study in names.values()} == {study.study_uid for study in studies}
    assert len(names) == len({study.study_uid for study in studies})
    assert all(map(is_legal, names))
    assert list(names) == sorted(names)
    shuffled = rng.sample(studies, len(studies))
    assert list(study_names(shuffled, naming).items()) == list(names.items())


@given(SERIES, st.sampled_from(Naming), st.randoms(use_true_random=False))
def test_any_series_get_legal_names_of_their_own_whatever_their_order(
    series: list[Series], naming: Naming, rng: random.Random
) -> None:
    names = series_names(series, naming)
    assert len(names) == len({one.series_uid for one in series})
    assert all(map(is_legal, names))
    assert list(names) == sorted(names)
    shuffled = series_names(rng.sample(series, len(series)), naming)
    assert [(name, repr(one)) for name, one in shuffled.items()] == [
        (name, repr(one)) for name, one in names.items()
    ]


@given(st.lists(st.text(max_size=8)))
def test_any_collections_and_patients_get_legal_names_of_their_own(texts: list[str]) -> None:
    collections = collection_names(map(Collection, texts))
    patients = patient_names(Patient("C", text) for text in texts)
    assert {original_name(name): c.name for name, c in collections.items()} == {text: text for text in texts}
    assert list(collections) == list(patients) == sorted(patients)
    assert all(map(is_legal, collections))


# What a Linux name can hold

TRICKY = st.text(
    alphabet=st.one_of(st.sampled_from("/%.~2F5E0789D8C\0\n\x7f\x9f\ud800\udc80é"), st.characters()),
    max_size=12,
)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("a/b", "a%2Fb"),
        ("a\0b", "a%00b"),
        ("a\n\x1b[31mb", "a%0A%1B[31mb"),
        ("\x7f\x85", "%7F%85"),
        ("\udc80", "%DC80"),
        (".", "%2E"),
        ("..", "%2E."),
        ("", "%EMPTY"),
        ("%EMPTY", "%25EMPTY"),
        ("a%2Fb", "a%252Fb"),
        ("%25", "%2525"),
    ],
)
def test_what_no_linux_name_holds_is_escaped_and_can_be_read_back(raw: str, name: str) -> None:
    assert legal_name(raw) == name
    assert original_name(name) == raw


@pytest.mark.parametrize(
    "name", ["LIDC-IDRI", "CT Lymph Nodes", "100%", "5% AB", "50%C", "...", ".hidden", "a.", " b ",
             "Größe", "名前", "🫁", "x" * 255, "%", "%%", "%~", "a\\b"],
)  # fmt: skip
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert legal_name(name) == name
    assert original_name(name) == name


@given(TRICKY)
def test_any_text_becomes_a_legal_name_and_can_be_read_back(raw: str) -> None:
    name = legal_name(raw)
    assert is_legal(name)
    assert original_name(name) == raw
    assert original_name(legal_name(name)) == name


@given(TRICKY, TRICKY)
def test_two_texts_never_share_a_name(one: str, other: str) -> None:
    assert (legal_name(one) == legal_name(other)) == (one == other)


@given(TRICKY)
def test_a_name_that_needed_no_escape_stays_under_every_further_application(raw: str) -> None:
    name = legal_name(raw)
    if name == raw:
        assert legal_name(legal_name(raw)) == name
    else:
        assert legal_name(name) != name, "or the text equal to it would share its name"


@given(TRICKY)
def test_a_name_reads_back_to_the_one_text_that_is_written_so_or_to_none(name: str) -> None:
    raw = original_name(name)
    assert raw is None or legal_name(raw) == name


@given(st.text(min_size=200, max_size=600))
def test_an_overlong_text_is_cut_at_a_character_and_marked_by_a_hash(raw: str) -> None:
    name = legal_name(raw)
    assert is_legal(name)
    assert legal_name(raw + "!") != name
    if len(raw.encode()) > NAME_LIMIT_BYTES:
        assert re.search(r"%~[0-9a-f]{32}\Z", name)
        assert original_name(name) is None
        assert len(name.encode()) > NAME_LIMIT_BYTES - 8


def test_a_text_that_looks_like_a_cut_name_does_not_take_its_place() -> None:
    cut = legal_name("y" * 300)
    assert cut.startswith("y" * 221 + "%~")
    assert legal_name(cut) != cut
    digest = hashlib.blake2b(b"").hexdigest()[:32]
    assert legal_name(f"a%~{digest}") == f"a%25~{digest}"


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_the_cut_never_splits_a_utf8_sequence(width: int) -> None:
    char = {1: "a", 2: "é", 3: "名", 4: "🫁"}[width]
    for lead in range(5):
        head, mark, _ = legal_name("-" * lead + char * 200).partition("%~")
        if mark:
            assert set(head.lstrip("-")) == {char}


# Image names that the archive gives


@pytest.mark.parametrize("given_name", ["1-1.dcm", "00000001.dcm", "LICENSE", "a b.dcm", "..dcm"])
def test_an_image_keeps_the_name_that_the_archive_gives(given_name: str) -> None:
    assert image_name(given_name) == given_name


def test_of_a_harmless_relative_path_the_last_component_is_the_name() -> None:
    assert image_name("scans/1/1-01.dcm") == "1-01.dcm"


def test_control_characters_in_an_image_name_are_escaped() -> None:
    assert image_name("a\x1b.dcm") == "a%1B.dcm"


@pytest.mark.parametrize(
    "hostile",
    ["", ".", "..", "/", "../x", "a/../x", "./x", "/etc/passwd", "a//b", "a/", "..\\x", "C:\\x",
     "\\\\host\\x", "a\0.dcm", "a" * 256, "é" * 128, "\x01" * 100],
)  # fmt: skip
def test_a_hostile_image_name_is_refused_and_not_repaired(hostile: str) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        image_name(hostile)
    assert CONTROL.search(str(caught.value)) is None


@given(st.text())
def test_whatever_an_archive_calls_an_image_it_is_refused_or_legal(given_name: str) -> None:
    try:
        name = image_name(given_name)
    except UnreadableAnswer:
        return
    assert is_legal(name)
    assert original_name(name) == given_name.rpartition("/")[2]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("1-1.dcm", True), ("1-001.dcm", True), ("12-345.dcm", True), ("000000.dcm", False),
     ("1-1.DCM", False), ("1-1.dcm\n", False), ("-1.dcm", False), ("1-.dcm", False),
     ("\u0661-\u0661.dcm", False), ("a1-1.dcm", False)],
)  # fmt: skip
def test_the_retrievers_image_names_are_known_by_their_shape(name: str, is_one: bool) -> None:
    assert is_retriever_image_name(name) is is_one


# Image names that are computed: (acquisition, instance) of each image, and the names


def names_of(*keys: tuple[int | None, int | None]) -> list[str]:
    images = [ImageKey(a, i, f"1.{place:05}") for place, (a, i) in enumerate(keys)]
    return [name.removesuffix(".dcm") for name in image_names(images)]


def counted(first: str, last: int, width: int) -> list[str]:
    return [f"{first}-{n:0{width}}" for n in range(1, last + 1)]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ([(None, None)], ["1-1"]),
        ([(1, n) for n in range(1, 11)], counted("1", 10, 2)),
        ([(1, n) for n in range(10)], counted("1", 10, 2)),
        ([(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)], counted("1", 3, 1) + counted("2", 3, 1)),
        ([(1, n // 2) for n in range(20)], counted("1", 20, 2)),
        ([(None, n) for n in range(1, 6)], counted("1", 5, 1)),
        ([(None, 1), (5, 2), (5, 3)], ["1-1", "2-1", "2-2"]),
        ([(1, 5), (1, 7), (1, 9)], ["1-1", "1-2", "1-3"]),
    ],
)
def test_computed_names_are_the_servers_where_its_order_is_by_acquisition(
    keys: list[tuple[int | None, int | None]], names: list[str]
) -> None:
    assert names_of(*keys) == names


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        # numbers that restart in each acquisition; NBIA would write 1-1 2-1 3-1 4-1
        ([(1, 1), (2, 1), (1, 2), (2, 2)], ["1-1", "2-1", "1-2", "2-2"]),
        # all instance numbers alike; NBIA would not pad: 1-1 ... 1-12
        ([(1, 1)] * 12, counted("1", 12, 2)),
        # empty before any value, together; NBIA would write 1-1 2-1 3-1 4-1
        ([(5, 1), (None, 2), (None, 3), (None, 4)], ["2-1", "1-1", "1-2", "1-3"]),
        # an empty number is not zero; NBIA would write 1-1 1-2 2-1
        ([(0, 1), (None, 2), (1, 3)], ["2-1", "1-1", "3-1"]),
        # no instance numbers: by SOP Instance UID; NBIA would write them in reversed database order
        ([(None, None)] * 4, counted("1", 4, 1)),
    ],
)  # fmt: skip
def test_computed_names_group_by_acquisition_where_the_server_would_not(
    keys: list[tuple[int | None, int | None]], names: list[str]
) -> None:
    assert names_of(*keys) == names


def test_computed_names_are_padded_in_both_parts() -> None:
    names = names_of(*((a, 10 * a + i) for a in range(10) for i in range(10)))
    assert (names[0], names[-1]) == ("01-001", "10-010")


def test_no_images_have_no_names() -> None:
    assert image_names([]) == []


NUMBERS = st.one_of(st.none(), st.integers(-3, 12))
IMAGES = st.lists(
    st.builds(ImageKey, NUMBERS, NUMBERS, st.integers().map(str)),
    unique_by=lambda image: image.sop_instance_uid,
    max_size=40,
)


@given(IMAGES, st.randoms(use_true_random=False))
def test_computed_names_are_unique_sort_as_the_images_do_and_forget_the_order_of_arrival(
    images: list[ImageKey], rng: random.Random
) -> None:
    names = image_names(images)
    assert len(set(names)) == len(images)
    assert all(map(is_retriever_image_name, names))
    acquisitions = [
        image.acquisition_number
        for _, image in sorted(zip(names, images, strict=True), key=lambda pair: pair[0])
    ]
    runs = [number for number, _ in itertools.groupby(acquisitions)]
    assert runs == sorted(set(runs), key=lambda number: (number is not None, number))
    shuffled = rng.sample(images, len(images))
    assert dict(zip(shuffled, image_names(shuffled), strict=True)) == dict(zip(images, names, strict=True))


# Provisional names and their aliases


@given(st.integers(0, 1100), st.data())
def test_provisional_names_are_a_sequence_that_finds_each_name_at_its_place(
    count: int, data: st.DataObject
) -> None:
    names = provisional_image_names(count)
    written = [f"1-{n:0{len(str(count))}}.dcm" for n in range(1, count + 1)]
    assert len(names) == count
    assert list(names) == written
    assert list(reversed(names)) == written[::-1]
    cut = data.draw(st.slices(count))
    assert names[cut] == tuple(written[cut])
    for place in data.draw(st.lists(st.sampled_from(range(count)), max_size=3) if count else st.just([])):
        assert names.index(names[place]) == place
        assert names[place - count] == names[place]
        assert names[place] in names


@pytest.mark.parametrize(
    "name",
    ["1-0.dcm", "1-00.dcm", "1-13.dcm", "1-1.dcm", "1-001.dcm", "2-01.dcm", "1-01", "01-01.dcm",
     "1-+1.dcm", "1- 1.dcm", "1-\u0661\u0661.dcm", "1-01.DCM"],
)  # fmt: skip
def test_what_is_not_a_provisional_name_is_not_found(name: str) -> None:
    names = provisional_image_names(12)
    assert name not in names
    with pytest.raises(ValueError, match="not one of these names"):
        names.index(name)


def test_provisional_names_keep_to_their_bounds() -> None:
    names = provisional_image_names(91980)
    assert (names[0], names[-1]) == ("1-00001.dcm", "1-91980.dcm")
    assert names.index("1-91980.dcm") == 91979
    assert names.count("1-00007.dcm") == 1
    assert list(provisional_image_names(0)) == []
    with pytest.raises(IndexError):
        names[91980]
    with pytest.raises(ValueError, match="not one of these names"):
        names.index("1-00001.dcm", 1)
    with pytest.raises(ValueError, match="no -1 images"):
        provisional_image_names(-1)


def test_aliases_stand_for_the_images_without_a_provisional_name_in_order() -> None:
    assert resolve_aliases(["1-1.dcm", "1-2.dcm", "2-1.dcm", "2-2.dcm"]) == {
        "1-3.dcm": 2,
        "1-4.dcm": 3,
    }


def test_a_series_with_the_expected_names_needs_no_aliases() -> None:
    assert resolve_aliases(list(provisional_image_names(300))) == {}


def test_equal_true_names_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        resolve_aliases(["1-1.dcm", "1-1.dcm"])


@given(
    st.lists(
        st.one_of(
            st.builds("{}-{}.dcm".format, st.integers(1, 2), st.integers(1, 14)),
            st.builds("1-{:02}.dcm".format, st.integers(1, 14)),
            st.text(max_size=3),
        ),
        unique=True,
        max_size=14,
    )
)
def test_a_list_made_before_the_download_opens_every_image_exactly_once(true: list[str]) -> None:
    aliases = resolve_aliases(true)
    assert aliases.keys().isdisjoint(true)
    opened = [
        aliases[name] if name in aliases else true.index(name) for name in provisional_image_names(len(true))
    ]
    assert sorted(opened) == list(range(len(true)))
    assert list(aliases.values()) == sorted(aliases.values())


# The licence

BY_3 = (
    "Creative Commons Attribution 3.0 Unported License",
    "http://creativecommons.org/licenses/by/3.0/",
)
BY_4 = (
    "Creative Commons Attribution 4.0 International License",
    "https://creativecommons.org/licenses/by/4.0/",
)


def test_the_licence_file_names_the_licence_and_the_data_usage_policy() -> None:
    text = licence_text("LIDC-IDRI", [BY_3, BY_3])
    assert text.startswith(
        "License\n\nThe LIDC-IDRI collection is distributed under the "
        "Creative Commons Attribution 3.0 Unported License "
        "(http://creativecommons.org/licenses/by/3.0/). \n"
        "By downloading the data, you agree to abide by terms of this license.\n____"
    )
    assert text.count(BY_3[0]) == 1
    assert text.endswith(f"{DATA_USAGE_POLICY_URL}\n")


def test_several_licences_are_named_in_the_order_of_names_whatever_the_order_given() -> None:
    text = licence_text("C", [BY_4, BY_3])
    assert text == licence_text("C", [BY_3, BY_4, BY_3])
    assert text.index(BY_3[0]) < text.index(BY_4[0])


@pytest.mark.parametrize("licences", [[], [(None, None)], [("", " ")]])
def test_a_missing_licence_is_not_specified(licences: list[tuple[str | None, str | None]]) -> None:
    assert "under the Not Specified (Not Specified). \n" in licence_text("C", licences)


def test_a_licence_cannot_smuggle_lines_or_terminal_codes_into_the_file() -> None:
    text = licence_text("C", [("free\nfor all\x1b[2J", BY_3[1])])
    assert "under the free for all [2J (http" in text
    assert CONTROL.search(text.replace("\n", "")) is None


def test_a_patient_id_of_two_lines_is_one_name_like_any_other() -> None:
    patients = [Patient("Lung", name) for name in ("A", "B", "A\nB", "%41", "B\n")]
    assert list(patient_names(patients)) == sorted(legal_name(patient.patient_id) for patient in patients)
