"""The series index of the NCI Imaging Data Commons, from its parquet file into a table.

Defined here and only here: the library that reads parquet, the columns that are read, and the choice
of rows: those that The Cancer Imaging Archive published, by the prefix of their DOI. Blocks for
seconds; meant for the start of a program.
"""

import datetime as dt
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tciafs.sample.index_table import IndexTable, table_of_columns
from tciafs.sample.records import CC_BY, CC_BY_NC, Licence

__all__ = ["INSTALL", "IndexMissing", "installed_index", "read_index"]

INSTALL = "pip install 'tciafs[idc-sample]'"
PUBLISHED_BY_TCIA = "10.7937/%"

LICENCES: Mapping[str, Licence] = {
    licence.short_name: licence
    for licence in (
        CC_BY,
        CC_BY_NC,
        Licence(
            "Creative Commons Attribution 3.0 Unported License",
            "CC BY 3.0",
            "http://creativecommons.org/licenses/by/3.0/",
        ),
        Licence(
            "Creative Commons Attribution-NonCommercial 3.0 Unported License",
            "CC BY-NC 3.0",
            "http://creativecommons.org/licenses/by-nc/3.0/",
        ),
    )
}

ROWS = """
create temp table chosen as
select
    series.SeriesInstanceUID as series_uid,
    collections.collection_name as collection,
    series.PatientID as patient_id,
    series.StudyInstanceUID as study_uid,
    collections.species as species,
    series.PatientSex as sex,
    series.PatientAge as age,
    series.StudyDate as study_date,
    series.StudyDescription as study_description,
    series.Modality as modality,
    series.SeriesNumber as number,
    series.SeriesDescription as description,
    series.SeriesDate as series_date,
    series.BodyPartExamined as body_part,
    series.Manufacturer as manufacturer,
    series.ManufacturerModelName as model,
    series.analysis_result_id as analysis_result,
    series.source_DOI as doi,
    series.license_short_name as licence,
    first.version_timestamp as submitted,
    latest.version_timestamp as released,
    series.instanceCount as image_count
from read_parquet($index) series
join read_parquet($collections) collections using (collection_id)
left join read_parquet($versions) first on first.idc_version = series.series_init_idc_version
left join read_parquet($versions) latest on latest.idc_version = series.series_revised_idc_version
where series.source_DOI like $doi
    and (len($names) = 0 or lower(collection_id) in $names or lower(collection_name) in $names)
order by collection, patient_id, study_uid, analysis_result is not null, series_uid
"""


class IndexMissing(Exception):
    """The index, or what reads it, is not there; the text says what to do."""


def installed_index() -> Path:
    """Return the index of the installed package idc-index-data; raises IndexMissing."""
    spec = importlib.util.find_spec("idc_index_data")
    if spec is None or not spec.submodule_search_locations:
        raise IndexMissing(f"the package idc-index-data is not installed: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "idc_index.parquet"


def read_index(index: Path, only: Sequence[str] = ()) -> IndexTable:
    """Return the rows that TCIA published, all or those of some collections.

    `only` takes the archive's spelling or the index's, without case. The files collections_index and
    version_metadata_index are read from the folder of `index`; raises IndexMissing where one is not
    there, where nothing can read it, or where it has no such collection.
    """
    files = {"index": index}
    for name in ("collections", "version_metadata"):
        files[name] = index.with_name(f"{name}_index.parquet")
    for path in files.values():
        if not path.is_file():
            raise IndexMissing(f"{path} is not a file")
    table = table_of_columns(_columns(files, [name.lower() for name in only]))
    if not table.collections or (only and len(table.collections) < len(set(only))):
        raise IndexMissing(f"of {list(only)} the index has {list(table.collections)}")
    return table


def _columns(files: Mapping[str, Path], names: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the columns of the table, one in memory at a time."""
    try:
        import duckdb  # heavy, optional, and needed for this only
    except ModuleNotFoundError as error:
        raise IndexMissing(f"duckdb, which reads the index, is not installed: {INSTALL}") from error
    paths = {name: str(path) for name, path in files.items()}
    paths["versions"] = paths.pop("version_metadata")
    with duckdb.connect() as database:
        database.execute(ROWS, {**paths, "doi": PUBLISHED_BY_TCIA, "names": names})
        described = database.execute("describe chosen").fetchall()
        for column, *_ in described:
            values = database.execute(f"select {column} from chosen").fetchnumpy()[column].tolist()
            yield column, _converted(values, CONVERSIONS.get(column))


def _converted(values: list[Any], convert: Callable[[Any], Any] | None) -> list[Any]:
    if convert is None:
        return values
    known = {value: None if value is None else convert(value) for value in set(values)}
    return [known[value] for value in values]


def _licence(short_name: str) -> Licence:
    return LICENCES.get(short_name) or Licence(short_name, short_name, "")


CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "study_date": dt.date.fromisoformat,
    "series_date": dt.date.fromisoformat,
    "submitted": dt.date.fromisoformat,
    "released": dt.date.fromisoformat,
    "number": int,
    "licence": _licence,
}
