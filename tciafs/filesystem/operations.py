"""FUSE requests: decoded, handed on, answered. Speaks pyfuse3 and decides nothing.

This is the one place where errors become errno and bytes become str. Any exception but a bare
pyfuse3.FUSEError ends the whole mount, so every handler is `answered`: known errors give their errno,
anything else is logged with its path and gives EIO. Handlers run concurrently in one thread; every wait is
watched for signals. Nothing here invalidates kernel caches (that would deadlock) or opens a nursery.
"""

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio

from tciafs import request_ids
from tciafs.errors import NoSuchName, ReadOnly, TciafsError
from tciafs.filesystem.attributes import ExtendedAttributes
from tciafs.filesystem.handles import Handles, OpenFile, OpenFolder, Text
from tciafs.filesystem.identities import MADE, Level
from tciafs.filesystem.images import may_be_annotation, may_be_image
from tciafs.filesystem.listings import FolderListing
from tciafs.filesystem.nodes import Attributes, Node
from tciafs.filesystem.part_or_whole import PartOrWhole
from tciafs.filesystem.reading import Reader
from tciafs.filesystem.requests import Requests
from tciafs.filesystem.tree import MANY_TOLD, Tree

if TYPE_CHECKING:
    from tciafs.filesystem.guard import Guard
    from tciafs.filesystem.images import Images
    from tciafs.filesystem.interrupts import Interrupts
    from tciafs.filesystem.usage import Usage
    from tciafs.filesystem.walk_ahead import WalkAhead
    from tciafs.model import Series
    from tciafs.store.store import Store

__all__ = ["Operations", "Presentation"]

log = logging.getLogger(__name__)

BLOCK_BYTES = 4096
LONG_FOLDER_BLOCK_BYTES = 256 << 10
"""So much of a long folder a program takes at once: glibc's opendir goes by st_blksize, but not below 32 KiB.
`ls` of 26,000 entries asks 17 times instead of 129, and takes a sixth less the second time.
"""

LONGEST_NAME_BYTES = 255
NEGATIVE_TIMEOUT_S = 30.0
"""How long the kernel remembers that a name does not exist: desktops probe the same ones for ever."""

WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
"""Truncation too: the kernel leaves it to open, and is content with the right to read."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Presentation:
    """Whose the files appear to be; `umask` takes permissions from 0444 and 0555."""

    uid: int
    gid: int
    umask: int


def answered(
    handler: Callable[Concatenate["Operations", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Operations", P], Coroutine[Any, Any, T]]:
    """Make a handler end in an answer or in a bare FUSEError, whatever happens inside."""

    async def answer(self: "Operations", /, *args: P.args, **kwargs: P.kwargs) -> T:
        request_ids.begin()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", self._requests.said(handler.__name__, args))
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise self._fuse_error(handler.__name__, error, args) from None

    functools.update_wrapper(answer, handler)
    return answer


class Operations(pyfuse3.Operations):
    """The handlers of one mount."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self,
        tree: Tree,
        images: "Images",
        store: "Store",
        guard: "Guard",
        ahead: "WalkAhead",
        interrupts: "Interrupts",
        presentation: Presentation,
        usage: "Usage | None" = None,
    ) -> None:
        super().__init__()
        self._tree = tree
        self._images = images
        self._store = store
        self._guard = guard
        self._ahead = ahead
        self._interrupts = interrupts
        self._presentation = presentation
        self._usage = usage
        self._part_or_whole = PartOrWhole(store, guard)
        self._extended = ExtendedAttributes(tree, store, guard)
        self._handles = Handles()
        self._requests = Requests(tree, self._handles)
        self._reader = Reader()
        self._entry = pyfuse3.EntryAttributes()  # used by readdir alone: half of its time was making these

    # -- names and attributes ---------------------------------------------------------------------

    @answered
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._tree.node(parent_inode)
        wanted = _decoded(name)
        try:
            with self._interrupts.watching(ctx.pid):
                if parent.level is Level.SERIES and (may_be_image(wanted) or may_be_annotation(wanted)):
                    if may_be_image(wanted):
                        self._guard.touches_image(ctx.pid)
                    series = await self._tree.series(parent)
                    if self._images.finding_fetches(series, wanted):
                        self._admit(ctx.pid, self._images.as_far_as_named(series))
                child = await self._tree.child(parent, wanted)
        except NoSuchName:
            return _negative_entry()
        self._tree.remember(parent, child)
        return self._entry_of(child.inode, child.attributes)

    @answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self._tree.node(inode)
        try:
            with self._interrupts.watching(ctx.pid):
                attributes = await self._attributes(node, ctx.pid)
        except TciafsError:
            # The kernel asks before it reads on, also what the archive does not list any more.
            if (size_bytes := self._handles.size_while_open(inode)) is None:
                raise
            attributes = self._tree.attributes_while_open(node, size_bytes)
        return self._entry_of(inode, attributes)

    async def _attributes(self, node: Node, pid: int) -> Attributes:
        if node.level is Level.IMAGE:
            series = await self._tree.series(node)
            if self._images.finding_fetches(series, node.key):
                self._admit(pid, self._images.as_far_as_named(series))
        return await self._tree.attributes(node)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, lookups in inode_list:
            self._tree.forget(inode, lookups)
            if not self._tree.knows(inode):
                self._handles.forget(inode)

    @answered
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return not mode & os.W_OK

    def _admit(self, pid: int, series: "Series") -> None:
        """Let a process have a series fetched, which the log tells. Raises Refused."""
        self._guard.admit(pid, series)
        log.info("process %d has %s fetched", pid, "/".join(series.path))

    def _entry_of(self, inode: int, attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        self._fill(entry, attributes)
        return entry

    def _fill(self, entry: pyfuse3.EntryAttributes, attributes: Attributes) -> None:
        """Write all into an entry but the inode number."""
        kind = stat.S_IFDIR | 0o555 if attributes.is_folder else stat.S_IFREG | 0o444
        entry.st_mode = kind & ~self._presentation.umask
        entry.st_nlink = 1  # for a folder: number of subfolders not known, so nobody may rely on it
        entry.st_uid = self._presentation.uid
        entry.st_gid = self._presentation.gid
        entry.st_size = attributes.size_bytes
        entry.st_blksize = LONG_FOLDER_BLOCK_BYTES if attributes.may_be_long else BLOCK_BYTES
        entry.st_blocks = -(-attributes.size_bytes // 512)
        entry.st_atime_ns = entry.st_ctime_ns = entry.st_mtime_ns = attributes.mtime_ns
        entry.attr_timeout = entry.entry_timeout = attributes.timeout_s

    # -- folders ----------------------------------------------------------------------------------

    @answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        node = self._tree.node(inode)
        # Who walks opens thousands of folders that are at hand, and a cancel scope takes a seventh of each.
        if (at_hand := self._tree.listing_at_hand(node)) is not None:
            return self._handles.add(OpenFolder(node, ctx.pid, at_hand))
        with self._interrupts.watching(ctx.pid):
            listing = await self._listing(node, ctx.pid)
        return self._handles.add(OpenFolder(node, ctx.pid, listing))

    async def _listing(self, node: Node, pid: int) -> FolderListing:
        if node.level is not Level.SERIES:
            return await self._tree.listing(node)
        series = await self._tree.series(node)
        images = self._images.listing(series)
        if images is None and self._guard.lists_unknown_series(pid) and (walk := self._images.walk(series)):
            return self._tree.images(node, walk)
        if images is None:
            self._admit(pid, self._images.as_far_as_named(series))
            images = self._images.look(series, functools.partial(self._admit, pid))
        self._ahead.note(node, pid, opens=False)
        return self._tree.images(node, images)

    @answered
    async def readdir(self, handle: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        folder = self._handles.folder(handle)
        if not folder.listing.is_complete:
            with self._interrupts.watching(folder.pid):
                await folder.listing.wait_for(start)
        # From here on nothing waits, so that one entry serves all; what is alike is written into it once.
        entry, reply, place, has_room = self._entry, pyfuse3.readdir_reply, start, True
        while has_room and (run := folder.listing.run(place)) is not None:
            self._fill(entry, run.attributes)
            first = place
            for name, inode in zip(run.names, run.inodes, strict=True):
                entry.st_ino = inode
                if not reply(token, name, entry, place + 1):
                    has_room = False
                    break
                place += 1
            folder.listing.remember(first, place)
        if place - start >= MANY_TOLD:
            trio.lowlevel.current_trio_token().run_sync_soon(folder.listing.catch_up)

    @answered
    async def releasedir(self, handle: int) -> None:
        self._handles.release(handle)

    # -- files ------------------------------------------------------------------------------------

    @answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & WRITING_FLAGS:
            raise ReadOnly("the archive cannot be written")
        node = self._tree.node(inode)
        if node.level in MADE:
            with self._interrupts.watching(ctx.pid):
                text = await self._tree.text(node)
            # Past the kernel's pages, which may be those of an older text that has another length.
            return pyfuse3.FileInfo(fh=self._handles.add(OpenFile(node, Text(text))), direct_io=True)
        self._guard.touches_image(ctx.pid)
        # Bytes are awaited here and not in read, except those of images that come in part: a read is a
        # background request, of which the kernel sends only twelve at once.
        with self._interrupts.watching(ctx.pid):
            series = await self._tree.series(node)
            if self._images.opening_fetches(series):
                self._admit(ctx.pid, self._images.as_far_as_opened(series))
            image = await self._images.open(series, node.key, functools.partial(self._admit, ctx.pid))
        if image is None:
            raise NoSuchName(f"{self._tree.path(node)} does not exist any more")
        # Who reads headers does not want whole series.
        if node.parent is not None and not image.lacks(0, image.image.size_bytes):
            self._ahead.note(node.parent, ctx.pid, opens=True)
        usage = self._usage
        # Who a process is takes as long as all the rest of an open.
        if usage is not None and usage.is_news(series) and not self._guard.is_crawler(ctx.pid):
            usage.note(series)
        handle, pages = self._handles.add_image(node, image, ctx.pid)
        return pyfuse3.FileInfo(fh=handle, keep_cache=pages.keep, direct_io=pages.bypass)

    @answered
    async def read(self, handle: int, offset: int, length: int) -> bytes:
        opened = self._handles.file(handle)
        if opened.part is not None and opened.part.lacks(offset, length):
            with self._interrupts.watching(opened.pid):
                await self._part_or_whole.bring(opened.part, opened.pid, offset, length)
        return await self._reader.read(opened.content, offset, length)

    @answered
    async def release(self, handle: int) -> None:
        self._handles.release(handle)

    # There is no `flush`: pyfuse3 answers the first one with ENOSYS, and the kernel sends no more (fuse_flush
    # in fs/fuse/file.c), which spares a request for each file that is closed.

    def close(self) -> None:
        """Close what is still open; the mount is gone."""
        self._handles.close()

    # -- the cache as a file system, and attributes -----------------------------------------------

    @answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        usage = self._store.usage()
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = BLOCK_BYTES
        answer.f_blocks = usage.limit_bytes // BLOCK_BYTES
        answer.f_bfree = answer.f_bavail = usage.free_bytes // BLOCK_BYTES
        answer.f_files = answer.f_ffree = answer.f_favail = 0
        answer.f_namemax = LONGEST_NAME_BYTES
        return answer

    @answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        node = self._tree.node(inode)
        with self._interrupts.watching(ctx.pid):
            names = await self._extended.names(node)
        return [_encoded(name) for name in names]

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if not name.startswith(b"user."):
            # ls asks each file for security labels, until it hears that there is no such thing.
            raise pyfuse3.FUSEError(errno.ENOTSUP)
        node = self._tree.node(inode)
        with self._interrupts.watching(ctx.pid):
            value = await self._extended.value(node, _decoded(name))
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return _encoded(value)

    # -- errors -----------------------------------------------------------------------------------

    def _fuse_error(self, request: str, error: Exception, args: tuple[object, ...]) -> pyfuse3.FUSEError:
        """Return the FUSEError for an error, logged as it deserves."""
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, pyfuse3.FUSEError):
            return error
        if isinstance(error, TciafsError):
            if log.isEnabledFor(logging.INFO):  # who asked is looked up for that
                log.info("%s: %s", self._requests.said(request, args), error)
            return pyfuse3.FUSEError(error.errno)
        where = self._requests.where(request, args)
        log.error("%s %s failed in an unexpected way", request, where, exc_info=error)
        return pyfuse3.FUSEError(errno.EIO)


def _decoded(name: bytes) -> str:
    """Return a name as text: UTF-8 whatever the locale, since the names that tciafs gives are."""
    return name.decode("utf-8", "surrogateescape")


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _negative_entry() -> pyfuse3.EntryAttributes:
    """Return an entry that tells the kernel to remember that there is none (inode 0)."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = NEGATIVE_TIMEOUT_S
    return entry


async def _refuse(self: Operations, *args: Any) -> NoReturn:
    raise pyfuse3.FUSEError(errno.EROFS)


# The kernel answers writes itself on a read-only mount; a bind mount or a remount may let them through.
for _writing in (
    "create",
    "link",
    "mkdir",
    "mknod",
    "removexattr",
    "rename",
    "rmdir",
    "setattr",
    "setxattr",
    "symlink",
    "unlink",
    "write",
):
    setattr(Operations, _writing, _refuse)
