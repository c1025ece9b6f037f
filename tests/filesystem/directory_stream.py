"""A folder being read as a C program reads it: readdir, telldir and seekdir of the C library.

Python's own os.scandir knows no positions. Blocking; for Linux with 64 bits, whose struct dirent it knows.
"""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["DirectoryStream"]

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir.restype = ctypes.c_void_p
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.readdir.argtypes = LIBC.closedir.argtypes = LIBC.telldir.argtypes = [ctypes.c_void_p]
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
LIBC.seekdir.restype = None

NAME_OFFSET_BYTES = 19
"""Where the name is in a struct dirent: behind inode, offset, length and type."""


class DirectoryStream:
    """An open folder; iterating goes on from where it is, without . and .."""

    def __init__(self, folder: Path) -> None:
        self._stream = LIBC.opendir(os.fsencode(folder))
        if not self._stream:
            raise _error(folder)

    def __enter__(self) -> "DirectoryStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        LIBC.closedir(self._stream)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next name. Raises OSError."""
        while True:
            ctypes.set_errno(0)
            entry = LIBC.readdir(self._stream)
            if not entry:
                if ctypes.get_errno():
                    raise _error(None)
                raise StopIteration
            name = os.fsdecode(ctypes.string_at(entry + NAME_OFFSET_BYTES))
            if name not in (".", ".."):
                return name

    def tell(self) -> int:
        """Return the position of the next entry; see telldir(3)."""
        return int(LIBC.telldir(self._stream))

    def seek(self, position: int) -> None:
        """Go to a position that `tell` has returned; see seekdir(3)."""
        LIBC.seekdir(self._stream, position)


def _error(folder: Path | None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), folder and str(folder))
