"""Series as they lie in a mount: found by walking, told by extended attributes, read when they are complete.

A mount is all that is needed: its daemon fetches, checks and repeats. Whoever reads from it here has only to
see to it that he gets true names, since a mount shows provisional ones to walkers. Blocking calls; what the
mount refuses is an UnreadableSeries, whatever else fails an OSError.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tciafs.citations import SeriesSource
from tciafs.hidden import parted
from tciafs.metadata import MetadataRow, size_text

__all__ = ["MountedImage", "MountedSeries", "UnreadableSeries", "series_below"]

PIECE_BYTES = 1 << 20
IMAGE_NAME = re.compile(r"[0-9]+(-[0-9]+)?\.dcm", re.IGNORECASE)
SERIES_DEPTH = 4
"""Collection, patient, study, series."""


class UnreadableSeries(Exception):
    """The mount does not give a series; `str()` says why."""


@dataclass(frozen=True, slots=True)
class MountedImage:
    """An image in a mount: its file, the size that it has, and its time in nanoseconds."""

    path: Path
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class MountedSeries:
    """A series in a mount: `location` is its path below `mount`, the mount point or a view in it."""

    mount: Path
    location: PurePosixPath

    @property
    def path(self) -> Path:
        """The folder of the series."""
        return self.mount / self.location

    @property
    def uid(self) -> str:
        """The Series Instance UID."""
        return self._fact("tcia.SeriesInstanceUID")

    @property
    def size_bytes(self) -> int | None:
        """The bytes of all images, as the archive lists them."""
        return _number(self._fact("tcia.FileSize"))

    @property
    def image_count(self) -> int | None:
        """The number of images, as the archive lists them."""
        return _number(self._fact("tcia.ImageCount"))

    @property
    def is_here(self) -> bool:
        """Whether its images are on local disk, all of them and checked."""
        return self._fact("tciafs.state") == "local"

    @property
    def lacks(self) -> str:
        """Why the series is shown without its annotations; "": it is not."""
        return self._fact("tciafs.lacks")

    def files(self) -> list[MountedImage]:
        """Return all images once they are here and checked, and behind them the annotations, by their names.

        Raises UnreadableSeries.
        """
        with self._complaining():
            names = _names_in(self.path)
            if names and not self.is_here:
                # Names may be provisional, or those of a series that had to make room: opening one fetches
                # it, and while it comes in a listing ends when it is complete.
                with (self.path / names[0]).open("rb") as image:
                    image.read(1)
                names = _names_in(self.path)
            files = [_image(self.path / name) for name in names]
        is_image = self._tells_images()
        images = [each for each in files if is_image(each)]
        if not images:
            raise UnreadableSeries("the archive lists no images")
        self._check(images)
        return images + [each for each in files if not is_image(each)]

    def check_has_all(self) -> None:
        """Raise UnreadableSeries where annotations did not come that the archive lists."""
        if lacks := self.lacks:
            raise UnreadableSeries(f"it is without annotations: {lacks}")

    def _tells_images(self) -> Callable[[MountedImage], bool]:
        """Return what tells images from annotations: where there are some, images are called by numbers."""
        if self._fact("tcia.AnnotationsFlag") != "yes":
            return lambda _: True
        return lambda file: IMAGE_NAME.fullmatch(file.path.name) is not None

    @contextmanager
    def opened(self, image: MountedImage) -> Iterator[BinaryIO]:
        """Give an image to be read, which is as long as its folder says. Raises UnreadableSeries."""
        with self._complaining():
            file = image.path.open("rb", buffering=PIECE_BYTES)
        with file:
            if os.fstat(file.fileno()).st_size != image.size_bytes:
                raise UnreadableSeries(f"{image.path.name} is not as long as its folder says")
            yield file

    def metadata(self, sop_class: tuple[str, str], downloaded_at: str) -> MetadataRow:
        """Return the series as a row of metadata.csv; `sop_class` is its name and its UID."""
        fact = self._fact
        study = MountedSeries(self.mount, self.location.parent)._fact
        return MetadataRow(
            series_uid=self.uid,
            collection=fact("tcia.Collection"),
            third_party=fact("tcia.ThirdPartyAnalysis") or "null",
            data_uri=fact("tcia.DataDescriptionURI"),
            patient_id=fact("tcia.PatientID"),
            study_uid=fact("tcia.StudyInstanceUID"),
            study_description=study("tcia.StudyDescription"),
            study_date=_as_retrieved(study("tcia.StudyDate")),
            series_description=fact("tcia.SeriesDescription"),
            manufacturer=fact("tcia.Manufacturer"),
            modality=fact("tcia.Modality"),
            sop_class_name=sop_class[0],
            sop_class_uid=sop_class[1],
            image_count=fact("tcia.ImageCount"),
            size=size_text(self.size_bytes),
            location=f"./{self.location}",
            downloaded_at=downloaded_at,
        ).as_retrieved

    def source(self) -> SeriesSource:
        """Return where the series comes from, to be cited."""
        fact = self._fact
        return SeriesSource(
            collection=fact("tcia.Collection"),
            data_uri=fact("tcia.DataDescriptionURI"),
            licence_name=fact("tcia.LicenseName"),
            licence_uri=fact("tcia.LicenseURI"),
            is_third_party=fact("tcia.ThirdPartyAnalysis").upper() == "YES",
        )

    def _check(self, images: list[MountedImage]) -> None:
        """Raise UnreadableSeries where the images are not those that the archive lists."""
        found = len(images), sum(each.size_bytes for each in images)
        listed = self.image_count, self.size_bytes
        if any(want is not None and want != have for have, want in zip(found, listed, strict=True)):
            have, want = (f"{count} images of {size} bytes" for count, size in (found, listed))
            raise UnreadableSeries(f"{have} instead of {want}")

    def _fact(self, name: str) -> str:
        """Return an extended attribute; an empty text where there is none."""
        try:
            return os.getxattr(self.path, f"user.{name}").decode(errors="surrogateescape")
        except OSError:
            return ""

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnreadableSeries(self._fact("tciafs.error") or error.strerror or repr(error)) from error


def series_below(mount: Path, inside: str) -> Iterator[MountedSeries]:
    """Yield the series at a path inside a mount or below it, in the order of their names. Raises OSError."""
    view, rest = parted(PurePosixPath(inside).relative_to("/"))
    yield from _below(mount / view, PurePosixPath(*rest.parts[:SERIES_DEPTH]))


def _below(mount: Path, location: PurePosixPath) -> Iterator[MountedSeries]:
    if len(location.parts) == SERIES_DEPTH:
        (mount / location).stat()
        yield MountedSeries(mount, location)
        return
    with os.scandir(mount / location) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in names:
        yield from _below(mount, location / name)


def _names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def _image(path: Path) -> MountedImage:
    status = path.stat()
    return MountedImage(path, status.st_size, status.st_mtime_ns)


def _number(text: str) -> int | None:
    return int(text) if text else None


def _as_retrieved(day: str) -> str:
    year, _, rest = day.partition("-")
    return f"{rest}-{year}" if day else ""
