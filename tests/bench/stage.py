"""What the benchmarks play on: the sample archive, a mount with an empty cache, a bindfs mount."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["bindfs_mounted", "cat", "drop_pages", "run", "tciafs_mounted"]


def run(*command: str | Path, stdin: int | None = None) -> None:
    """Run a command to its end, its output thrown away. Raises CalledProcessError."""
    # Without a timeout on purpose: with one, subprocess looks only every 50 ms whether it is over.
    words = [str(word) for word in command]
    subprocess.run(words, check=True, stdin=stdin, stdout=subprocess.DEVNULL)


def cat(files: Sequence[Path]) -> None:
    """Read files one after the other as cat does."""
    run("cat", "--", *files)


def drop_pages(files: Sequence[Path]) -> None:
    """Drop what the kernel has cached of files, so that they are read from what is behind them."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@contextmanager
def tciafs_mounted(url: str, folder: Path) -> Iterator[Path]:
    """Mount an archive with an empty cache below `folder`, and give the mount point."""
    mountpoint, cache = folder / "mnt", folder / "cache"
    mountpoint.mkdir(parents=True)
    program = (sys.executable, "-m", "tciafs")
    run(*program, mountpoint, "--url", url, "--cache-dir", cache, "--log-file", folder / "log")
    try:
        yield mountpoint
    finally:
        run(*program, "umount", mountpoint)


@contextmanager
def bindfs_mounted(plain: Path, mountpoint: Path) -> Iterator[Path]:
    """Mount a plain folder through bindfs, a FUSE file system in C."""
    mountpoint.mkdir()
    run("bindfs", "--no-allow-other", "-r", plain, mountpoint)
    try:
        yield mountpoint
    finally:
        run("fusermount3", "-u", mountpoint)
