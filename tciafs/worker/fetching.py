"""One series from an archive into a pack, checked on the way and again as a whole at the end.

Images that arrived in a failed try are kept: the next try only compares them. Blocking disk writes are
made inline, since this process does nothing else. Must not know of the daemon's state.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pydicom
import stamina
from isal.isal_zlib import crc32

from tciafs.errors import SeriesDamaged, SlowDown, TciafsError
from tciafs.model import Archive, Checksums, Member, Series
from tciafs.naming import ImageKey, image_name, image_names
from tciafs.store.pack import Layout, PackedImage, PackWriter, md5_of_range
from tciafs.worker.messages import Arrived, Finished, Progress, Report, Verified

__all__ = ["fetch_series"]

PROGRESS_EVERY_S = 0.25
RETRY_FIRST_WAIT_S = 1.0
RETRY_LONGEST_WAIT_S = 30.0
HEADER_BYTES = 256 * 1024
"""Enough of a file for the numbers that order a series: they lie in groups 0008 and 0020."""


async def fetch_series(
    archive: Archive, series: Series, pack: Path, retries: int, tell: Callable[[Report], None]
) -> None:
    """Write the finished pack of `series` to `pack`, telling of each image and of the end.

    Raises TciafsError when it could not be had after `retries` more tries, OSError when the disk
    fails.
    """
    arrival = _Arrival(series, pack, tell)
    try:
        async for attempt in stamina.retry_context(
            on=_delay_before_retry,
            attempts=retries + 1,
            timeout=None,
            wait_initial=RETRY_FIRST_WAIT_S,
            wait_max=RETRY_LONGEST_WAIT_S,
        ):
            with attempt:
                layout = await arrival.receive(archive)
                tell(Verified(layout))
                arrival.writer.finish(layout)
        tell(Finished())
    finally:
        arrival.writer.close()


def _delay_before_retry(error: Exception) -> bool | float:
    """Say whether to try again, or after how many seconds if the server asked for a pause."""
    if isinstance(error, SlowDown) and error.retry_after_s is not None:
        return min(error.retry_after_s, 10 * RETRY_LONGEST_WAIT_S)
    return isinstance(error, TciafsError) and error.retryable


@dataclass(slots=True)
class _Arrival:
    """The state of one series coming in, over several tries."""

    series: Series
    pack: Path
    tell: Callable[[Report], None]
    writer: PackWriter = field(init=False)
    checksums: dict[str, str] = field(default_factory=dict)
    received_bytes: int = 0
    _told_at: float = 0.0

    def __post_init__(self) -> None:
        self.writer = PackWriter(self.pack)

    async def receive(self, archive: Archive) -> Layout:
        """Take in the series once and return its layout. Raises TciafsError where it falls short."""
        arrived = {image.name: image for image in self.writer.images}
        seen: set[str] = set()
        self.received_bytes = 0
        self.tell(Progress(0))
        async with archive.images(self.series) as deliveries:
            async for delivery in deliveries:
                if isinstance(delivery, Checksums):
                    self.checksums.update(delivery.md5_by_name)
                    continue
                name = None if delivery.name is None else image_name(delivery.name)
                if name in arrived:
                    await self._compare(delivery, arrived[name])
                else:
                    await self._store(delivery, name)
                if name is not None:
                    seen.add(name)
        if arrived.keys() - seen:
            raise SeriesDamaged(f"a second try of series {self.series.series_uid} lacked images of the first")
        self._name_the_nameless()
        return Layout(self.series.series_uid, self.series.version, self.writer.images, self._checks())

    async def _store(self, member: Member, name: str | None) -> None:
        self.writer.begin()
        async for chunk in member.chunks:
            self.writer.write(chunk)
            self._note_progress(len(chunk))
        image = self.writer.end(name or "")
        if name is not None:
            self.tell(Arrived(image))

    async def _compare(self, member: Member, image: PackedImage) -> None:
        """Read a member that an earlier try brought already; it may be open, so it must be the same."""
        checksum, size_bytes = 0, 0
        async for chunk in member.chunks:
            checksum = crc32(chunk, checksum)
            size_bytes += len(chunk)
            self._note_progress(len(chunk))
        if (size_bytes, checksum) != (image.size_bytes, image.crc32):
            raise SeriesDamaged(
                f"two tries of series {self.series.series_uid} brought different bytes as {image.name}"
            )

    def _note_progress(self, size_bytes: int) -> None:
        self.received_bytes += size_bytes
        if (now := time.monotonic()) - self._told_at > PROGRESS_EVERY_S:
            self._told_at = now
            self.tell(Progress(self.received_bytes))

    def _name_the_nameless(self) -> None:
        """Compute names from the headers where the archive gave none, and announce the images."""
        images = self.writer.images
        if not any(image.name == "" for image in images):
            return
        self.writer.rename(image_names(_image_keys(self.pack, images)))
        for image in self.writer.images:
            self.tell(Arrived(image))

    def _checks(self) -> tuple[str, ...]:
        """Return what agreed. Raises SeriesDamaged where something does not."""
        uid, images = self.series.series_uid, self.writer.images
        checks = ["crc32"]
        if self.series.image_count is not None:
            if len(images) != self.series.image_count:
                raise SeriesDamaged(
                    f"series {uid} came with {len(images)} of {self.series.image_count} images"
                )
            checks.append("count")
        if self.series.size_bytes:
            if (total := sum(image.size_bytes for image in images)) != self.series.size_bytes:
                raise SeriesDamaged(f"series {uid} came with {total:,} of {self.series.size_bytes:,} bytes")
            checks.append("size")
        if self.checksums:
            self._check_md5()
            checks.append("md5")
        return tuple(checks)

    def _check_md5(self) -> None:
        # Read back from the page cache after the last image, so that no reader waits for a digest.
        descriptor = os.open(self.pack, os.O_RDONLY)
        try:
            for image in self.writer.images:
                expected = self.checksums.get(image.name)
                if expected is None:
                    raise SeriesDamaged(f"the archive's checksums do not name {image.name}")
                if md5_of_range(descriptor, image.offset, image.size_bytes) != expected:
                    raise SeriesDamaged(f"{image.name} does not have the MD5 that the archive gives")
        finally:
            os.close(descriptor)


def _image_keys(pack: Path, images: Sequence[PackedImage]) -> list[ImageKey]:
    """Return what orders the images, read from their DICOM headers."""
    tags = ["AcquisitionNumber", "InstanceNumber", "SOPInstanceUID"]
    keys = []
    with pack.open("rb") as file:
        for image in images:
            file.seek(image.offset)
            header = BytesIO(file.read(min(image.size_bytes, HEADER_BYTES)))
            dataset = pydicom.dcmread(header, stop_before_pixels=True, specific_tags=tags, force=True)
            keys.append(
                ImageKey(
                    _number(dataset.get("AcquisitionNumber")),
                    _number(dataset.get("InstanceNumber")),
                    str(dataset.get("SOPInstanceUID", "")),
                )
            )
    return keys


def _number(value: object) -> int | None:
    return None if value is None or value == "" else int(str(value))
