"""From the index of the NCI Imaging Data Commons, as the package idc-index-data brings it, to a table of
ours.

`python -m tciafs.archives.idc.index` is the process that reads the parquet files once, since that takes
hundreds of megabytes; `making` starts it. Defined here and only here: what reads parquet, which columns and
rows are taken, where the index is, and that no two processes make a table at once. Blocks for seconds.
"""

import datetime as dt
import fcntl
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tciafs.archives.idc.table import IdcTable, IndexedSeries, Row, write_table
from tciafs.errors import Misuse, TciafsError, Unusable

__all__ = ["BEHIND", "FILES", "INSTALL", "LOCK_NAME", "installed_index", "is_installed", "remove_left_overs"]

INSTALL = "pip install idc-index-data duckdb"
PUBLISHED_BY_TCIA = "10.7937/"
FILES = ("idc_index", "collections_index", "version_metadata_index")
EARLIER_FILE = "prior_versions_index"
ROWS_AT_ONCE = 20_000
MEMORY = "600MB"
"""What the reader of parquet may take for itself; it sorts on disk what is more."""

BEHIND = "behind"
"""The word that has the process let others go first."""

NICENESS = 19
LOCK_NAME = "index.lock"
LEFT_OVERS = ("index-*.new", "index-*.new.tmp")

QUERY = """
select
    coalesce(collections.collection_name, series.collection_id),
    series.PatientID, series.SeriesInstanceUID, series.StudyInstanceUID,
    coalesce(series.aws_bucket, split_part(series.series_aws_url, '/', 3)),
    series.crdc_series_uuid, series.instanceCount,
    cast(round(series.series_size_MB * 1000000) as bigint),
    series.StudyDate, series.StudyDescription, series.Modality, try_cast(series.SeriesNumber as double),
    series.SeriesDescription, series.BodyPartExamined, series.Manufacturer, series.ManufacturerModelName,
    series.analysis_result_id, series.source_DOI, series.license_short_name,
    begun.version_timestamp, revised.version_timestamp
from read_parquet($idc_index) series
left join read_parquet($collections_index) collections using (collection_id)
left join read_parquet($version_metadata_index) begun on begun.idc_version = series_init_idc_version
left join read_parquet($version_metadata_index) revised on revised.idc_version = series_revised_idc_version
where starts_with(lower(coalesce(series.source_DOI, '')), $doi)
"""
ORDER = "order by 1, 2, 4, 3"

EARLIER_QUERY = f"""
{QUERY} and series_revised_idc_version <= $release
union all
select
    coalesce(collections.collection_name, earlier.collection_id),
    earlier.PatientID, earlier.SeriesInstanceUID, earlier.StudyInstanceUID,
    coalesce(earlier.aws_bucket, split_part(earlier.series_aws_url, '/', 3)),
    earlier.crdc_series_uuid, null, null,
    study.StudyDate, study.StudyDescription, earlier.Modality, try_cast(now.SeriesNumber as double),
    now.SeriesDescription, now.BodyPartExamined, now.Manufacturer, now.ManufacturerModelName,
    now.analysis_result_id, coalesce(now.source_DOI, collections.source_DOI), now.license_short_name,
    begun.version_timestamp, revised.version_timestamp
from read_parquet($prior_versions_index) earlier
left join read_parquet($idc_index) now using (SeriesInstanceUID)
left join (
    select StudyInstanceUID, min(StudyDate) as StudyDate, min(StudyDescription) as StudyDescription
    from read_parquet($idc_index) group by 1
) study on study.StudyInstanceUID = earlier.StudyInstanceUID
left join (
    select collection_id, any_value(collection_name) as collection_name,
        any_value(published.source_DOI) as source_DOI
    from read_parquet($collections_index) left join (
        select collection_id, min(source_DOI) as source_DOI from read_parquet($idc_index)
        where starts_with(lower(source_DOI), $doi) group by 1
    ) published using (collection_id) group by 1
) collections on collections.collection_id = earlier.collection_id
left join read_parquet($version_metadata_index) begun
    on begun.idc_version = least(now.series_init_idc_version, earlier.min_idc_version)
left join read_parquet($version_metadata_index) revised on revised.idc_version = earlier.min_idc_version
where $release between earlier.min_idc_version and earlier.max_idc_version
    and starts_with(lower(coalesce(now.source_DOI, collections.source_DOI, '')), $doi)
"""
"""A series as it was, where a later release has another version of it or none any more.

Of those only UIDs, modality and place are in the index: what else is said of them is what the present version
says, or their study or collection. How many images there are is not known before the bucket is listed.
"""


def installed_index() -> Path:
    """Return the folder of the installed package idc-index-data. Raises Unusable where there is none."""
    try:
        spec = importlib.util.find_spec("idc_index_data")
    except ValueError:  # something by this name is there that nobody can find
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise Unusable(f"the index of the Imaging Data Commons is not installed: {INSTALL}")
    return Path(spec.submodule_search_locations[0])


def is_installed() -> bool:
    """Return whether the package idc-index-data is installed."""
    try:
        installed_index()
    except Unusable:
        return False
    return True


