"""Mounted series as tar archives, one a patient or a collection, with no copy in between.

While a series is written, the next one is fetched. A program compresses where there is one, on all
processors; Python's own xz does where there is none. An archive has its name only when it is whole: one that
lacks a series is called incomplete, and made again the next time.
"""

import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO, StringIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO

from tciafs.errors import Misuse
from tciafs.export.folders import Outcome, Progress, now
from tciafs.export.mounted import MountedImage, MountedSeries, UnreadableSeries
from tciafs.export.reports import Failure, Reports
from tciafs.headers import HEADER_BYTES, sop_class_in
from tciafs.metadata import MetadataRow, write_rows

__all__ = ["FORMATS", "write_tars"]

FORMATS = {"tar": ".tar", "tar.xz": ".tar.xz", "tar.zst": ".tar.zst"}
PROGRAMS = {"tar.xz": ("xz", "-T0", "-c"), "tar.zst": ("zstd", "-T0", "-q", "-c")}
STREAM_BYTES = 64 * 1024
"""What goes to the compressor at once; tarfile copies what it has gathered so far with each 16 KiB."""


def write_tars(series: Sequence[MountedSeries], to: Path, form: str, per: str, progress: Progress) -> Outcome:
    """Write one archive a "patient" or a "collection"; those that are there are left as they are.

    Raises OSError where the folder cannot be written, Misuse where an archive is there that has other series,
    or a compressor is missing.
    """
    to.mkdir(parents=True, exist_ok=True)
    reports, skipped, failures = Reports(to), 0, list[Failure]()
    for archive, members in _archives(series, to, FORMATS[form], per):
        if archive.exists():
            _check_has(archive, members, reports)
            skipped += len(members)
        else:
            archive.parent.mkdir(parents=True, exist_ok=True)
            failures += _write_tar(members, archive, form, reports, progress)
    reports.finish(failures)
    return Outcome(len(series) - len(failures), skipped, tuple(failures))


def _archives(
    series: Sequence[MountedSeries], to: Path, suffix: str, per: str
) -> Iterator[tuple[Path, list[MountedSeries]]]:
    """Yield each archive and the series for it."""
    depth = {"collection": 1, "patient": 2}[per]
    for parts, members in groupby(series, lambda each: each.location.parts[:depth]):
        yield to / PurePosixPath(*parts[:-1], parts[-1] + suffix), list(members)


def _check_has(archive: Path, series: Sequence[MountedSeries], reports: Reports) -> None:
    """Raise Misuse where an archive that is there was made of other series."""
    lacking = sum(reports.row(each.uid) is None for each in series)
    if lacking:
        raise Misuse(
            f"{archive} is there, and lacks {lacking} of these series; move it away, or export elsewhere"
        )


def _write_tar(
    series: Sequence[MountedSeries], archive: Path, form: str, reports: Reports, progress: Progress
) -> list[Failure]:
    """Write one archive and return what it lacks."""
    part = archive.with_name(f".{archive.name}.part")
    incomplete = archive.with_name(f"{archive.name.removesuffix(FORMATS[form])}.incomplete{FORMATS[form]}")
    try:
        with part.open("wb") as file, _compressed(file, form) as out, _tar(out) as tar:
            rows, failures = _add_all(tar, series, progress)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(incomplete if failures else archive)
    if not failures:
        incomplete.unlink(missing_ok=True)
        for row in rows:
            reports.add(row)
    return failures


def _add_all(
    tar: tarfile.TarFile, series: Sequence[MountedSeries], progress: Progress
) -> tuple[list[MetadataRow], list[Failure]]:
    """Add LICENSE, all series, and metadata.csv; return the rows of the last, and what failed."""
    rows, failures = list[MetadataRow](), list[Failure]()
    _add_licence(tar, series[0])
    for each, files in _fetched_ahead(series):
        try:
            rows.append(_add_series(tar, each, files.result()))
        except UnreadableSeries as error:
            failures.append((f"./{each.location}", str(error)))
        progress(each)
    text = StringIO(newline="")
    write_rows(text, rows)
    _add_text(tar, "metadata.csv", text.getvalue().encode("utf-8", "surrogateescape"))
    return rows, failures


def _fetched_ahead(
    series: Sequence[MountedSeries],
) -> Iterator[tuple[MountedSeries, "Future[list[MountedImage]]"]]:
    """Yield each series and its files to come; the next one is being fetched meanwhile."""
    with ThreadPoolExecutor(1, "tciafs-export") as ahead:
        coming = ahead.submit(series[0].files)
        for each, following in zip(series, [*series[1:], None], strict=True):
            current = coming
            current.exception()
            if following is not None:
                coming = ahead.submit(following.files)
            yield each, current


def _add_series(tar: tarfile.TarFile, series: MountedSeries, files: Sequence[MountedImage]) -> MetadataRow:
    """Add the files of a series and return its row of metadata.csv. Raises UnreadableSeries."""
    sop_class = ("", "")
    for place, image in enumerate(files):
        member = tarfile.TarInfo(str(series.location / image.path.name))
        member.size, member.mtime, member.mode = image.size_bytes, image.mtime_ns // 10**9, 0o644
        with series.opened(image) as file:
            if place == 0:
                sop_class = sop_class_in(file.read(HEADER_BYTES))
                file.seek(0)
            tar.addfile(member, file)
    series.check_has_all()
    return series.metadata(sop_class, now())


def _add_licence(tar: tarfile.TarFile, series: MountedSeries) -> None:
    name = f"{series.location.parts[0]}/LICENSE"
    try:
        text = (series.mount / name).read_bytes()
    except OSError:
        return
    _add_text(tar, name, text)


def _add_text(tar: tarfile.TarFile, name: str, text: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), 0o644
    tar.addfile(member, BytesIO(text))


def _tar(out: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=STREAM_BYTES)


@contextmanager
def _compressed(file: IO[bytes], form: str) -> Iterator[IO[bytes]]:
    """Give a file whose bytes are compressed into another. Raises Misuse, or OSError."""
    if form == "tar":
        yield file
    elif shutil.which(PROGRAMS[form][0]):
        yield from _through(PROGRAMS[form], file)
    elif form == "tar.xz":
        with lzma.open(file, "wb") as out:
            yield out
    else:
        raise Misuse(f"{form} needs the program {PROGRAMS[form][0]}, which is not installed")


def _through(command: Sequence[str], file: IO[bytes]) -> Iterator[IO[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file)
    assert process.stdin is not None
    try:
        yield process.stdin
        process.stdin.close()
        if process.wait() != 0:
            raise OSError(f"{command[0]} ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
