"""What the store asks of the disk beyond reading and writing: how much a file takes, and that names stay.

Blocking calls throughout; all may raise OSError.
"""

import os
from pathlib import Path

__all__ = ["BLOCK_BYTES", "bytes_on_disk", "make_folder", "most_bytes_on_disk", "sync_folder"]

BLOCK_BYTES = 4096
"""What disks hand out, at the least; a file system may say that its own blocks are larger."""

MOST_BLOCK_BYTES = 1024 * 1024
"""File systems that stripe say megabytes, and hand out less."""

MAPPED_BYTES = 64 * 1024 * 1024
"""So much of a file takes a block more to say where it lies: 340 places, each of 200 kB or longer (ext4)."""

STATUS_BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the file system; see stat(2)."""


def bytes_on_disk(status: os.stat_result) -> int:
    """Return what a file takes: its size or what is allocated for it, whichever is more."""
    return max(status.st_size, status.st_blocks * STATUS_BLOCK_BYTES)


def most_bytes_on_disk(size_bytes: int, folder: Path) -> int:
    """Return the most that a file of this size will take on the disk of `folder`."""
    block_bytes = min(max(os.statvfs(folder).f_frsize, BLOCK_BYTES), MOST_BLOCK_BYTES)
    blocks = -(-size_bytes // block_bytes) - (-size_bytes // MAPPED_BYTES)
    return blocks * block_bytes


def make_folder(folder: Path) -> None:
    """Make a private folder, if there is none, in one that exists, so that it survives a power failure."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make what was renamed into `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
