"""What is in the cache, read again: many slices and one large image, beside plain files and other mounts."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.comparing import Comparison, Line
from tests.bench.costs import Cost, costs, of_commands, of_mount
from tests.bench.parts import Options, Part
from tests.bench.stage import Mounted, bindfs_mounted, cat, drop_pages, rclone_mounted, run, tciafs_mounted
from tests.sample.running import running_sample

__all__ = ["WARM"]

SLICES = 1000
LARGE_BYTES = 256 << 20
COLLECTION = "LARGE"


def _warm(options: Options) -> Iterator[Line]:
    """Read a cached series and a large cached image through all mounts of the same files, and plain."""
    originals = options.scratch / "large"
    # By a process of its own: what this one once had in memory would count for all that it starts.
    run(sys.executable, "-m", "tests.bench.warm", originals)
    wanted = (
        "--bench-slices",
        str(SLICES),
        "--sample-dir",
        str(originals),
        "--sample-collection",
        COLLECTION,
    )
    with running_sample(*wanted) as sample, ExitStack() as stack:
        mount = stack.enter_context(tciafs_mounted(sample.url, options.scratch / "warm"))
        slices = sorted(next((mount.path / "BENCH").glob("*/*/*")).iterdir())
        large = next((mount.path / COLLECTION).glob("*/*/*/*"))
        plain = options.scratch / "plain"
        plain.mkdir()
        run("cp", *slices, large, plain)
        bound = stack.enter_context(bindfs_mounted(plain, options.scratch / "bindfs"))
        rclone = stack.enter_context(rclone_mounted(plain, options.scratch / "rclone"))
        beside = {"the plain file": plain, "bindfs": bound, "rclone mount": rclone}
        yield from _compared(options, mount, f"{SLICES:,} cached slices", slices, beside)
        yield from _compared(options, mount, f"cached image of {LARGE_BYTES >> 20} MiB", [large], beside)


GOALS = {
    ("the plain file", True): "at most 1.25 x slower",
    ("rclone mount", True): "4 x faster",
}


def _compared(
    options: Options, mount: Mounted, what: str, images: Sequence[Path], beside: dict[str, Path]
) -> Iterator[Line]:
    """Read images with what the kernel has of them, and again with its pages dropped."""
    for kept in (True, False):
        how = "pages kept" if kept else "pages dropped"
        ours, theirs = list[Cost](), list[Cost]()
        for name, folder in beside.items():
            files = [folder / image.name for image in images]
            compared = Comparison(f"{what}, {how}", "mount", name, GOALS.get((name, kept), ""))
            cat(images)
            cat(files)
            for _ in range(options.rounds):
                if not kept:
                    drop_pages(images)
                    # Of plain files the pages stay: else it is the disk's speed, which is not the question.
                    drop_pages([] if name == "the plain file" else files)
                theirs.append(of_commands(("cat", *files)))
                ours.append(_read(mount, images))
                compared.add(ours[-1].took_s, theirs[-1].took_s)
            yield compared.line()
        yield costs(f"{what}, {how}", ours, theirs[: options.rounds], "cat of plain files")


def _read(mount: Mounted, images: Sequence[Path]) -> Cost:
    cost = Cost()
    with of_mount(mount, cost):
        read = of_commands(("cat", *images))
        cost.took_s, cost.cpu_s = read.took_s, read.cpu_s
    return cost


def _make_large(folder: Path) -> None:
    """Make an image of many frames of noise, as incompressible as the real ones."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import (
        ExplicitVRLittleEndian,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        generate_uid,
    )

    folder.mkdir()
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = kind
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientID, image.Modality, image.StudyDate = "LARGE-1", "OT", "20200101"
    image.Rows = image.Columns = 1024
    image.NumberOfFrames = LARGE_BYTES >> 21
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 0, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    frame = np.random.default_rng(1).integers(0, 4096, 1 << 20, dtype="<u2").tobytes()
    image.PixelData = frame * (LARGE_BYTES >> 21)
    image.save_as(folder / "1.dcm", enforce_file_format=True)
    os.sync()


if __name__ == "__main__":
    _make_large(Path(sys.argv[1]))

WARM = Part(
    "warm", "what is cached, beside plain files, bindfs and rclone mount", ("bindfs", "rclone"), _warm
)
