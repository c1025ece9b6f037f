"""Keeps what the kernel has cached in step with listings that changed: names gone, come or moved.

The catalogue notes a change in passing; a task of the mount works out which entries are stale, and has the
kernel forget them from another thread. Not from a handler, and not from the loop: the kernel takes the
folder's lock for it, which it holds while it waits for our own answer. What is not told here the kernel asks
for again when the time it was given has passed.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import trio

from tciafs.filesystem.folders import Folder, made, unix_day
from tciafs.filesystem.identities import Level, Whose
from tciafs.filesystem.sources import UNLISTED_COLLECTIONS
from tciafs.hidden import View
from tciafs.model import Series
from tciafs.naming import Naming

if TYPE_CHECKING:
    from tciafs.filesystem.images import Images
    from tciafs.filesystem.sources import Source
    from tciafs.filesystem.tree import Tree

__all__ = ["KernelView"]

log = logging.getLogger(__name__)

FOLDER_QUESTIONS = frozenset({"collections", "patients", "studies", "series"})
"""What the folders of a source are made of; other questions (a cart, UIDs, a day) serve to choose."""

ForgetEntry = Callable[[int, str], None]
ForgetAttributes = Callable[[int], None]


@dataclass(slots=True)
class _Stale:
    """What the kernel should ask for again: names in folders (by inode), days, images of a series."""

    entries: list[tuple[int, str]] = field(default_factory=list)
    dated: list[tuple[int, int | None]] = field(default_factory=list)
    revised: list[tuple[int, Series]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Change:
    """A folder whose records are not those of before; `prefix` is that of its source."""

    prefix: Whose
    inode: int
    level: Level
    whose: Whose
    old: list[Any]
    new: list[Any]


class KernelView:
    """Tells the kernel of changes. `forget_entry` and `forget_attributes` may block, and be told in vain."""

    def __init__(
        self,
        tree: "Tree",
        images: "Images",
        naming: Naming,
        forget_entry: ForgetEntry,
        forget_attributes: ForgetAttributes,
    ) -> None:
        self._tree = tree
        self._images = images
        self._naming = naming
        self._forget_entry = forget_entry
        self._forget_attributes = forget_attributes
        self._noted, self._notes = trio.open_memory_channel[_Change | _Stale](10**9)

    def note(self, question: tuple[str, ...], before: Sequence[Any], after: Sequence[Any]) -> None:
        """Note an answer that differs from the one before; see `catalogue.Replaced`. Never waits."""
        # What the folder of views shows of all has folders of its own.
        for source in (self._tree.sources.main, self._tree.sources.again):
            self.note_of(source, question, before, after)
        if question[0] == "collections":
            self._tree.folders.drop(UNLISTED_COLLECTIONS)

    def note_of(
        self, source: "Source", question: tuple[str, ...], before: Sequence[Any], after: Sequence[Any]
    ) -> None:
        """Note such an answer as a source gives it."""
        for level, whose, old, new in _by_folder(question, before, after):
            inode = source.inode(level, whose)
            self._tree.folders.drop(inode)
            if self._tree.knows(inode):
                self._noted.send_nowait(_Change(source.prefix, inode, level, whose, old, new))

    def source_of(self, view: View) -> "Source":
        """Return what a view shows. Raises NoSuchName."""
        return self._tree.sources.of_view(view)

    def note_name(self, folder: int, name: str) -> None:
        """Note that a name in a folder, given by its inode, stands for something else now, or for nothing."""
        self._noted.send_nowait(_Stale([(folder, name)]))

    async def run(self) -> None:
        """Tell the kernel of what is noted, for ever."""
        while True:
            await self.tell_next()

    async def tell_next(self) -> None:
        """Tell the kernel of the next folder that is noted, once there is one; a failure is logged."""
        noted = await self._notes.receive()
        try:
            await self._tell_of(noted)
        except Exception:
            # A machine may have no more threads for a while. No mount should end for what the kernel will ask
            # again anyway, nor should what was noted behind it wait.
            log.exception("the kernel is not told of %s", _named(noted))

    async def _tell_of(self, noted: _Change | _Stale) -> None:
        if isinstance(noted, _Change):
            stale = await trio.to_thread.run_sync(_stale, noted, self._naming)
        else:
            stale = noted
        images = [(inode, self._images.names_once_shown(series)) for inode, series in stale.revised]
        for changed, day in stale.dated:
            self._tree.date(changed, day)
        told = await trio.to_thread.run_sync(self._tell, stale, images, abandon_on_cancel=True)
        log.info("%s: %d names have changed", _named(noted), told)

    def _tell(self, stale: _Stale, images: list[tuple[int, Iterator[str]]]) -> int:
        """Tell the kernel, and return of how many names."""
        told = 0
        of_images = ((inode, name) for inode, names in images for name in names)
        for inode, name in chain(stale.entries, of_images):
            self._forget_entry(inode, name)
            told += 1
        for inode, _day in stale.dated:
            self._forget_attributes(inode)
        return told


def _named(noted: _Change | _Stale) -> str:
    """Return what a log should call it."""
    if isinstance(noted, _Change):
        return "/".join(noted.prefix + noted.whose) or "collections"
    return "views"


def _stale(change: _Change, naming: Naming) -> _Stale:
    """Return what of a folder is not as it was; in a thread, since a folder can be long."""
    stale, inode, prefix = _Stale(), change.inode, change.prefix
    was, now = (
        _by_name(made(change.level, change.whose, records, naming, prefix))
        for records in (change.old, change.new)
    )
    for name in sorted(was.keys() | now.keys()):
        if name not in was or name not in now or was[name][0] != now[name][0]:
            stale.entries.append((inode, name))
        elif was[name] != now[name]:
            _add_described_anew(stale, *was[name], now[name][1])
    return stale


def _add_described_anew(stale: _Stale, inode: int, old: Any, new: Any) -> None:
    if unix_day(old) != unix_day(new):
        stale.dated.append((inode, unix_day(new)))
    if isinstance(old, Series) and isinstance(new, Series) and old.version != new.version:
        stale.revised.append((inode, old))


def _by_folder(
    question: tuple[str, ...], before: Sequence[Any], after: Sequence[Any]
) -> Iterator[tuple[Level, Whose, list[Any], list[Any]]]:
    """Yield the folders that an answer is about, if any, with the old records and the new ones in each."""
    kind, *whose = question
    if kind not in FOLDER_QUESTIONS:
        return
    if kind != "series":
        level = Level(len(whose))  # of collections the root, of patients their collection ...
        yield level, tuple(whose), list(before), list(after)
        return
    folders: defaultdict[str, tuple[list[Series], list[Series]]] = defaultdict(lambda: ([], []))
    for place, records in enumerate((before, after)):
        for series in records:
            folders[series.study_uid][place].append(series)
    for study_uid, (old, new) in folders.items():
        if set(old) != set(new):
            yield Level.STUDY, (*whose, study_uid), old, new


def _by_name(folder: Folder) -> dict[str, tuple[int, Any]]:
    return dict(zip(folder.names, zip(folder.inodes, folder.children, strict=True), strict=True))