def remove_left_overs(folder: Path) -> None:
    """Remove what killed processes have left in a folder of tables, unless one makes a table now."""
    if any(True for pattern in LEFT_OVERS for _ in folder.glob(pattern)):
        with suppress(OSError), (folder / LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_left_overs(folder)


def _remove_left_overs(folder: Path) -> None:
    """Remove them; the lock is held, so that nobody else writes any."""
    for pattern in LEFT_OVERS:
        for old in folder.glob(pattern):
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink(missing_ok=True)


def _make(index: Path, path: Path, kind: str) -> None:
    """Make the table `path`, unless another process did so meanwhile. Only the last one of a kind is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_suffix(f".{os.getpid()}.new")
    with _alone(path.with_name(LOCK_NAME)):
        if _is_good(path):
            return
        _remove_left_overs(path.parent)
        try:
            _write(index, incoming, kind)
            incoming.rename(path)
        finally:
            incoming.unlink(missing_ok=True)
        for old in path.parent.glob(f"index-{kind}-*.sqlite"):
            if old != path:
                old.unlink(missing_ok=True)


def _write(index: Path, incoming: Path, kind: str) -> None:
    whose, _, release = kind.partition(".v")
    is_everything, number = whose == "all", int(release) if release else None
    spilled = incoming.with_suffix(".new.tmp")
    rows = _rows(index, everything=is_everything, release=number, spilled=spilled)
    if not write_table(incoming, rows, {"kind": kind}):
        raise Unusable(f"there is no series in {index}")
    with incoming.open("rb") as file:
        os.fsync(file.fileno())  # a name that outlived a power failure without its bytes would be believed


def _is_good(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        IdcTable(path).close()
    except Unusable as error:
        sys.stderr.write(f"{error}; it is made anew\n")
        return False
    return True


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let two mounts that start together make one table."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _rows(index: Path, *, everything: bool, release: int | None, spilled: Path) -> Iterator[Row]:
    try:
        import duckdb  # heavy, optional, and needed for this only
    except ModuleNotFoundError as error:
        raise Unusable(f"duckdb, which reads the index, is not installed: {INSTALL}") from error
    names: dict[str, Any] = {name: str(index / f"{name}.parquet") for name in FILES}
    try:
        config: dict[str, Any] = {"memory_limit": MEMORY, "threads": 2, "temp_directory": str(spilled)}
        with duckdb.connect(config=config) as database:
            values = {**names, "doi": "" if everything else PUBLISHED_BY_TCIA}
            query = QUERY
            if release is not None and release != (latest := _latest(database, names)):
                if not 1 <= release < latest:
                    raise Misuse(
                        f"there is no release {release} of the IDC in this index: it has 1 to {latest}"
                    )
                values |= {EARLIER_FILE: str(_earlier_file(index, latest)), "release": release}
                query = EARLIER_QUERY
            answer = database.execute(f"{query} {ORDER}", values)
            while rows := answer.fetchmany(ROWS_AT_ONCE):
                for row in rows:
                    if (read := _row(*row)) is not None:
                        yield read
    except duckdb.Error as error:
        raise Unusable(str(error).partition("\n")[0]) from error


def _earlier_file(index: Path, latest: int) -> Path:
    path = index / f"{EARLIER_FILE}.parquet"
    if not path.is_file():
        raise Misuse(f"this index has the release {latest} of the IDC alone: there is no {path}")
    return path


def _latest(database: Any, names: dict[str, Any]) -> int:
    """Return the number of the release that the index is of."""
    query = "select max(idc_version) from read_parquet($versions)"
    (latest,) = database.execute(query, {"versions": names["version_metadata_index"]}).fetchone()
    return int(latest or 0)


def _row(collection: str | None, patient_id: str | None, *told: Any) -> Row | None:
    """Return a row of the index; None for one that names no series, which nobody could show."""
    days = {place: _day(told[place]) for place in (6, 17, 18)}
    columns = [days.get(place, value) for place, value in enumerate(told)]
    series_uid, study_uid, bucket, uuid, count, size_bytes, *others = columns
    if not (collection and patient_id and series_uid and study_uid and bucket and uuid and count != 0):
        return None
    found = IndexedSeries(series_uid, study_uid, bucket, uuid, count, size_bytes or 0, *others)
    return collection, patient_id, found


def _day(text: str | None) -> dt.date | None:
    try:
        return None if text is None else dt.date.fromisoformat(text[:10])
    except ValueError:
        return None


def _end_with_who_started_us() -> None:
    """End at once when stdin ends, whatever this process does: there is nobody left who wants the table."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Make the table of an index: its folder, the table, and its kind; see `BEHIND`.

    A kind is "all" or "tcia", and ".vN" for a release N. What a killed process leaves the next one removes.
    """
    index, path, kind, *how = sys.argv[1:]
    threading.Thread(target=_end_with_who_started_us, daemon=True).start()
    if BEHIND in how:
        os.nice(NICENESS)
    try:
        _make(Path(index), Path(path), kind)
    except Misuse as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        sys.exit(f"{error.filename or path}: {error.strerror}")
    except (TciafsError, ValueError, msgspec.MsgspecError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
