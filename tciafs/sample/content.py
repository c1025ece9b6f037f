"""The collections of the sample archive that are worth looking at, and their records.

Defined here and only here: what a visitor finds. The traps for names and numbers are in `traps`,
the crowds for benchmarks in `bulk`. Nothing is drawn or encoded before it is asked for.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace

from tciafs.sample import objects, pictures
from tciafs.sample.dicom import uid
from tciafs.sample.holdings import Shelf
from tciafs.sample.records import CC_BY_NC, Annotation, Image, Made, Patient, Series, Study

__all__ = ["shelves"]

DOI = "https://doi.org/10.5072/sample."
"""Data description links: 10.5072 is the prefix that DOI registration keeps for tests."""


def shelves() -> list[Shelf]:
    """Return the collections that every sample archive has."""
    return [
        Shelf("Phantom-Head", _head),
        Shelf("Phantom-Brain-MR", _brain),
        Shelf("Phantom-Mammography", _breast),
        Shelf("Phantom-Echo-NC", _echo),
        Shelf("Phantom-Lung-Marked", _lung),
        Shelf("Transfer-Syntaxes", _syntaxes),
        Shelf("Limited-Access", _limited, is_restricted=True),
    ]


def _head_ct() -> Series:
    patient = Patient("Phantom-Head", "HEAD-001", sex="O")
    study = Study(
        patient,
        uid("head", "study"),
        dt.date(2021, 5, 20),
        "4711",
        "CT HEAD W/O CONTRAST",
        age="045Y",
    )
    return Series(
        study,
        uid("head", "ct"),
        Made(pictures.head_ct),
        modality="CT",
        number=2,
        description="Head 2.5 mm, brain",
        protocol="HEAD ROUTINE",
        date=dt.date(2021, 5, 20),
        body_part="HEAD",
        model="Ellipsoid 60",
        software="1.0",
        data_uri=DOI + "head",
    )


def _head() -> Sequence[Series]:
    ct = _head_ct()
    seg = replace(
        ct,
        uid=uid("head", "seg"),
        source=Made(objects.segmentation(ct.uid)),
        modality="SEG",
        number=300,
        description="Segmentation",
        protocol=None,
        data_uri=DOI + "head-analysis",
        third_party="YES",
        released=dt.date(2022, 3, 15),
    )
    rt = replace(
        seg,
        uid=uid("head", "rtstruct"),
        source=Made(objects.structures(ct.uid)),
        modality="RTSTRUCT",
        number=301,
        description="Contours",
    )
    sr = replace(
        ct,
        uid=uid("head", "sr"),
        source=Made(objects.report(ct.uid)),
        modality="SR",
        number=302,
        description="Report",
        protocol=None,
    )
    return [ct, seg, rt, sr]


def _brain() -> Sequence[Series]:
    patient = Patient("Phantom-Brain-MR", "BRAIN-001", sex="F")
    study = Study(patient, uid("brain", "study"), dt.date(2020, 11, 3), "88", "MR BRAIN W AND W/O", "061Y")
    series = Series(
        study,
        uid("brain", "mr"),
        Made(pictures.dynamic_mr),
        modality="MR",
        number=5,
        description="T1 pre + post",
        body_part="BRAIN",
        data_uri=DOI + "brain",
    )
    return [series]


def _breast() -> Sequence[Series]:
    patient = Patient("Phantom-Mammography", "MAMMO_0001", sex="F", ethnic_group="")
    study = Study(patient, uid("breast", "study"), dt.date(2019, 2, 28), "DBT-S0001", "MAMMO screening")
    series = Series(
        study,
        uid("breast", "mg"),
        Made(pictures.mammogram),
        modality="MG",
        number=18377,
        description="L CC",
        body_part="BREAST",
        data_uri=DOI + "breast",
    )
    return [series]


def _echo() -> Sequence[Series]:
    patient = Patient("Phantom-Echo-NC", "ECHO-1", sex="M")
    study = Study(patient, uid("echo", "study"), dt.date(2022, 7, 1), None, "ECHO")
    series = Series(
        study,
        uid("echo", "us"),
        Made(pictures.ultrasound),
        modality="US",
        number=1,
        description="Heart beat",
        body_part="HEART",
        licence=CC_BY_NC,
        data_uri=DOI + "echo",
    )
    return [series]


NODULE = """<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage xmlns="http://www.nih.gov">
  <ResponseHeader><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>
  <readingSession>
    <unblindedReadNodule>
      <noduleID>Nodule {number}</noduleID>
      <roi><imageZposition>{height}</imageZposition><inclusion>TRUE</inclusion></roi>
    </unblindedReadNodule>
  </readingSession>
