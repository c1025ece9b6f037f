"""Rows of the IDC index to records: licences, links, and which series speaks for its study.

Where the series of a study differ in date or description, and where its StudyID is read from, which no index
has, decides one of its series: the one with the least UID among those that are no analysis result. So a name
does not depend on what was asked first. Defined here and only here: that rule, and names and addresses of
licences. Pure functions.
"""

from collections.abc import Iterable, Mapping

from tciafs.archives.idc.table import IndexedSeries
from tciafs.model import Series, Study, believed_image_count

__all__ = ["series_record", "speakers", "study_record"]

DOI_ADDRESS = "https://doi.org/"
LICENCES: Mapping[str, tuple[str, str]] = {
    "CC BY 3.0": (
        "Creative Commons Attribution 3.0 Unported License",
        "http://creativecommons.org/licenses/by/3.0/",
    ),
    "CC BY 4.0": (
        "Creative Commons Attribution 4.0 International License",
        "https://creativecommons.org/licenses/by/4.0/",
    ),
    "CC BY-NC 3.0": (
        "Creative Commons Attribution-NonCommercial 3.0 Unported License",
        "http://creativecommons.org/licenses/by-nc/3.0/",
    ),
    "CC BY-NC 4.0": (
        "Creative Commons Attribution-NonCommercial 4.0 International License",
        "https://creativecommons.org/licenses/by-nc/4.0/",
    ),
}
"""As NBIA writes those that IDC names in short."""


def speakers(series: Iterable[IndexedSeries]) -> dict[str, IndexedSeries]:
    """Return for each study the series that speaks for it."""
    found: dict[str, IndexedSeries] = {}
    for each in series:
        known = found.get(each.study_uid)
        if known is None or _rank(each) < _rank(known):
            found[each.study_uid] = each
    return found


def _rank(series: IndexedSeries) -> tuple[bool, str]:
    return series.analysis_result is not None, series.series_uid


def study_record(collection: str, patient_id: str, speaker: IndexedSeries, study_id: str | None) -> Study:
    """Return the record of a study."""
    return Study(
        collection, patient_id, speaker.study_uid, speaker.study_date, study_id, speaker.study_description
    )


def series_record(collection: str, patient_id: str, series: IndexedSeries) -> Series:
    """Return the record of a series."""
    licence = series.licence
    licence_name, licence_uri = (None, None) if licence is None else LICENCES.get(licence, (licence, None))
    return Series(
        collection,
        patient_id,
        series.study_uid,
        series.series_uid,
        modality=series.modality,
        number=series.number,
        description=series.description,
        image_count=believed_image_count(series.image_count),
        size_bytes=series.size_bytes or None,
        released=series.revised,
        submitted=series.begun,
        studied=series.study_date,
        licence_name=licence_name,
        licence_uri=licence_uri,
        data_uri=None if series.doi is None else DOI_ADDRESS + series.doi,
        body_part=series.body_part,
        manufacturer=series.manufacturer,
        third_party="NO" if series.analysis_result is None else "YES",
        model=series.model,
    )
