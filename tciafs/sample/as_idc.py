"""The same images as the NCI Imaging Data Commons has them: objects under UUIDs, and its index of series.

Written to a folder once, for a test to serve with a real S3 server. As in the real index, outer blanks of
texts are gone and empty texts are null; there is no StudyID, and a number is what the header says. Defined
here and only here: those names and columns. Blocks; imports nothing of tciafs.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tciafs.sample.records import Series

__all__ = ["BUCKET", "write_as_idc"]

BUCKET = "idc-open-data"
NAMESPACE = uuid.UUID("6d7b6f5e-2f0c-4c57-9d3c-8f6b0f7f3a10")
DOI = "10.7937/sample."
COLUMNS = (
    "collection_id varchar, analysis_result_id varchar, PatientID varchar, SeriesInstanceUID varchar, "
    "StudyInstanceUID varchar, source_DOI varchar, StudyDate varchar, StudyDescription varchar, "
    "BodyPartExamined varchar, Modality varchar, Manufacturer varchar, ManufacturerModelName varchar, "
    "SeriesDate varchar, SeriesDescription varchar, SeriesNumber varchar, instanceCount bigint, "
    "license_short_name varchar, series_init_idc_version bigint, series_revised_idc_version bigint, "
    "aws_bucket varchar, crdc_series_uuid varchar, series_aws_url varchar, series_size_MB double"
)
"""Those of the real index that say something of a series; it has eight more, of its pixels."""


def write_as_idc(folder: Path, series: Iterable[Series]) -> None:
    """Write the images below `folder`/BUCKET, and the parquet files of the index into `folder`/index."""
    rows: list[list[Any]] = []
    ids: dict[str, str] = {}
    days: dict[dt.date, int] = {}
    for each in series:
        name = str(uuid.uuid5(NAMESPACE, each.uid))
        (folder / BUCKET / name).mkdir(parents=True)
        for image in each.images():
            path = folder / BUCKET / name / f"{uuid.uuid5(NAMESPACE, image.sop_uid)}.dcm"
            path.write_bytes(b"".join(image.pieces()))
        rows.append(_row(each, name, _collection_id(ids, each.collection), days))
    index = folder / "index"
    index.mkdir()
    _write(index / "idc_index.parquet", COLUMNS, rows)
    collections = [[name, collection_id] for name, collection_id in ids.items()]
    _write(index / "collections_index.parquet", "collection_name varchar, collection_id varchar", collections)
    versions = [[number, str(day)] for day, number in days.items()]
    columns = "idc_version bigint, version_timestamp varchar"
    _write(index / "version_metadata_index.parquet", columns, versions)


def _collection_id(ids: dict[str, str], name: str) -> str:
    """Return IDC's identifier of a collection, which is in lower case; two that differ in case get two."""
    if name not in ids:
        plain = name.lower().replace("-", "_").replace(" ", "_")
        ids[name] = plain if plain not in ids.values() else f"{plain}_{len(ids)}"
    return ids[name]


def _row(each: Series, name: str, collection_id: str, days: dict[dt.date, int]) -> list[Any]:
    study = each.study

    def version(day: dt.date | None) -> int | None:
        return None if day is None else days.setdefault(day, len(days) + 1)

    is_result = each.third_party == "YES"
    number = None if each.number is None else str(each.number)
    doi = DOI + (each.data_uri or "traps").rpartition(".")[2]
    return [
        *(collection_id, "Sample-Results" if is_result else None, each.patient.patient_id, each.uid),
        *(study.uid, doi, _day(study.date), _text(study.description), _text(each.body_part)),
        *(_text(each.modality), _text(each.manufacturer), _text(each.model), _day(each.date)),
        *(_text(each.description), number, each.image_count, each.licence.short_name),
        *(version(each.submitted), version(each.released), BUCKET, name, f"s3://{BUCKET}/{name}/*"),
        each.size_bytes / 1_000_000,
    ]


def _text(text: str | None) -> str | None:
    return (text or "").strip() or None


def _day(day: dt.date | None) -> str | None:
    return None if day is None else day.isoformat()


def _write(path: Path, columns: str, rows: list[list[Any]]) -> None:
    import duckdb  # heavy, optional, and needed for this only

    with duckdb.connect() as database:
        database.execute(f"create table rows ({columns})")
        for some in _in_batches(rows):
            database.executemany(f"insert into rows values ({','.join('?' * len(some[0]))})", some)
        database.execute(f"copy rows to '{path}' (format parquet)")


def _in_batches(rows: list[list[Any]]) -> Iterator[list[list[Any]]]:
    return (rows[start : start + 1000] for start in range(0, len(rows), 1000))
