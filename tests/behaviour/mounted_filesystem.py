"""A mounted program asked through the kernel: calls that may wait in threads, listings by processes."""

import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.behaviour.filesystems import Circumstances, OpenFile, Space, Stat
from tests.mounting import Mount, mounted, run

__all__ = ["MountedFileSystem", "through_mount"]

LISTING_PROGRAM = """
import itertools, json, os, sys
wish = json.loads(sys.argv[1])
found, error = [], None
try:
    for path in wish["paths"]:
        with os.scandir(path) as entries:
            found.append([entry.name for entry in itertools.islice(entries, wish["count"])])
        if wish["look_at_images"]:
            os.stat(os.path.join(path, found[-1][0]))
except OSError as refused:
    error = refused.errno
print(json.dumps([found, error]))
"""


class MountedFileSystem:
    """A mount; calls that may wait are made in threads, listings by processes of their own."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self._threads = trio.CapacityLimiter(250)

    async def _call(self, function: Any, *args: Any) -> Any:
        return await trio.to_thread.run_sync(partial(function, *args), limiter=self._threads)

    async def listdir(self, path: str) -> list[str]:
        (names,) = await self._lists([path], None, False)
        return names

    async def first_names(self, path: str, count: int) -> list[str]:
        (names,) = await self._lists([path], count, False)
        return names

    async def walk(self, paths: Sequence[str], *, look_at_images: bool = False) -> list[list[str]]:
        return await self._lists(paths, None, look_at_images)

    async def _lists(self, paths: Sequence[str], count: int | None, look_at_images: bool) -> list[list[str]]:
        places = [os.fspath(self.mount.path / path) for path in paths]
        wish = json.dumps({"paths": places, "count": count, "look_at_images": look_at_images})
        done = await self._call(run, sys.executable, "-S", "-E", "-c", LISTING_PROGRAM, wish)
        found: list[list[str]]
        found, error = json.loads(done.stdout)
        if error is not None:
            raise OSError(error, os.strerror(error), paths[-1])
        return found

    async def stat(self, path: str) -> Stat:
        told: os.stat_result = await self._call(os.stat, self.mount.path / path)
        permissions = stat.S_IMODE(told.st_mode)
        return Stat(stat.S_ISDIR(told.st_mode), told.st_size, told.st_mtime_ns, told.st_ino, permissions)

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[OpenFile]:
        descriptor: int = await self._call(os.open, self.mount.path / path, os.O_RDONLY)
        try:
            yield _MountedFile(self, descriptor)
        finally:
            os.close(descriptor)

    async def read(self, path: str) -> bytes:
        content: bytes = await self._call(Path.read_bytes, self.mount.path / path)
        return content

    async def getxattr(self, path: str, name: str) -> str:
        value: bytes = await self._call(os.getxattr, self.mount.path / path, name)
        return value.decode()

    async def listxattr(self, path: str) -> list[str]:
        names: list[str] = await self._call(os.listxattr, self.mount.path / path)
        return names

    async def statfs(self) -> Space:
        told: os.statvfs_result = await self._call(os.statvfs, self.mount.path)
        return Space(told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize)


@dataclass(frozen=True, slots=True)
class _MountedFile:
    files: MountedFileSystem
    descriptor: int

    async def pread(self, offset: int, length: int) -> bytes:
        content: bytes = await self.files._call(os.pread, self.descriptor, length, offset)
        return content


@asynccontextmanager
async def through_mount(url: str, folder: Path, how: Circumstances) -> AsyncIterator[MountedFileSystem]:
    """Mount the real program, with mount point and cache in `folder`."""
    mounting = mounted(url, *how.options, folder=folder)
    mount = await trio.to_thread.run_sync(mounting.__enter__)
    try:
        yield MountedFileSystem(mount)
    except BaseException as error:
        # Like contextlib, but in a thread: a mount must not be waited for in the loop that it may ask.
        if not await trio.to_thread.run_sync(mounting.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(mounting.__exit__, None, None, None)
