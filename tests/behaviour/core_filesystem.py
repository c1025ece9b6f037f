"""The rooms of one mount in the test's own trio loop, everything real but the kernel.

Handlers are called as the kernel calls them: a lookup for each name of a path, folders in several requests,
every lookup forgotten at the end. Nothing is cached in between.
"""

import itertools
import os
import stat
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pyfuse3

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.archive import NbiaArchive, NbiaConfig
from tciafs.catalogue.catalogue import Catalogue, CatalogueConfig
from tciafs.filesystem.guard import Guard
from tciafs.filesystem.identities import ROOT_INODE
from tciafs.filesystem.images import Images
from tciafs.filesystem.interrupts import Interrupts
from tciafs.filesystem.operations import Operations, Presentation
from tciafs.filesystem.sources import Sources
from tciafs.filesystem.tree import Tree
from tciafs.filesystem.walk_ahead import AheadConfig, WalkAhead
from tciafs.naming import Naming
from tciafs.store.store import Store, StoreConfig
from tciafs.worker.pool import WorkerPool
from tests.behaviour.filesystems import Circumstances, OpenFile, Space, Stat

__all__ = ["CoreFileSystem", "core"]

ENTRIES_A_REQUEST = 7
"""So few that a folder takes several requests, as a big one does with the kernel."""

A_DAY_S = 86_400
NO_PROCESS = 10_000_000
"""Beyond what a kernel gives a process as its id."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What a handler is told of the process that asks."""

    pid: int
    uid: int = 0
    gid: int = 0
    umask: int = 0o022


@dataclass(slots=True)
class Reply:
    """The room for entries in one answer to readdir."""

    entries: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, inode, and the place to go on from."""

    def add(self, name: bytes, attributes: pyfuse3.EntryAttributes, next_place: int) -> bool:
        """Take an entry; False if there is no room for it."""
        if len(self.entries) == ENTRIES_A_REQUEST:
            return False
        self.entries.append((os.fsdecode(name), attributes.st_ino, next_place))
        return True


@contextmanager
def errno_as_oserror(path: str) -> Iterator[None]:
    """Raise what the kernel would make of a handler's error."""
    try:
        yield
    except pyfuse3.FUSEError as error:
        raise OSError(error.errno, os.strerror(error.errno), path) from None


