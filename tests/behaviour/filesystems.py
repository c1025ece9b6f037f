"""One small file system interface, for handlers called directly and for a mount through the kernel.

What users are promised is tested on both, so that a difference between them shows. Paths are relative to the
mount point; failures are OSError with an errno, as programs see them. Values and protocols only.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tciafs.filesystem.guard import ListingMode

__all__ = ["Circumstances", "FileSystem", "OpenFile", "Space", "Stat"]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How a file system is to run; the defaults are the program's but for the retries."""

    retries: int = 0
    listing: ListingMode = "auto"
    cache_bytes: int = 1 << 30
    offline: bool = False
    stall_timeout_s: int = 60
    failure_memory_s: float = 20.0

    @property
    def options(self) -> tuple[str, ...]:
        """The same as options of the command."""
        options = ["--retries", str(self.retries), "--listing", self.listing]
        options += ["--cache-size", str(self.cache_bytes), "--stall-timeout", f"{self.stall_timeout_s}s"]
        return (*options, *(["--offline"] if self.offline else []))


@dataclass(frozen=True, slots=True)
class Stat:
    """What stat tells of a path."""

    is_folder: bool
    size_bytes: int
    mtime_ns: int
    inode: int
    permissions: int


@dataclass(frozen=True, slots=True)
class Space:
    """What df shows, in bytes."""

    total_bytes: int
    free_bytes: int


class OpenFile(Protocol):
    """A file open for reading."""

    async def pread(self, offset: int, length: int) -> bytes:
        """Return bytes from an offset, fewer at the end."""
        ...


class FileSystem(Protocol):
    """What programs do with files. Each listing is made by a process that did nothing before."""

    async def listdir(self, path: str) -> list[str]:
        """Return the names in a folder."""
        ...

    async def first_names(self, path: str, count: int) -> list[str]:
        """Return the first `count` names in a folder, and read no further."""
        ...

    async def walk(self, paths: Sequence[str], *, look_at_images: bool = False) -> list[list[str]]:
        """List folders one after the other in one process, with a stat of an image of each in between."""
        ...

    async def stat(self, path: str) -> Stat:
        """Return the attributes of a path."""
        ...

    def opened(self, path: str) -> AbstractAsyncContextManager[OpenFile]:
        """Open a file for reading."""
        ...

    async def read(self, path: str) -> bytes:
        """Return a whole file."""
        ...

    async def getxattr(self, path: str, name: str) -> str:
        """Return an extended attribute."""
        ...

    async def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        ...

    async def statfs(self) -> Space:
        """Return the size of the file system."""
        ...
