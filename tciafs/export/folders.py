"""A copy of mounted series in plain folders, as the retriever leaves them; begun again where it broke off.

An image is written under another name first, so what has its name is whole. A series that metadata.csv names,
and whose images are all there, is not looked at again, however little of it the mount still has. Used from
several threads, a series each.
"""

import datetime as dt
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tciafs.export.mounted import MountedImage, MountedSeries, UnreadableSeries
from tciafs.export.reports import Failure, Reports
from tciafs.headers import HEADER_BYTES, sop_class_in

__all__ = ["Outcome", "copy_into_folders", "copy_licences", "now"]

SERIES_AT_ONCE = 3
"""As many as a mount fetches at once, and fewer than it takes for a walk."""

OURS = re.compile(r"[0-9]+(-[0-9]+)?\.dcm|\..*\.part")
"""Names that archives give to images, and that copies have before they are whole: others are the user's."""

Progress = Callable[[MountedSeries], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an export went: series that are there now, those of them that were before, and what failed."""

    done: int
    skipped: int
    failures: tuple[Failure, ...]


def copy_into_folders(series: Sequence[MountedSeries], to: Path, progress: Progress) -> Outcome:
    """Copy series below a folder, and leave metadata.csv, LICENSE and a report there.

    Raises OSError where the folder cannot be written.
    """
    to.mkdir(parents=True, exist_ok=True)
    reports, failures, skipped = Reports(to), list[Failure](), 0
    copy_licences(series, to)
    with ThreadPoolExecutor(SERIES_AT_ONCE, "tciafs-export") as threads:
        tasks = {threads.submit(_copy_series, each, to, reports): each for each in series}
        try:
            for task in as_completed(tasks):
                each = tasks[task]
                try:
                    skipped += not task.result()
                except UnreadableSeries as error:
                    failures.append((f"./{each.location}", str(error)))
                progress(each)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    reports.finish(sorted(failures))
    return Outcome(len(series) - len(failures), skipped, tuple(sorted(failures)))


def copy_licences(series: Sequence[MountedSeries], to: Path) -> None:
    """Copy the LICENSE of each collection, if its mount gives it."""
    for mount, collection in dict.fromkeys((each.mount, each.location.parts[0]) for each in series):
        try:
            text = (mount / collection / "LICENSE").read_bytes()
        except OSError:
            continue
        (to / collection).mkdir(parents=True, exist_ok=True)
        (to / collection / "LICENSE").write_bytes(text)


def _copy_series(series: MountedSeries, to: Path, reports: Reports) -> bool:
    """Copy a series; return False if it was there already. Raises UnreadableSeries, or OSError."""
    folder, known = to / series.location, reports.row(series.uid)
    if known is not None and known.location == f"./{series.location}" and _is_whole(series, folder):
        return False
    files = series.files()
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        _copy_image(series, file, folder / file.path.name)
    names = {file.path.name for file in files}
    for other in [each for each in folder.iterdir() if OURS.fullmatch(each.name) and each.name not in names]:
        other.unlink()  # of an older version of the series, or of a copy that broke off
    series.check_has_all()
    reports.add(series.metadata(_sop_class_of(folder / files[0].path.name), now()))
    return True


def _sop_class_of(image: Path) -> tuple[str, str]:
    with image.open("rb") as file:
        return sop_class_in(file.read(HEADER_BYTES))


def _is_whole(series: MountedSeries, folder: Path) -> bool:
    try:
        sizes = [each.stat().st_size for each in folder.iterdir() if OURS.fullmatch(each.name)]
    except OSError:
        return False
    return (len(sizes), sum(sizes)) == (series.image_count, series.size_bytes)


def _copy_image(series: MountedSeries, image: MountedImage, to: Path) -> None:
    """Copy an image, unless it is there with its size and its time."""
    try:
        there = to.stat()
        if (there.st_size, there.st_mtime_ns) == (image.size_bytes, image.mtime_ns):
            return
    except FileNotFoundError:
        pass
    part = to.with_name(f".{to.name}.part")
    with part.open("wb") as copy, series.opened(image) as source:
        shutil.copyfileobj(source, copy, 1 << 20)
    if part.stat().st_size != image.size_bytes:
        raise UnreadableSeries(f"{image.path.name} became shorter while it was read")
    os.utime(part, ns=(image.mtime_ns, image.mtime_ns))
    part.replace(to)


def now() -> str:
    """Return the time as the retriever writes it: local, ISO 8601, in milliseconds."""
    return dt.datetime.now().isoformat(timespec="milliseconds")