</LidcReadMessage>
"""
"""In the form of LIDC-IDRI: a nodule that a reader marked."""


def _marks(series_uid: str, *names: str) -> tuple[Annotation, ...]:
    """Return annotation files; the archive has them in an order that says nothing."""
    texts = (NODULE.format(series=series_uid, number=n, height=-20.5 * n) for n in range(1, len(names) + 1))
    return tuple(Annotation(name, text.encode()) for name, text in zip(names, texts, strict=True))


def _lung() -> Sequence[Series]:
    patient = Patient("Phantom-Lung-Marked", "LUNG-0001")
    study = Study(patient, uid("lung", "study"), dt.date(2000, 1, 1))
    marked = Series(
        study,
        uid("lung", "ct"),
        Made(pictures.captures(*((1, number) for number in range(1, 13)))),
        modality="CT",
        number=3000566,
        body_part="CHEST",
        data_uri=DOI + "lung",
        annotations=_marks(uid("lung", "ct"), "086.xml", "069.xml"),
    )
    lone = replace(
        marked,
        uid=uid("lung", "dx"),
        source=Made(pictures.captures((1, 1))),
        modality="DX",
        number=3000923,
        annotations=_marks(uid("lung", "dx"), "158.xml"),
    )
    plain = replace(
        lone,
        uid=uid("lung", "sc"),
        source=Made(pictures.captures((1, 1))),
        modality="OT",
        number=3,
        annotations=(),
    )
    return [marked, lone, plain]


PACKAGED = (
    ("JPEG-Baseline", "SC_rgb_jpeg_dcmtk.dcm", "OT"),
    ("JPEG-Lossless", "SC_rgb_jpeg_gdcm.dcm", "OT"),
    ("JPEG-Extended", "JPGExtended.dcm", "OT"),
    ("JPEG-LS", "MR_small_jpeg_ls_lossless.dcm", "MR"),
    ("JPEG2000", "MR_small_jp2klossless.dcm", "MR"),
)


def _syntaxes() -> Sequence[Series]:
    makers: dict[str, tuple[Callable[[Series], Sequence[Image]], str]] = {
        "RLE": (pictures.rle, "OT"),
        "Deflated": (pictures.deflated_dicom, "OT"),
        "Implicit": (pictures.implicit, "OT"),
    }
    for name, file_name, modality in PACKAGED:
        if make := pictures.syntax_file(file_name):
            makers[name] = (make, modality)
    found = []
    for number, (name, (make, modality)) in enumerate(makers.items(), start=1):
        patient = Patient("Transfer-Syntaxes", f"SYNTAX-{name}")
        study = Study(patient, uid("syntaxes", name), dt.date(2018, 1, number))
        found.append(
            Series(
                study,
                uid("syntaxes", name, "series"),
                Made(make),
                modality=modality,
                number=number,
                description=name,
                data_uri=DOI + "syntaxes",
            )
        )
    return found


def _limited() -> Sequence[Series]:
    patient = Patient("Limited-Access", "LIMITED-001")
    study = Study(patient, uid("limited", "study"), dt.date(2015, 5, 5), description="CT FACE")
    source = Made(pictures.captures((1, 1), (1, 2)))
    return [Series(study, uid("limited", "series"), source, description="Not for guests")]