class CoreFileSystem:
    """Handlers of a mount that no kernel knows; it caches nothing and forgets all at the end."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self._lookups: Counter[int] = Counter()
        self._pids = itertools.count(NO_PROCESS)

    def new_caller(self) -> Any:
        """Return a process that did nothing before."""
        return Caller(next(self._pids))

    async def inode(self, path: str, caller: Any) -> int:
        """Look a path up, name by name."""
        return (await self._entry(path, caller)).st_ino

    async def _entry(self, path: str, caller: Any) -> pyfuse3.EntryAttributes:
        with errno_as_oserror(path):
            if not path:
                return await self.operations.getattr(ROOT_INODE, caller)
            entry, inode = None, ROOT_INODE
            for name in path.split("/"):
                entry = await self.operations.lookup(inode, os.fsencode(name), caller)
                inode = entry.st_ino
                if not inode:
                    raise FileNotFoundError(2, "No such file or directory", path)
                self._lookups[inode] += 1
            assert entry is not None
            return entry

    async def listdir(self, path: str) -> list[str]:
        return [name async for name in self._names(path, self.new_caller())]

    async def first_names(self, path: str, count: int) -> list[str]:
        names: list[str] = []
        async with aclosing(self._names(path, self.new_caller())) as shown:
            async for name in shown:
                names.append(name)
                if len(names) == count:
                    break
        return names

    async def walk(self, paths: Sequence[str], *, look_at_images: bool = False) -> list[list[str]]:
        caller = self.new_caller()
        found = []
        for path in paths:
            found.append([name async for name in self._names(path, caller)])
            if look_at_images:
                await self._entry(f"{path}/{found[-1][0]}", caller)
        return found

    async def _names(self, path: str, caller: Any) -> AsyncGenerator[str, None]:
        handle = await self._opendir(path, caller)
        try:
            place = 0
            while entries := (await self._readdir(handle, place, path)).entries:
                self._lookups.update(inode for _name, inode, _place in entries)
                for name, _inode, place in entries:  # noqa: B007  # the last place is where to go on
                    yield name
        finally:
            await self.operations.releasedir(handle)

    async def _opendir(self, path: str, caller: Any) -> int:
        inode = await self.inode(path, caller)
        with errno_as_oserror(path):
            return await self.operations.opendir(inode, caller)

    async def _readdir(self, handle: int, place: int, path: str) -> Reply:
        reply = Reply()
        with errno_as_oserror(path):
            await self.operations.readdir(handle, place, cast(pyfuse3.ReaddirToken, reply))
        return reply

    async def stat(self, path: str) -> Stat:
        entry = await self._entry(path, self.new_caller())
        kind = stat.S_IFMT(entry.st_mode)
        permissions = stat.S_IMODE(entry.st_mode)
        return Stat(kind == stat.S_IFDIR, entry.st_size, entry.st_mtime_ns, entry.st_ino, permissions)

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[OpenFile]:
        caller = self.new_caller()
        inode = await self.inode(path, caller)
        with errno_as_oserror(path):
            handle = (await self.operations.open(inode, os.O_RDONLY, caller)).fh
        try:
            yield _CoreFile(self.operations, handle, path)
        finally:
            await self.operations.release(handle)

    async def read(self, path: str) -> bytes:
        async with self.opened(path) as file:
            return await _read_to_end(file)

    async def getxattr(self, path: str, name: str) -> str:
        caller = self.new_caller()
        inode = await self.inode(path, caller)
        with errno_as_oserror(path):
            return (await self.operations.getxattr(inode, os.fsencode(name), caller)).decode()

    async def listxattr(self, path: str) -> list[str]:
        caller = self.new_caller()
        names = await self.operations.listxattr(await self.inode(path, caller), caller)
        return [os.fsdecode(name) for name in names]

    async def statfs(self) -> Space:
        answer = await self.operations.statfs(self.new_caller())
        return Space(answer.f_blocks * answer.f_frsize, answer.f_bavail * answer.f_frsize)

    async def forget_everything(self) -> None:
        """Give back every lookup, as the kernel does when it needs memory."""
        await self.operations.forget(list(self._lookups.items()))
        self._lookups.clear()


@dataclass(frozen=True, slots=True)
class _CoreFile:
    operations: Operations
    handle: int
    path: str

    async def pread(self, offset: int, length: int) -> bytes:
        with errno_as_oserror(self.path):
            return await self.operations.read(self.handle, offset, length)


async def _read_to_end(file: OpenFile) -> bytes:
    content = b""
    while piece := await file.pread(len(content), 1 << 17):
        content += piece
    return content


@asynccontextmanager
async def core(url: str, folder: Path, how: Circumstances) -> AsyncIterator[CoreFileSystem]:
    """Run all rooms of a mount but the mount, with the cache in `folder`.

    At the end every inode that was told of must be forgotten again.
    """
    limits = HttpLimits(stall_timeout_s=how.stall_timeout_s)
    archive = NbiaArchive(NbiaConfig(url=url, api=None, retries=how.retries, limits=limits))
    keep = StoreConfig(
        folder=folder,
        limit_bytes=how.cache_bytes,
        patience_s=1.5 * how.stall_timeout_s,
        failure_memory_s=how.failure_memory_s,
        offline=how.offline,
    )
    listings = CatalogueConfig(folder / "listings", A_DAY_S, how.offline)
    async with (
        WorkerPool.running(lambda: archive.config, how.retries) as pool,
        Store.running(keep, pool) as store,
        Catalogue.running(archive, listings, lister=pool) as catalogue,
    ):
        images = Images(store)
        tree = Tree(Sources(catalogue), images, Naming.DESCRIPTIVE)
        presentation = Presentation(os.getuid(), os.getgid(), 0o022)
        guard = Guard(how.listing)
        ahead = WalkAhead(tree, store, guard, AheadConfig(0, 0))
        operations = Operations(tree, images, store, guard, ahead, Interrupts(), presentation)
        files = CoreFileSystem(operations)
        try:
            with patch.object(pyfuse3, "readdir_reply", Reply.add):
                yield files
            await files.forget_everything()
            assert len(tree) == 1, "an inode was told of that nobody can forget"
        finally:
            operations.close()
            await archive.aclose()
