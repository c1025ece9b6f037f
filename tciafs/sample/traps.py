"""Records whose names and numbers are hard to turn into file names; each exists in real archives.

Defined here and only here: the traps, a table each for descriptions, patients, numbers and twins.
Images are small; what matters is what the records and headers say.
"""

import datetime as dt
from collections.abc import Iterator

from tciafs.sample.dicom import uid
from tciafs.sample.holdings import Shelf
from tciafs.sample.pictures import captures
from tciafs.sample.records import Made, Patient, Series, Study

__all__ = ["shelves"]

DAY = dt.date(2001, 2, 3)
NAMES = "CT Naming Traps"
NUMBERS = "Numbering_Traps"
TWIN, TWIN_IN_CAPITALS = "Twin-Case", "TWIN-CASE"

DESCRIPTIONS: tuple[tuple[str, str | None], ...] = (
    ("slash", "PET/CT HEAD & NECK CA"),
    ("punctuation", "P4^P113^S303^I10349, Gated, 40.0%B (x+y)"),
    ("underscore", "t2_tse_sag"),
    ("non-ascii", "Schädel übersicht 頭部"),
    ("only non-ascii", "頭部"),
    ("double spaces", "ThoraxRoutine  3.0  B31s"),
    ("trailing space", "T1 3D VIBE AXIAL  avant gado "),
    ("blanks only", "   "),
    ("long", "MR prostaat kanker detectie WDS_mc MCAPRODETW met contrast v2"),
    ("cut at a space", "abcdefghij abcdefghij abcdefghij abcdefghij abcdefgh tail of it"),
    ("dots", ".."),
    ("dash", "CHEST PA - LAT"),
    ("control characters", "bell\x07 tab\t esc\x1b[31m red"),
    ("quotes", "\"double\" 'single' $HOME `id` ;*?"),
    ("word null", "null"),
    ("word NA", "NA"),
    ("single dash", "-"),
    ("empty", ""),
    ("absent", None),
)

PATIENT_IDS = (
    "ABD_LYMPH_001",
    "Lung Dx A0002",
    "ID=42",
    "SITE7/0003",
    ".hidden-01",
    "..",
    "-rf",
    "Calc-Training_P_01740_RIGHT_MLO_" + "0123456789abcdefghijklmnopqrstuv",
    "CaseSensitive-1",
    "CASESENSITIVE-1",
)

STUDY_IDS = (("DBT-S01306", "dash"), ("ABD_LYMPH_001", "underscore"), ("", "empty"))

Numbers = tuple[tuple[int | None, int | None], ...]
NUMBERINGS: tuple[tuple[str, Numbers], ...] = (
    ("RESTARTING", tuple((a, i) for i in (1, 2, 3) for a in (1, 2))),
    ("CONTINUED", ((2, 4), (1, 1), (2, 6), (1, 3), (1, 2), (2, 5))),
    ("NO-ACQUISITION", tuple((None, i) for i in (3, 1, 2))),
    ("NULL-THEN-FIVE", ((None, 1), (5, 2), (5, 3))),
    ("FIVE-THEN-NULLS", ((5, 1), (None, 2), (None, 3), (None, 4))),
    ("ZERO-NULL-ONE", ((0, 1), (None, 2), (1, 3))),
    ("NO-INSTANCE", ((1, None),)),
    ("NO-INSTANCES", ((1, None),) * 4),
    ("ALL-ONE", ((1, 1),) * 12),
    ("TEN-TWICE", tuple((1, i) for _ in range(2) for i in range(1, 11))),
    ("FROM-ZERO", tuple((1, i) for i in range(10))),
    ("GAPS", ((1, 9), (1, 5), (1, 7))),
    ("ELEVEN-GROUPS", tuple((i, i) for i in range(1, 12))),
)


def shelves() -> list[Shelf]:
    """Return the collections of traps."""
    return [
        Shelf(NAMES, lambda: [*_descriptions(), *_patients(), *_studies(), *_series(), *_twins()]),
        Shelf(NUMBERS, lambda: list(_numberings())),
        Shelf(TWIN, lambda: [_twin(TWIN)]),
        Shelf(TWIN_IN_CAPITALS, lambda: [_twin(TWIN_IN_CAPITALS)]),
    ]


def _two() -> Made:
    return Made(captures((1, 1), (1, 2)))


def _one() -> Made:
    return Made(captures((None, 1)))


def _descriptions() -> Iterator[Series]:
    patient = Patient(NAMES, "DESCRIPTIONS")
    for number, (trap, text) in enumerate(DESCRIPTIONS, start=1):
        study = Study(patient, uid(NAMES, trap), DAY + dt.timedelta(number), None, text)
        yield Series(study, uid(NAMES, trap, 1), _two(), number=number, description=text)


def _patients() -> Iterator[Series]:
    for patient_id in PATIENT_IDS:
        study = Study(Patient(NAMES, patient_id), uid(NAMES, patient_id), DAY)
        yield Series(study, uid(NAMES, patient_id, 1), _one(), description="patient trap")


def _studies() -> Iterator[Series]:
    patient = Patient(NAMES, "STUDIES", name=None)
    undated = Study(patient, uid(NAMES, "undated"), None, None, "no date")
    bare = Study(patient, uid(NAMES, "bare", ending=".0.4.1"), None)
    yield Series(undated, uid(NAMES, "undated", 1), _one(), description="in a study without date")
    yield Series(bare, uid(NAMES, "bare", 1, ending=".9.554"), _one(), number=300)
    for study_id, what in STUDY_IDS:
        study = Study(patient, uid(NAMES, "study", what), DAY, study_id, "StudyID with " + what)
        yield Series(study, uid(NAMES, "study", what, 1), _one(), description=what)


def _series() -> Iterator[Series]:
    patient = Patient(NAMES, "SERIES-NUMBERS")
    study = Study(patient, uid(NAMES, "series numbers"), DAY, description="series numbers")

    def series(trap: str, number: int | None, listed: float | None = None) -> Series:
        series_uid = uid(NAMES, "number", trap)
        return Series(study, series_uid, _one(), number=number, listed_number=listed, description=trap)

    yield series("absent", None)
    yield series("zero", 0)
    yield series("negative", -5)
    yield series("huge", 2147483647)
    yield series("decimal in the database", 2, 2.5)
    yield Series(
        study,
        uid(NAMES, "nulls"),
        _one(),
        modality="OT",
        number=7,
        manufacturer="",
        third_party=None,
        released=None,
        submitted=None,
        data_uri=None,
    )


def _twins() -> Iterator[Series]:
    """Yield two studies, and in one of them two series, that get one folder name."""
    patient = Patient(NAMES, "TWINS")
    first, second = (
        Study(patient, uid(NAMES, "twin study", n, ending="77777"), DAY, "1", "twins") for n in (1, 2)
    )
    for number in (1, 2):
        series_uid = uid(NAMES, "twin series", number, ending="55555")
        yield Series(first, series_uid, _two(), number=4, description="twin")
    yield Series(second, uid(NAMES, "lone series"), _two(), number=4, description="alone")


def _twin(collection: str) -> Series:
    study = Study(Patient(collection, "TWIN-1"), uid(collection), DAY, description=collection)
    return Series(study, uid(collection, 1), _one(), description="same name, other case")


def _numberings() -> Iterator[Series]:
    for number, (trap, numbers) in enumerate(NUMBERINGS, start=1):
        study = Study(Patient(NUMBERS, trap), uid(NUMBERS, trap), DAY, description=trap)
        source = Made(captures(*numbers))
        yield Series(study, uid(NUMBERS, trap, 1), source, number=number, description=trap)
